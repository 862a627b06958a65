//! The same over a Redis Cluster, where nothing may be asked of two slots at once, and across a failover.

use std::sync::Arc;

use culvert_relay::bus::redis::keys::Keys;
use culvert_relay::bus::redis::settings::{Mode, Settings};
use culvert_testkit::redis::{MASTER, RedisCluster, RedisSentinels};
use futures_util::{StreamExt, stream};

use super::member::{Joiner, Ways};
use super::membership::{fill, topic};
use super::node::{LEASE, eventually, settings_of};

/// How many topics there are, on all masters together.
async fn topics(cluster: &RedisCluster) -> usize {
    let mut sum = 0;
    for master in cluster.masters() {
        let keys: Vec<Vec<u8>> = master.ask(&["KEYS", "culvert:t:*"]).await.unwrap();
        sum += keys.len();
    }
    sum
}

async fn pair(settings: &Settings) -> (Joiner, Joiner) {
    let ways = Arc::new(Ways::default());
    let (a, b) = tokio::join!(Joiner::start(settings, &ways), Joiner::start(settings, &ways));
    for node in [&a, &b] {
        eventually("both know each other", async || node.lease.table().live().count() == 2).await;
    }
    (a, b)
}

#[tokio::test]
async fn in_a_cluster_topics_are_spread_joined_moved_and_swept() {
    let cluster = RedisCluster::start().await.unwrap();
    let mut settings = settings_of(cluster.reach().servers(), Mode::Cluster);
    // Servers of a cluster answer slower while a slot moves.
    (settings.lease, settings.timeout) = (LEASE * 2, LEASE / 2);
    let (a, mut b) = pair(&settings).await;
    fill(&b, (0..500).map(topic)).await;
    fill(&a, (0..20).map(topic)).await;
    assert_eq!(topics(&cluster).await, 500);
    assert_eq!(a.lookup(topic(7)).await.list, [b.member(7)]);
    assert_eq!(a.membership.nodes_of(&topic(7)), [b.node()]);

    let slot = cluster.slot_of(Keys::new("culvert").topic(&topic(7))).await.unwrap();
    let owner = cluster.owner_of(slot).await.unwrap();
    cluster.move_slot(slot, owner, (owner + 1) % 3).await.unwrap();
    let seen = a.join(topic(7), 99).await;
    assert_eq!((seen.list, seen.degraded), (vec![b.member(7)], false));
    a.leave(topic(7), 99);

    let node = b.node();
    b.kill().await;
    eventually("it is swept", async || topics(&cluster).await == 20).await;
    eventually("its number is free", async || a.lease.table().dead().next().is_none()).await;
    assert!(a.lease.table().get(node).is_none());
    assert!(a.metric("culvert_relay_bus_swept_total") >= 480.0);
    (0..20).for_each(|n| a.leave(topic(n), n));
    assert!(a.membership.close().await);
    assert_eq!(topics(&cluster).await, 0);
}

#[tokio::test]
async fn after_a_failover_everything_is_registered_anew() {
    let mut redis = RedisSentinels::start().await.unwrap();
    let master = MASTER.to_owned();
    let settings = settings_of(redis.reach().servers(), Mode::Sentinel { master });
    let (a, b) = pair(&settings).await;
    fill(&a, (0..100).map(topic)).await;
    let before = [a.lease.own().unwrap(), b.lease.own().unwrap()];
    redis.failover().await.unwrap();
    for (node, (number, life)) in [&a, &b].into_iter().zip(before) {
        let raised = async || {
            let (own, now) = node.lease.own().unwrap();
            own == number && now.instance == life.instance && now.term > life.term
        };
        eventually("its term is raised", raised).await;
        eventually("it is well", async || node.membership.is_complete() && node.lease.is_valid()).await;
    }
    let all =
        async || stream::iter(0..100).all(async |n| b.lookup(topic(n)).await.list == [a.member(n)]).await;
    eventually("everybody is found", all).await;
}
