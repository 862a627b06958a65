//! Sessions in which both peers send numbered messages at an even pace, and each checks that those of the
//! other come once and in order, and how long none came.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use culvert_client::{
    ReceiveHalf, RelayConnection, RelayTransport, SendHalf, TopicSecret, TransportConfig, TransportMode,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, timeout};

use crate::common::pairs::percentile;
use crate::common::{PATIENCE, options};

/// Pairs that are connected at a time: their handshakes are all that the machine does then.
const AT_ONCE: usize = 16;
/// From the end of the traffic to the last message.
const LAST: Duration = Duration::from_secs(60);
/// The number of the message that ends a direction.
const END: u64 = u64::MAX;

/// Messages that flow both ways in all sessions until they are told to end.
pub(crate) struct Sessions {
    pace: Duration,
    directions: Vec<Arc<Direction>>,
    /// Moves that [`Sessions::pauses`] has seen, of each direction.
    seen: Vec<u64>,
    end: watch::Sender<bool>,
    running: JoinSet<Ended>,
    _peers: Vec<Peer>,
}

/// One direction of a session; those of one session are neighbours.
#[derive(Default)]
struct Direction {
    delivered: AtomicU64,
    /// How often the sender has changed its way to the receiver.
    moves: AtomicU64,
    gaps: Mutex<Gaps>,
}

#[derive(Default)]
struct Gaps {
    last: Option<Instant>,
    longest: Duration,
}

/// What became of a direction, and its halves: the first peer that drops all of its own closes the session.
type Ended = (Result<u64, String>, SendHalf, ReceiveHalf);

/// Of each session, shortest first: its longest time without a delivery in either direction, less the pace.
#[derive(Default)]
pub(crate) struct Pauses {
    /// Of those in which a peer changed its way.
    pub(crate) moved: Vec<Duration>,
    /// Of the others: what the machine, busy with the moves, does to everybody.
    pub(crate) stayed: Vec<Duration>,
}

struct Peer {
    _transport: RelayTransport,
    arrivals: mpsc::Receiver<RelayConnection>,
}

impl Sessions {
    /// Connects so many pairs, each on a topic of its own, and lets both peers of each send a message each
    /// `pace`, evenly spread over all of them.
    pub(crate) async fn start(url: &str, count: usize, pace: Duration) -> Self {
        let (mut connecting, mut pairs) = (JoinSet::new(), Vec::new());
        for _ in 0..count {
            if connecting.len() >= AT_ONCE {
                pairs.extend(connecting.join_next().await.transpose().unwrap());
            }
            connecting.spawn(pair(url.to_owned()));
        }
        pairs.extend(connecting.join_all().await);

        let (end, start) = (watch::Sender::new(false), Instant::now());
        let (mut directions, mut peers, mut running) = (Vec::new(), Vec::new(), JoinSet::new());
        for (number, (both, [to_ben, to_anna])) in pairs.into_iter().enumerate() {
            peers.extend(both);
            let ((anna_sends, anna_receives), (ben_sends, ben_receives)) = (to_ben.split(), to_anna.split());
            for (half, (sender, receiver)) in
                [(anna_sends, ben_receives), (ben_sends, anna_receives)].into_iter().enumerate()
            {
                let place = (2 * number + half) as f64 / (2 * count) as f64;
                let first = start + pace.mul_f64(place);
                let direction = Arc::new(Direction::default());
                directions.push(Arc::clone(&direction));
                running.spawn(run(number, sender, receiver, direction, first, pace, end.subscribe()));
            }
        }
        let seen = vec![0; directions.len()];
        Self { pace, directions, seen, end, running, _peers: peers }
    }

    /// Waits until every direction has delivered so many messages more.
    pub(crate) async fn go_on(&mut self, more: u64, deadline: Duration) {
        let now = || self.directions.iter().map(|one| one.delivered.load(Ordering::SeqCst));
        let (before, end): (Vec<u64>, _) = (now().collect(), Instant::now() + deadline);
        let mut ticks = interval(Duration::from_millis(50));
        loop {
            ticks.tick().await;
            let silent = now().zip(&before).filter(|(now, before)| *now < *before + more).count();
            if silent == 0 {
                return;
            }
            let all = before.len();
            assert!(Instant::now() < end, "{silent} of {all} directions do not go on after {deadline:?}");
        }
    }

    /// The pauses since the last call.
    pub(crate) fn pauses(&mut self) -> Pauses {
        let mut pauses = Pauses::default();
        for (session, seen) in self.directions.chunks(2).zip(self.seen.chunks_mut(2)) {
            let gap = session.iter().map(|direction| direction.longest_gap()).max().unwrap_or_default();
            let pause = gap.saturating_sub(self.pace);
            let moves: Vec<u64> = session.iter().map(|one| one.moves.load(Ordering::SeqCst)).collect();
            if moves == seen { &mut pauses.stayed } else { &mut pauses.moved }.push(pause);
            seen.copy_from_slice(&moves);
        }
        pauses.moved.sort_unstable();
        pauses.stayed.sort_unstable();
        pauses
    }

    /// Stops sending and waits for what is on the way. Panics unless every message was delivered once and in
    /// order; gives how many there were.
    pub(crate) async fn end(mut self) -> u64 {
        self.end.send_replace(true);
        let (mut messages, mut wrong, mut halves) = (0, Vec::new(), Vec::new());
        while let Some(ended) = timeout(LAST, self.running.join_next()).await.expect("messages are missing") {
            let (result, sender, receiver) = ended.unwrap();
            halves.push((sender, receiver));
            match result {
                Ok(delivered) => messages += delivered,
                Err(sentence) => wrong.push(sentence),
            }
        }
        let first: Vec<_> = wrong.iter().take(10).cloned().collect();
        assert!(wrong.is_empty(), "{} directions went wrong, such as:\n{}", wrong.len(), first.join("\n"));
        messages
    }
}

impl Pauses {
    pub(crate) fn median(sorted: &[Duration]) -> Duration {
        percentile(sorted, 50)
    }

    pub(crate) fn p99(sorted: &[Duration]) -> Duration {
        percentile(sorted, 99)
    }

    pub(crate) fn describe(sorted: &[Duration]) -> String {
        let ms = |pause: Duration| pause.as_millis();
        let (median, p99) = (ms(Self::median(sorted)), ms(Self::p99(sorted)));
        let longest = ms(percentile(sorted, 100));
        format!("median {median} ms, 99th percentile {p99} ms, longest {longest} ms")
    }
}

impl Direction {
    fn arrived(&self) {
        let mut gaps = self.gaps.lock().unwrap();
        let now = Instant::now();
        let gap = gaps.last.replace(now).map(|last| now - last);
        gaps.longest = gaps.longest.max(gap.unwrap_or_default());
        self.delivered.fetch_add(1, Ordering::SeqCst);
    }

    /// The longest since the last call, one that still lasts included.
    fn longest_gap(&self) -> Duration {
        let mut gaps = self.gaps.lock().unwrap();
        let lasting = gaps.last.map(|last| last.elapsed()).unwrap_or_default();
        std::mem::take(&mut gaps.longest).max(lasting)
    }
}

async fn pair(url: String) -> ([Peer; 2], [RelayConnection; 2]) {
    let secret = TopicSecret::generate();
    let (mut anna, mut ben) = (enter(&url, &secret).await, enter(&url, &secret).await);
    let (to_ben, to_anna) = (anna.arrival().await, ben.arrival().await);
    ([anna, ben], [to_ben, to_anna])
}

async fn enter(url: &str, secret: &TopicSecret) -> Peer {
    let config = TransportConfig {
        mode: TransportMode::Relay,
        relay_url: Some(url.to_owned()),
        ..TransportConfig::default()
    };
    let mut transport = RelayTransport::new(config, options(secret, None)).unwrap();
    let arrivals = timeout(PATIENCE, transport.connect_relay(secret.topic())).await.unwrap().unwrap();
    Peer { _transport: transport, arrivals }
}

impl Peer {
    async fn arrival(&mut self) -> RelayConnection {
        timeout(PATIENCE, self.arrivals.recv()).await.expect("no session began").expect("the transport ended")
    }
}

async fn run(
    number: usize,
    mut sender: SendHalf,
    mut receiver: ReceiveHalf,
    direction: Arc<Direction>,
    first: Instant,
    pace: Duration,
    end: watch::Receiver<bool>,
) -> Ended {
    let sending = send(&mut sender, &direction, first, pace, end);
    let result = match tokio::try_join!(sending, receive(&mut receiver, &direction)) {
        Ok((sent, delivered)) if sent == delivered => Ok(delivered),
        Ok((sent, delivered)) => Err(format!("session {number}: {sent} were sent, {delivered} delivered")),
        Err(wrong) => Err(format!("session {number}: {wrong}")),
    };
    (result, sender, receiver)
}

async fn send(
    half: &mut SendHalf,
    direction: &Direction,
    first: Instant,
    pace: Duration,
    mut end: watch::Receiver<bool>,
) -> Result<u64, String> {
    let mut ticks = interval_at(first, pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut number = 0_u64;
    loop {
        let last = tokio::select! {
            _ = ticks.tick() => false,
            _ = end.wait_for(|end| *end) => true,
        };
        let message = if last { END } else { number };
        let sent = half.send(Bytes::copy_from_slice(&message.to_be_bytes())).await;
        sent.map_err(|error| format!("message {number}: {error}"))?;
        direction.moves.store(half.stats().path_changes, Ordering::SeqCst);
        if last {
            half.flush().await.map_err(|error| format!("after message {number}: {error}"))?;
            return Ok(number);
        }
        number += 1;
    }
}

async fn receive(half: &mut ReceiveHalf, direction: &Direction) -> Result<u64, String> {
    let mut due = 0_u64;
    loop {
        let message = half.receive().await.map_err(|error| format!("instead of message {due}: {error}"))?;
        let message = message.ok_or_else(|| format!("closed before message {due}"))?;
        match u64::from_be_bytes(message[..].try_into().unwrap()) {
            END => return Ok(due),
            number if number == due => {}
            other => return Err(format!("message {other} came where {due} was due")),
        }
        due += 1;
        direction.arrived();
    }
}
