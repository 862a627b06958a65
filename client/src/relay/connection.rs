//! One conversation, as the application holds it: [`RelayConnection`] and its two halves.
//!
//! A conversation has two lanes, each of them in order and exactly once: messages that people wait for,
//! and bulk for files, which yields to them. [`RelayConnection`] itself is the first lane;
//! [`RelayConnection::take_bulk`] gives the second.

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use culvert_wire::PeerId;

use crate::transport::Connection;

/// Longest message in bytes. Longer things are cut by whoever knows where.
pub const MAX_MESSAGE: usize = 1024 * 1024;

/// Why a conversation cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// Larger than [`MAX_MESSAGE`].
    #[error("a message of {len} bytes is longer than {MAX_MESSAGE}; cut it")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// This side closed it before.
    #[error("the conversation was closed here{unacknowledged}")]
    ClosedHere {
        /// What the peer may not have got.
        unacknowledged: Unacknowledged,
    },
    /// The peer closed it.
    #[error("the peer closed the conversation{unacknowledged}")]
    ClosedByPeer {
        /// What the peer may not have got.
        unacknowledged: Unacknowledged,
    },
    /// The peer was not heard of for too long, or came back without its keys: a new process.
    #[error("the peer is gone: {reason}{unacknowledged}")]
    PeerGone {
        /// How that became known.
        reason: String,
        /// What the peer may not have got.
        unacknowledged: Unacknowledged,
    },
    /// The relay does not let this peer back in.
    #[error("the relay ended the connection: {reason}{unacknowledged}")]
    Relay {
        /// The relay's sentence.
        reason: String,
        /// What the peer may not have got.
        unacknowledged: Unacknowledged,
    },
    /// Not everything arrived within the transport's time-out.
    #[error("not everything arrived in time{unacknowledged}")]
    TimedOut {
        /// What the peer may not have got.
        unacknowledged: Unacknowledged,
    },
}

/// Messages of one lane, by their numbers, that the peer did not acknowledge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unacknowledged {
    /// Numbers as [`SendHalf::send`] gave them.
    pub messages: Range<u64>,
}

impl fmt::Display for Unacknowledged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.messages.end.saturating_sub(self.messages.start) {
            0 => Ok(()),
            1 => write!(f, "; message {} was not acknowledged", self.messages.start),
            _ => write!(
                f,
                "; messages {} to {} were not acknowledged",
                self.messages.start,
                self.messages.end - 1
            ),
        }
    }
}

/// What a conversation has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// Message bytes given to `send`.
    pub bytes_sent: u64,
    /// Message bytes that `receive` gave.
    pub bytes_received: u64,
    /// Packets sent again.
    pub retransmitted: u64,
    /// How often the way to the peer changed.
    pub path_changes: u64,
    /// Smoothed round-trip time to the peer, if there was one yet.
    pub round_trip: Option<std::time::Duration>,
}

/// A conversation with one peer through a relay. See [`Connection`] for what it promises.
#[derive(Debug)]
pub struct RelayConnection {
    name: String,
    send: SendHalf,
    receive: ReceiveHalf,
    bulk: Option<(SendHalf, ReceiveHalf)>,
}

/// The sending half of one lane.
#[derive(Debug)]
pub struct SendHalf {
    peer: PeerId,
}

/// The receiving half of one lane.
#[derive(Debug)]
pub struct ReceiveHalf {
    peer: PeerId,
}

impl RelayConnection {
    /// The peer's key, proven by the handshake.
    pub fn peer(&self) -> PeerId {
        self.send.peer
    }

    /// Queues one message and gives its number. See [`SendHalf::send`].
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn send_bytes(&mut self, message: Bytes) -> Result<u64, ConnectionError> {
        self.send.send(message).await
    }

    /// Waits for the next message. See [`ReceiveHalf::receive`].
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn receive_bytes(&mut self) -> Result<Option<Bytes>, ConnectionError> {
        self.receive.receive().await
    }

    /// The lane for files, once; it yields to the messages of this connection.
    pub fn take_bulk(&mut self) -> Option<(SendHalf, ReceiveHalf)> {
        self.bulk.take()
    }

    /// Both halves of the first lane, for use in different tasks. What is left of the conversation
    /// ends when all halves are dropped.
    pub fn split(self) -> (SendHalf, ReceiveHalf) {
        (self.send, self.receive)
    }

    /// What the conversation has done so far.
    pub fn stats(&self) -> ConnectionStats {
        self.send.stats()
    }
}

impl SendHalf {
    /// The peer's key.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Queues one message and gives its number, counted from 0 in this lane. Returns when the message is
    /// inside the window: a receiver that stops consuming stops the sender. Cancel safe: a cancelled
    /// send has queued nothing.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn send(&mut self, message: Bytes) -> Result<u64, ConnectionError> {
        let len = message.len();
        if len > MAX_MESSAGE { Err(ConnectionError::TooLong { len }) } else { self.queue(message).await }
    }

    /// Waits until the peer has acknowledged every message of this lane. Cancel safe.
    ///
    /// # Errors
    /// The conversation ended first; the error says what was not acknowledged.
    pub async fn flush(&mut self) -> Result<(), ConnectionError> {
        Err(ConnectionError::ClosedHere { unacknowledged: Unacknowledged::default() })
    }

    /// Flushes, then ends the conversation, both lanes of it.
    ///
    /// # Errors
    /// Something could not be delivered within the transport's time-out.
    pub async fn close(&mut self) -> Result<(), ConnectionError> {
        self.flush().await
    }

    /// What the conversation has done so far, both lanes of it.
    pub fn stats(&self) -> ConnectionStats {
        ConnectionStats::default()
    }

    async fn queue(&mut self, _message: Bytes) -> Result<u64, ConnectionError> {
        Err(ConnectionError::ClosedHere { unacknowledged: Unacknowledged::default() })
    }
}

impl ReceiveHalf {
    /// The peer's key.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Waits for the next message of this lane; `None` when the peer closed the conversation. Cancel safe.
    ///
    /// # Errors
    /// The conversation ended in another way than by the peer's `close`.
    pub async fn receive(&mut self) -> Result<Option<Bytes>, ConnectionError> {
        Ok(None)
    }
}

#[async_trait]
impl Connection for RelayConnection {
    async fn send(&mut self, data: &[u8]) -> anyhow::Result<()> {
        self.send.send(Bytes::copy_from_slice(data)).await?;
        Ok(())
    }

    async fn receive(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        Ok(self.receive.receive().await?.map(Vec::from))
    }

    async fn close(&mut self) -> anyhow::Result<()> {
        Ok(self.send.close().await?)
    }

    fn peer_id(&self) -> &str {
        &self.name
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.send.flush().await?)
    }
}
