//! One end: its session, its application, and the checks.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use culvert_session::{
    CloseReason, Config, Event, Identity, MessageNumber, Peek, Priority, SendError, Session, StreamId,
    Unacknowledged, peek,
};
use culvert_wire::TopicId;

use super::random::Random;

/// What a checker looks for, broken on purpose to show that it looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sabotage {
    None,
    DeliverTwice,
    Skip,
    Swap,
    Alter,
}

/// One direction of one stream, as its sender planned it.
struct Plan {
    stream: Option<StreamId>,
    priority: Priority,
    /// Sizes of the messages; their bytes follow from the seed, the stream and the number.
    sizes: Vec<usize>,
    sent: usize,
    blocked: bool,
}

pub(crate) struct Peer {
    pub(crate) session: Option<Session>,
    pub(crate) config: Config,
    pub(crate) random: Random,
    seed: u64,
    plans: Vec<Plan>,
    /// Messages taken from each stream of the other end.
    received: BTreeMap<StreamId, u64>,
    held: BTreeMap<StreamId, Bytes>,
    readable: HashSet<StreamId>,
    acked: BTreeMap<StreamId, MessageNumber>,
    /// While paused the application reads nothing.
    pub(crate) paused_until: Duration,
    pub(crate) established: bool,
    pub(crate) closed: Option<CloseReason>,
    pub(crate) unacknowledged: Vec<Unacknowledged>,
    numbers: HashSet<(u64, u64)>,
    pub(crate) epochs: HashSet<u8>,
    sabotage: Sabotage,
    pub(crate) delivered: u64,
}

impl Peer {
    pub(crate) fn new(index: u8, seed: u64, random: &mut Random, topic: TopicId, sabotage: Sabotage) -> Self {
        let mut own = random.fork();
        let identity = Identity::from_seed(&[index + 1; 32]);
        let mut config = Config::new(identity, topic);
        config.handshake_timeout = Duration::from_secs(600);
        config.close_timeout = Duration::from_secs(120);
        config.rekey.packets = 5 + own.below(200);
        config.stream_window = 16 << 10 << own.below(5);
        config.max_message = 256 << 10;
        config.send_buffer = 8 << 10 << own.below(6);
        config.receive_window = 16 << 10 << own.below(7);
        let plans = (0..1 + own.below(4)).map(|_| Plan::new(&mut own)).collect();
        Self {
            session: None,
            config,
            random: own,
            seed,
            plans,
            received: BTreeMap::new(),
            held: BTreeMap::new(),
            readable: HashSet::new(),
            acked: BTreeMap::new(),
            paused_until: Duration::ZERO,
            established: false,
            closed: None,
            unacknowledged: Vec::new(),
            numbers: HashSet::new(),
            epochs: HashSet::new(),
            sabotage,
            delivered: 0,
        }
    }

    /// Lets the application do what it can.
    pub(crate) fn work(&mut self, now: Duration, other: &[Vec<usize>]) -> Result<(), String> {
        let Some(session) = &mut self.session else { return Ok(()) };
        while let Some(event) = session.poll_event() {
            match event {
                Event::Authenticated { .. } => session.authorize(now, true),
                Event::Established => {
                    self.established = true;
                    for plan in &mut self.plans {
                        plan.stream = Some(session.open_stream(plan.priority).map_err(|e| e.to_string())?);
                    }
                }
                Event::Readable { stream } => {
                    self.readable.insert(stream);
                }
                Event::Writable { stream } => {
                    for plan in self.plans.iter_mut().filter(|plan| plan.stream == Some(stream)) {
                        if !plan.blocked {
                            return Err("writable without having been blocked".into());
                        }
                        plan.blocked = false;
                    }
                }
                Event::Acked { stream, up_to } => {
                    if self.acked.insert(stream, up_to).is_some_and(|before| before > up_to) {
                        return Err("acknowledgements went back".into());
                    }
                }
                Event::PathChanged { .. } => {}
                Event::Closed { reason, unacknowledged } => {
                    self.closed = Some(reason);
                    self.unacknowledged = unacknowledged;
                }
            }
        }
        self.write()?;
        if now >= self.paused_until {
            self.read(other)?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), String> {
        let Some(session) = &mut self.session else { return Ok(()) };
        for plan in &mut self.plans {
            let Some(stream) = plan.stream else { continue };
            while !plan.blocked && plan.sent < plan.sizes.len() {
                let message = body(self.seed, stream, plan.sent as u64, plan.sizes[plan.sent]);
                match session.send(stream, message) {
                    Ok(number) if number.0 == plan.sent as u64 => plan.sent += 1,
                    Ok(number) => return Err(format!("message {} was numbered {number}", plan.sent)),
                    Err(SendError::Blocked) => plan.blocked = true,
                    Err(_) if self.closed.is_some() => return Ok(()),
                    Err(error) => return Err(error.to_string()),
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, other: &[Vec<usize>]) -> Result<(), String> {
        for stream in std::mem::take(&mut self.readable) {
            while let Some(message) = self.session.as_mut().and_then(|session| session.read(stream)) {
                self.sabotaged(stream, message, other)?;
            }
        }
        Ok(())
    }

    fn sabotaged(&mut self, stream: StreamId, message: Bytes, other: &[Vec<usize>]) -> Result<(), String> {
        let strike = self.sabotage != Sabotage::None && self.random.chance(50);
        if let Some(held) = self.held.remove(&stream) {
            self.check(stream, &message, other)?;
            return self.check(stream, &held, other);
        }
        if !strike {
            return self.check(stream, &message, other);
        }
        match self.sabotage {
            Sabotage::None => {}
            Sabotage::DeliverTwice => {
                self.check(stream, &message, other)?;
                self.check(stream, &message, other)?;
            }
            Sabotage::Skip => {}
            Sabotage::Swap => {
                self.held.insert(stream, message);
            }
            Sabotage::Alter => {
                let mut bytes = message.to_vec();
                bytes.push(0);
                self.check(stream, &bytes, other)?;
            }
        }
        Ok(())
    }

    /// The next message of this stream must be exactly the one that was sent as such.
    fn check(&mut self, stream: StreamId, message: &[u8], other: &[Vec<usize>]) -> Result<(), String> {
        let number = self.received.entry(stream).or_default();
        let sizes = other.get(usize::try_from(stream.0 / 2).unwrap()).ok_or("a stream nobody opened")?;
        let size = *sizes
            .get(usize::try_from(*number).unwrap())
            .ok_or_else(|| format!("stream {stream} delivered more messages than were sent"))?;
        if message != body(self.seed, stream, *number, size) {
            return Err(format!("stream {stream}: message {number} is not the one that was sent"));
        }
        *number += 1;
        self.delivered += 1;
        Ok(())
    }

    /// How much was sent on each stream, and how much of it the session called unacknowledged.
    pub(crate) fn sent(&self) -> Vec<(StreamId, u64, u64)> {
        let streams = self.plans.iter().filter_map(|plan| Some((plan.stream?, plan.sent as u64)));
        let missing = |stream| {
            let runs = self.unacknowledged.iter().filter(|run| run.stream == stream);
            runs.map(|run| run.last.0 + 1 - run.first.0).sum()
        };
        streams.map(|(stream, sent)| (stream, sent, missing(stream))).collect()
    }

    pub(crate) fn received(&self, stream: StreamId) -> u64 {
        self.received.get(&stream).copied().unwrap_or_default()
    }

    /// Sizes of everything this end sends, by stream.
    pub(crate) fn planned(&self) -> Vec<Vec<usize>> {
        self.plans.iter().map(|plan| plan.sizes.clone()).collect()
    }

    /// Whether everything was sent and acknowledged here.
    pub(crate) fn is_done(&self) -> bool {
        self.plans.iter().all(|plan| {
            let acked = plan.stream.and_then(|stream| self.acked.get(&stream));
            plan.sent == plan.sizes.len() && acked.map_or(0, |number| number.0 + 1) == plan.sent as u64
        })
    }

    pub(crate) fn has_received(&self, other: &[Vec<usize>]) -> bool {
        self.delivered == other.iter().map(|sizes| sizes.len() as u64).sum::<u64>()
    }

    /// No packet number may serve twice, under any key.
    pub(crate) fn check_number(&mut self, datagram: &[u8]) -> Result<(), String> {
        let Some(Peek::Data { receiver }) = peek(datagram) else { return Ok(()) };
        let number = u64::from_be_bytes(datagram[11..19].try_into().unwrap());
        self.epochs.insert(datagram[10]);
        if !self.numbers.insert((receiver.0, number)) {
            return Err(format!("packet number {number} was used twice"));
        }
        Ok(())
    }
}

impl Plan {
    fn new(random: &mut Random) -> Self {
        let largest = [20, 2_000, 20_000, 100_000][random.index(4)];
        let count = 1 + random.below(if largest > 10_000 { 24 } else { 200 });
        let priority = [Priority::URGENT, Priority::NORMAL, Priority(64), Priority::BULK][random.index(4)];
        let sizes = (0..count).map(|_| random.index(largest + 1)).collect();
        Self { stream: None, priority, sizes, sent: 0, blocked: false }
    }
}

fn body(seed: u64, stream: StreamId, number: u64, size: usize) -> Bytes {
    let mut bytes = vec![0; size];
    let mut random = Random::new(seed ^ (stream.0 << 32) ^ number);
    culvert_session::Rng::fill(&mut random, &mut bytes);
    bytes.into()
}
