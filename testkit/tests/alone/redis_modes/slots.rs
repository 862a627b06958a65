//! A slot moves to another master while it is in use.

use culvert_testkit::redis::RedisCluster;

use super::world::World;
use crate::alone;

/// The default of the setting `redis-shards`.
const SHARDS: u16 = 4;

/// The slot that holds the leases, and what is revoked.
const LEASES: &str = "{culvert}:nodes";

/// The numbers of the nodes.
async fn numbers(redis: &RedisCluster) -> Vec<u16> {
    let owner = redis.owner_of(redis.slot_of(LEASES).await.unwrap()).await.unwrap();
    redis.masters()[owner].ask(&["HKEYS", LEASES]).await.unwrap()
}

/// Moves the slot of a key or channel to the next master.
async fn move_slot_of(redis: &RedisCluster, name: &str) {
    let slot = redis.slot_of(name).await.unwrap();
    let from = redis.owner_of(slot).await.unwrap();
    redis.move_slot(slot, from, (from + 1) % redis.masters().len()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_survive_the_move_of_a_slot_that_holds_an_inbox() {
    let alone = alone().await;
    let redis = RedisCluster::start().await.unwrap();
    let world = World::start(redis.reach(), alone).await;
    let life = world.life().await;
    let nodes = numbers(&redis).await;
    let before = world.sum("culvert_relay_bus_resubscriptions_total", &[("reason", "moved")]).await;
    // The way from each node to the next, so that each is moved as a sender and as a receiver.
    for (index, from) in nodes.iter().enumerate() {
        let to = nodes[(index + 1) % nodes.len()];
        let inbox = format!("culvert:in:{{{to}.{}}}", from % SHARDS);
        move_slot_of(&redis, &inbox).await;
        life.goes_on().await;
    }
    world.heals().await;
    let after = world.sum("culvert_relay_bus_resubscriptions_total", &[("reason", "moved")]).await;
    assert!(after - before >= nodes.len() as f64, "{} subscriptions moved", after - before);
    world.ends_well("slots of inboxes move", life).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_survive_the_move_of_the_slot_that_holds_the_leases() {
    let alone = alone().await;
    let redis = RedisCluster::start().await.unwrap();
    let world = World::start(redis.reach(), alone).await;
    let life = world.life().await;
    for _ in redis.masters() {
        move_slot_of(&redis, LEASES).await;
        life.goes_on().await;
    }
    world.ends_well("the slot of the leases moves to every master", life).await;
    assert_eq!(numbers(&redis).await.len(), world.cluster.len());
    let lost = world.sum("culvert_relay_bus_lease_losses_total", &[]).await;
    assert_eq!(lost, 0.0, "a move costs nobody the lease");
}
