//! Which way a conversation takes to its peer.
//!
//! A way is one of our connections and one of the peer's. Usually there is one. There are two for a moment
//! when a node is drained, and several while nodes are cut off from each other and peers look for another
//! way ([`super::search`]). The rules:
//!
//! - A way on which the peer answers is kept, whatever else is announced: a peer that moves says so itself,
//!   in a packet that proves it, and its session is followed. When another connection of the peer is
//!   announced, the peer is asked for a sign on the present one.
//! - Our own connection that is going away is left as soon as there is another. Each end chooses among its
//!   own connections and writes to the one from which it hears the other.
//! - A way on which the peer owes an answer for too long is given up for the next best, in turns.
//!
//! Both peers prefer the same way, so that they meet on one: connections of the same node where the
//! cluster is in pieces, then the newest connection of the peer with the lower id, then of the other.

use std::cmp::Reverse;
use std::time::Duration;

use culvert_session::SessionId;
use culvert_wire::{ConnId, Generation, PeerId};

use super::Driver;
use crate::broadcast::SyncEvent;
use crate::relay::conversation::Conversation;
use crate::relay::paths::LegId;
use crate::relay::roster::{MAX_WAYS, Run};

/// How long the peer may owe an answer before the way is doubted; at least four round trips. Acknowledgements
/// come within a round trip and 25 ms, and two probes are sent meanwhile.
const DOUBT: Duration = Duration::from_secs(1);
/// The same where another connection of the peer was announced, or a frame was not delivered.
const SOONER: Duration = Duration::from_millis(300);
/// Round trips that were measured while everything was late say little.
const LONGEST_ROUND_TRIPS: Duration = Duration::from_secs(2);
/// However many ways were tried in vain.
const LONGEST_DOUBT: Duration = Duration::from_secs(5);
/// Ways that a conversation remembers to have tried.
const MAX_TRIED: usize = 4 * MAX_WAYS;

/// A way to a peer. The order is the preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way {
    is_within_reach: bool,
    is_staying: bool,
    pub(super) run: Run,
    generations: (Generation, Generation),
    pub(super) leg: LegId,
    pub(super) conn: ConnId,
}

impl Driver {
    /// The ways to a peer, the best first.
    pub(super) fn ways(&self, peer: &PeerId) -> Vec<Way> {
        let is_first = self.settings.identity.peer_id() < *peer;
        let joined = self.legs.iter().filter(|leg| leg.handle.is_some());
        let mut ways: Vec<_> = joined
            .flat_map(|leg| leg.roster.newest(peer).into_iter().map(move |theirs| (leg, theirs)))
            .map(|(leg, (conn, generation))| Way {
                is_within_reach: !leg.is_degraded || leg.conn().node() == conn.node(),
                is_staying: !leg.is_leaving(),
                run: Run::of(generation),
                generations: if is_first {
                    (leg.generation, generation)
                } else {
                    (generation, leg.generation)
                },
                leg: leg.id,
                conn,
            })
            .collect();
        ways.sort_unstable_by_key(|way| Reverse(*way));
        ways
    }

    /// Decides about a conversation's way anew.
    pub(super) fn review(&mut self, id: SessionId) {
        let Some(conversation) = self.conversations.get(&id).filter(|one| !one.is_closed) else { return };
        let (Some(peer), run) = (conversation.peer, conversation.run) else { return };
        let mut ways = self.ways(&peer);
        ways.retain(|way| run.is_none_or(|run| run == way.run));
        let present = conversation.session.path().and_then(|path| self.paths.ends(path));
        let is_present = |way: &&Way| present == Some((way.leg, way.conn));
        let is_leaving =
            present.is_some_and(|(leg, _)| self.legs.iter().any(|own| own.id == leg && own.is_leaving()));
        let is_good = |way: &&Way| way.is_within_reach && way.is_staying;
        let chosen = match present {
            None => ways.first(),
            Some(_) if is_leaving && ways.iter().any(|way| is_good(&way)) => {
                self.to_where_heard(conversation, &ways).or_else(|| ways.iter().find(is_good))
            }
            Some(_) if conversation.owes(self.now) >= conversation.patience() => {
                ways.iter().filter(|way| !is_present(way)).min_by_key(|way| {
                    let known = self.paths.find(way.leg, way.conn);
                    let tried = conversation.tried.iter().rfind(|(path, _)| Some(*path) == known);
                    (tried.map(|(_, at)| *at), Reverse(**way))
                })
            }
            Some((_, conn)) => self.to_where_heard(conversation, &ways).filter(|way| way.conn != conn),
        };
        match chosen.copied() {
            Some(way) => self.take_way(id, way),
            None => self.plan_review(id, DOUBT),
        }
    }

    /// The best way to the connection from which the peer was heard since it was last moved: each end chooses
    /// among its own connections and follows the other's choice.
    fn to_where_heard<'a>(&self, conversation: &Conversation, ways: &'a [Way]) -> Option<&'a Way> {
        let (path, at) = conversation.session.heard()?;
        let (_, heard) = self.paths.ends(path).filter(|_| at >= conversation.moved_at())?;
        ways.iter().find(|way| way.conn == heard && way.is_staying && way.is_within_reach)
    }

    /// Moves a conversation.
    fn take_way(&mut self, id: SessionId, way: Way) {
        let path = self.paths.number(way.leg, way.conn);
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        if conversation.session.path() != Some(path) {
            tracing::debug!(session = ?id, leg = ?way.leg, conn = %way.conn, "a conversation is moved");
            conversation.moved();
            conversation.session.set_path(self.now, path);
            conversation.run = Some(way.run);
            conversation.tried.retain(|(tried, _)| *tried != path);
            conversation.tried.push((path, self.now));
            if conversation.tried.len() > MAX_TRIED {
                conversation.tried.remove(0);
            }
            if let Some(peer) = conversation.peer {
                self.publish(SyncEvent::PathChanged { peer_id: peer.to_string(), path: "relay" });
            }
            self.touch(id);
        }
        self.plan_review(id, DOUBT);
    }

    /// Something speaks against the present way, or for another one: the peer is asked, and if it does not
    /// answer soon, decided anew.
    pub(super) fn question(&mut self, id: SessionId) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        conversation.is_questioned = true;
        if conversation.session.path().is_none() || conversation.owes(self.now) >= conversation.patience() {
            return self.review(id);
        }
        if conversation.session.unanswered().is_none() {
            conversation.session.ask();
        }
        let patience = conversation.patience();
        self.touch(id);
        self.plan_review(id, patience);
    }

    /// Another connection of a peer was announced.
    pub(super) fn question_all(&mut self, peer: &PeerId, conn: ConnId) {
        let of_peer = self.conversations.iter().filter(|(_, one)| one.peer == Some(*peer) && !one.is_closed);
        let elsewhere = of_peer.filter(|(_, one)| {
            let present = one.session.path().and_then(|path| self.paths.ends(path));
            present.is_none_or(|(_, present)| present != conn)
        });
        let ids: Vec<_> = elsewhere.map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(conversation) = self.conversations.get_mut(&id) {
                // Something new to try.
                conversation.moves_in_vain = 0;
            }
            self.question(id);
        }
    }

    fn plan_review(&mut self, id: SessionId, patience: Duration) {
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.review_at = Some(self.now + patience);
        }
    }

    /// Looks at the conversations whose time for it has come.
    pub(super) fn review_silent(&mut self) {
        let due = |one: &Conversation| one.review_at.is_some_and(|at| at <= self.now);
        let silent: Vec<_> =
            self.conversations.iter().filter(|(_, one)| due(one)).map(|(id, _)| *id).collect();
        for id in silent {
            self.review(id);
            self.doubt_leg_of(id);
            if let Some(conversation) = self.conversations.get_mut(&id) {
                conversation.is_questioned = false;
                if conversation.session.unanswered().is_none() {
                    conversation.review_at = None;
                }
            }
        }
    }
}

impl Conversation {
    /// How long the peer has owed a sign, on whatever way.
    pub(super) fn is_silent_for(&self, now: Duration) -> Duration {
        self.session.unanswered().map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// How long the peer has owed a sign on the present way.
    fn owes(&self, now: Duration) -> Duration {
        let since = |since: Duration| now.saturating_sub(since.max(self.moved_at()));
        self.session.unanswered().map_or(Duration::ZERO, since)
    }

    /// When the way was last chosen here.
    fn moved_at(&self) -> Duration {
        self.tried.last().map(|(_, at)| *at).unwrap_or_default()
    }

    /// How long it may. Twice as long after every move that brought no sign, so that ways which are all dead
    /// are not tried in a whirl.
    fn patience(&self) -> Duration {
        let least = if self.is_questioned { SOONER } else { DOUBT };
        let round_trips = (self.session.counters().rtt * 4).min(LONGEST_ROUND_TRIPS);
        least.max(round_trips).saturating_mul(1 << self.moves_in_vain.min(4)).min(LONGEST_DOUBT)
    }

    /// Counts moves since the peer was last heard.
    fn moved(&mut self) {
        let is_heard = self.session.heard().is_some_and(|(_, at)| at > self.moved_at());
        self.moves_in_vain = if is_heard { 0 } else { self.moves_in_vain.saturating_add(1) };
    }

    /// Makes sure that the way is looked at if no answer comes to what was sent.
    pub(super) fn watch(&mut self, now: Duration) {
        if self.review_at.is_none() && self.session.unanswered().is_some() {
            self.review_at = Some(now + DOUBT);
        }
    }
}
