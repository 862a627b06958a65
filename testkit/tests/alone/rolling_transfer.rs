//! A large file between two `culvert` commands on different nodes of a cluster, while every node is
//! restarted once and one is killed: it arrives whole, and neither command notices.
//!
//! `CULVERT_TRANSFER_BYTES` sets the size.

use std::time::Duration;

use culvert_testkit::certs::TestCa;
use culvert_testkit::redis::RedisPlan;
use culvert_testkit::relay::{RelayCluster, RelayClusterPlan};
use culvert_testkit::report::{measured, mib};
use culvert_testkit::user::{self, User};
use tokio::time::Instant;

use crate::alone;
use crate::files::{Peaks, hash, patience, size, write_random};

const NODES: usize = 3;
/// The file takes at least so long, so that everything below happens while it is under way.
const AT_LEAST: u64 = 40;
/// A node that drains ends within its delay, window and grace.
const DRAINED: Duration = Duration::from_secs(20);

/// Connections on each node; none on one that is stopped.
async fn connections(cluster: &RelayCluster) -> Vec<f64> {
    let mut counts = Vec::new();
    for node in 0..cluster.len() {
        counts.push(match cluster.node(node) {
            Ok(node) => node.metrics().await.unwrap().sum("culvert_relay_connections", &[]),
            Err(_) => 0.0,
        });
    }
    counts
}

/// Waits until both commands are connected, and gives how many are on each node.
async fn both_connected(cluster: &RelayCluster) -> Vec<f64> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    loop {
        ticks.tick().await;
        let counts = connections(cluster).await;
        if counts.iter().sum::<f64>() >= 2.0 {
            return counts;
        }
        assert!(Instant::now() < deadline, "both do not come back: {counts:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_passes_while_every_node_is_restarted_and_one_is_killed() {
    let _alone = alone().await;
    let (size, start) = (size(), Instant::now());
    let ca = TestCa::new("Culvert test").unwrap();
    let leaf = ca.loopback().unwrap();
    let redis = RedisPlan::new().unwrap().start().await.unwrap();
    let plan = RelayClusterPlan::open(NODES, redis.reach()).await.unwrap();
    let pace = format!("{}KiB", (size / AT_LEAST / 1024).max(64));
    let each = |_, plan: culvert_testkit::relay::RelayPlan| {
        let plan = plan.tls(&leaf, &ca)?.set("connection-bytes", &pace);
        Ok(plan.set("drain-delay", "1s").set("drain-window", "3s").set("drain-grace", "3s"))
    };
    let mut cluster = plan.each(each).unwrap().start().await.unwrap();
    let url = cluster.url();
    let (anna, ben) = (User::new().await.unwrap(), User::new().await.unwrap());
    let original = anna.home().join("large.bin");
    let expected = write_random(&original, size);

    let mut peaks = Peaks::default();
    let send =
        anna.culvert("send").args(["--proxy", "none", "--relay", &url]).arg("--ca-file").arg(ca.path());
    let mut sender = send.arg(&original).start().unwrap();
    peaks.watch("the sender", sender.pid());
    let link = user::link(&sender).await.unwrap();
    let out = ben.home().join("in");
    let receive = ben.culvert("receive").arg(&link).args(["--proxy", "none"]).arg("--ca-file").arg(ca.path());
    let mut receiver = receive.arg("--out").arg(&out).start().unwrap();
    peaks.watch("the receiver", receiver.pid());
    let counts = both_connected(&cluster).await;
    assert!(counts.iter().all(|count| *count < 2.0), "both are on one node: {counts:?}");

    for node in 0..NODES {
        let began = Instant::now();
        cluster.drain(node, DRAINED).await.unwrap();
        cluster.start(node).await.unwrap();
        both_connected(&cluster).await;
        measured(&format!("node {node} restarted under a transfer: {:.1} s", began.elapsed().as_secs_f64()));
        assert!(receiver.is_running(), "the transfer was over before every node was restarted");
    }
    let counts = connections(&cluster).await;
    let busiest = (0..NODES).max_by(|a, b| counts[*a].total_cmp(&counts[*b])).unwrap();
    cluster.kill(busiest).await.unwrap();
    assert!(receiver.is_running(), "the transfer was over before a node was killed");
    both_connected(&cluster).await;
    cluster.start(busiest).await.unwrap();

    receiver.succeeds(patience(size)).await.unwrap();
    sender.succeeds(patience(size)).await.unwrap();
    assert_eq!(hash(&out.join("large.bin")), expected, "the file differs");
    measured(&format!(
        "{} across a cluster of {NODES}, each restarted and one killed: same BLAKE3, {:.1} s at most {pace} a second",
        mib(size),
        start.elapsed().as_secs_f64(),
    ));
    peaks.judge().await;
}
