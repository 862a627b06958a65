//! Looking for peers that the node cannot reach, and giving connections up that nobody needs.
//!
//! A node that lost touch with its cluster cannot tell that from the cluster's end, so it keeps its peers
//! and says that it is degraded. A client can tell: through the balancer it gets to other nodes. While the
//! home is degraded and a peer is missed, another connection is opened every few seconds, each at the cost
//! of the one before unless a conversation uses that one. The peer may be doing the same, so a connection
//! that leads nowhere stays open until the next one: then it can be found there. One that leads to a node
//! that is not degraded becomes the home.
//!
//! One that leads to a node where this peer is already was in vain, and another follows at once. Otherwise
//! two peers that look in turns behind a balancer that gives out its nodes in turns would each be led back to
//! their own node for as long as they look.
//!
//! Nobody is ever disturbed by it: peers of the same conversation keep the way that works ([`super::ways`]),
//! and once the home is whole again, everything moves back there before the other connections go.

use std::time::Duration;

use culvert_session::SessionId;
use tokio::time::Instant;

use super::Driver;
use crate::identity::random_u64;
use crate::options::{PeerPolicy, SearchPolicy};
use crate::relay::leg::{LINGER, Leg, Purpose};
use crate::relay::link::LinkError;
use crate::relay::paths::LegId;

/// How long the peer of a conversation may owe a sign before it is missed.
const MISSED: Duration = Duration::from_secs(2);

/// When to look next.
#[derive(Debug)]
pub(super) struct Search {
    policy: SearchPolicy,
    delay: Duration,
    next_at: Option<Instant>,
    /// The attempt before was in vain, and this is the one that followed at once.
    is_repeated: bool,
}

impl Search {
    pub(super) fn new(policy: SearchPolicy) -> Self {
        Self { delay: policy.first, next_at: None, is_repeated: false, policy }
    }

    /// When to look.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.next_at
    }

    /// Sets the time of the next attempt, unless it is set; `dice` is a random number.
    fn plan(&mut self, now: Instant, dice: u64) {
        if self.next_at.is_none() {
            let share = 0.5 + f64::from(dice.to_be_bytes()[0]) / 510.0;
            self.next_at = Some(now + self.delay.mul_f64(share));
            self.delay = (self.delay * 3 / 2).min(self.policy.longest);
            self.is_repeated = false;
        }
    }

    /// An attempt is made.
    fn attempted(&mut self) {
        self.next_at = None;
    }

    /// An attempt led to a node; `in_vain` where this peer is there already. Only one more follows at once,
    /// because there are balancers that give a peer the same node every time.
    fn arrived(&mut self, in_vain: bool, now: Instant) {
        self.is_repeated = in_vain && !self.is_repeated;
        if self.is_repeated {
            self.next_at = Some(now);
        }
    }

    fn stop(&mut self) {
        (self.next_at, self.delay, self.is_repeated) = (None, self.policy.first, false);
    }
}

impl Driver {
    /// Whether to open a connection for the search now; makes room for it.
    pub(super) fn begins_search(&mut self, now: Instant) -> bool {
        if self.search.next_at.is_none_or(|at| now < at) {
            return false;
        }
        self.search.attempted();
        // The one that was in vain stays so long, if it may: a balancer that gives out the node with the fewest
        // connections takes it into account.
        if !self.search.is_repeated || self.legs.len() >= self.search.policy.connections {
            self.give_up_searched(|_, _| true);
        }
        self.legs.len() < self.search.policy.connections
    }

    /// The relay has answered a connection that was opened for the search.
    pub(super) fn searched(&mut self, id: LegId, now: Instant) {
        self.search.arrived(self.is_double(id), now);
        self.give_up_searched(|driver, other| other != id && driver.is_double(other));
    }

    /// Whether an older connection leads to the same node.
    fn is_double(&self, id: LegId) -> bool {
        let node = |leg: &Leg| leg.conn().node();
        let of = self.legs.iter().find(|leg| leg.id == id).map(node);
        self.legs.iter().any(|older| older.id < id && !older.is_leaving() && Some(node(older)) == of)
    }

    /// Closes those of the search's connections that no conversation uses.
    fn give_up_searched(&mut self, which: impl Fn(&Self, LegId) -> bool) {
        let searched = self.legs.iter().filter(|leg| leg.purpose == Purpose::Search).map(|leg| leg.id);
        let in_vain: Vec<_> = searched.filter(|id| which(self, *id) && !self.is_needed(*id)).collect();
        for id in in_vain {
            self.lost(id, LinkError::Broke("nobody was found there".to_owned()));
        }
    }

    /// Starts and stops the search, and sends the connections home that it led to.
    pub(super) fn plan_search(&mut self, now: Instant) {
        let is_degraded = self.home().is_some_and(|home| home.is_degraded);
        if is_degraded && self.search.policy.connections > 1 && self.misses_somebody() {
            let is_attempted = self.dialing.is_some() || self.legs.iter().any(|leg| leg.handle.is_none());
            if !is_attempted {
                self.search.plan(now, random_u64());
            }
            return;
        }
        self.search.stop();
        let is_whole = self.home().is_some_and(|home| !home.is_degraded && !home.awaits_members);
        let searching = self.legs.iter().filter(|leg| leg.purpose == Purpose::Search && !leg.is_leaving());
        let done: Vec<_> =
            searching.map(|leg| leg.id).filter(|id| is_whole || !self.is_needed(*id)).collect();
        for id in &done {
            if let Some(leg) = self.leg(*id) {
                leg.retire(now);
            }
        }
        if is_whole && !done.is_empty() {
            self.meet_everybody();
        }
    }

    /// The connection that stays.
    pub(super) fn home(&self) -> Option<&Leg> {
        self.legs
            .iter()
            .rfind(|leg| leg.purpose == Purpose::Home && leg.handle.is_some() && !leg.is_leaving())
    }

    /// Whether a conversation uses the connection, or its peer did a moment ago.
    pub(super) fn is_needed(&self, leg: LegId) -> bool {
        let own = |path| self.paths.ends(path).is_some_and(|(own, _)| own == leg);
        self.conversations.values().filter(|one| !one.is_closed).any(|one| {
            let is_heard = one.session.heard().is_some_and(|(path, at)| own(path) && at + LINGER > self.now);
            one.session.path().is_some_and(own) || is_heard
        })
    }

    /// Whether somebody who is wanted is absent or silent.
    fn misses_somebody(&self) -> bool {
        let mut talks = self.conversations.values().filter(|one| one.is_established && !one.is_closed);
        let mut open = talks.clone().filter(|one| one.superseded.is_none());
        // Or soon: it is on a connection that goes away, because the others do not reach its peer.
        let is_lost = |path| {
            let leg = self.paths.ends(path).map(|(leg, _)| leg);
            self.legs.iter().all(|own| Some(own.id) != leg || own.is_leaving())
        };
        if open.any(|one| one.session.path().is_none_or(is_lost) || one.is_silent_for(self.now) >= MISSED) {
            return true;
        }
        if self.accept.is_none() || self.refuses || self.stops_by.is_some() {
            return false;
        }
        match &self.settings.policy {
            PeerPolicy::Only(pinned) => pinned.iter().any(|peer| {
                let was_ended = self.finished.iter().any(|(finished, _)| finished == peer);
                *peer != self.settings.identity.peer_id() && !was_ended && !self.talks_to(peer)
            }),
            // Anybody will do.
            PeerPolicy::Anyone | PeerPolicy::Ask(_) => talks.next().is_none(),
        }
    }

    /// The peer of a conversation owes a sign: if the relay has been silent, too, it is asked for one.
    pub(super) fn doubt_leg_of(&mut self, id: SessionId) {
        let (now, after) = (self.now, self.settings.liveness.after);
        let Some(conversation) = self.conversations.get(&id) else { return };
        let path = conversation.session.path();
        if conversation.is_silent_for(now) < after {
            return;
        }
        let leg = path.and_then(|path| self.paths.ends(path)).map(|(leg, _)| leg);
        let answer = self.settings.liveness.answer;
        if let Some(leg) = leg.and_then(|leg| self.leg(leg)) {
            leg.link.doubt(after, answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_become_rarer_up_to_the_longest_time_and_start_over_after_the_search() {
        let mut search = Search::new(SearchPolicy::default());
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..8 {
            search.plan(now, u64::MAX);
            search.plan(now + Duration::from_secs(9), 0);
            let at = search.next_at().unwrap();
            waits.push((at - now).as_millis());
            search.attempted();
            now = at;
        }
        assert_eq!(waits, [2000, 3000, 4500, 6750, 10_125, 15_187, 20_000, 20_000]);
        search.stop();
        search.plan(now, 0);
        assert_eq!(search.next_at().unwrap() - now, Duration::from_secs(1), "half of it by chance");
    }

    #[test]
    fn one_more_attempt_follows_at_once_when_one_was_in_vain() {
        let mut search = Search::new(SearchPolicy::default());
        let now = Instant::now();
        for is_sticky in [true, false, true] {
            search.arrived(true, now);
            assert_eq!(search.next_at(), Some(now));
            search.attempted();
            search.arrived(is_sticky, now);
            assert_eq!(search.next_at(), None, "the next one has its time");
        }
    }
}
