//! One of our connections to the relay, within the topic.

use std::time::Duration;

use culvert_wire::{ConnId, Frame, Generation, Handle, Notice, TopicId};
use tokio::time::Instant;

use super::link::Link;
use super::paths::LegId;
use super::roster::Roster;

/// What a leg that is no longer needed may still bring in before it is closed.
pub(crate) const LINGER: Duration = Duration::from_secs(3);
/// Longest time for which a leg that was replaced is kept for conversations that still use it.
const LONGEST_LINGER: Duration = Duration::from_secs(15);

/// What a connection was opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Being in the topic.
    Home,
    /// Finding peers that the home cannot reach, while its node is degraded.
    Search,
}

/// A link that joins, or has joined, the topic.
pub(crate) struct Leg {
    pub(crate) id: LegId,
    pub(crate) purpose: Purpose,
    pub(crate) generation: Generation,
    pub(crate) link: Link,
    /// The topic's number on this connection; none until the relay has answered the join.
    pub(crate) handle: Option<Handle>,
    pub(crate) roster: Roster,
    join_by: Instant,
    /// Until when it is there at most, once the relay has announced to go away or it was replaced.
    closes_at: Option<Instant>,
    /// The relay has announced to go away.
    drains: bool,
    /// Replaced: from when on it is closed, if nobody needs it any more.
    idle_from: Option<Instant>,
    pub(crate) is_degraded: bool,
    /// The node found the others again and was asked for the members that were hidden.
    pub(crate) awaits_members: bool,
}

impl Leg {
    /// Begins to join `topic`.
    pub(crate) fn join(
        id: LegId,
        purpose: Purpose,
        generation: Generation,
        mut link: Link,
        topic: TopicId,
        join_by: Instant,
    ) -> Self {
        link.send(&Frame::Join { topic });
        Self {
            id,
            purpose,
            generation,
            link,
            handle: None,
            roster: Roster::default(),
            join_by,
            closes_at: None,
            drains: false,
            idle_from: None,
            is_degraded: false,
            awaits_members: false,
        }
    }

    /// By when the relay must have answered, as long as it has not.
    pub(crate) fn answers_by(&self) -> Option<Instant> {
        self.handle.is_none().then_some(self.join_by)
    }

    pub(crate) fn conn(&self) -> ConnId {
        self.link.welcome().conn
    }

    /// The relay is going away at that moment.
    pub(crate) fn drain(&mut self, closes_at: Instant) {
        self.drains = true;
        self.closes_at = Some(self.closes_at.map_or(closes_at, |at| at.min(closes_at)));
    }

    pub(crate) fn drains(&self) -> bool {
        self.drains
    }

    /// It was replaced: it goes once nobody needs it, and soon in any case.
    pub(crate) fn retire(&mut self, now: Instant) {
        if self.idle_from.is_none() {
            self.idle_from = Some(now + LINGER);
            let latest = now + LONGEST_LINGER;
            self.closes_at = Some(self.closes_at.map_or(latest, |at| at.min(latest)));
        }
    }

    /// Whether conversations should be moved away from it.
    pub(crate) fn is_leaving(&self) -> bool {
        self.drains || self.idle_from.is_some()
    }

    /// When [`Leg::is_over`] may change.
    pub(crate) fn next_check(&self) -> Option<Instant> {
        self.idle_from.into_iter().chain(self.closes_at).min()
    }

    /// Whether it is time to close it. Asked while conversations need it, it asks again a little later.
    pub(crate) fn is_over(&mut self, now: Instant, is_needed: bool) -> bool {
        if self.closes_at.is_some_and(|at| at <= now) {
            return true;
        }
        match &mut self.idle_from {
            Some(from) if *from <= now && is_needed => {
                *from = now + LINGER / 6;
                false
            }
            Some(from) => *from <= now,
            None => false,
        }
    }

    /// Takes note of what the relay says about itself; whether the registry's state changed.
    pub(crate) fn degraded_by(&mut self, notice: Notice) -> bool {
        let is_degraded = match notice {
            Notice::Degraded => true,
            Notice::Restored => false,
            _ => return false,
        };
        std::mem::replace(&mut self.is_degraded, is_degraded) != is_degraded
    }
}
