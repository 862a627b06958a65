//! What runs between an application's halves of a conversation and the task that drives it.
//!
//! Both directions are bounded in bytes: a sender waits for credit before it queues, and the driver
//! stops reading a session whose receiver has not taken what it was given. Everything else a session
//! does follows from that, so memory stays bounded end to end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use culvert_session::{Counters, SessionId};
use culvert_wire::PeerId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::connection::RelayConnection;
use crate::transport::{Connection, PeerInfo};

/// Bytes of one lane that may be queued before the session, on top of the session's own buffer.
pub(crate) const SEND_CREDIT: usize = 256 * 1024;
/// Bytes of one lane that may wait for the application to take them.
const RECEIVE_CREDIT: usize = 256 * 1024;
/// What a message costs besides its bytes, so that endless empty messages are bounded too.
pub(crate) const OVERHEAD: usize = 64;

/// The two ordered flows of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Messages,
    Bulk,
}

impl Lane {
    pub(crate) const ALL: [Lane; 2] = [Lane::Messages, Lane::Bulk];

    pub(crate) fn index(self) -> usize {
        match self {
            Lane::Messages => 0,
            Lane::Bulk => 1,
        }
    }
}

/// What halves and transports ask of the driver.
pub(crate) enum Command {
    /// A message, with the credit that goes back when the session has taken it.
    Send { session: SessionId, lane: Lane, message: Bytes, credit: OwnedSemaphorePermit },
    /// A lane that was full has room again.
    Consumed { session: SessionId },
    /// Deliver, then end the conversation. Also what dropping all halves does.
    Close { session: SessionId },
    /// Where new conversations go.
    Accept(Accept),
    /// Who is in the topic.
    Lookup(oneshot::Sender<Vec<PeerInfo>>),
}

/// Where new conversations go.
pub(crate) enum Accept {
    Relay(mpsc::Sender<RelayConnection>),
    Boxed(mpsc::Sender<Box<dyn Connection>>),
}

impl Accept {
    /// Waits until the application takes no more. Cancel safe.
    pub(crate) async fn closed(&self) {
        match self {
            Accept::Relay(sender) => sender.closed().await,
            Accept::Boxed(sender) => sender.closed().await,
        }
    }

    /// Waits until there is room for one more; false when nobody is left to take it. Cancel safe.
    pub(crate) async fn room(&self) -> bool {
        match self {
            Accept::Relay(sender) => sender.reserve().await.is_ok(),
            Accept::Boxed(sender) => sender.reserve().await.is_ok(),
        }
    }

    /// Hands over as many as there is room for now.
    pub(crate) fn offer(&self, waiting: &mut VecDeque<RelayConnection>) {
        match self {
            Accept::Relay(sender) => {
                while let Ok(room) = sender.try_reserve() {
                    let Some(connection) = waiting.pop_front() else { break };
                    room.send(connection);
                }
            }
            Accept::Boxed(sender) => {
                while let Ok(room) = sender.try_reserve() {
                    let Some(connection) = waiting.pop_front() else { break };
                    room.send(Box::new(connection));
                }
            }
        }
    }
}

/// How a conversation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Here,
    ByPeer,
    PeerGone(String),
    Relay(String),
}

/// What the driver tells the halves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    /// Per lane, how many of this side's messages the peer has.
    pub(crate) acknowledged: [u64; 2],
    pub(crate) ended: Option<End>,
}

/// What all halves of a conversation share. Dropping the last one closes the conversation.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) session: SessionId,
    pub(crate) peer: PeerId,
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) counters: Arc<Mutex<Counters>>,
    pub(crate) close_limit: std::time::Duration,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The driver may be gone already; then there is nothing to close.
        let _ = self.commands.send(Command::Close { session: self.session });
    }
}

/// One lane on its way to the application: the driver's end.
pub(crate) struct Incoming {
    /// Absent once the session has nothing more to give.
    sender: Option<mpsc::UnboundedSender<Bytes>>,
    gauge: Arc<Gauge>,
}

/// The application's end of an [`Incoming`].
#[derive(Debug)]
pub(crate) struct Outlet {
    receiver: mpsc::UnboundedReceiver<Bytes>,
    gauge: Arc<Gauge>,
}

#[derive(Debug, Default)]
struct Gauge {
    waiting: AtomicUsize,
    stalled: AtomicBool,
}

pub(crate) fn incoming() -> (Incoming, Outlet) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let gauge = Arc::new(Gauge::default());
    (Incoming { sender: Some(sender), gauge: Arc::clone(&gauge) }, Outlet { receiver, gauge })
}

impl Incoming {
    /// Whether one more message may be handed over. If not, `Consumed` follows when it may.
    pub(crate) fn has_room(&self) -> bool {
        let has_room = || self.gauge.waiting.load(Ordering::SeqCst) < RECEIVE_CREDIT;
        if has_room() {
            return true;
        }
        self.gauge.stalled.store(true, Ordering::SeqCst);
        // The application may have taken the last message just before it could see the mark.
        has_room()
    }

    /// Hands a message over. Where the application has dropped its half, nobody wants it any more.
    pub(crate) fn push(&self, message: Bytes) {
        let Some(sender) = &self.sender else { return };
        let cost = message.len() + OVERHEAD;
        self.gauge.waiting.fetch_add(cost, Ordering::SeqCst);
        if sender.send(message).is_err() {
            self.gauge.waiting.fetch_sub(cost, Ordering::SeqCst);
        }
    }

    /// Nothing more comes.
    pub(crate) fn finish(&mut self) {
        self.sender = None;
    }
}

impl Outlet {
    /// The next message; `None` after the last. The flag says whether the driver waits for `Consumed`.
    pub(crate) async fn next(&mut self) -> Option<(Bytes, bool)> {
        let message = self.receiver.recv().await?;
        let cost = message.len() + OVERHEAD;
        let left = self.gauge.waiting.fetch_sub(cost, Ordering::SeqCst).saturating_sub(cost);
        let resume = left < RECEIVE_CREDIT / 2 && self.gauge.stalled.swap(false, Ordering::SeqCst);
        Some((message, resume))
    }
}

/// Credit for one lane's sender.
pub(crate) fn send_credit() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(SEND_CREDIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lane_that_nobody_reads_takes_a_bounded_number_of_bytes() {
        let (incoming, mut outlet) = incoming();
        let message = Bytes::from(vec![0; 1000]);
        let mut pushed = 0;
        while incoming.has_room() {
            incoming.push(message.clone());
            pushed += 1;
        }
        assert!(pushed * 1000 <= RECEIVE_CREDIT + 1000, "{pushed}");
        let mut resumed = false;
        while !resumed {
            resumed = outlet.next().await.unwrap().1;
        }
        assert!(incoming.has_room(), "room again once half was taken");
        while outlet.receiver.try_recv().is_ok() {}
        let empty = Bytes::new();
        let (incoming, _outlet) = super::incoming();
        let mut pushed = 0;
        while incoming.has_room() {
            incoming.push(empty.clone());
            pushed += 1;
        }
        assert!(pushed <= RECEIVE_CREDIT / OVERHEAD, "empty messages are bounded too");
    }
}
