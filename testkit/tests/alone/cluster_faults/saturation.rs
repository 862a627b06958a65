//! The nodes offer Redis twice what it can carry.

use std::time::Duration;

use culvert_testkit::relay::RelayPlan;
use culvert_testkit::report::{measured, mib};
use tokio::time::{Instant, sleep};

use super::world::{Life, NODES, World, brisk, raw, until};
use crate::common::PATIENCE;
use crate::common::frames::{Lanes, Load};

/// Bytes of a frame, so that a queue is full soon.
const PAYLOAD: usize = 1024;
/// How long is measured what is offered.
const SAMPLE: Duration = Duration::from_secs(2);
/// How long it goes on once queues are full.
const SATURATED: Duration = Duration::from_secs(5);
/// Lanes from one node to another, when there is one from each of three nodes to each.
const ACROSS: [usize; 6] = [1, 2, 3, 5, 6, 7];

fn small_queues(_: usize, relay: RelayPlan) -> RelayPlan {
    brisk(relay).set("redis-queue-bytes", "1MiB")
}

/// Bytes that all nodes together have given to Redis for each other.
async fn sent(world: &World) -> u64 {
    let mut sum = 0;
    for node in 0..NODES {
        sum += world.count(node, "culvert_relay_bus_bytes_total", &[("direction", "sent")]).await;
    }
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_is_offered_twice_what_it_can_carry_refuses_the_rest_and_recovers() {
    let world = World::with(small_queues).await;
    let addr = |node: usize| world.cluster.node(node).unwrap().addr();
    let ways = (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to)));
    let load = Load { frames: 10, every: Duration::from_millis(20) };
    let lanes = Lanes::sized(ways.map(|(from, to)| (addr(from), addr(to))), &raw(), load, PAYLOAD).await;
    let life = Life { sessions: world.sessions(3).await, lanes };
    life.goes_on().await;

    let (start, before) = (Instant::now(), sent(&world).await);
    sleep(SAMPLE).await;
    let milliseconds = u64::try_from(start.elapsed().as_millis()).unwrap();
    let offered = (sent(&world).await - before) * 1000 / milliseconds / NODES as u64;
    let carried = u32::try_from(offered / 2).unwrap();
    let limit = |rate| {
        for node in 0..NODES {
            world.cluster.to_redis(node).unwrap().set(|faults| faults.up.bytes_per_second = rate);
        }
    };
    limit(Some(carried));
    until(PATIENCE, "no queue is full", async || {
        let mut full = true;
        for node in 0..NODES {
            full &= world.sum(node, "culvert_relay_undeliverable_total", &[("verdict", "full")]).await > 0.0;
        }
        full
    })
    .await;
    let before = life.lanes.tally();
    sleep(SATURATED).await;
    let now = life.lanes.tally();
    // A bus that is full still carries what it can.
    life.lanes.go_on(&ACROSS, 50, PATIENCE).await;
    let used: u64 = world.redis.info("used_memory_peak").await.unwrap().parse().unwrap();
    limit(None);
    measured(&format!(
        "each node offers Redis {}/s and may send {}/s: of {} frames {} arrive, {} come back, {} are unknown; \
         Redis uses {} at most",
        mib(offered),
        mib(carried.into()),
        now.sent - before.sent,
        now.delivered - before.delivered,
        now.definite - before.definite,
        now.unknown - before.unknown,
        mib(used),
    ));
    world.ends_well("the bus is offered twice what it can carry", life).await;
}
