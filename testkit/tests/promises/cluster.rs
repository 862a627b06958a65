//! Relays on a real Redis of every kind, behind a real balancer: peers reach each other wherever they come
//! in, and stopping nodes in any way costs them nothing.

use std::time::Duration;

use culvert_testkit::certs::TestCa;
use culvert_testkit::redis::{Mode, Reach, RedisCluster, RedisPlan, RedisSentinels, relay_rights};
use culvert_testkit::relay::{RelayCluster, RelayClusterPlan};

use crate::common::pairs::{Ledger, Traffic, pairs};
use crate::common::{PATIENCE, Pair, options};

const PACE: Duration = Duration::from_millis(20);
const NODES: usize = 3;
/// The default of the setting `redis-shards`.
const SHARDS: usize = 4;
/// For a drain that is told not to dawdle.
const DRAINED: Duration = Duration::from_secs(60);

/// Nodes that drain at once, so that a test waits for nothing but peers.
async fn plan(redis: Reach) -> RelayClusterPlan {
    let brisk = |_, relay: culvert_testkit::relay::RelayPlan| {
        Ok(relay.set("drain-delay", "500ms").set("drain-window", "1s").set("drain-grace", "1s"))
    };
    RelayClusterPlan::open(NODES, redis).await.unwrap().each(brisk).unwrap()
}

/// Pairs of which no two peers are on the same node.
async fn apart(cluster: &RelayCluster, count: usize, ca: Option<&TestCa>) -> Vec<Pair> {
    let url = |node: usize| cluster.node(node % NODES).unwrap().url();
    pairs(count, |n| (url(n), url(n + 1)), |secret| options(secret, ca.map(TestCa::path))).await
}

async fn converse(pairs: Vec<Pair>) -> Ledger {
    let traffic = Traffic::start(pairs, PACE);
    traffic.goes_on(25, PATIENCE).await;
    let (_pairs, ledger) = traffic.end().await;
    ledger.balances();
    ledger
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_converse_across_nodes_that_have_the_rights_of_a_relay_and_no_others() {
    let ca = TestCa::new("Culvert test").unwrap();
    let leaf = ca.loopback().unwrap();
    let redis = RedisPlan::new().unwrap().tls(&leaf, &ca).password("of the operator");
    let redis = redis.user("relay", "of the relays", &relay_rights(Mode::Standalone)).start().await.unwrap();
    let relays = plan(redis.reach()).await.each(|_, relay| relay.tls(&leaf, &ca)).unwrap();
    let cluster = relays.through_chaos().unwrap().start().await.unwrap();

    converse(apart(&cluster, 6, Some(&ca)).await).await;

    for node in 0..NODES {
        assert_eq!(cluster.subscriptions(node, &redis).await.unwrap().len(), SHARDS);
    }
    let refused: Vec<redis::Value> = redis.ask(&["ACL", "LOG"]).await.unwrap();
    assert_eq!(refused, [], "a relay needs a right that it does not say it needs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conversations_through_the_balancer_survive_nodes_that_drain_and_nodes_that_are_killed() {
    let redis = RedisPlan::new().unwrap().start().await.unwrap();
    let mut cluster = plan(redis.reach()).await.start().await.unwrap();
    let url = cluster.url();
    let pairs = pairs(10, |_| (url.clone(), url.clone()), |secret| options(secret, None)).await;
    let spread = cluster.balancer().backends().await.unwrap();
    assert!(spread.iter().all(|node| node.up && node.connections >= 5), "{spread:?}");

    let traffic = Traffic::start(pairs, PACE);
    cluster.drain(0, DRAINED).await.unwrap();
    assert!(cluster.node(0).is_err());
    cluster.start(0).await.unwrap();
    traffic.goes_on(5, PATIENCE).await;
    cluster.kill(1).await.unwrap();
    cluster.balancer().sees(1, false).await.unwrap();
    cluster.start(1).await.unwrap();
    traffic.goes_on(5, PATIENCE).await;
    let (_pairs, ledger) = traffic.end().await;
    ledger.balances();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_node_gets_no_new_peers_until_it_goes_on() {
    let redis = RedisPlan::new().unwrap().start().await.unwrap();
    let cluster = plan(redis.reach()).await.start().await.unwrap();
    cluster.pause(2).unwrap();
    cluster.balancer().sees(2, false).await.unwrap();
    cluster.resume(2).unwrap();
    cluster.balancer().sees(2, true).await.unwrap();
    converse(apart(&cluster, 3, None).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_converse_across_nodes_that_sentinels_lead_to_redis() {
    let redis = RedisSentinels::start().await.unwrap();
    let cluster = plan(redis.reach()).await.start().await.unwrap();
    converse(apart(&cluster, 6, None).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_converse_across_nodes_on_a_redis_cluster() {
    let redis = RedisCluster::start().await.unwrap();
    let cluster = plan(redis.reach()).await.start().await.unwrap();
    converse(apart(&cluster, 6, None).await).await;
}
