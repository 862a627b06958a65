//! What one node publishes to another's inbox: a header, then items in order.

use culvert_wire::{Member, TopicId};

use crate::bus::{Arrival, Undelivered};

/// What nodes tell each other beside letters. None is lost while both nodes live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A connection entered a topic in which the receiving node has members.
    Arrived {
        /// The topic.
        topic: TopicId,
        /// Who.
        arrival: Arrival,
    },
    /// A connection left a topic; behind the letters it sent.
    Departed {
        /// The topic.
        topic: TopicId,
        /// Who.
        member: Member,
    },
    /// Letters were not delivered; for their sender.
    Undelivered(Undelivered),
    /// Everything that the sending node has to say after its term was raised has been said: members of it
    /// that it did not announce again are gone.
    Resynced,
}
