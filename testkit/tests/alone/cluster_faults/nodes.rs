//! A node dies, or hangs until the others hold it to be dead.

use std::time::Duration;

use culvert_testkit::report::measured;
use tokio::time::Instant;

use super::world::{NODES, World, topic, until};
use crate::common::PATIENCE;

/// The default of the setting `redis-lease`, and a second.
const KNOWN_TO_BE_DEAD: Duration = Duration::from_secs(7 + 1);
/// Members of one topic on the node that dies.
const VICTIMS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_survive_a_node_that_is_killed() {
    let mut world = World::start().await;
    let life = world.life(&[0, 2]).await;
    world.cluster.kill(1).await.unwrap();
    life.goes_on().await;
    world.cluster.start(1).await.unwrap();
    world.ends_well("a node is killed", life).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_is_known_to_be_dead_in_time_and_the_others_have_counted_every_verdict() {
    let mut world = World::with(|_, relay| relay).await;
    let topic = topic();
    let mut witnesses = [world.witness(0, topic).await, world.witness(2, topic).await];
    let mut victims = Vec::new();
    for _ in 0..VICTIMS {
        victims.push(world.witness(1, topic).await);
    }
    for witness in &mut witnesses {
        for victim in &victims {
            witness.meets(victim.peer).await;
        }
    }
    // Nobody else sends anything: what the survivors count is what these lanes are told.
    let lanes = world.lanes(&[(0, 1), (2, 1), (0, 2), (2, 0), (0, 0)]).await;
    lanes.go_on(&lanes.all(), 50, PATIENCE).await;

    let killed = Instant::now();
    world.cluster.kill(1).await.unwrap();
    for witness in &mut witnesses {
        for victim in &victims {
            witness.loses(victim.peer).await;
        }
    }
    let known = killed.elapsed();
    measured(&format!("peers of a killed node have left for the others after {:.2} s", known.as_secs_f64()));
    assert!(known <= KNOWN_TO_BE_DEAD, "{known:?}");

    lanes.go_on(&[2, 3, 4], 50, PATIENCE).await;
    lanes.settle().await;
    let counted = async |verdicts: &[&str]| {
        let mut sum = 0;
        for node in [0, 2] {
            for verdict in verdicts {
                let verdict = [("verdict", *verdict)];
                sum += world.count(node, "culvert_relay_undeliverable_total", &verdict).await;
            }
        }
        sum
    };
    until(PATIENCE, "the survivors' counters are not the verdicts", async || {
        let tally = lanes.tally();
        let definite = counted(&["gone", "unreachable", "full", "limited", "not_allowed"]).await;
        (definite, counted(&["unknown"]).await) == (tally.definite, tally.unknown)
    })
    .await;
    let tally = lanes.tally();
    assert!(tally.definite > 0 && tally.misplaced == 0, "{tally:?}");

    let complaint = "what the dead node had registered is not swept";
    until(PATIENCE, complaint, async || {
        let nodes: u64 = world.redis.ask(&["HLEN", "{culvert}:nodes"]).await.unwrap();
        let key = [b"culvert:t:".as_slice(), &topic.0].concat();
        let members: u64 = world.redis.ask(&[b"HLEN".as_slice(), &key]).await.unwrap();
        (nodes, members) == (NODES as u64 - 1, witnesses.len() as u64)
    })
    .await;
    world.cluster.start(1).await.unwrap();
    world.heals().await;
    world.takes_little_memory().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hangs_for_longer_than_its_lease_comes_back() {
    let world = World::start().await;
    let topic = topic();
    let (mut witness, mut frozen) = (world.witness(0, topic).await, world.witness(1, topic).await);
    witness.meets(frozen.peer).await;
    let life = world.life(&[0, 1, 2]).await;
    world.cluster.pause(1).unwrap();
    witness.loses(frozen.peer).await;
    for node in [0, 2] {
        world.shows(node, "culvert_relay_bus_nodes", NODES as f64 - 1.0).await;
    }
    life.sessions.goes_on(10, PATIENCE).await;
    world.cluster.resume(1).unwrap();
    witness.meets(frozen.peer).await;
    assert_eq!(world.count(1, "culvert_relay_bus_lease_losses_total", &[("loss", "lapsed")]).await, 1);
    assert_eq!(world.count(1, "culvert_relay_bus_lease_losses_total", &[("loss", "fenced")]).await, 0);
    frozen.raw.sync(1).await.unwrap();
    world.ends_well("a node hangs for longer than its lease", life).await;
}
