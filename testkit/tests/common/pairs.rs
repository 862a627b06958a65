//! Many conversations at once, and a ledger of what arrived in them.
//!
//! In every pair one peer sends numbered messages at an even pace, and the other checks that each arrives
//! once and in order, and how long nothing came.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use culvert_client::{Connection, RelayOptions, TopicSecret};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep};

use super::{Pair, pair, transport};

/// Pairs that are connected at a time: their handshakes are all that the machine does then.
const AT_ONCE: usize = 16;
/// From the end of the traffic to the last message: the longest wait between two reconnects, four times.
const LAST: Duration = Duration::from_secs(120);
/// The number of the message that ends a conversation.
const END: u64 = u64::MAX;
/// Bytes of a message: its number, when it was sent, and as much again.
const MESSAGE: usize = 32;

/// Numbered messages that flow in all pairs until they are told to end.
pub(crate) struct Traffic {
    end: watch::Sender<bool>,
    /// Messages that each pair has delivered so far.
    delivered: Arc<[AtomicU64]>,
    pairs: JoinSet<(Pair, Result<Received, String>)>,
}

/// What became of the messages of all pairs.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Messages that were sent, and each delivered once and in its place.
    pub(crate) messages: u64,
    /// Of each pair, shortest first: the longest time without a delivery, less the pace.
    pub(crate) pauses: Vec<Duration>,
    /// Of each pair, shortest first: the longest time from sending to delivery.
    pub(crate) delays: Vec<Duration>,
    /// What went wrong in pairs, a sentence each.
    pub(crate) wrong: Vec<String>,
}

#[derive(Default)]
struct Received {
    messages: u64,
    longest_gap: Duration,
    longest_delay: Duration,
}

/// Connects pairs, each on a topic of its own; `urls` says by which URLs the two of a pair come in.
pub(crate) async fn pairs(
    count: usize,
    urls: impl Fn(usize) -> (String, String),
    options: impl Fn(&TopicSecret) -> RelayOptions,
) -> Vec<Pair> {
    let (mut connecting, mut pairs) = (JoinSet::new(), Vec::new());
    for number in 0..count {
        if connecting.len() >= AT_ONCE {
            pairs.extend(connecting.join_next().await.transpose().unwrap());
        }
        let secret = TopicSecret::generate();
        let (anna, ben) = urls(number);
        let anna = transport(&anna, options(&secret));
        let ben = transport(&ben, options(&secret));
        connecting.spawn(async move { pair(&secret, anna, ben).await });
    }
    pairs.extend(connecting.join_all().await);
    pairs
}

impl Traffic {
    /// Lets one peer of every pair send a message each `pace`, evenly spread over all pairs.
    pub(crate) fn start(pairs: Vec<Pair>, pace: Duration) -> Self {
        let (end, start, count) = (watch::Sender::new(false), Instant::now(), pairs.len());
        let delivered: Arc<[AtomicU64]> = (0..count).map(|_| AtomicU64::new(0)).collect();
        let mut running = JoinSet::new();
        for (number, mut pair) in pairs.into_iter().enumerate() {
            let first = start + pace.mul_f64(number as f64 / count as f64);
            let (sending, receiving) = (end.subscribe(), end.subscribe());
            let delivered = delivered.clone();
            running.spawn(async move {
                let Pair { anna, ben, .. } = &mut pair;
                let both = tokio::try_join!(
                    send(anna, start, first, pace, sending),
                    receive(ben, start, pace, receiving, &delivered[number]),
                );
                let sum = both.and_then(|(sent, received)| match received.messages {
                    all if all == sent => Ok(received),
                    some => Err(format!("{sent} were sent, {some} delivered")),
                });
                (pair, sum.map_err(|wrong| format!("pair {number}: {wrong}")))
            });
        }
        Self { end, delivered, pairs: running }
    }

    /// Waits until every pair has delivered so many messages more than it has now: whatever was wrong with
    /// the network is over for all of them.
    pub(crate) async fn goes_on(&self, more: u64, deadline: Duration) {
        let now = || self.delivered.iter().map(|pair| pair.load(Ordering::Relaxed));
        let (before, end): (Vec<u64>, _) = (now().collect(), Instant::now() + deadline);
        let mut ticks = interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            let short = now().zip(&before).filter(|(now, before)| *now < *before + more).count();
            if short == 0 {
                return;
            }
            let all = before.len();
            assert!(Instant::now() < end, "{short} of {all} pairs do not go on after {deadline:?}");
        }
    }

    /// Stops sending and waits for what is on the way. The pairs stay in conversation.
    pub(crate) async fn end(mut self) -> (Vec<Pair>, Ledger) {
        self.end.send_replace(true);
        let (mut pairs, mut ledger) = (Vec::new(), Ledger::default());
        while let Some(done) = self.pairs.join_next().await {
            let (pair, received) = done.unwrap();
            pairs.push(pair);
            match received {
                Err(wrong) => ledger.wrong.push(wrong),
                Ok(received) => {
                    ledger.messages += received.messages;
                    ledger.pauses.push(received.longest_gap);
                    ledger.delays.push(received.longest_delay);
                }
            }
        }
        ledger.pauses.sort_unstable();
        ledger.delays.sort_unstable();
        (pairs, ledger)
    }
}

impl Ledger {
    /// Panics unless every message of every pair was delivered once and in order.
    pub(crate) fn balances(&self) {
        let (wrong, first) = (self.wrong.len(), self.wrong.iter().take(10).cloned().collect::<Vec<_>>());
        assert!(wrong == 0, "{wrong} pairs went wrong, such as:\n{}", first.join("\n"));
        assert!(self.messages > 0, "nothing was sent");
    }
}

/// The value that so many percent of sorted ones do not exceed.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}

async fn send(
    connection: &mut Box<dyn Connection>,
    start: Instant,
    first: Instant,
    pace: Duration,
    mut end: watch::Receiver<bool>,
) -> Result<u64, String> {
    let mut ticks = interval_at(first, pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut number = 0;
    loop {
        let last = tokio::select! {
            _ = ticks.tick() => false,
            _ = end.wait_for(|end| *end) => true,
        };
        let mut message = [0; MESSAGE];
        message[..8].copy_from_slice(&if last { END } else { number }.to_be_bytes());
        let now = u64::try_from(start.elapsed().as_nanos()).unwrap();
        message[8..16].copy_from_slice(&now.to_be_bytes());
        connection.send(&message).await.map_err(|error| format!("message {number}: {error:#}"))?;
        if last {
            return Ok(number);
        }
        number += 1;
    }
}

async fn receive(
    connection: &mut Box<dyn Connection>,
    start: Instant,
    pace: Duration,
    mut end: watch::Receiver<bool>,
    delivered: &AtomicU64,
) -> Result<Received, String> {
    let mut received = Received::default();
    let mut last_delivery: Option<Instant> = None;
    let too_late = async {
        let _ = end.wait_for(|end| *end).await;
        sleep(LAST).await;
    };
    let mut too_late = std::pin::pin!(too_late);
    loop {
        let due = received.messages;
        let message = tokio::select! {
            message = connection.receive() => message,
            () = &mut too_late => return Err(format!("message {due} has not come {LAST:?} after the end")),
        };
        let message = message.map_err(|error| format!("instead of message {due}: {error:#}"))?;
        let message = message.ok_or_else(|| format!("closed before message {due}"))?;
        let word = |at: usize| u64::from_be_bytes(message[at..at + 8].try_into().unwrap());
        let (number, sent) = (word(0), start + Duration::from_nanos(word(8)));
        if number == END {
            return Ok(received);
        }
        if number != due {
            return Err(format!("message {number} came where {due} was due"));
        }
        let now = Instant::now();
        if let Some(last) = last_delivery.replace(now) {
            received.longest_gap = received.longest_gap.max((now - last).saturating_sub(pace));
        }
        received.longest_delay = received.longest_delay.max(now - sent);
        received.messages += 1;
        delivered.store(received.messages, Ordering::Relaxed);
    }
}
