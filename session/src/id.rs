//! Who and which: the identifiers of a session.

use std::fmt;

use culvert_wire::Class;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// One way to the peer, numbered by the driver: for a relay, one pair of connections.
    ///
    /// A number is never used again for another way, or late packets could be taken for fresh ones.
    PathId
}

number! {
    /// A channel of ordered messages in both directions. The initiator opens even numbers, the
    /// responder odd ones.
    StreamId
}

number! {
    /// Counts the messages of one stream in one direction, from 0.
    MessageNumber
}

/// How one end finds its session: random, chosen by the end it names, first in every packet for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl SessionId {
    /// The receiver of a handshake's first message: not known yet.
    pub(crate) const NONE: SessionId = SessionId(0);
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// How urgent a stream is: 0 goes first. Streams of equal priority take turns.
///
/// The upper half travels as [`Class::Bulk`], so that the relay, too, lets documents pass files.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Priority(pub u8);

impl Priority {
    /// Goes before everything else.
    pub const URGENT: Priority = Priority(0);
    /// What people wait for.
    pub const NORMAL: Priority = Priority(64);
    /// Files.
    pub const BULK: Priority = Priority(192);

    /// The relay's class for a stream of this priority; it never changes during the stream's life.
    pub const fn class(self) -> Class {
        if self.0 < 128 { Class::Normal } else { Class::Bulk }
    }
}
