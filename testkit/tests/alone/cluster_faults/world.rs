//! The cluster that faults happen to, the peers that live through them, and what is asked of both after.

use std::collections::BTreeSet;
use std::time::Duration;

use culvert_testkit::haproxy::Balance;
use culvert_testkit::process::resources;
use culvert_testkit::redis::{RedisPlan, RedisServer};
use culvert_testkit::relay::{Metrics, RelayCluster, RelayClusterPlan, RelayPlan};
use culvert_testkit::report::{full, measured, mib};
use culvert_testkit::{HelloOptions, Identity, RawOptions, RawPeer};
use culvert_wire::{Close, ConnId, Frame, Handle, Members, NodeId, Notice, PeerId, TopicId};
use tokio::sync::MutexGuard;
use tokio::time::{Instant, interval};

use crate::common::frames::{Lanes, Load, Tally};
use crate::common::pairs::{Ledger, Traffic, pairs, percentile};
use crate::common::{PATIENCE, options};

/// Nodes of every cluster here.
pub(crate) const NODES: usize = 3;
/// The default of the setting `redis-shards`.
const SHARDS: f64 = 4.0;
/// Short, so that tests do not wait long for its end, and longer than a busy machine pauses.
pub(crate) const LEASE: Duration = Duration::from_secs(3);
/// From the end of a fault to the last gauge that says so.
const HEALED: Duration = Duration::from_secs(60);
/// Most resident memory of any relay and of Redis, at any moment. An idle relay takes about 12 MiB.
pub(crate) const MOST_MEMORY: u64 = 64 << 20;
/// Of the messages in each session.
pub(crate) const PACE: Duration = Duration::from_millis(20);
/// On each lane: 500 frames a second.
pub(crate) const LOAD: Load = Load { frames: 5, every: Duration::from_millis(10) };

/// A cluster on a Redis of its own, with a chaos proxy before each node.
pub(crate) struct World {
    pub(crate) cluster: RelayCluster,
    pub(crate) redis: RedisServer,
    _alone: MutexGuard<'static, ()>,
}

/// Sessions and bare frames that go on until they are told to end.
pub(crate) struct Life {
    pub(crate) sessions: Traffic,
    pub(crate) lanes: Lanes,
}

/// A raw peer in a topic, to see what a node tells.
pub(crate) struct Witness {
    pub(crate) raw: RawPeer,
    pub(crate) peer: PeerId,
    pub(crate) conn: ConnId,
    pub(crate) handle: Handle,
    /// Whom it met when it joined.
    pub(crate) met: Members,
    seen: BTreeSet<ConnId>,
}

impl World {
    /// Nodes with a short lease.
    pub(crate) async fn start() -> Self {
        Self::with(|_, relay| brisk(relay)).await
    }

    /// Nodes that are started like this.
    pub(crate) async fn with(change: impl Fn(usize, RelayPlan) -> RelayPlan) -> Self {
        let alone = crate::alone().await;
        let redis = RedisPlan::new().unwrap().start().await.unwrap();
        let plan = RelayClusterPlan::open(NODES, redis.reach()).await.unwrap();
        let plan = plan.each(|index, relay| Ok(change(index, relay))).unwrap();
        // Who looks for a way around a node must not be led back to it.
        let cluster = plan.balance(Balance::RoundRobin).through_chaos().unwrap().start().await.unwrap();
        Self { cluster, redis, _alone: alone }
    }

    /// Sessions through the balancer, and a lane from each node to each of these, itself included.
    pub(crate) async fn life(&self, nodes: &[usize]) -> Life {
        let ways: Vec<_> = nodes.iter().flat_map(|from| nodes.iter().map(move |to| (*from, *to))).collect();
        let sessions = self.sessions(if full() { 60 } else { 9 }).await;
        let life = Life { sessions, lanes: self.lanes(&ways).await };
        life.goes_on().await;
        life
    }

    /// So many sessions, of two peers each, through the balancer.
    pub(crate) async fn sessions(&self, count: usize) -> Traffic {
        let url = self.cluster.url();
        Traffic::start(
            pairs(count, |_| (url.clone(), url.clone()), |secret| options(secret, None)).await,
            PACE,
        )
    }

    /// A lane between each of these nodes.
    pub(crate) async fn lanes(&self, ways: &[(usize, usize)]) -> Lanes {
        let addr = |node: usize| self.cluster.node(node).unwrap().addr();
        Lanes::start(ways.iter().map(|(from, to)| (addr(*from), addr(*to))), &raw(), LOAD).await
    }

    /// A peer on this node, in this topic.
    pub(crate) async fn witness(&self, node: usize, topic: TopicId) -> Witness {
        let identity = Identity::random().unwrap();
        let addr = self.cluster.node(node).unwrap().addr();
        let mut raw = RawPeer::connect(addr, &raw()).await.unwrap();
        raw.set_deadline(PATIENCE);
        let welcome = raw.hello(&HelloOptions::new(&identity)).await.unwrap();
        let (handle, met) = raw.join(topic).await.unwrap();
        let seen = met.list.iter().map(|member| member.conn).collect();
        Witness { raw, peer: identity.peer(), conn: welcome.conn, handle, met, seen }
    }

    pub(crate) async fn metrics(&self, node: usize) -> Metrics {
        self.cluster.node(node).unwrap().metrics().await.unwrap()
    }

    /// The sum of a series of a node.
    pub(crate) async fn sum(&self, node: usize, series: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics(node).await.sum(series, labels)
    }

    /// The sum of a counter of a node.
    pub(crate) async fn count(&self, node: usize, counter: &str, labels: &[(&str, &str)]) -> u64 {
        let sum = self.sum(node, counter, labels).await;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are whole")]
        let count = sum as u64;
        count
    }

    /// Waits until a gauge of a node has this value.
    pub(crate) async fn shows(&self, node: usize, gauge: &str, value: f64) {
        let complaint = format!("node {node} does not show {gauge} = {value}");
        until(PATIENCE, &complaint, async || self.sum(node, gauge, &[]).await == value).await;
    }

    /// Waits until a node says that it is out of touch; it stays ready all the same.
    pub(crate) async fn is_degraded(&self, node: usize) {
        self.shows(node, "culvert_relay_degraded", 1.0).await;
        let (ready, why) = self.cluster.node(node).unwrap().admin("/readyz").await.unwrap();
        assert_eq!(ready, 200, "node {node} is not ready: {why}");
    }

    /// Waits until every node takes part in everything again, and nobody too many does.
    pub(crate) async fn heals(&self) {
        let whole = [
            ("culvert_relay_degraded", 0.0),
            ("culvert_relay_unplaced", 0.0),
            ("culvert_relay_bus_lease", 1.0),
            ("culvert_relay_bus_subscriptions", SHARDS),
            ("culvert_relay_bus_renewals_pending", 0.0),
            ("culvert_relay_bus_nodes", NODES as f64),
        ];
        let (end, mut ticks) = (Instant::now() + HEALED, interval(Duration::from_millis(50)));
        loop {
            ticks.tick().await;
            let mut ill = Vec::new();
            for node in 0..NODES {
                let metrics = self.metrics(node).await;
                let wrong = whole.iter().filter(|(gauge, value)| metrics.sum(gauge, &[]) != *value);
                ill.extend(
                    wrong.map(|(gauge, _)| format!("node {node}: {gauge} {}", metrics.sum(gauge, &[]))),
                );
            }
            if ill.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "not healed after {HEALED:?}: {ill:?}");
        }
    }

    /// Ends all traffic, and holds what became of it and of the nodes against what is promised.
    pub(crate) async fn ends_well(&self, what: &str, life: Life) -> (Tally, Ledger) {
        self.heals().await;
        life.goes_on().await;
        let tally = life.lanes.end().await;
        let (_pairs, ledger) = life.sessions.end().await;
        ledger.balances();
        self.heals().await;
        let peak = self.takes_little_memory().await;
        let pause = |percent| percentile(&ledger.pauses, percent).as_secs_f64();
        measured(&format!(
            "fault: {what}: {} sessions paused for {:.2} s (median), {:.2} s (longest), {} messages each once; \
             {} frames sent, {} arrived, {} came back, {} unknown; largest relay {}",
            ledger.pauses.len(),
            pause(50),
            pause(100),
            ledger.messages,
            tally.sent,
            tally.delivered,
            tally.definite,
            tally.unknown,
            mib(peak),
        ));
        (tally, ledger)
    }

    /// The most memory that any relay ever took. Redis and each relay stay below the bound.
    pub(crate) async fn takes_little_memory(&self) -> u64 {
        let relays = (0..NODES).map(|node| resources(self.cluster.node(node).unwrap().pid()).unwrap());
        let relays: Vec<u64> = relays.map(|resources| resources.peak_resident).collect();
        let redis = self.redis.resources().unwrap().peak_resident;
        let (relay, all) = (relays.iter().max().copied().unwrap(), relays.iter().chain([&redis]));
        assert!(
            all.clone().all(|peak| *peak < MOST_MEMORY),
            "{:?}",
            all.map(|peak| mib(*peak)).collect::<Vec<_>>()
        );
        relay
    }
}

impl Life {
    /// Waits until every session and every lane has delivered more: no fault is in force for any of them.
    pub(crate) async fn goes_on(&self) {
        self.sessions.goes_on(10, PATIENCE).await;
        self.lanes.go_on(&self.lanes.all(), 50, PATIENCE).await;
    }
}

impl Witness {
    /// Waits for a notice.
    pub(crate) async fn is_told(&mut self, notice: Notice) {
        let told = |frame: &Frame| matches!(frame, Frame::Notice(told) if *told == notice);
        self.raw.recv_until(told).await.unwrap();
    }

    /// Waits until this peer is said to be gone.
    pub(crate) async fn loses(&mut self, other: PeerId) {
        let left = |frame: &Frame| matches!(frame, Frame::PeerLeft { peer, .. } if *peer == other);
        self.raw.recv_until(left).await.unwrap();
    }

    /// Waits until this peer is said to be there.
    pub(crate) async fn meets(&mut self, other: PeerId) {
        let joined =
            |frame: &Frame| matches!(frame, Frame::PeerJoined { member, .. } if member.peer == other);
        self.raw.recv_until(joined).await.unwrap();
    }

    /// Waits until those of whom it was told that they are in its topic are exactly these, without itself.
    pub(crate) async fn sees(&mut self, all: &BTreeSet<ConnId>) {
        let others: BTreeSet<_> = all.iter().copied().filter(|conn| *conn != self.conn).collect();
        while self.seen != others {
            let (seen, node) = (&mut self.seen, self.conn.node());
            match self.raw.recv().await {
                Ok(Frame::PeerJoined { member, .. }) => drop(seen.insert(member.conn)),
                Ok(Frame::PeerLeft { conn, .. }) => drop(seen.remove(&conn)),
                Ok(_) => {}
                Err(error) => panic!("a peer on node {node} sees {seen:?} instead of {others:?}: {error}"),
            }
        }
    }

    /// Waits until the relay closes it, and gives why.
    pub(crate) async fn is_closed(&mut self) -> Close {
        self.raw.closed().await.unwrap()
    }

    /// The number of its node.
    pub(crate) fn node(&self) -> NodeId {
        self.conn.node()
    }
}

/// A lease that ends soon, and answers that are waited for no longer than a third of it.
pub(crate) fn brisk(relay: RelayPlan) -> RelayPlan {
    relay.set("redis-lease", format!("{LEASE:?}")).set("redis-timeout", format!("{:?}", LEASE / 3))
}

/// How raw peers reach the nodes.
pub(crate) fn raw() -> RawOptions {
    RawOptions::plain("localhost")
}

/// A topic that nobody else is in.
pub(crate) fn topic() -> TopicId {
    TopicId(Identity::random().unwrap().peer().0)
}

/// Waits until a condition holds.
pub(crate) async fn until(deadline: Duration, complaint: &str, holds: impl AsyncFn() -> bool) {
    let (end, mut ticks) = (Instant::now() + deadline, interval(Duration::from_millis(20)));
    loop {
        ticks.tick().await;
        if holds().await {
            return;
        }
        assert!(Instant::now() < end, "{complaint} after {deadline:?}");
    }
}
