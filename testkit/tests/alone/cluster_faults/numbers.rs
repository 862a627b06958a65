//! Whose number it is, and which version of the bus is spoken.

use std::time::Duration;

use culvert_testkit::binaries;
use culvert_testkit::process::Plan;
use culvert_wire::{Close, NodeId};

use super::world::{NODES, World, brisk, topic, until};
use crate::common::PATIENCE;

/// What a process that is not there holds a number for: longer than a test needs to wake a node up.
const HELD: Duration = Duration::from_secs(10);
/// The leases, as they stand in Redis.
const LEASES: &str = "{culvert}:nodes";

/// Writes a lease of a process that speaks these versions of the bus, as a node would.
async fn take_number(world: &World, node: NodeId, bus: [u8; 2]) {
    let now: (u64, u64) = world.redis.ask(&["TIME"]).await.unwrap();
    let expires = now.0 * 1000 + u64::try_from(HELD.as_millis()).unwrap();
    let about = format!(
        r#"{{"bus":{bus:?},"version":"0.0.0","since":1,"connections":0,"memberships":0,"unswept":1}}"#
    );
    let lease = format!("{:016x} 1 {expires} {about}", 0x0c0f_fee0_u64);
    let () = world.redis.ask(&["HSET", LEASES, &node.0.to_string(), &lease]).await.map(|_: u64| ()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_number_was_taken_while_it_hung_closes_its_peers_and_draws_another() {
    let world = World::start().await;
    let topic = topic();
    let (mut witness, mut fenced) = (world.witness(0, topic).await, world.witness(1, topic).await);
    witness.meets(fenced.peer).await;
    let life = world.life(&[0, 2]).await;
    world.cluster.pause(1).unwrap();
    witness.loses(fenced.peer).await;
    take_number(&world, fenced.node(), [1, 2]).await;
    world.cluster.resume(1).unwrap();
    assert_eq!(fenced.is_closed().await, Close::Fenced);
    world.cluster.balancer().sees(1, true).await.unwrap();
    until(PATIENCE, "the node got no other number", async || {
        world.sum(1, "culvert_relay_unplaced", &[]).await == 0.0
    })
    .await;
    assert_eq!(world.count(1, "culvert_relay_bus_lease_losses_total", &[("loss", "fenced")]).await, 1);

    let anew = world.witness(1, topic).await;
    assert_ne!(anew.node(), fenced.node());
    witness.meets(anew.peer).await;
    // Who took the number never answers: it expires, and is swept like any other.
    world.ends_well("a number was taken while its node hung", life).await;
    until(PATIENCE, "the number that was taken is not swept", async || {
        world.redis.ask::<u64>(&["HLEN", LEASES]).await.unwrap() == NODES as u64
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_two_bus_versions_are_one_cluster_and_an_incompatible_one_does_not_start() {
    let old = |index, relay| match index {
        0 => brisk(relay).set("redis-newest-bus-version", "1"),
        _ => brisk(relay),
    };
    let mut world = World::with(old).await;
    let leases: Vec<String> = world.redis.ask(&["HVALS", LEASES]).await.unwrap();
    let speak = |bus: &str| leases.iter().filter(|lease| lease.contains(bus)).count();
    assert_eq!((speak(r#""bus":[1,1]"#), speak(r#""bus":[1,2]"#)), (1, NODES - 1), "{leases:?}");
    let life = world.life(&[0, 2]).await;
    world.cluster.kill(1).await.unwrap();
    life.goes_on().await;
    world.cluster.start(1).await.unwrap();
    world.ends_well("two versions of the bus, and a node is killed", life).await;

    let stranger = world.witness(0, topic()).await.node();
    take_number(&world, NodeId(stranger.0.wrapping_add(1)), [9, 9]).await;
    let relay = Plan::new("culvert-relay", binaries::relay().await.unwrap())
        .args(["--open", "--plain-text", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"])
        .arg(format!("--redis={}", world.redis.reach().url()));
    let mut relay = relay.start().unwrap();
    let status = relay.wait(PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(relay.output().contains("the cluster speaks bus versions 9-9"), "{}", relay.output().tail());
    world.heals().await;
}
