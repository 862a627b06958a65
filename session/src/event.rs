//! What a session tells its driver, and how it ends.

use culvert_wire::{Class, PeerId};

use crate::{MessageNumber, PathId, StreamId};

/// Something happened; taken with [`Session::poll_event`](crate::Session::poll_event).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The handshake proved who the peer is. Nothing else flows until the application calls
    /// [`Session::authorize`](crate::Session::authorize).
    Authenticated {
        /// The peer's identity.
        peer: PeerId,
    },
    /// Both applications accepted: streams can be opened.
    Established,
    /// A stream has at least one whole message that was not there at the last
    /// [`Session::read`](crate::Session::read); also how a stream opened by the peer shows itself.
    Readable {
        /// The stream to read.
        stream: StreamId,
    },
    /// A stream that said `Blocked` takes messages again.
    Writable {
        /// The stream to send on.
        stream: StreamId,
    },
    /// The peer's session has these messages.
    Acked {
        /// The stream they were sent on.
        stream: StreamId,
        /// The last of them; every message up to and including it is acknowledged.
        up_to: MessageNumber,
    },
    /// The peer was heard on another path, which the session now uses.
    PathChanged {
        /// The path in use.
        path: PathId,
    },
    /// The session is over.
    Closed {
        /// Why.
        reason: CloseReason,
        /// What this end sent and the peer did not acknowledge, one run for each stream that has any.
        /// The peer may have part of it all the same; what is not named here, it has.
        unacknowledged: Vec<Unacknowledged>,
    },
}

/// Messages without an acknowledgement: all of one stream from the first that has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unacknowledged {
    /// The stream they were sent on.
    pub stream: StreamId,
    /// The first of the run.
    pub first: MessageNumber,
    /// The last of the run.
    pub last: MessageNumber,
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CloseReason {
    /// This end called [`Session::close`](crate::Session::close) and everything was acknowledged.
    #[error("the session was closed")]
    Done,
    /// The peer closed the session.
    #[error("the peer closed the session")]
    ByPeer,
    /// The application here did not accept the peer.
    #[error("the peer was not accepted")]
    Rejected,
    /// The application there did not accept this peer.
    #[error("the peer did not accept this identity; ask its owner to allow it")]
    RejectedByPeer,
    /// The handshake did not complete in time.
    #[error("the handshake was not completed in time{}", because(.0))]
    HandshakeTimeout(Option<HandshakeFault>),
    /// Nothing was heard from the peer for `peer_timeout`.
    #[error("the peer was silent for too long; it may be offline")]
    PeerTimeout,
    /// A graceful close did not complete in time.
    #[error("the peer did not acknowledge the end of the session in time")]
    CloseTimeout,
    /// The peer, authenticated, broke the protocol.
    #[error("the peer broke the session protocol: {0}")]
    Violation(#[from] Violation),
    /// The peer says that this end broke the protocol.
    #[error("the peer reports a protocol violation by this end; are both on the same version?")]
    ViolationReported,
    /// The driver ended the session with [`Session::fail`](crate::Session::fail).
    #[error(transparent)]
    Failed(#[from] Failure),
}

fn because(fault: &Option<HandshakeFault>) -> String {
    fault.map_or_else(
        || "; the peer may be offline or use another secret".to_owned(),
        |fault| format!(": {fault}"),
    )
}

/// Why the driver ends a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// Another incarnation of the peer appeared: the process that held this session is gone.
    #[error("the peer restarted and lost this session")]
    PeerRestarted,
    /// The way to the peer is closed for good, for example by a terminal close code.
    #[error("no way to the peer is left")]
    Unreachable,
    /// The application gave up.
    #[error("the session was abandoned")]
    Abandoned,
}

/// The last thing that was wrong with a handshake that never completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HandshakeFault {
    /// Somebody proved an identity, but not the expected one.
    #[error("another peer than the expected one answered")]
    WrongPeer,
    /// A message did not open: another topic secret, another topic, or tampering.
    #[error("a message could not be opened; do both peers use the same topic and secret?")]
    Undecryptable,
    /// The identity was not signed by its key.
    #[error("an identity was claimed without proof")]
    BadSignature,
}

/// What a peer must never do, so that doing it ends the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// A packet that opened holds frames that do not parse.
    #[error("malformed frame")]
    MalformedFrame,
    /// Application data before both sides accepted.
    #[error("data before acceptance")]
    EarlyData,
    /// An acknowledgement of a packet that was never sent.
    #[error("acknowledgement of an unsent packet")]
    UnsentAcknowledged,
    /// More data on a stream than it was given credit for.
    #[error("flow control exceeded")]
    FlowControl,
    /// A stream number it may not use.
    #[error("invalid stream")]
    InvalidStream,
    /// A message larger than this end announced.
    #[error("message too large")]
    MessageTooLarge,
}

/// What the driver heard from the carrier. Nobody vouches for it, so it may only speed things up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Hint {
    /// The receiver's queue was full, or a limit was reached: `full` and `limited`.
    Congested,
    /// Packets were or may be lost: `gone`, `unreachable`, `unknown`, `Gap`, a reconnect.
    Lost,
}

/// A datagram that [`Session::poll_transmit`](crate::Session::poll_transmit) wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// Where it goes.
    pub path: PathId,
    /// The relay's class for it.
    pub class: Class,
}

/// Why a message was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    /// The stream's buffer is full; wait for [`Event::Writable`].
    #[error("the send buffer is full; wait until the stream is writable")]
    Blocked,
    /// One of the two ends does not take messages of this size.
    #[error("the message is larger than the {limit} bytes that both ends allow")]
    TooLarge {
        /// The most that goes, in bytes.
        limit: usize,
    },
    /// No such stream.
    #[error("stream {0} is not open")]
    UnknownStream(StreamId),
    /// The session is not established yet, or is closing.
    #[error("the session does not take messages now")]
    NotOpen,
}

/// Why a stream was not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// The peer allows no more streams.
    #[error("the peer allows {limit} streams; use one that is open")]
    TooMany {
        /// How many it allows.
        limit: u16,
    },
    /// The session is not established yet, or is closing.
    #[error("the session does not take streams now")]
    NotOpen,
}
