//! The ledger of frames balances to the frame, however connections end: everything that a node has read
//! was delivered or has a verdict, and every verdict was told or counted as one that nobody could be told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use culvert_relay::bus::memory::{Hub, MemoryBus};
use culvert_relay::bus::{Arrival, AttachError, Bus, Inbox, Letter, Undelivered};
use culvert_service_kit::Clock;
use culvert_service_kit::metric_set::Registry;
use culvert_testkit::relay::Embedded;
use culvert_wire::{Class, ConnId, Frame, Member, Members, TopicId, Verdict};
use futures_util::FutureExt;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::common::{self, Peer, TOPIC, fill, node_on, pair, pair_across, peer, relay};

const DEADLINE: Duration = Duration::from_secs(60);
/// How long a join takes; the outbox is held meanwhile, so that connections end with frames in it.
const JOIN: Duration = Duration::from_millis(3);
/// Bursts of a peer that stays, and how many there may be until so many verdicts were told.
const BURSTS: u64 = 20;
const MOST_BURSTS: u64 = 2000;
const ENOUGH: u64 = 100;
/// Joins of this topic never end.
const ENDLESS: TopicId = TopicId([9; 32]);

/// The in-process bus with joins that take their time, as over a network.
struct Slow(MemoryBus);

#[async_trait]
impl Bus for Slow {
    async fn attach(&self, inbox: Arc<dyn Inbox>, registry: &Registry) -> Result<(), AttachError> {
        self.0.attach(inbox, registry).await
    }
    async fn detach(&self) {
        self.0.detach().await;
    }
    async fn join(&self, topic: TopicId, arrival: Arrival, limit: usize) -> Members {
        if topic == ENDLESS {
            return std::future::pending().await;
        }
        tokio::time::sleep(JOIN).await;
        self.0.join(topic, arrival, limit).await
    }
    fn leave(&self, topic: TopicId, member: Member) {
        self.0.leave(topic, member);
    }
    async fn lookup(&self, topic: TopicId, limit: usize) -> Members {
        self.0.lookup(topic, limit).await
    }
    fn forward(&self, letter: &Letter<'_>) -> Result<(), Verdict> {
        self.0.forward(letter)
    }
    fn broadcast(&self, letter: &Letter<'_>) -> Result<(), (u32, Verdict)> {
        self.0.broadcast(letter)
    }
    fn report(&self, undelivered: Undelivered) {
        self.0.report(undelivered);
    }
}

/// The sum of a series over nodes.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of frames")]
fn sum(nodes: &[Embedded], name: &str, labels: &[(&str, &str)]) -> u64 {
    let one = |node: &Embedded| node.metrics().sum(name, labels) as u64;
    nodes.iter().map(one).sum()
}

/// What the nodes have read, delivered, and refused or reported.
fn counters(nodes: &[Embedded]) -> (u64, u64, u64) {
    let received = sum(nodes, "culvert_relay_frames_received_total", &[("kind", "send")]);
    let delivered = sum(nodes, "culvert_relay_frames_delivered_total", &[]);
    (received, delivered, sum(nodes, "culvert_relay_undeliverable_total", &[]))
}

/// Waits until it holds.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "{what} does not come to hold");
}

/// What peers know, by sender and receiver.
#[derive(Default)]
struct Tally {
    sent: HashMap<(ConnId, ConnId), u64>,
    got: HashMap<(ConnId, ConnId), u64>,
    verdicts: HashMap<(ConnId, ConnId), u64>,
}

impl Tally {
    fn count(&mut self, me: ConnId, frame: &Frame) {
        match frame {
            Frame::Deliver { from, .. } => *self.got.entry((*from, me)).or_default() += 1,
            Frame::Undeliverable { to, count, .. } => {
                *self.verdicts.entry((me, *to)).or_default() += u64::from(*count);
            }
            _ => {}
        }
    }

    /// The pairs whose frames are not all accounted for.
    fn open(&self, peers: &[ConnId]) -> Vec<(ConnId, ConnId)> {
        let at = |table: &HashMap<_, u64>, pair| table.get(&pair).copied().unwrap_or_default();
        let pairs = peers.iter().flat_map(|from| peers.iter().map(|to| (*from, *to)));
        pairs
            .filter(|pair| at(&self.sent, *pair) != at(&self.got, *pair) + at(&self.verdicts, *pair))
            .collect()
    }
}

/// One peer in the crowd.
struct Actor {
    peer: Peer,
    /// Addresses of everybody who ever was here.
    everybody: Arc<Mutex<Vec<ConnId>>>,
    tally: Arc<Mutex<Tally>>,
    rng: SmallRng,
}

impl Actor {
    async fn enter(
        node: &Embedded,
        everybody: &Arc<Mutex<Vec<ConnId>>>,
        tally: &Arc<Mutex<Tally>>,
        seed: usize,
    ) -> Self {
        let mut peer = peer(node).await;
        peer.join(TOPIC).await;
        everybody.lock().push(peer.conn);
        let (everybody, tally) = (everybody.clone(), tally.clone());
        Self { peer, everybody, tally, rng: SmallRng::seed_from_u64(seed as u64) }
    }

    async fn burst(&mut self) {
        for _ in 0..self.rng.random_range(1..100) {
            let to = {
                let everybody = self.everybody.lock();
                everybody[self.rng.random_range(0..everybody.len())]
            };
            *self.tally.lock().sent.entry((self.peer.conn, to)).or_default() += 1;
            let payload = Bytes::from(vec![0; self.rng.random_range(0..2048)]);
            let frame = Frame::Send { class: Class::Normal, handle: self.peer.handle, to, payload };
            self.peer.peer.feed(&frame).await.unwrap();
        }
        self.peer.peer.flush().await.unwrap();
    }

    /// Counts what has come.
    fn read(&mut self) {
        while let Some(frame) = self.peer.peer.recv().now_or_never() {
            self.tally.lock().count(self.peer.conn, &frame.unwrap());
        }
    }

    /// Sends for some time, then only listens.
    async fn stay(mut self, stop: CancellationToken) {
        let tally = self.tally.clone();
        let told = || tally.lock().verdicts.values().sum::<u64>();
        for token in 0..MOST_BURSTS {
            // On a busy machine fewer of those who leave are sent to.
            if token >= BURSTS && told() > ENOUGH {
                break;
            }
            self.burst().await;
            self.peer.peer.sync(token).await.unwrap();
            self.read();
        }
        loop {
            tokio::select! {
                frame = self.peer.peer.recv() => {
                    if let Ok(frame) = frame {
                        self.tally.lock().count(self.peer.conn, &frame);
                    }
                }
                () = stop.cancelled() => return,
            }
        }
    }

    /// Sends or listens for a moment and ends in one of many ways.
    async fn pass(mut self, sends: bool) {
        for token in 0..self.rng.random_range(1..4) {
            if sends {
                self.burst().await;
            }
            self.peer.peer.sync(token).await.unwrap();
        }
        if sends {
            self.burst().await;
        }
        let raw = &mut self.peer.peer;
        match self.rng.random_range(0..5) {
            // In the middle of a join, behind what was sent.
            0 => raw.send(&Frame::Join { topic: TopicId([1; 32]) }).await.unwrap(),
            1 => {
                raw.send(&Frame::Join { topic: TopicId([2; 32]) }).await.unwrap();
                tokio::time::sleep(JOIN / 2).await;
            }
            2 => raw.send(&Frame::Leave { handle: self.peer.handle }).await.unwrap(),
            // Against the protocol.
            3 => raw.send_bytes(Bytes::new()).await.unwrap(),
            _ => {}
        }
    }
}

/// Peers that stay and peers that come and go on two nodes; the counters when all is quiet.
async fn churn(passers_send: bool) -> (Vec<Embedded>, Tally) {
    let hub = Hub::new();
    let start = async || {
        node_on(Arc::new(Slow(hub.bus())), Clock::system(), |config| config.limits.queue_bytes = 32 << 10)
            .await
    };
    let nodes = vec![start().await, start().await];
    let (everybody, tally) = <(Arc<Mutex<Vec<ConnId>>>, Arc<Mutex<Tally>>)>::default();
    let (stop, mut staying) = (CancellationToken::new(), JoinSet::new());
    let mut residents = Vec::new();
    for seed in 0..6 {
        let actor = Actor::enter(&nodes[seed % 2], &everybody, &tally, seed).await;
        residents.push(actor.peer.conn);
        staying.spawn(actor.stay(stop.clone()));
    }
    for wave in 0..6 {
        let mut passing = JoinSet::new();
        for n in 0..8 {
            let seed = 100 + wave * 8 + n;
            let actor = Actor::enter(&nodes[seed % 2], &everybody, &tally, seed).await;
            passing.spawn(actor.pass(passers_send));
        }
        while let Some(ended) = passing.join_next().await {
            ended.unwrap();
        }
    }
    eventually("only residents being left", || {
        sum(&nodes, "culvert_relay_connections", &[]) == residents.len() as u64
    })
    .await;
    let mut last = (0, 0, 0);
    eventually("the nodes' balance", || {
        last = counters(&nodes);
        last.0 == last.1 + last.2 && tally.lock().open(&residents).is_empty()
    })
    .await;
    stop.cancel();
    while let Some(ended) = staying.join_next().await {
        ended.unwrap();
    }
    let tally = std::mem::take(&mut *tally.lock());
    (nodes, tally)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_was_read_is_delivered_or_has_a_verdict_while_connections_come_and_go() {
    let (nodes, tally) = churn(true).await;
    let (received, delivered, undeliverable) = counters(&nodes);
    let sent: u64 = tally.sent.values().sum();
    assert!(received <= sent && delivered > 1000 && undeliverable > 1000, "{received} of {sent}");
    for node in nodes {
        node.kill().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verdict_that_is_counted_was_told_to_its_sender() {
    let (nodes, tally) = churn(false).await;
    let sent: u64 = tally.sent.values().sum();
    let told: u64 = tally.verdicts.values().sum();
    let (received, _, undeliverable) = counters(&nodes);
    assert_eq!((received, undeliverable), (sent, told));
    assert!(told > ENOUGH, "{told} of {sent}");
    assert_eq!(sum(&nodes, "culvert_relay_verdicts_orphaned_total", &[]), 0);
    for node in nodes {
        node.kill().await.unwrap();
    }
}

#[tokio::test]
async fn frames_ahead_of_a_join_that_never_ends_are_counted() {
    let bus = Arc::new(Slow(MemoryBus::alone()));
    let nodes = [node_on(bus, Clock::system(), |_| {}).await];
    let (mut a, mut b) = pair(&nodes[0]).await;
    for n in 0..10_u8 {
        let to = if n < 5 { b.conn } else { ConnId::new(nodes[0].id(), 1) };
        let payload = Bytes::copy_from_slice(&[n]);
        let frame = Frame::Send { class: Class::Normal, handle: a.handle, to, payload };
        a.peer.feed(&frame).await.unwrap();
    }
    a.peer.send(&Frame::Join { topic: ENDLESS }).await.unwrap();
    for _ in 0..5 {
        b.until(|frame| matches!(frame, Frame::Deliver { .. })).await;
    }
    // The answer that a join waits for holds everything else back, so only a close gets through.
    nodes[0].shutdown().kill();
    a.peer.recv_to_end().await;
    eventually("the count", || counters(&nodes) == (10, 5, 5)).await;
}

#[tokio::test]
async fn frames_that_wait_for_a_receiver_that_ends_have_a_verdict_even_if_their_sender_has_ended_too() {
    let node = relay(|config| config.limits.queue_bytes = 64 << 10).await;
    let (mut a, b) = pair(&node).await;
    let payload = Bytes::from(vec![0; 8 << 10]);
    let frame = Frame::Send { class: Class::Normal, handle: a.handle, to: b.conn, payload };
    fill(&mut a, &frame).await;
    let nodes = [node];
    eventually("the queue's bytes", || sum(&nodes, "culvert_relay_queued_bytes", &[]) >= 56 << 10).await;
    drop(a);
    eventually("one connection", || sum(&nodes, "culvert_relay_connections", &[]) == 1).await;
    drop(b);
    eventually("no connection", || sum(&nodes, "culvert_relay_connections", &[]) == 0).await;
    let (received, delivered, undeliverable) = counters(&nodes);
    assert_eq!(received, delivered + undeliverable);
    assert_eq!(sum(&nodes, "culvert_relay_verdicts_orphaned_total", &[]), 7, "what the queue held");
    eventually("an empty queue", || sum(&nodes, "culvert_relay_queued_bytes", &[]) == 0).await;
    let [node] = nodes;
    node.kill().await.unwrap();
}

#[tokio::test]
async fn a_node_that_is_stopped_at_once_still_says_what_it_did_not_deliver() {
    let hub = Hub::new();
    let left = common::node_of(&hub).await;
    let right = common::node(hub.bus(), Clock::system(), |config| config.limits.queue_bytes = 64 << 10).await;
    let (mut a, b) = pair_across(&left, &right).await;
    let payload = Bytes::from(vec![0; 8 << 10]);
    let frame = Frame::Send { class: Class::Normal, handle: a.handle, to: b.conn, payload };
    fill(&mut a, &frame).await;
    right.kill().await.unwrap();
    let gone = a.until(|frame| matches!(frame, Frame::Undeliverable { verdict: Verdict::Gone, .. })).await;
    assert!(matches!(gone, Frame::Undeliverable { count: 7, .. }), "{gone:?}");
    left.kill().await.unwrap();
}
