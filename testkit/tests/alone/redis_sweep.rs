//! A node with very many topics costs Redis four subscriptions, and its death does not make Redis slow: what
//! it had registered is swept in steps that others do not feel.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use culvert_testkit::redis::{Latency, LatencyProbe, RedisPlan, RedisServer};
use culvert_testkit::relay::{RelayCluster, RelayClusterPlan, RelayPlan};
use culvert_testkit::report::{full, measured};
use culvert_testkit::{HelloOptions, Identity, RawOptions, RawPeer};
use culvert_wire::{Frame, TopicId};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::alone;
use crate::common::PATIENCE;
use crate::common::frames::{Lanes, Load};

const NODES: usize = 3;
/// The default of the setting `redis-shards`.
const SHARDS: usize = 4;
/// The node that has the topics and is killed.
const LARGE: usize = 0;
/// Topics of each of its connections.
const EACH: usize = 500;
/// What the slowest answer of Redis may be above that of the control run.
const ABOVE: Duration = Duration::from_millis(5);
/// On a machine that others use, one sample in thousands is late because nothing ran at all for a moment,
/// and it falls on either run. So the best of a few pairs of runs counts: a sweep that blocks Redis does so
/// in each of them.
const PAIRS: usize = 3;
/// A control run that was disturbed like this excuses nothing.
const DISTURBED: Duration = Duration::from_millis(20);
/// From the death of a node to the end of its lease, several times.
const SWEPT: Duration = Duration::from_secs(180);
/// A sign of life; relays want one within 45 s.
const ALIVE: Duration = Duration::from_secs(5);

fn topics() -> usize {
    if full() { 100_000 } else { 10_000 }
}

async fn cluster(redis: &RedisServer) -> RelayCluster {
    let each = |_, relay: RelayPlan| {
        let relay = relay.set("max-topics-per-connection", EACH.to_string());
        // A full run has the lease of a real cluster.
        Ok(if full() { relay } else { relay.set("redis-lease", "3s").set("redis-timeout", "1s") })
    };
    let plan = RelayClusterPlan::open(NODES, redis.reach()).await.unwrap().each(each).unwrap();
    plan.start().await.unwrap()
}

/// Connections that are in very many topics, each of which nobody else is in; they stay until their node
/// ends.
async fn enter(node: SocketAddr, options: &RawOptions) -> JoinSet<()> {
    let mut entering = JoinSet::new();
    for _ in 0..topics() / EACH {
        let options = options.clone();
        entering.spawn(async move {
            let mut peer = RawPeer::connect(node, &options.deadline(PATIENCE)).await.unwrap();
            peer.hello(&HelloOptions::new(&Identity::random().unwrap())).await.unwrap();
            for _ in 0..EACH {
                let mut topic = TopicId([0; 32]);
                aws_lc_rs::rand::fill(&mut topic.0).unwrap();
                peer.feed(&Frame::Join { topic }).await.unwrap();
            }
            peer.flush().await.unwrap();
            let mut joined = 0;
            while joined < EACH {
                match peer.recv().await.unwrap() {
                    Frame::Joined { members, .. } => {
                        assert!(!members.degraded);
                        joined += 1;
                    }
                    other => assert!(!matches!(other, Frame::JoinRefused { .. }), "{other:?}"),
                }
            }
            peer
        });
    }
    let mut staying = JoinSet::new();
    for peer in entering.join_all().await {
        staying.spawn(stay(peer));
    }
    staying
}

async fn stay(mut peer: RawPeer) {
    let mut alive = interval(ALIVE);
    loop {
        let still = tokio::select! {
            frame = peer.recv() => frame.is_ok(),
            _ = alive.tick() => peer.send(&Frame::Ping { token: 0, padding: Bytes::new() }).await.is_ok(),
        };
        if !still {
            return;
        }
    }
}

/// Every subscription is a shard of some node's inbox.
async fn only_inboxes_are_subscribed(redis: &RedisServer, cluster: &RelayCluster) {
    let channels: Vec<String> = redis.ask(&["PUBSUB", "CHANNELS"]).await.unwrap();
    let mut shards = BTreeMap::<&str, usize>::new();
    for channel in &channels {
        let inbox = channel.strip_prefix("culvert:in:{").and_then(|rest| rest.split_once('.'));
        *shards.entry(inbox.expect(channel).0).or_default() += 1;
    }
    assert_eq!(shards.values().copied().collect::<Vec<_>>(), [SHARDS; NODES], "{channels:?}");
    let mut numbers = vec!["PUBSUB".to_owned(), "NUMSUB".to_owned()];
    numbers.extend(channels.iter().cloned());
    let numbers: BTreeMap<String, usize> = redis.ask(&numbers).await.unwrap();
    assert!(numbers.values().all(|subscribers| *subscribers == 1), "{numbers:?}");
    let (patterns, sharded): (u64, Vec<String>) = (
        redis.ask(&["PUBSUB", "NUMPAT"]).await.unwrap(),
        redis.ask(&["PUBSUB", "SHARDCHANNELS"]).await.unwrap(),
    );
    assert_eq!((patterns, sharded.len()), (0, 0));
    let clients = redis.clients().await.unwrap();
    let subscribed: Vec<u64> =
        clients.iter().map(|client| client.subscriptions).filter(|count| *count > 0).collect();
    assert_eq!(subscribed, [1; NODES * SHARDS], "connections with their subscriptions");
    let own = cluster.node(LARGE).unwrap().metrics().await.unwrap();
    assert_eq!(own.sum("culvert_relay_bus_subscriptions", &[]), SHARDS as f64);
}

/// Memberships that the living have swept so far.
async fn swept(cluster: &RelayCluster) -> f64 {
    let mut sum = 0.0;
    for node in (0..NODES).filter(|node| *node != LARGE) {
        let metrics = cluster.node(node).unwrap().metrics().await.unwrap();
        sum += metrics.sum("culvert_relay_bus_swept_total", &[]);
    }
    sum
}

async fn keys(redis: &RedisServer) -> usize {
    redis.ask(&["DBSIZE"]).await.unwrap()
}

/// The longest that a single command has kept Redis busy since this was last asked, as Redis saw it.
async fn slowest_command(redis: &RedisServer) -> String {
    type Entry = (u64, u64, u64, Vec<redis::Value>, redis::Value, redis::Value);
    let entries: Vec<Entry> = redis.ask(&["SLOWLOG", "GET", "-1"]).await.unwrap();
    let () = redis.ask(&["SLOWLOG", "RESET"]).await.unwrap();
    let slowest = entries.into_iter().max_by_key(|(_, _, micros, ..)| *micros);
    slowest.map_or_else(
        || "none over 1 ms".to_owned(),
        |(_, _, micros, words, ..)| {
            let name: String =
                words.into_iter().next().map(|word| redis::from_redis_value(word).unwrap()).unwrap();
            format!("{name} with {:.1} ms", micros as f64 / 1000.0)
        },
    )
}

/// Kills the node and waits until nothing of it is left; says what Redis' other clients felt meanwhile.
async fn kill_and_sweep(cluster: &mut RelayCluster, redis: &RedisServer, before: usize) -> Latency {
    let already = swept(cluster).await;
    let mut probe = LatencyProbe::start(redis).await.unwrap();
    let first = probe.so_far().unwrap();
    let (killed, mut begun) = (Instant::now(), None);
    cluster.kill(LARGE).await.unwrap();
    let mut ticks = interval(Duration::from_millis(100));
    loop {
        ticks.tick().await;
        let left: usize = redis.ask(&["HLEN", "{culvert}:nodes"]).await.unwrap();
        if left == NODES - 1 {
            break;
        }
        if begun.is_none() && keys(redis).await < topics() {
            begun = Some(Instant::now());
        }
        assert!(killed.elapsed() < SWEPT, "{} keys are left", keys(redis).await);
    }
    let latency =
        Latency { samples: probe.so_far().unwrap().samples - first.samples, ..probe.so_far().unwrap() };
    assert_eq!(swept(cluster).await - already, topics() as f64, "memberships that were swept");
    assert!(keys(redis).await <= before, "what the node had registered is gone");
    measured(&format!(
        "{} topics of a killed node swept: {:.1} s after its death, {:.1} s of it sweeping",
        topics(),
        killed.elapsed().as_secs_f64(),
        begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64()),
    ));
    latency
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_very_many_topics_has_four_subscriptions_and_its_death_does_not_slow_redis() {
    let _alone = alone().await;
    let plan = RedisPlan::new().unwrap().set("slowlog-log-slower-than", "1000");
    let redis = plan.set("slowlog-max-len", "1000").start().await.unwrap();
    let mut cluster = cluster(&redis).await;
    only_inboxes_are_subscribed(&redis, &cluster).await;
    // The same load in all runs, between the nodes that live on.
    let (one, two) = (cluster.node(1).unwrap(), cluster.node(2).unwrap());
    let load = Load { frames: 20, every: Duration::from_millis(10) };
    let lanes = Lanes::start([(one.addr(), two.addr()), (two.addr(), one.addr())], &one.raw(), load).await;
    lanes.deliver(100, PATIENCE).await;
    let before = keys(&redis).await;

    let (node, options) = (cluster.node(LARGE).unwrap().addr(), cluster.node(LARGE).unwrap().raw());
    let mut peers = enter(node, &options).await;
    assert!(keys(&redis).await >= before + topics(), "every topic is registered");
    only_inboxes_are_subscribed(&redis, &cluster).await;
    measured(&format!("{} topics on one node: {SHARDS} subscriptions", topics()));

    let mut good = false;
    for pair in 1..=PAIRS {
        slowest_command(&redis).await;
        let swept = kill_and_sweep(&mut cluster, &redis, before).await;
        let slowest_swept = slowest_command(&redis).await;
        while peers.join_next().await.is_some() {}
        cluster.start(LARGE).await.unwrap();
        peers = enter(node, &options).await;
        slowest_command(&redis).await;
        let mut probe = LatencyProbe::start(&redis).await.unwrap();
        let control = probe.more(swept.samples, SWEPT * 2).await.unwrap();
        measured(&format!(
            "slowest of {} answers of redis while {} topics were swept: {} ms (slowest command {slowest_swept}); \
             of as many without: {} ms ({})",
            swept.samples,
            topics(),
            swept.worst.as_millis(),
            control.worst.as_millis(),
            slowest_command(&redis).await,
        ));
        good = swept.worst <= control.worst.min(DISTURBED) + ABOVE;
        if good || pair == PAIRS {
            break;
        }
    }
    assert!(
        good,
        "in none of {PAIRS} pairs of runs was the slowest answer within {ABOVE:?} of the control's"
    );
    let tally = lanes.end().await;
    assert_eq!((tally.definite, tally.unknown), (0, 0), "no frame between the living was lost: {tally:?}");
}
