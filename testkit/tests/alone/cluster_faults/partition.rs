//! One node loses Redis, or hears nothing from it, while the others are well.

use culvert_testkit::chaos::{Cut, Mode};
use culvert_wire::Notice;

use super::world::{NODES, World, topic};
use crate::common::PATIENCE;

/// The lanes that node 1 has no part in, and its own to itself.
const WELL: [usize; 5] = [0, 2, 4, 6, 8];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_find_their_way_around_a_node_that_is_cut_off_from_redis() {
    let world = World::start().await;
    let topic = topic();
    let (mut near, mut far) = (world.witness(0, topic).await, world.witness(1, topic).await);
    near.meets(far.peer).await;
    let life = world.life(&[0, 1, 2]).await;
    let proxy = world.cluster.to_redis(1).unwrap();
    proxy.refuse_new(true);
    proxy.cut(Cut::Reset).await;
    world.is_degraded(1).await;
    far.is_told(Notice::Degraded).await;
    assert!(
        world.witness(1, topic).await.met.degraded,
        "a join says that peers on other nodes may be missing"
    );
    near.loses(far.peer).await;
    for node in [0, 2] {
        world.shows(node, "culvert_relay_bus_nodes", NODES as f64 - 1.0).await;
        assert_eq!(world.sum(node, "culvert_relay_degraded", &[]).await, 0.0, "node {node} misses nothing");
    }
    life.lanes.go_on(&WELL, 50, PATIENCE).await;
    life.sessions.goes_on(10, PATIENCE).await;

    proxy.pass();
    far.is_told(Notice::Restored).await;
    near.meets(far.peer).await;
    let (tally, _) = world.ends_well("one node is cut off from Redis", life).await;
    assert!(tally.definite > 0, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hears_nothing_notices_and_listens_anew() {
    let world = World::start().await;
    for (how, what) in
        [(Mode::Deaf, "one node is deaf"), (Mode::Stall, "one node is deaf, and its buffers fill")]
    {
        let life = world.life(&[0, 1, 2]).await;
        let before = world.count(1, "culvert_relay_bus_resubscriptions_total", &[]).await;
        let subscriptions = world.cluster.subscriptions(1, &world.redis).await.unwrap();
        for subscription in &subscriptions {
            subscription.set(|faults| faults.down.mode = how);
        }
        // What is deaf stays so; the node makes subscriptions that hear.
        life.goes_on().await;
        world.heals().await;
        let after = world.count(1, "culvert_relay_bus_resubscriptions_total", &[]).await;
        assert_eq!(after - before, subscriptions.len() as u64);
        world.ends_well(what, life).await;
    }
}
