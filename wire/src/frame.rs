//! The frames of protocol v1 and their numbers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::DecodeError;
use crate::hello::{Challenge, Hello, Welcome};
use crate::id::{ConnId, Generation, Handle, PeerId, TopicId};
use crate::limits::HEADER_LEN;

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])+ $variant:ident = $number:literal, $text:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name {
            $($(#[$vdoc])+ $variant,)+
        }

        impl $name {
            /// Every one of them, in the order of their numbers.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The number on the wire.
            pub const fn number(self) -> u8 {
                match self { $($name::$variant => $number),+ }
            }

            /// Stable name: log field and metric label.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }

            /// The one with this number; `None` for numbers that this version does not know.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some($name::$variant),)+ _ => None }
            }
        }
    };
}

numbered! {
    /// What a frame is: the first byte of its header.
    Kind {
        /// Relay: the first frame, with a nonce to sign.
        Challenge = 0x01, "challenge";
        /// Client: who it is and why it may come in.
        Hello = 0x02, "hello";
        /// Relay: the connection's address and limits.
        Welcome = 0x03, "welcome";
        /// Client: enter a topic.
        Join = 0x10, "join";
        /// Client: leave a topic.
        Leave = 0x11, "leave";
        /// Client: who is in a topic, without entering it.
        Lookup = 0x12, "lookup";
        /// Client: a payload for one connection.
        Send = 0x13, "send";
        /// Client: a payload for every other peer of a topic.
        Broadcast = 0x14, "broadcast";
        /// Client: a fresh ticket for this connection.
        Renew = 0x15, "renew";
        /// Client: answer this with a `Pong` of the same token and padding.
        Ping = 0x16, "ping";
        /// Relay: the topic is entered; its handle and members.
        Joined = 0x20, "joined";
        /// Relay: a connection entered a topic of this one.
        PeerJoined = 0x21, "peer_joined";
        /// Relay: a connection left a topic of this one.
        PeerLeft = 0x22, "peer_left";
        /// Relay: the answer to `Lookup`.
        Peers = 0x23, "peers";
        /// Relay: a payload from another connection.
        Deliver = 0x24, "deliver";
        /// Relay: frames of this connection that were not delivered.
        Undeliverable = 0x25, "undeliverable";
        /// Relay: frames for this connection were lost on the way.
        Gap = 0x26, "gap";
        /// Relay: something the client should know.
        Notice = 0x27, "notice";
        /// Relay: the node is going away.
        Drain = 0x28, "drain";
        /// Relay: the answer to `Ping`.
        Pong = 0x29, "pong";
        /// Relay: a `Join` or `Lookup` that was refused.
        JoinRefused = 0x2a, "join_refused";
    }
}

numbered! {
    /// Why frames were not delivered.
    Verdict {
        /// No such connection, or it is not in this topic (any more).
        Gone = 1, "gone";
        /// Its node cannot be reached at the moment.
        Unreachable = 2, "unreachable";
        /// The receiver's queue, or this sender's share of it, is full.
        Full = 3, "full";
        /// The sender is over one of its limits.
        Limited = 4, "limited";
        /// The sender is not in the topic, or may not use this class.
        NotAllowed = 5, "not_allowed";
        /// The node lost touch while the frames were under way; they may have arrived.
        Unknown = 6, "unknown";
    }
}

numbered! {
    /// Why a `Join` or `Lookup` was refused.
    JoinRefusal {
        /// The admission does not open this topic.
        NotAllowed = 1, "not_allowed";
        /// The connection is in as many topics as it may be.
        TooManyTopics = 2, "too_many_topics";
        /// The node or tenant holds as many topic memberships as it may.
        Limited = 3, "limited";
    }
}

/// How urgent a frame is; a flow keeps one class. Ordered from the most urgent down.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Small and urgent: handshakes, acknowledgements.
    Control,
    /// What people wait for.
    Normal,
    /// Files; yields to the others.
    Bulk,
}

impl Class {
    /// Every class, the most urgent first.
    pub const ALL: &'static [Class] = &[Class::Control, Class::Normal, Class::Bulk];

    /// The number in the header's flags.
    pub const fn number(self) -> u8 {
        match self {
            Class::Control => 0,
            Class::Normal => 1,
            Class::Bulk => 2,
        }
    }

    /// Stable name: log field and metric label.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Control => "control",
            Class::Normal => "normal",
            Class::Bulk => "bulk",
        }
    }

    /// The class with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Class::Control),
            1 => Some(Class::Normal),
            2 => Some(Class::Bulk),
            _ => None,
        }
    }
}

/// The flag of a frame that came by, or speaks of, a broadcast.
pub const FLAG_BROADCAST: u8 = 0b100;
const CLASS_MASK: u8 = 0b011;

/// The 12 bytes in front of every frame: kind, flags with class, handle, connection; big-endian.
///
/// A relay forwards by these alone. The kind is a bare number, because frames of unknown kinds are
/// skipped, not refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// See [`Kind`].
    pub kind: u8,
    /// How urgent; meaningful in `Send`, `Broadcast`, `Deliver`.
    pub class: Class,
    /// Whether [`FLAG_BROADCAST`] is set.
    pub broadcast: bool,
    /// The topic, by its number in the connection of whoever reads or wrote this frame.
    pub handle: Handle,
    /// To whom (from a client) or from whom (from a relay).
    pub conn: ConnId,
}

impl Header {
    /// A header for a frame that concerns no topic and no connection.
    pub const fn plain(kind: Kind) -> Self {
        Self {
            kind: kind.number(),
            class: Class::Control,
            broadcast: false,
            handle: Handle::NONE,
            conn: ConnId::NONE,
        }
    }

    /// Its bytes.
    pub const fn to_bytes(self) -> [u8; HEADER_LEN] {
        let flags = self.class.number() | if self.broadcast { FLAG_BROADCAST } else { 0 };
        let [h0, h1] = self.handle.0.to_be_bytes();
        let [c0, c1, c2, c3, c4, c5, c6, c7] = self.conn.0.to_be_bytes();
        [self.kind, flags, h0, h1, c0, c1, c2, c3, c4, c5, c6, c7]
    }

    /// Reads the header of a frame and gives the body behind it.
    ///
    /// Flag bits that v1 does not define are ignored.
    ///
    /// # Errors
    /// [`DecodeError::Short`] with fewer than 12 bytes, [`DecodeError::Class`] for the class number 3.
    #[inline]
    pub fn split(frame: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let Some((head, body)) = frame.split_first_chunk::<HEADER_LEN>() else {
            return Err(DecodeError::Short { kind: frame.first().copied().unwrap_or(0) });
        };
        let [kind, flags, h0, h1, conn @ ..] = *head;
        let class = Class::from_number(flags & CLASS_MASK).ok_or(DecodeError::Class)?;
        let header = Self {
            kind,
            class,
            broadcast: flags & FLAG_BROADCAST != 0,
            handle: Handle(u16::from_be_bytes([h0, h1])),
            conn: ConnId(u64::from_be_bytes(conn)),
        };
        Ok((header, body))
    }
}

/// A connection in a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its address.
    pub conn: ConnId,
    /// Whose it is.
    pub peer: PeerId,
    /// Its place among that peer's connections.
    pub generation: Generation,
}

/// The members of a topic, as far as they fit one frame.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Members {
    /// How many there are in all, without the asking connection.
    pub total: u32,
    /// Whether the cluster's registry was out of reach, so that only members on this node are listed.
    pub degraded: bool,
    /// At most [`crate::limits::MAX_MEMBERS`] of them, a sample where there are more.
    pub list: Vec<Member>,
}

/// Something the client should know; it can act on it or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The relay stopped reading from this connection, because it is over a limit. Sent once.
    Throttled,
    /// The same peer has a newer connection: this one stays and is told.
    Duplicate {
        /// The newest connection.
        newest: ConnId,
    },
    /// The cluster's registry is out of reach: peers on other nodes may be missing.
    Degraded,
    /// The registry is back; ask for members again.
    Restored,
    /// `Renew` was accepted.
    Renewed {
        /// The new end of the admission, seconds since 1970.
        expires_at: u64,
    },
    /// `Renew` was refused; the old ticket still holds until it ends.
    RenewRefused {
        /// The close code that a hello with this ticket would have got.
        code: u16,
    },
    /// The admission ends soon.
    Expiring {
        /// When, seconds since 1970.
        expires_at: u64,
    },
    /// A notice of a later version; skip it.
    Other(u8),
}

impl Notice {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Notice::Throttled => 1,
            Notice::Duplicate { .. } => 2,
            Notice::Degraded => 3,
            Notice::Restored => 4,
            Notice::Renewed { .. } => 5,
            Notice::RenewRefused { .. } => 6,
            Notice::Expiring { .. } => 7,
            Notice::Other(number) => number,
        }
    }
}

/// One frame, decoded. Payloads share the message's buffer.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the fields are those of the kinds above and of docs/protocol.md")]
pub enum Frame {
    Challenge(Challenge),
    Hello(Box<Hello>),
    Welcome(Welcome),
    Join {
        topic: TopicId,
    },
    Leave {
        handle: Handle,
    },
    Lookup {
        topic: TopicId,
    },
    Send {
        class: Class,
        handle: Handle,
        to: ConnId,
        payload: Bytes,
    },
    Broadcast {
        class: Class,
        handle: Handle,
        payload: Bytes,
    },
    Renew {
        ticket: String,
    },
    Ping {
        token: u64,
        padding: Bytes,
    },
    Joined {
        handle: Handle,
        topic: TopicId,
        members: Members,
    },
    PeerJoined {
        handle: Handle,
        member: Member,
    },
    PeerLeft {
        handle: Handle,
        conn: ConnId,
        peer: PeerId,
    },
    Peers {
        topic: TopicId,
        members: Members,
    },
    Deliver {
        class: Class,
        broadcast: bool,
        handle: Handle,
        from: ConnId,
        payload: Bytes,
    },
    Undeliverable {
        broadcast: bool,
        handle: Handle,
        to: ConnId,
        verdict: Verdict,
        count: u32,
    },
    Gap {
        from: Option<ConnId>,
        count: u32,
    },
    Notice(Notice),
    Drain {
        reconnect_in_ms: u32,
        close_in_ms: u32,
    },
    Pong {
        token: u64,
        padding: Bytes,
    },
    JoinRefused {
        topic: TopicId,
        refusal: JoinRefusal,
    },
    /// A kind of a later version; skip it.
    Unknown {
        kind: u8,
    },
}

impl Frame {
    /// What it is, on the wire.
    pub fn kind(&self) -> u8 {
        let kind = match self {
            Frame::Challenge(_) => Kind::Challenge,
            Frame::Hello(_) => Kind::Hello,
            Frame::Welcome(_) => Kind::Welcome,
            Frame::Join { .. } => Kind::Join,
            Frame::Leave { .. } => Kind::Leave,
            Frame::Lookup { .. } => Kind::Lookup,
            Frame::Send { .. } => Kind::Send,
            Frame::Broadcast { .. } => Kind::Broadcast,
            Frame::Renew { .. } => Kind::Renew,
            Frame::Ping { .. } => Kind::Ping,
            Frame::Joined { .. } => Kind::Joined,
            Frame::PeerJoined { .. } => Kind::PeerJoined,
            Frame::PeerLeft { .. } => Kind::PeerLeft,
            Frame::Peers { .. } => Kind::Peers,
            Frame::Deliver { .. } => Kind::Deliver,
            Frame::Undeliverable { .. } => Kind::Undeliverable,
            Frame::Gap { .. } => Kind::Gap,
            Frame::Notice(_) => Kind::Notice,
            Frame::Drain { .. } => Kind::Drain,
            Frame::Pong { .. } => Kind::Pong,
            Frame::JoinRefused { .. } => Kind::JoinRefused,
            Frame::Unknown { kind } => return *kind,
        };
        kind.number()
    }
}
