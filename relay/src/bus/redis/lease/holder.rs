//! What a node does next about its own number. Without I/O; time is what the caller says.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use culvert_wire::NodeId;

use super::tick::{Answer, Ask, Outcome};
use super::{Event, Refused};
use crate::bus::redis::incarnation::Incarnation;
use crate::bus::redis::nodes::{Snapshot, Table, View};

/// How many numbers there are.
const NUMBERS: usize = 1 << 16;

/// One process' claim to a number, and its view of the others.
pub(super) struct Holder {
    lease: Duration,
    versions: RangeInclusive<u8>,
    state: State,
    view: View,
    /// When the question was sent that Redis confirmed the own lease with.
    confirmed: Option<Instant>,
    raise: bool,
    /// Lowest term of this instance whose registrations may still be in Redis.
    unswept: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Without a number, and without having looked.
    Blind,
    /// Wants this number. The question may have been asked before, with its answer lost.
    Claiming(NodeId, Incarnation),
    Holding {
        node: NodeId,
        life: Incarnation,
        expires: u64,
        /// Whether Redis has a higher term of ours than was known: it is to be raised once more.
        behind: bool,
    },
}

/// What an answer led to.
pub(super) struct Judgement {
    /// The nodes; `None` for one without a number, to which nobody matters yet.
    pub(super) table: Option<Table>,
    /// Whether the own lease is confirmed by it.
    pub(super) confirmed: bool,
    /// Whether there is more to ask at once.
    pub(super) again: bool,
}

impl Holder {
    pub(super) fn new(lease: Duration, versions: RangeInclusive<u8>) -> Self {
        Self {
            lease,
            versions,
            state: State::Blind,
            view: View::new(lease),
            confirmed: None,
            raise: false,
            unswept: 1,
        }
    }

    /// The own number.
    pub(super) fn own(&self) -> Option<(NodeId, Incarnation)> {
        match self.state {
            State::Holding { node, life, .. } => Some((node, life)),
            State::Blind | State::Claiming(..) => None,
        }
    }

    pub(super) fn unswept(&self) -> u32 {
        self.unswept
    }

    /// Everything below this term is swept.
    pub(super) fn swept(&mut self, life: Incarnation) {
        if self.own().is_some_and(|(_, own)| own.instance == life.instance) {
            self.unswept = self.unswept.max(life.term);
        }
    }

    /// The next question raises the term, unless this incarnation has ended anyway.
    pub(super) fn raise(&mut self, life: Incarnation) {
        self.raise |= self.own().is_some_and(|(_, own)| own == life);
    }

    /// For how long after it was sent a question that Redis confirmed is good: a clock that is a seventh
    /// slower than that of Redis does no harm.
    pub(super) fn validity(lease: Duration) -> Duration {
        lease * 6 / 7
    }

    /// What to ask now.
    pub(super) fn ask(&self) -> Ask {
        match self.state {
            State::Blind => Ask::Look,
            State::Claiming(node, life) => Ask::Claim(node, life),
            State::Holding { node, life: incarnation, expires, behind } => {
                Ask::Keep { node, incarnation, expires, raise: self.raise || behind }
            }
        }
    }

    /// Takes over the answer to [`Holder::ask`], which was sent at `sent`.
    ///
    /// # Errors
    /// This node cannot be part of the cluster as it is; it goes on without a number.
    pub(super) fn answered(
        &mut self,
        answer: &Answer,
        sent: Instant,
        now: Instant,
        events: &mut Vec<Event>,
    ) -> Result<Judgement, Refused> {
        let before = self.own();
        let stale = self.confirmed.is_none_or(|at| sent.duration_since(at) >= Self::validity(self.lease));
        let returned = before.is_some() && (stale || !matches!(answer.outcome, Outcome::Kept));
        let ends = answer.snapshot.now + u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        let again = self.follow(answer, ends, events)?;
        let confirmed = matches!(answer.outcome, Outcome::Kept | Outcome::Raised(_));
        if confirmed {
            self.confirmed = Some(sent);
        }
        let table =
            self.own().map(|(node, _)| self.view.apply(node, &answer.snapshot, returned, now, events));
        Ok(Judgement { table, confirmed, again })
    }

    /// Moves on; says whether to ask again at once.
    fn follow(&mut self, answer: &Answer, ends: u64, events: &mut Vec<Event>) -> Result<bool, Refused> {
        let snapshot = &answer.snapshot;
        match (self.state, answer.outcome) {
            (State::Blind, _) => {
                let number = self.draw(snapshot)?;
                self.state = State::Claiming(number, Incarnation::fresh());
                Ok(true)
            }
            (State::Claiming(node, life), outcome @ (Outcome::Kept | Outcome::Raised(_))) => {
                self.compatible(snapshot, Some(node))?;
                let life = match outcome {
                    Outcome::Raised(term) => Incarnation { term, ..life },
                    _ => life,
                };
                self.state = State::Holding { node, life, expires: ends, behind: false };
                (self.raise, self.unswept) = (false, 1);
                events.push(Event::Placed { node, incarnation: life });
                Ok(false)
            }
            (State::Claiming(node, life), Outcome::Behind(term)) => {
                self.state = State::Claiming(node, Incarnation { term, ..life });
                Ok(true)
            }
            (State::Claiming(..), Outcome::Looked | Outcome::Held) => {
                self.state = State::Claiming(self.draw(snapshot)?, Incarnation::fresh());
                Ok(true)
            }
            (State::Holding { node, life, .. }, Outcome::Kept) => {
                self.state = State::Holding { node, life, expires: ends, behind: false };
                Ok(false)
            }
            (State::Holding { node, life, .. }, Outcome::Raised(term)) => {
                let life = Incarnation { term, ..life };
                self.state = State::Holding { node, life, expires: ends, behind: false };
                self.raise = false;
                events.push(Event::Lapsed { incarnation: life });
                Ok(false)
            }
            (State::Holding { node, life, expires, .. }, Outcome::Behind(term)) => {
                let life = Incarnation { term, ..life };
                self.state = State::Holding { node, life, expires, behind: true };
                Ok(true)
            }
            (State::Holding { .. }, Outcome::Held) => {
                events.push(Event::Fenced);
                (self.state, self.confirmed) = (State::Blind, None);
                Ok(true)
            }
            (State::Holding { .. }, Outcome::Looked) => Ok(false),
        }
    }

    /// Gives up what it wanted, and starts over; names what Redis may hold for it.
    pub(super) fn withdraw(&mut self) -> Option<(NodeId, Incarnation)> {
        match std::mem::replace(&mut self.state, State::Blind) {
            State::Claiming(node, life) => Some((node, life)),
            State::Blind | State::Holding { .. } => None,
        }
    }

    /// A number at random that nobody has.
    fn draw(&self, snapshot: &Snapshot) -> Result<NodeId, Refused> {
        self.compatible(snapshot, None)?;
        if snapshot.taken() >= NUMBERS {
            return Err(Refused::Full);
        }
        // Never the lowest free one: after Redis lost its data, nodes that keep their old numbers and nodes
        // that claim new ones hardly meet.
        loop {
            let number = NodeId(rand::random());
            if !snapshot.is_taken(number) {
                return Ok(number);
            }
        }
    }

    fn compatible(&self, snapshot: &Snapshot, own: Option<NodeId>) -> Result<(), Refused> {
        let other = snapshot.live().find(|(node, lease)| Some(*node) != own && !lease.speaks(&self.versions));
        match other {
            Some((_, lease)) => Err(Refused::Incompatible { theirs: lease.versions() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::bus::redis::nodes::{About, NodeLease};

    const LEASE: Duration = Duration::from_secs(7);

    fn about(bus: (u8, u8)) -> About {
        About {
            bus,
            version: String::new(),
            since: 0,
            lease: 0,
            connections: 0,
            memberships: 0,
            degraded: None,
            unswept: 1,
        }
    }

    fn snapshot(leases: impl IntoIterator<Item = (u16, u64, (u8, u8))>) -> Snapshot {
        let lease = |(node, expires, bus)| {
            let incarnation = Incarnation { instance: 99, term: 1 };
            (NodeId(node), NodeLease { incarnation, expires, about: about(bus) })
        };
        Snapshot { now: 1000, leases: leases.into_iter().map(lease).collect(), unreadable: Vec::new() }
    }

    fn answer(outcome: Outcome, snapshot: Snapshot) -> Answer {
        Answer { outcome, snapshot, revision: None }
    }

    fn told(holder: &mut Holder, answer: &Answer) -> (Result<bool, Refused>, Vec<Event>) {
        let (now, mut events) = (Instant::now(), Vec::new());
        let judged = holder.answered(answer, now, now, &mut events);
        (judged.map(|judgement| judgement.again), events)
    }

    #[test]
    fn a_number_is_drawn_that_nobody_has_and_asked_for_again_until_there_is_an_answer() {
        let mut holder = Holder::new(LEASE, 1..=2);
        assert_eq!(holder.ask(), Ask::Look);
        let free = u16::MAX;
        let all_but_one = || snapshot((0..free).map(|node| (node, 0, (1, 2))));
        assert_eq!(told(&mut holder, &answer(Outcome::Looked, all_but_one())).0, Ok(true));
        let Ask::Claim(node, life) = holder.ask() else { panic!("{:?}", holder.ask()) };
        assert_eq!(node, NodeId(free));
        assert_eq!(holder.ask(), Ask::Claim(node, life), "its answer may have been lost");
        assert_eq!(told(&mut holder, &answer(Outcome::Held, all_but_one())).0, Ok(true));
        let Ask::Claim(_, other) = holder.ask() else { panic!() };
        assert_ne!(other.instance, life.instance);
        let (again, events) = told(&mut holder, &answer(Outcome::Kept, all_but_one()));
        assert_eq!((again, &events[0]), (Ok(false), &Event::Placed { node, incarnation: other }));
    }

    #[test]
    fn when_every_number_is_taken_or_unreadable_there_is_none() {
        let mut holder = Holder::new(LEASE, 1..=2);
        let mut full = snapshot((1..=u16::MAX).map(|node| (node, 0, (1, 2))));
        full.unreadable.push(NodeId(0));
        assert_eq!(told(&mut holder, &answer(Outcome::Looked, full)).0, Err(Refused::Full));
        assert_eq!((holder.withdraw(), holder.ask()), (None, Ask::Look));
    }

    #[test]
    fn of_two_that_claim_at_once_and_cannot_talk_the_claim_is_given_back() {
        let mut holder = Holder::new(LEASE, 1..=2);
        let _ = told(&mut holder, &answer(Outcome::Looked, snapshot([])));
        let Ask::Claim(node, life) = holder.ask() else { panic!() };
        let other = node.0.wrapping_add(1);
        let (refused, events) = told(&mut holder, &answer(Outcome::Kept, snapshot([(other, 2000, (3, 4))])));
        assert_eq!((refused, events), (Err(Refused::Incompatible { theirs: 3..=4 }), vec![]));
        assert_eq!(holder.withdraw(), Some((node, life)));
    }

    #[test]
    fn a_term_that_redis_has_and_the_node_does_not_is_raised_before_it_is_used() {
        let mut holder = Holder::new(LEASE, 1..=2);
        let _ = told(&mut holder, &answer(Outcome::Looked, snapshot([])));
        let _ = told(&mut holder, &answer(Outcome::Kept, snapshot([])));
        let (_, life) = holder.own().unwrap();
        let (again, events) = told(&mut holder, &answer(Outcome::Behind(4), snapshot([])));
        assert_eq!((again, events), (Ok(true), vec![]));
        let Ask::Keep { incarnation, raise: true, .. } = holder.ask() else { panic!("{:?}", holder.ask()) };
        assert_eq!(incarnation.term, 4);
        let (_, events) = told(&mut holder, &answer(Outcome::Raised(5), snapshot([])));
        assert_eq!(events, [Event::Lapsed { incarnation: Incarnation { term: 5, ..life } }]);
        assert!(matches!(holder.ask(), Ask::Keep { raise: false, expires: 8000, .. }));
    }

    #[test]
    fn others_have_grace_after_an_outage_of_the_node_and_only_then() {
        let mut holder = Holder::new(LEASE, 1..=2);
        let _ = told(&mut holder, &answer(Outcome::Looked, snapshot([])));
        let Ask::Claim(own, _) = holder.ask() else { panic!() };
        let other = own.0.wrapping_add(1);
        let there = || snapshot([(other, 2000, (1, 2))]);
        let _ = told(&mut holder, &answer(Outcome::Kept, there()));
        let start = Instant::now();
        let mut at = |after: Duration, snapshot: Snapshot| {
            let (sent, mut events) = (start + after, Vec::new());
            holder.answered(&answer(Outcome::Kept, snapshot), sent, sent, &mut events).unwrap();
            events
        };
        // Out of touch for longer than the lease is good for.
        assert_eq!(at(LEASE, snapshot([])), []);
        assert_eq!(at(LEASE + Duration::from_secs(5), snapshot([])), []);
        assert_eq!(at(LEASE * 2, there()), []);
        let gone = Event::Gone { node: NodeId(other), incarnation: Incarnation { instance: 99, term: 1 } };
        assert_eq!(at(LEASE * 2 + Duration::from_secs(1), snapshot([])), [gone]);
    }
}
