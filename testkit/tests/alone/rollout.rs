//! Sessions while the nodes of a cluster are restarted one after the other, and while one is killed: nothing
//! is lost, doubled or reordered, and nobody waits long.
//!
//! `test.sh --full` runs it with 1,000 sessions and holds the pauses against what is promised. A smaller run
//! shares the machine with other tests, so that it only finds what takes much too long.

mod arrivals;
mod sessions;

use std::net::SocketAddr;
use std::time::Duration;

use arrivals::Arrivals;
use culvert_testkit::haproxy::Balance;
use culvert_testkit::process::allow_open_files;
use culvert_testkit::redis::{RedisPlan, RedisServer};
use culvert_testkit::relay::{RelayCluster, RelayClusterPlan};
use culvert_testkit::report::{full, measured};
use sessions::{Pauses, Sessions};
use tokio::sync::MutexGuard;
use tokio::time::{Instant, sleep};

const NODES: usize = 3;
const DELAY: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_secs(5);
/// A node that drains ends within its delay, its window and twice its grace.
const DRAINED: Duration = Duration::from_secs(40);
/// Until every session goes on, whatever happened.
const GOES_ON: Duration = Duration::from_secs(60);

/// A cluster with sessions on it.
struct World {
    cluster: RelayCluster,
    sessions: Sessions,
    /// Where the nodes tell what they count.
    admin: Vec<SocketAddr>,
    _redis: RedisServer,
    _alone: MutexGuard<'static, ()>,
}

/// How long sessions may pause.
struct Bounds {
    median: Duration,
    p99: Duration,
}

/// What is promised for a session whose peer moves because its node is restarted.
const MOVED: Bounds = Bounds { median: Duration::from_millis(300), p99: Duration::from_secs(2) };
/// What is promised for a session whose peer's node was killed.
const KILLED: Bounds = Bounds { median: Duration::from_secs(2), p99: Duration::from_secs(5) };

fn count() -> usize {
    if full() { 1000 } else { 150 }
}

/// Between two messages of one peer: as short as two cores carry with half of their time, beside what is
/// done to the sessions. A pause that is shorter may fall between two messages; the smaller run finds those.
fn pace() -> Duration {
    Duration::from_millis(if full() { 500 } else { 100 })
}

impl World {
    async fn start() -> Self {
        let alone = crate::alone().await;
        // Two peers, each with two connections while it moves.
        allow_open_files(4 * count() as u64).unwrap();
        let redis = RedisPlan::new().unwrap().start().await.unwrap();
        let plan = RelayClusterPlan::open(NODES, redis.reach()).await.unwrap();
        let admin = std::sync::Mutex::new(Vec::new());
        let seconds = |time: Duration| format!("{}s", time.as_secs());
        let plan = plan.each(|_, relay| {
            admin.lock().unwrap().push(relay.admin_addr());
            let relay = relay.set("drain-delay", seconds(DELAY)).set("drain-window", seconds(WINDOW));
            Ok(relay.set("drain-grace", seconds(GRACE)))
        });
        // As operators are advised.
        let cluster = plan.unwrap().balance(Balance::RoundRobin).start().await.unwrap();
        let began = Instant::now();
        let mut sessions = Sessions::start(&cluster.url(), count(), pace()).await;
        sessions.go_on(2, GOES_ON).await;
        sessions.pauses();
        measured(&format!(
            "{} sessions of two peers on {NODES} nodes, a message each {:?} both ways; begun in {:.1} s",
            count(),
            pace(),
            began.elapsed().as_secs_f64(),
        ));
        let admin = admin.into_inner().unwrap();
        Self { cluster, sessions, admin, _redis: redis, _alone: alone }
    }

    /// What this machine does to sessions to which nothing is done.
    async fn control(&mut self) {
        // As long as a drain takes.
        sleep(DELAY + WINDOW).await;
        self.sessions.go_on(1, GOES_ON).await;
        let pauses = self.sessions.pauses();
        assert!(pauses.moved.is_empty(), "{} sessions moved without a reason", pauses.moved.len());
        measured(&format!("undisturbed: {}", Pauses::describe(&pauses.stayed)));
    }

    async fn connections(&self, node: usize) -> f64 {
        let metrics = self.cluster.node(node).unwrap().metrics().await.unwrap();
        metrics.sum("culvert_relay_connections", &[])
    }

    /// The pauses of what was just done to a node that had so many connections.
    async fn judge(&mut self, what: &str, connections: f64, bounds: &Bounds) -> Vec<Duration> {
        // Twice, so that whatever was late has come and counts.
        self.sessions.go_on(2, GOES_ON).await;
        let Pauses { moved, stayed } = self.sessions.pauses();
        measured(&format!("{what}: {} sessions moved: {}", moved.len(), Pauses::describe(&moved)));
        measured(&format!("{what}: {} sessions stayed: {}", stayed.len(), Pauses::describe(&stayed)));
        // A session has two peers, and both may have been there.
        assert!(moved.len() as f64 >= connections / 2.0, "{connections} connections were there");
        bounds.hold(&moved);
        moved
    }
}

impl Bounds {
    fn hold(&self, pauses: &[Duration]) {
        // A machine that builds and tests other things at the same time is no measure of ours.
        let share = if full() { 1 } else { 5 };
        let (median, p99) = (Pauses::median(pauses), Pauses::p99(pauses));
        assert!(median < self.median * share, "the median pause is {median:?}");
        assert!(p99 < self.p99 * share, "the 99th percentile of the pauses is {p99:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_moves_sessions_smoothly_and_loses_nothing() {
    let mut world = World::start().await;
    world.control().await;
    let mut all = Vec::new();
    for node in 0..NODES {
        let connections = world.connections(node).await;
        let arrivals = Arrivals::watch(&world.admin);
        world.cluster.drain(node, DRAINED).await.unwrap();
        let arrivals = arrivals.end().await;
        world.cluster.start(node).await.unwrap();
        all.extend(world.judge(&format!("node {node} restarted"), connections, &MOVED).await);
        measured(&arrivals.are_smeared(connections, WINDOW));
    }
    all.sort_unstable();
    measured(&format!("pauses of a rolling restart of {NODES} nodes: {}", Pauses::describe(&all)));
    MOVED.hold(&all);
    measured(&format!("{} messages, each delivered once and in order", world.sessions.end().await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_a_killed_node_go_on_elsewhere_and_lose_nothing() {
    let mut world = World::start().await;
    world.control().await;
    let connections = world.connections(0).await;
    world.cluster.kill(0).await.unwrap();
    world.judge("a node killed", connections, &KILLED).await;
    world.cluster.start(0).await.unwrap();
    measured(&format!("{} messages, each delivered once and in order", world.sessions.end().await));
}
