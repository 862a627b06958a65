//! Nodes on a Redis of some kind, and the peers whose traffic goes between them all the while.

use std::time::Duration;

use culvert_testkit::RawOptions;
use culvert_testkit::redis::Reach;
use culvert_testkit::relay::{RelayCluster, RelayClusterPlan};
use culvert_testkit::report::measured;
use tokio::sync::MutexGuard;
use tokio::time::{Instant, interval};

use crate::common::frames::{Lanes, Load};
use crate::common::pairs::{Traffic, pairs, percentile};
use crate::common::{PATIENCE, Pair, options};

/// Nodes of every cluster here.
const NODES: usize = 3;
/// The default of the setting `redis-shards`.
const SHARDS: f64 = 4.0;
/// From the end of a fault to the last gauge that says so.
const HEALED: Duration = Duration::from_secs(60);
/// Of the messages in each session.
const PACE: Duration = Duration::from_millis(20);
/// On each lane: 500 frames a second.
const LOAD: Load = Load { frames: 5, every: Duration::from_millis(10) };
/// Two between each two nodes.
const SESSIONS: usize = 6;

/// Nodes with the defaults of `culvert-relay`.
pub(crate) struct World {
    pub(crate) cluster: RelayCluster,
    _alone: MutexGuard<'static, ()>,
}

/// Sessions and bare frames that go on until they are told to end.
pub(crate) struct Life {
    sessions: Traffic,
    lanes: Lanes,
}

impl World {
    /// Starts the nodes.
    pub(crate) async fn start(redis: Reach, alone: MutexGuard<'static, ()>) -> Self {
        let cluster = RelayClusterPlan::open(NODES, redis).await.unwrap().start().await.unwrap();
        Self { cluster, _alone: alone }
    }

    /// Sessions and lanes from every node to every other one, under way.
    pub(crate) async fn life(&self) -> Life {
        let addr = |node: usize| self.cluster.node(node % NODES).unwrap().addr();
        let ways = (0..NODES).flat_map(|from| (1..NODES).map(move |on| (addr(from), addr(from + on))));
        let lanes = Lanes::start(ways, &raw(), LOAD).await;
        let life = Life { sessions: Traffic::start(self.apart(SESSIONS).await, PACE), lanes };
        life.goes_on().await;
        life
    }

    /// Pairs of which no two peers are on the same node.
    async fn apart(&self, count: usize) -> Vec<Pair> {
        let url = |node: usize| self.cluster.node(node % NODES).unwrap().url();
        pairs(count, |n| (url(n), url(n + 1)), |secret| options(secret, None)).await
    }

    /// The sum of a series over all nodes.
    pub(crate) async fn sum(&self, series: &str, labels: &[(&str, &str)]) -> f64 {
        let mut sum = 0.0;
        for node in 0..NODES {
            sum += self.cluster.node(node).unwrap().metrics().await.unwrap().sum(series, labels);
        }
        sum
    }

    /// Waits until every node takes part in everything again.
    pub(crate) async fn heals(&self) {
        let each = NODES as f64;
        let whole = [
            ("culvert_relay_degraded", 0.0),
            ("culvert_relay_unplaced", 0.0),
            ("culvert_relay_bus_lease", each),
            ("culvert_relay_bus_subscriptions", each * SHARDS),
            ("culvert_relay_bus_renewals_pending", 0.0),
            ("culvert_relay_bus_nodes", each * each),
        ];
        let (end, mut ticks) = (Instant::now() + HEALED, interval(Duration::from_millis(50)));
        loop {
            ticks.tick().await;
            let mut ill = Vec::new();
            for (gauge, value) in whole {
                let is = self.sum(gauge, &[]).await;
                if is != value {
                    ill.push(format!("{gauge} is {is} instead of {value}"));
                }
            }
            if ill.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "not healed after {HEALED:?}: {ill:?}");
        }
    }

    /// Ends all traffic, and holds what became of it against what is promised.
    pub(crate) async fn ends_well(&self, what: &str, life: Life) {
        self.heals().await;
        life.goes_on().await;
        // Peers that come new find each other.
        let newcomers = Traffic::start(self.apart(NODES).await, PACE);
        newcomers.goes_on(10, PATIENCE).await;
        newcomers.end().await.1.balances();
        let tally = life.lanes.end().await;
        let (_pairs, ledger) = life.sessions.end().await;
        ledger.balances();
        let pause = |percent| percentile(&ledger.pauses, percent).as_secs_f64();
        measured(&format!(
            "fault: {what}: {} sessions paused for {:.2} s (median), {:.2} s (longest), {} messages each once; \
             {} frames sent, {} arrived, {} came back, {} unknown",
            ledger.pauses.len(),
            pause(50),
            pause(100),
            ledger.messages,
            tally.sent,
            tally.delivered,
            tally.definite,
            tally.unknown,
        ));
    }
}

impl Life {
    /// Waits until every session, and the lanes together, have delivered more.
    pub(crate) async fn goes_on(&self) {
        self.sessions.goes_on(10, PATIENCE).await;
        self.lanes.deliver(300, PATIENCE).await;
    }
}

/// How raw peers reach the nodes.
pub(crate) fn raw() -> RawOptions {
    RawOptions::plain("localhost")
}
