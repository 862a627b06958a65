//! Pairs of peers that keep a window of frames in flight.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use culvert_wire::limits::HEADER_LEN;
use culvert_wire::{Class, ConnId, Frame, Handle, Kind, TopicId};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::peer::{Peer, message};
use crate::relay::Relay;

/// A receiver acknowledges this many data frames with one of its own.
const ACKNOWLEDGED_AT_ONCE: usize = 16;
/// More than a whole window of small frames, so that one read takes all that waits.
const BUFFER: usize = 64 << 10;

/// What to send.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Payload bytes of a data frame.
    pub(crate) payload: usize,
    /// Pairs of a sender and a receiver.
    pub(crate) pairs: usize,
    /// Frames that each pair keeps in flight.
    pub(crate) window: usize,
}

/// Pairs at work; dropping it ends them.
pub(crate) struct Running {
    counts: Rc<Counts>,
    tasks: JoinSet<Result<()>>,
}

#[derive(Default)]
struct Counts {
    delivered: Cell<u64>,
    undelivered: Cell<u64>,
}

impl Load {
    /// Connects every pair and starts it. Only within a [`tokio::task::LocalSet`].
    pub(crate) async fn start(self, relay: &Relay) -> Result<Running> {
        self.start_across(relay, relay).await
    }

    /// The same with all senders on one relay and all receivers on another.
    pub(crate) async fn start_across(self, from: &Relay, to: &Relay) -> Result<Running> {
        ensure!(self.window >= ACKNOWLEDGED_AT_ONCE, "a window below {ACKNOWLEDGED_AT_ONCE} never moves");
        let counts = Rc::new(Counts::default());
        let mut pairs = Vec::with_capacity(self.pairs);
        for _ in 0..self.pairs {
            pairs.push(connect(from, to, self.payload, self.window).await?);
        }
        let mut tasks = JoinSet::new();
        for (sender, receiver) in pairs {
            tasks.spawn_local(send(sender, self.window, counts.clone()));
            tasks.spawn_local(receive(receiver, counts.clone()));
        }
        Ok(Running { counts, tasks })
    }

    /// The same at a fixed rate for all pairs together, without acknowledgements.
    pub(crate) async fn start_paced(self, from: &Relay, to: &Relay, rate: usize) -> Result<Running> {
        let counts = Rc::new(Counts::default());
        let (mut senders, mut tasks) = (Vec::new(), JoinSet::new());
        for _ in 0..self.pairs {
            let (sender, receiver) = connect(from, to, self.payload, self.window).await?;
            senders.push(sender);
            tasks.spawn_local(count(receiver, counts.clone()));
        }
        tasks.spawn_local(pace(senders, rate));
        Ok(Running { counts, tasks })
    }
}

/// A sender and a receiver in a topic of their own.
pub(crate) async fn connect(from: &Relay, to: &Relay, payload: usize, window: usize) -> Result<(End, End)> {
    let mut sender = Peer::connect(from, BUFFER).await?;
    let mut receiver = Peer::connect(to, BUFFER).await?;
    let mut topic = TopicId([0; 32]);
    topic.0[..8].copy_from_slice(&sender.conn.0.to_be_bytes());
    // Topic ids are hashes in real life.
    topic.0.rotate_left(7);
    let handle = sender.join(topic).await?;
    let answer = receiver.join(topic).await?;
    let data = send_frame(handle, receiver.conn, payload)?;
    let acknowledgement = send_frame(answer, sender.conn, 4)?;
    Ok((
        End { peer: sender, batch: data.repeat(window), message: data.len(), payload },
        End {
            peer: receiver,
            batch: acknowledgement.repeat(window / ACKNOWLEDGED_AT_ONCE + 1),
            message: acknowledgement.len(),
            payload: 4,
        },
    ))
}

/// One side of a pair, with its messages put together in advance.
pub(crate) struct End {
    pub(crate) peer: Peer,
    pub(crate) batch: Vec<u8>,
    message: usize,
    payload: usize,
}

impl End {
    pub(crate) async fn send(&mut self, count: usize) -> Result<()> {
        self.peer.socket.write_all(&self.batch[..count * self.message]).await?;
        Ok(self.peer.socket.flush().await?)
    }

    /// Sends one frame whose payload begins with this number.
    pub(crate) async fn send_stamped(&mut self, stamp: u64) -> Result<()> {
        let begin = self.message - self.payload;
        self.batch[begin..begin + 8].copy_from_slice(&stamp.to_be_bytes());
        self.send(1).await
    }

    /// Waits for frames, and gives the numbers with which their payloads begin.
    pub(crate) async fn received_stamps(&mut self) -> Result<Vec<u64>> {
        self.peer.inbox.fill(&mut *self.peer.socket).await?;
        let mut stamps = Vec::new();
        while let Some(message) = self.peer.inbox.next()? {
            if message.first().copied().and_then(Kind::from_number) == Some(Kind::Deliver) {
                let stamp = message.get(HEADER_LEN..).and_then(|payload| payload.first_chunk());
                stamps.push(u64::from_be_bytes(*stamp.context("a frame without a number")?));
            }
        }
        Ok(stamps)
    }

    /// Waits for frames, and gives how many were delivered and how many of its own were not.
    pub(crate) async fn received(&mut self) -> Result<(usize, usize)> {
        self.peer.inbox.fill(&mut *self.peer.socket).await?;
        let (mut delivered, mut undelivered) = (0, 0);
        while let Some(message) = self.peer.inbox.next()? {
            match message.first().copied().and_then(Kind::from_number) {
                Some(Kind::Deliver) => delivered += 1,
                Some(Kind::Undeliverable) => {
                    let count = message.last_chunk::<4>().map_or(0, |count| u32::from_be_bytes(*count));
                    undelivered += usize::try_from(count)?;
                }
                _ => {}
            }
        }
        Ok((delivered, undelivered))
    }
}

fn send_frame(handle: Handle, to: ConnId, payload: usize) -> Result<Vec<u8>> {
    message(&Frame::Send { class: Class::Normal, handle, to, payload: vec![0x5a; payload].into() })
}

async fn send(mut end: End, window: usize, counts: Rc<Counts>) -> Result<()> {
    let mut in_flight = 0;
    loop {
        if in_flight < window {
            end.send(window - in_flight).await?;
            in_flight = window;
        }
        let (acknowledgements, undelivered) = end.received().await?;
        counts.undelivered.set(counts.undelivered.get() + undelivered as u64);
        in_flight -= (acknowledgements * ACKNOWLEDGED_AT_ONCE + undelivered).min(in_flight);
    }
}

/// Every millisecond, each of the senders sends its share.
async fn pace(mut senders: Vec<End>, rate: usize) -> Result<()> {
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let mut sent = 0;
    loop {
        ticks.tick().await;
        let due = usize::try_from(began.elapsed().as_micros())? * rate / 1_000_000;
        // A sender at a time, so that a late tick does not become one large write.
        while sent < due {
            let next = sent % senders.len();
            senders[next].send(1).await?;
            sent += 1;
        }
    }
}

/// Counts what arrives.
async fn count(mut end: End, counts: Rc<Counts>) -> Result<()> {
    loop {
        let (delivered, _) = end.received().await?;
        counts.delivered.set(counts.delivered.get() + delivered as u64);
    }
}

async fn receive(mut end: End, counts: Rc<Counts>) -> Result<()> {
    let mut unacknowledged = 0;
    loop {
        let (delivered, _) = end.received().await?;
        counts.delivered.set(counts.delivered.get() + delivered as u64);
        unacknowledged += delivered;
        if unacknowledged >= ACKNOWLEDGED_AT_ONCE {
            end.send(unacknowledged / ACKNOWLEDGED_AT_ONCE).await?;
            unacknowledged %= ACKNOWLEDGED_AT_ONCE;
        }
    }
}

impl Running {
    /// Data frames that arrived so far.
    pub(crate) fn delivered(&self) -> u64 {
        self.counts.delivered.get()
    }

    /// Data frames that the relay reported as undelivered so far.
    pub(crate) fn undelivered(&self) -> u64 {
        self.counts.undelivered.get()
    }

    /// Fails with the error of a pair that ended.
    pub(crate) fn check(mut self) -> Result<()> {
        match self.tasks.try_join_next() {
            Some(ended) => ended?,
            None => Ok(()),
        }
    }
}
