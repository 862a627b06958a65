//! One conversation, as the application holds it: [`RelayConnection`] and its two halves.
//!
//! A conversation has two lanes, each of them in order and exactly once: messages that people wait for,
//! and bulk for files, which yields to them. [`RelayConnection`] itself is the first lane;
//! [`RelayConnection::take_bulk`] gives the second.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use culvert_wire::PeerId;
use tokio::sync::Semaphore;

use super::channel::{Command, End, Lane, OVERHEAD, Outlet, SEND_CREDIT, Shared, Status};
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
    /// The relay does not let this peer back in, or the transport was dropped.
    #[error("there is no way to the peer any more: {reason}{unacknowledged}")]
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
    /// Message bytes given to `send`, both lanes.
    pub bytes_sent: u64,
    /// Message bytes that `receive` gave, both lanes.
    pub bytes_received: u64,
    /// Message bytes that had to be sent again.
    pub bytes_retransmitted: u64,
    /// How often the way to the peer changed.
    pub path_changes: u64,
    /// Smoothed round-trip time to the peer, if there was one yet.
    pub round_trip: Option<Duration>,
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
    shared: Arc<Shared>,
    lane: Lane,
    credit: Arc<Semaphore>,
    /// Number of the next message.
    next: u64,
}

/// The receiving half of one lane.
#[derive(Debug)]
pub struct ReceiveHalf {
    shared: Arc<Shared>,
    outlet: Outlet,
}

impl RelayConnection {
    /// Puts the application's side together; both arrays are in the order of [`Lane::ALL`].
    pub(crate) fn new(shared: Shared, credit: [Arc<Semaphore>; 2], outlets: [Outlet; 2]) -> Self {
        let name = shared.peer.to_string();
        let shared = Arc::new(shared);
        let halves = |lane, credit, outlet| {
            let send = SendHalf { shared: Arc::clone(&shared), lane, credit, next: 0 };
            (send, ReceiveHalf { shared: Arc::clone(&shared), outlet })
        };
        let ([credit, bulk_credit], [outlet, bulk_outlet]) = (credit, outlets);
        let (send, receive) = halves(Lane::Messages, credit, outlet);
        Self { name, send, receive, bulk: Some(halves(Lane::Bulk, bulk_credit, bulk_outlet)) }
    }

    /// The peer's key, proven by the handshake.
    pub fn peer(&self) -> PeerId {
        self.send.peer()
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

    /// Both halves of the first lane, for use in different tasks. The conversation is closed when the
    /// last of all its halves is dropped.
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
        self.shared.peer
    }

    /// Queues one message and gives its number, counted from 0 in this lane. Returns when the message is
    /// inside the window: a receiver that stops consuming stops the sender. Cancel safe: a cancelled
    /// send has queued nothing.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn send(&mut self, message: Bytes) -> Result<u64, ConnectionError> {
        let len = message.len();
        if len > MAX_MESSAGE {
            return Err(ConnectionError::TooLong { len });
        }
        let cost = u32::try_from((len + OVERHEAD).min(SEND_CREDIT)).unwrap_or(u32::MAX);
        let Ok(credit) = Arc::clone(&self.credit).acquire_many_owned(cost).await else {
            return Err(self.ended());
        };
        let command = Command::Send { session: self.shared.session, lane: self.lane, message, credit };
        if self.shared.commands.send(command).is_err() {
            return Err(self.ended());
        }
        self.shared.bytes_sent.fetch_add(len as u64, Ordering::Relaxed);
        self.next += 1;
        Ok(self.next - 1)
    }

    /// Waits until the peer has acknowledged every message of this lane. Cancel safe.
    ///
    /// # Errors
    /// The conversation ended first; the error says what was not acknowledged.
    pub async fn flush(&mut self) -> Result<(), ConnectionError> {
        let (lane, next) = (self.lane.index(), self.next);
        let mut status = self.shared.status.clone();
        let settled = |status: &Status| status.acknowledged[lane] >= next || status.ended.is_some();
        // An error means that the driver is gone, which `is_acknowledged` tells apart.
        drop(status.wait_for(settled).await);
        if self.is_acknowledged() { Ok(()) } else { Err(self.ended()) }
    }

    /// Delivers both lanes, then ends the conversation.
    ///
    /// # Errors
    /// Something could not be delivered within the transport's time-out.
    pub async fn close(&mut self) -> Result<(), ConnectionError> {
        // The driver being gone shows itself below.
        drop(self.shared.commands.send(Command::Close { session: self.shared.session }));
        let mut status = self.shared.status.clone();
        let ended = status.wait_for(|status| status.ended.is_some());
        let in_time = tokio::time::timeout(self.shared.close_limit, ended).await.is_ok();
        if self.is_acknowledged() {
            return Ok(());
        }
        if in_time {
            Err(self.ended())
        } else {
            Err(ConnectionError::TimedOut { unacknowledged: self.unacknowledged() })
        }
    }

    /// What the conversation has done so far, both lanes of it.
    pub fn stats(&self) -> ConnectionStats {
        let counters = *self.shared.counters.lock().unwrap_or_else(PoisonError::into_inner);
        ConnectionStats {
            bytes_sent: self.shared.bytes_sent.load(Ordering::Relaxed),
            bytes_received: self.shared.bytes_received.load(Ordering::Relaxed),
            bytes_retransmitted: counters.bytes_retransmitted,
            path_changes: counters.path_changes,
            round_trip: (!counters.rtt.is_zero()).then_some(counters.rtt),
        }
    }

    fn is_acknowledged(&self) -> bool {
        self.unacknowledged().messages.is_empty()
    }

    fn unacknowledged(&self) -> Unacknowledged {
        let first = self.shared.status.borrow().acknowledged[self.lane.index()];
        Unacknowledged { messages: first.min(self.next)..self.next }
    }

    fn ended(&self) -> ConnectionError {
        self.shared.ended(self.unacknowledged())
    }
}

impl ReceiveHalf {
    /// The peer's key.
    pub fn peer(&self) -> PeerId {
        self.shared.peer
    }

    /// Waits for the next message of this lane; `None` when either side closed the conversation in
    /// good order. Cancel safe.
    ///
    /// # Errors
    /// The conversation ended in another way.
    pub async fn receive(&mut self) -> Result<Option<Bytes>, ConnectionError> {
        if let Some((message, resume)) = self.outlet.next().await {
            self.shared.bytes_received.fetch_add(message.len() as u64, Ordering::Relaxed);
            if resume {
                // The driver being gone shows itself at the next call.
                drop(self.shared.commands.send(Command::Consumed { session: self.shared.session }));
            }
            return Ok(Some(message));
        }
        match self.shared.ended(Unacknowledged::default()) {
            ConnectionError::ClosedHere { .. } | ConnectionError::ClosedByPeer { .. } => Ok(None),
            error => Err(error),
        }
    }
}

impl Shared {
    fn ended(&self, unacknowledged: Unacknowledged) -> ConnectionError {
        match self.status.borrow().ended.clone() {
            Some(End::Here) => ConnectionError::ClosedHere { unacknowledged },
            Some(End::ByPeer) => ConnectionError::ClosedByPeer { unacknowledged },
            Some(End::PeerGone(reason)) => ConnectionError::PeerGone { reason, unacknowledged },
            Some(End::Relay(reason)) => ConnectionError::Relay { reason, unacknowledged },
            None => {
                let reason = "the transport was dropped".to_owned();
                ConnectionError::Relay { reason, unacknowledged }
            }
        }
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
