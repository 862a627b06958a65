//! Redis dies, or stalls.

use std::time::Duration;

use culvert_wire::Notice;
use tokio::time::sleep;

use super::world::{NODES, Witness, World, topic};
use crate::common::PATIENCE;

/// How long nothing moves between the nodes and Redis.
const STALL: Duration = Duration::from_secs(10);
/// The lanes that stay on a node, when there is one from each of three nodes to each.
const LOCAL: [usize; 3] = [0, 4, 8];

/// What holds while no node reaches Redis: nodes say so, stay ready and go on with what they can do alone.
async fn outage(world: &World, lanes: &crate::common::frames::Lanes, witnesses: &mut [Witness]) {
    for (node, witness) in witnesses.iter_mut().enumerate() {
        world.is_degraded(node).await;
        witness.is_told(Notice::Degraded).await;
        let late = world.witness(node, topic()).await;
        assert!(late.met.degraded, "a join says that peers on other nodes may be missing");
    }
    lanes.go_on(&LOCAL, 50, PATIENCE).await;
}

/// A peer on each node, all in one topic, all of whom know each other.
async fn witnesses(world: &World) -> Vec<Witness> {
    let (topic, mut witnesses) = (topic(), Vec::new());
    for node in 0..NODES {
        witnesses.push(world.witness(node, topic).await);
    }
    for node in 0..NODES {
        for later in node + 1..NODES {
            let peer = witnesses[later].peer;
            witnesses[node].meets(peer).await;
        }
    }
    witnesses
}

/// Whoever joins from here on finds everybody.
async fn find_each_other(world: &World, witnesses: &mut [Witness]) {
    let topic = topic();
    for witness in witnesses.iter_mut() {
        witness.is_told(Notice::Restored).await;
        witness.raw.join(topic).await.unwrap();
    }
    let late = world.witness(0, topic).await;
    let mut met: Vec<_> = late.met.list.iter().map(|member| member.peer).collect();
    let mut all: Vec<_> = witnesses.iter().map(|witness| witness.peer).collect();
    met.sort_unstable();
    all.sort_unstable();
    assert_eq!((met, late.met.degraded), (all, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed_and_comes_back_empty_at_once_and_again_after_a_while() {
    let mut world = World::start().await;
    let mut witnesses = witnesses(&world).await;
    let life = world.life(&[0, 1, 2]).await;
    world.redis.kill().await.unwrap();
    world.redis.start_again().await.unwrap();
    life.goes_on().await;
    world.heals().await;

    world.redis.kill().await.unwrap();
    outage(&world, &life.lanes, &mut witnesses).await;
    world.redis.start_again().await.unwrap();
    world.heals().await;
    for node in 0..NODES {
        let renewals = [("kind", "renewal")];
        assert!(world.sum(node, "culvert_relay_bus_registry_operations_total", &renewals).await > 0.0);
    }
    find_each_other(&world, &mut witnesses).await;
    for witness in &mut witnesses {
        witness.raw.sync(1).await.unwrap();
    }
    world.ends_well("Redis is killed and empty, twice", life).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_moves_between_the_nodes_and_redis_for_ten_seconds() {
    let world = World::start().await;
    let mut witnesses = witnesses(&world).await;
    let life = world.life(&[0, 1, 2]).await;
    let proxies: Vec<_> = (0..NODES).map(|node| world.cluster.to_redis(node).unwrap()).collect();
    proxies.iter().for_each(|proxy| proxy.stall());
    tokio::join!(sleep(STALL), outage(&world, &life.lanes, &mut witnesses));
    proxies.iter().for_each(|proxy| proxy.pass());
    world.heals().await;
    find_each_other(&world, &mut witnesses).await;
    world.ends_well("Redis stalls for 10 s", life).await;
}
