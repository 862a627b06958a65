//! Numbered messages in one conversation, from its first peer to its second.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use culvert_client::{ConnectionError, ReceiveHalf, RelayConnection, SendHalf};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use super::{Due, LAST, Pace, Pair, SMALLEST, Scene};
use crate::frames::nanos;
use crate::ledger::{Account, Arrival, End};
use crate::measure::{Count, Series};
use crate::stage::Phase;

/// A silence that is longer than the interval by so much is recorded as a pause.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for what a peer acknowledged to be given to its application, when the conversation ended.
const DRAINED: Duration = Duration::from_secs(10);

/// One conversation and its account.
pub(super) struct Conversation<'a> {
    scene: &'a Scene,
    name: String,
    number: u64,
    account: RefCell<Account>,
    /// Room in the window.
    window: Semaphore,
    /// Everything below this number is still to be waited for, once it is known.
    until: Cell<Option<u64>>,
    until_known: Notify,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(scene: &'a Scene, pair: &Pair) -> Self {
        let window = match scene.load.pace {
            Pace::Window(window) => window,
            Pace::Rate(_) => 0,
        };
        Self {
            scene,
            name: pair.name(),
            number: pair.number() as u64,
            account: RefCell::default(),
            window: Semaphore::new(window),
            until: Cell::default(),
            until_known: Notify::new(),
        }
    }

    /// Sends until the end, waits for what is on the way, and enters it all into the ledger.
    ///
    /// # Errors
    /// The conversation broke before the end; the ledger has what it carried.
    pub(super) async fn hold(&self, ends: [RelayConnection; 2], spread: f64) -> Result<(), ConnectionError> {
        let [first, second] = ends;
        let ((mut sender, _unread), (_unused, mut receiver)) = (first.split(), second.split());
        let (end, result) = self.both(&mut sender, &mut receiver, spread).await;
        let (scene, stats) = (self.scene, sender.stats());
        let balance = self.account.borrow().close(&end);
        scene.ledger.borrow_mut().enter(&self.name, &balance, &scene.recorder);
        scene.moves.set(scene.moves.get() + stats.path_changes);
        scene.retransmitted.set(scene.retransmitted.get() + stats.bytes_retransmitted);
        result
    }

    async fn both(
        &self,
        sender: &mut SendHalf,
        receiver: &mut ReceiveHalf,
        spread: f64,
    ) -> (End, Result<(), ConnectionError>) {
        let mut receiving = std::pin::pin!(self.receive(receiver));
        let received = {
            let mut sending = std::pin::pin!(self.send(sender, spread));
            tokio::select! {
                sent = &mut sending => Err(sent),
                received = &mut receiving => Ok(received),
            }
        };
        let sent = match received {
            Err(sent) => sent,
            // The receiver knows that it is over; what it acknowledged the sender is about to learn.
            Ok(received) => {
                let closed = sender.close().await;
                let end =
                    closed.as_ref().map_or_else(|error| End::Unacknowledged(named(error)), |()| End::Settled);
                return (end, closed.and(received));
            }
        };
        let (until, deadline, end) = match &sent {
            Ok(()) => (self.account.borrow().sent(), LAST, End::Settled),
            Err(error) => (named(error).start, DRAINED, End::Unacknowledged(named(error))),
        };
        self.until.set(Some(until));
        self.until_known.notify_one();
        // What has not come by then is missing in the ledger.
        drop(timeout(deadline, receiving).await);
        (end, sent)
    }

    /// Sends until the end of the load or of the conversation, and waits until everything was acknowledged.
    async fn send(&self, half: &mut SendHalf, spread: f64) -> Result<(), ConnectionError> {
        let scene = self.scene;
        let mut due = Due::new(scene.load.pace.interval(), spread);
        let mut over = std::pin::pin!(async {
            tokio::select! {
                () = scene.reached(Phase::Over) => {}
                () = scene.lives.end(scene.load.stay) => {}
            }
        });
        loop {
            let at = tokio::select! {
                biased;
                () = &mut over => break,
                at = self.turn(&mut due) => at,
            };
            // Entered first, because it may arrive before this task goes on.
            let number = self.account.borrow_mut().send(scene.nanos());
            let size = scene.load.size(number);
            let sent = tokio::select! {
                sent = half.send(message(self.number, number, at, size)) => sent.map(|_| true),
                // A cancelled send has queued nothing.
                () = &mut over => Ok(false),
            };
            if !matches!(sent, Ok(true)) {
                self.account.borrow_mut().withdraw();
            }
            if !sent? {
                break;
            }
            scene.recorder.add(Count::Sent, 1);
            scene.recorder.add(Count::SentBytes, size as u64);
        }
        match timeout(LAST, half.flush()).await {
            Ok(flushed) => flushed,
            // Says what was not acknowledged.
            Err(_) => half.close().await,
        }
    }

    /// Waits until the next message may be sent; the moment at which it was due.
    async fn turn(&self, due: &mut Due) -> u64 {
        match self.scene.load.pace {
            Pace::Rate(_) => {
                let at = due.next().await;
                nanos(at.saturating_duration_since(self.scene.epoch))
            }
            Pace::Window(_) => {
                if let Ok(room) = self.window.acquire().await {
                    room.forget();
                }
                self.scene.nanos()
            }
        }
    }

    /// Takes messages until everything that is to be waited for has come.
    async fn receive(&self, half: &mut ReceiveHalf) -> Result<(), ConnectionError> {
        let (recorder, interval) = (&self.scene.recorder, self.scene.load.pace.interval());
        let mut last: Option<Instant> = None;
        let mut next = 0;
        loop {
            if self.until.get().is_some_and(|until| next >= until) {
                return Ok(());
            }
            let message = tokio::select! {
                message = half.receive() => message?,
                () = self.until_known.notified() => continue,
            };
            let Some(mut message) = message else { return Ok(()) };
            let size = message.len() as u64;
            let (pair, number, at) = match message.len() {
                SMALLEST.. => (message.get_u64(), message.get_u64(), message.get_u64()),
                _ => (u64::MAX, u64::MAX, 0),
            };
            // A message of another pair has a number that nobody has sent here.
            let number = if pair == self.number { number } else { u64::MAX };
            let arrival = self.account.borrow_mut().arrive(number);
            match arrival {
                Arrival::InOrder => {
                    next = number + 1;
                    recorder.add(Count::Delivered, 1);
                    recorder.add(Count::DeliveredBytes, size);
                    recorder.record(Series::OneWay, self.scene.nanos().saturating_sub(at));
                }
                Arrival::Reordered => recorder.add(Count::Reordered, 1),
                Arrival::Doubled => recorder.add(Count::Duplicated, 1),
                Arrival::Foreign => {}
            }
            if matches!(self.scene.load.pace, Pace::Window(_)) {
                self.window.add_permits(1);
            }
            let now = Instant::now();
            if let Some(last) = last.replace(now) {
                let silence = (now - last).saturating_sub(interval);
                if silence > PAUSE {
                    recorder.record(Series::Pause, nanos(silence));
                }
            }
        }
    }
}

/// A message of this pair; the rest of it is empty.
fn message(pair: u64, number: u64, due: u64, size: usize) -> Bytes {
    let mut message = BytesMut::zeroed(size.max(SMALLEST));
    let mut head = &mut message[..SMALLEST];
    head.put_u64(pair);
    head.put_u64(number);
    head.put_u64(due);
    message.freeze()
}

/// What an error says that the peer did not acknowledge.
fn named(error: &ConnectionError) -> Range<u64> {
    match error {
        // Nothing of such a size is sent here.
        ConnectionError::TooLong { .. } => 0..0,
        ConnectionError::ClosedHere { unacknowledged }
        | ConnectionError::ClosedByPeer { unacknowledged }
        | ConnectionError::PeerGone { unacknowledged, .. }
        | ConnectionError::Relay { unacknowledged, .. }
        | ConnectionError::TimedOut { unacknowledged } => unacknowledged.messages.clone(),
    }
}
