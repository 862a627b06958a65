//! What a lease tells.

use std::ops::RangeInclusive;
use std::sync::Arc;

use culvert_wire::NodeId;

use crate::admission::Revocations;
use crate::bus::redis::incarnation::Incarnation;

/// What happens to this node's number and to the other nodes. Told in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This node has this number from now on.
    Placed {
        /// The number.
        node: NodeId,
        /// Under which incarnation it is held.
        incarnation: Incarnation,
    },
    /// This node keeps its number under a higher term: its registrations may be incomplete.
    Lapsed {
        /// The new incarnation.
        incarnation: Incarnation,
    },
    /// Another process has this node's number. [`Event::Placed`] follows with another one.
    Fenced,
    /// There is a node that was not known before. Told after [`Event::Placed`], and once: a node that is
    /// fenced and placed anew still knows those that it knew.
    Appeared {
        /// Its number.
        node: NodeId,
        /// Its incarnation.
        incarnation: Incarnation,
        /// The versions of the bus that it speaks.
        versions: RangeInclusive<u8>,
    },
    /// A known node holds its number under another term: it will announce its members again.
    Raised {
        /// Its number.
        node: NodeId,
        /// Its new incarnation.
        incarnation: Incarnation,
        /// The versions of the bus that it speaks.
        versions: RangeInclusive<u8>,
    },
    /// A known node has ended.
    Gone {
        /// The number it had.
        node: NodeId,
        /// Its last incarnation.
        incarnation: Incarnation,
    },
    /// Whether Redis answers. True until the first event says otherwise.
    Reachable(bool),
    /// The list of what is revoked changed.
    Revoked(Arc<Revocations>),
}
