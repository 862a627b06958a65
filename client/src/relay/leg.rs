//! One of our connections to the relay, within the topic.

use culvert_wire::{ConnId, Frame, Handle, Notice, TopicId};
use tokio::time::Instant;

use super::link::Link;
use super::paths::LegId;
use super::roster::Roster;

/// A link that joins, or has joined, the topic.
pub(crate) struct Leg {
    pub(crate) id: LegId,
    pub(crate) link: Link,
    /// The topic's number on this connection; none until the relay has answered the join.
    pub(crate) handle: Option<Handle>,
    pub(crate) roster: Roster,
    join_by: Instant,
    /// Until when the relay keeps it, once it has announced to go away.
    pub(crate) closes_at: Option<Instant>,
    pub(crate) is_degraded: bool,
}

impl Leg {
    /// Begins to join `topic`.
    pub(crate) fn join(id: LegId, mut link: Link, topic: TopicId, join_by: Instant) -> Self {
        link.send(&Frame::Join { topic });
        let roster = Roster::default();
        Self { id, link, handle: None, roster, join_by, closes_at: None, is_degraded: false }
    }

    /// By when the relay must have answered, as long as it has not.
    pub(crate) fn answers_by(&self) -> Option<Instant> {
        self.handle.is_none().then_some(self.join_by)
    }

    pub(crate) fn conn(&self) -> ConnId {
        self.link.welcome().conn
    }

    /// Whether conversations should be moved away from it.
    pub(crate) fn is_draining(&self) -> bool {
        self.closes_at.is_some()
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
