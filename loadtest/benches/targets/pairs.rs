//! Pairs of peers that keep a window of frames in flight.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use culvert_loadtest::frames::{Dialer, Inbox, LARGE_BUFFER, Link, Peer, message};
use culvert_wire::limits::HEADER_LEN;
use culvert_wire::{Class, ConnId, Frame, Handle, Kind as FrameKind, TopicId};
use tokio::task::JoinSet;

use crate::middle::{Kind, Middle};

/// A receiver acknowledges this many data frames with one of its own.
const ACKNOWLEDGED_AT_ONCE: usize = 16;
/// Payload bytes of an acknowledgement.
const ACKNOWLEDGEMENT: usize = 4;

/// What to send.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Payload bytes of a data frame.
    pub(crate) payload: usize,
    /// Pairs of a sender and a receiver.
    pub(crate) pairs: usize,
    /// Frames that each pair keeps in flight.
    pub(crate) window: usize,
    /// How urgent the data frames are.
    pub(crate) class: Class,
    /// Whether the load never sleeps, as if its core were another machine's; not beside other processes.
    pub(crate) awake: bool,
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

/// What a stretch of time measured.
#[derive(Clone, Copy)]
pub(crate) struct Stretch {
    /// Processor time of what is in the middle.
    pub(crate) cpu: Duration,
    /// Data frames that arrived.
    pub(crate) frames: u64,
    /// Data frames that a relay refused since the pairs began.
    pub(crate) undelivered: u64,
    /// How long it took.
    pub(crate) took: Duration,
}

impl Stretch {
    /// Microseconds of processor time for each frame.
    pub(crate) fn micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.frames as f64
    }

    /// Frames a second.
    pub(crate) fn rate(&self) -> f64 {
        self.frames as f64 / self.took.as_secs_f64()
    }

    /// Gigabytes of such payloads that a core would forward in a second.
    pub(crate) fn gigabytes(&self, payload: usize) -> f64 {
        payload as f64 / self.micros() / 1e3
    }

    /// The part of its core that was used, in percent.
    pub(crate) fn busy(&self) -> f64 {
        100.0 * self.cpu.as_secs_f64() / self.took.as_secs_f64()
    }
}

impl Load {
    /// Frames of this size, with the usual window.
    pub(crate) fn of(payload: usize, pairs: usize, window: usize) -> Self {
        Self { payload, pairs, window, class: Class::Normal, awake: true }
    }

    /// Connects every pair and starts it. Only within a [`tokio::task::LocalSet`].
    pub(crate) async fn start(self, middle: &Middle) -> Result<Running> {
        let mut pairs = Vec::with_capacity(self.pairs);
        for _ in 0..self.pairs {
            pairs.push(self.connect(middle).await?);
        }
        self.run(pairs)
    }

    /// The same with all senders on one relay and all receivers on another.
    pub(crate) async fn start_across(self, from: &Dialer, to: &Dialer) -> Result<Running> {
        let mut pairs = Vec::with_capacity(self.pairs);
        for _ in 0..self.pairs {
            pairs.push(connect(from, to, self, LARGE_BUFFER).await?);
        }
        self.run(pairs)
    }

    /// Keeps these pairs at work.
    pub(crate) fn run(self, pairs: Vec<(End, End)>) -> Result<Running> {
        ensure!(self.window >= ACKNOWLEDGED_AT_ONCE, "a window below {ACKNOWLEDGED_AT_ONCE} never moves");
        let counts = Rc::new(Counts::default());
        let mut tasks = JoinSet::new();
        if self.awake {
            tasks.spawn_local(stay_awake());
        }
        for (sender, receiver) in pairs {
            tasks.spawn_local(send(sender, self.window, counts.clone()));
            tasks.spawn_local(receive(receiver, counts.clone()));
        }
        Ok(Running { counts, tasks })
    }

    /// The pairs across two relays at a fixed rate for all together, without acknowledgements.
    pub(crate) async fn start_paced(self, from: &Dialer, to: &Dialer, rate: usize) -> Result<Running> {
        let counts = Rc::new(Counts::default());
        let (mut senders, mut tasks) = (Vec::new(), JoinSet::new());
        for _ in 0..self.pairs {
            let (sender, receiver) = connect(from, to, self, LARGE_BUFFER).await?;
            senders.push(sender);
            tasks.spawn_local(count(receiver, counts.clone()));
        }
        tasks.spawn_local(pace(senders, rate));
        Ok(Running { counts, tasks })
    }

    /// One pair through whatever is in the middle.
    pub(crate) async fn connect(self, middle: &Middle) -> Result<(End, End)> {
        if let Kind::Relay(_) = middle.kind() {
            return connect(middle.dialer()?, middle.dialer()?, self, LARGE_BUFFER).await;
        }
        let (sender, receiver) = middle.stitch().await?;
        let deliver = |payload| {
            message(&Frame::Deliver {
                class: self.class,
                broadcast: false,
                handle: Handle(1),
                from: ConnId::NONE,
                payload: vec![0x5a; payload].into(),
            })
        };
        let (data, acknowledgement) = (deliver(self.payload)?, deliver(ACKNOWLEDGEMENT)?);
        let bare = |link| (link, Inbox::new(LARGE_BUFFER));
        Ok(self.ends(bare(sender), bare(receiver), &as_server(&data), &as_server(&acknowledgement)))
    }

    /// The ends of two peers that are in the same topic, each by its own number.
    pub(crate) fn pair(
        self,
        sender: Peer,
        receiver: Peer,
        handle: Handle,
        answer: Handle,
    ) -> Result<(End, End)> {
        let data = send_frame(self.class, handle, receiver.conn, self.payload)?;
        let acknowledgement = send_frame(Class::Normal, answer, sender.conn, ACKNOWLEDGEMENT)?;
        let bare = |peer: Peer| (peer.link, peer.inbox);
        Ok(self.ends(bare(sender), bare(receiver), &data, &acknowledgement))
    }

    fn ends(self, sender: Bare, receiver: Bare, data: &[u8], acknowledgement: &[u8]) -> (End, End) {
        let sender = End::new(sender, data, self.window, self.payload);
        let acknowledgements = self.window / ACKNOWLEDGED_AT_ONCE + 1;
        (sender, End::new(receiver, acknowledgement, acknowledgements, ACKNOWLEDGEMENT))
    }
}

/// Keeps this thread from sleeping. What is measured shares no core with real clients and never has to wake
/// them up; here it would, through an interrupt to the load's core, as often as the load has nothing to do:
/// the costs of whatever keeps the load busy would look smaller than they are.
async fn stay_awake() -> Result<()> {
    loop {
        tokio::task::yield_now().await;
    }
}

/// A sender and a receiver in a topic of their own, who keep so many bytes for reading.
pub(crate) async fn connect(from: &Dialer, to: &Dialer, load: Load, buffer: usize) -> Result<(End, End)> {
    let mut sender = Peer::connect(from, 0, buffer).await?;
    let mut receiver = Peer::connect(to, 0, buffer).await?;
    let topic = topic(sender.conn.0);
    let (handle, _) = sender.join(topic).await?;
    let (answer, _) = receiver.join(topic).await?;
    load.pair(sender, receiver, handle, answer)
}

/// A topic for this number; ids are hashes in real life.
pub(crate) fn topic(number: u64) -> TopicId {
    let mut topic = TopicId([0; 32]);
    topic.0[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    topic.0[8..16].copy_from_slice(&number.to_be_bytes());
    topic
}

/// A `Send` with a payload of so many bytes, as a client's message.
pub(crate) fn send_frame(class: Class, handle: Handle, to: ConnId, payload: usize) -> Result<Vec<u8>> {
    message(&Frame::Send { class, handle, to, payload: vec![0x5a; payload].into() })
}

/// A client's message as a relay would send it: without the mask, which is zero here.
fn as_server(message: &[u8]) -> Vec<u8> {
    let head = if message[1] & 0x7f == 126 { 4 } else { 2 };
    let mut out = message[..head].to_vec();
    out[1] &= 0x7f;
    out.extend_from_slice(&message[head + 4..]);
    out
}

/// A connection, whoever is at its other end.
type Bare = (Link, Inbox);

/// One side of a pair, with its messages put together in advance.
pub(crate) struct End {
    link: Link,
    inbox: Inbox,
    batch: Vec<u8>,
    message: usize,
    payload: usize,
    /// After so many messages the first one has its turn again.
    turns: usize,
    next: usize,
}

impl End {
    fn new((link, inbox): Bare, message: &[u8], at_once: usize, payload: usize) -> Self {
        let batch = message.repeat(at_once);
        Self { link, inbox, batch, message: message.len(), payload, turns: 1, next: 0 }
    }

    /// Sends these messages in turns from now on, all of one length; at most `at_once` in a write.
    pub(crate) fn take_turns(&mut self, messages: &[Vec<u8>], at_once: usize) {
        self.turns = messages.len();
        self.batch = messages.iter().cycle().take(messages.len() + at_once).flatten().copied().collect();
    }

    /// Sends so many frames in one write.
    pub(crate) async fn send(&mut self, count: usize) -> Result<()> {
        let from = self.next * self.message;
        self.next = (self.next + count) % self.turns;
        Ok(self.link.write_all(&self.batch[from..from + count * self.message]).await?)
    }

    /// Sends one frame whose payload begins with this number.
    pub(crate) async fn send_stamped(&mut self, stamp: u64) -> Result<()> {
        let begin = self.message - self.payload;
        self.batch[begin..begin + 8].copy_from_slice(&stamp.to_be_bytes());
        Ok(self.link.write_all(&self.batch[..self.message]).await?)
    }

    /// Waits for frames, and gives the numbers with which their payloads begin.
    pub(crate) async fn received_stamps(&mut self) -> Result<Vec<u64>> {
        self.link.fill(&mut self.inbox).await?;
        let mut stamps = Vec::new();
        while let Some(message) = self.inbox.message()? {
            if kind(message) == Some(FrameKind::Deliver) {
                let stamp = message.get(HEADER_LEN..).and_then(|payload| payload.first_chunk());
                stamps.push(u64::from_be_bytes(*stamp.context("a frame without a number")?));
            }
        }
        Ok(stamps)
    }

    /// Waits for frames, and gives how many were delivered and how many of its own were not.
    pub(crate) async fn received(&mut self) -> Result<(usize, usize)> {
        self.link.fill(&mut self.inbox).await?;
        let (mut delivered, mut undelivered) = (0, 0);
        while let Some(message) = self.inbox.message()? {
            match kind(message) {
                Some(FrameKind::Deliver) => delivered += 1,
                Some(FrameKind::Undeliverable) => {
                    let count = message.last_chunk::<4>().map_or(0, |count| u32::from_be_bytes(*count));
                    undelivered += usize::try_from(count)?;
                }
                _ => {}
            }
        }
        Ok((delivered, undelivered))
    }
}

fn kind(message: &[u8]) -> Option<FrameKind> {
    message.first().copied().and_then(FrameKind::from_number)
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

impl Running {
    /// Data frames that arrived so far.
    pub(crate) fn delivered(&self) -> u64 {
        self.counts.delivered.get()
    }

    /// Data frames that a relay reported as undelivered so far.
    pub(crate) fn undelivered(&self) -> u64 {
        self.counts.undelivered.get()
    }

    /// Lets them work for so long and measures what is in the middle.
    pub(crate) async fn measure(&self, middle: &Middle, seconds: f64) -> Result<Stretch> {
        let (cpu, frames, began) = (middle.cpu()?, self.delivered(), Instant::now());
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        let (cpu, frames, took) = (middle.cpu()? - cpu, self.delivered() - frames, began.elapsed());
        ensure!(frames > 0, "nothing arrived in {seconds} s");
        Ok(Stretch { cpu, frames, took, undelivered: self.undelivered() })
    }

    /// Waits until a pair ends, which none does by itself.
    pub(crate) async fn ended(mut self) -> Result<()> {
        match self.tasks.join_next().await {
            Some(ended) => ended?,
            None => Ok(()),
        }
    }

    /// Fails with the error of a pair that ended.
    pub(crate) fn check(mut self) -> Result<()> {
        match self.tasks.try_join_next() {
            Some(ended) => ended?,
            None => Ok(()),
        }
    }
}
