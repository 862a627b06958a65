//! Too much at once: addresses that nobody has, and everybody coming back together.

use std::time::Duration;

use culvert_testkit::chaos::{ChaosProxy, Cut};
use culvert_testkit::report::{full, measured};
use culvert_wire::{Class, ConnId, Frame, NodeId, Verdict};
use tokio::time::Instant;

use super::world::{LOAD, Life, NODES, Witness, World, raw, topic};
use crate::common::frames::Lanes;
use crate::common::pairs::{Traffic, pairs};
use crate::common::{PATIENCE, options};

/// Frames that a flood has under way at once.
const BURST: u32 = 500;
/// Of each of the many sessions.
const SLOW_PACE: Duration = Duration::from_millis(100);

/// Sends so many frames to addresses of this node, which nobody has; every one comes back as gone.
async fn flood(from: &mut Witness, node: NodeId, frames: u32) {
    for burst in 0..frames / BURST {
        for number in 0..BURST {
            // Every address is another one.
            let to = ConnId::new(node, u64::from(burst * BURST + number) + (0x5eed << 24));
            let payload = vec![0; 64].into();
            let frame = Frame::Send { class: Class::Normal, handle: from.handle, to, payload };
            from.raw.feed(&frame).await.unwrap();
        }
        from.raw.flush().await.unwrap();
        let mut returned = 0;
        while returned < BURST {
            if let Frame::Undeliverable { verdict, count, .. } = from.raw.recv().await.unwrap() {
                assert_eq!(verdict, Verdict::Gone);
                returned += count;
            }
        }
    }
}

/// A number that no node has.
async fn unused(world: &World) -> NodeId {
    let used: Vec<u16> = world.redis.ask(&["HKEYS", "{culvert}:nodes"]).await.unwrap();
    NodeId((1000..).find(|number| !used.contains(number)).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_addresses_that_nobody_has_comes_back_as_gone_and_disturbs_nobody() {
    let frames = if full() { 200_000 } else { 10_000 };
    let world = World::start().await;
    let mut flooder = world.witness(0, topic()).await;
    let (here, there) = (flooder.node(), world.witness(1, topic()).await.node());
    let nowhere = unused(&world).await;
    let life = world.life(&[0, 1, 2]).await;

    let operations = async || {
        let mut sum = 0;
        for node in 0..NODES {
            sum += world.count(node, "culvert_relay_bus_registry_operations_total", &[]).await;
        }
        sum
    };
    let commands =
        async || world.redis.info("total_commands_processed").await.unwrap().parse::<u64>().unwrap();
    let before = operations().await;
    for (whose, node) in [("this node", here), ("another node", there), ("no node", nowhere)] {
        let (start, so_far) = (Instant::now(), commands().await);
        flood(&mut flooder, node, frames).await;
        let asked = commands().await - so_far;
        measured(&format!(
            "a flood of {frames} addresses of {whose}: {:.2} s, {asked} commands to Redis",
            start.elapsed().as_secs_f64()
        ));
        assert!(asked < u64::from(frames), "Redis is asked for every frame: {asked}");
        life.goes_on().await;
    }
    assert_eq!(operations().await, before, "the registry is asked about addresses");
    world.ends_well("a flood of random addresses", life).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_peers_reconnect_at_once() {
    const PEERS: usize = 200;
    let world = World::start().await;
    let proxy = ChaosProxy::start(world.cluster.balancer().addr()).await.unwrap();
    let url = format!("ws://localhost:{}", proxy.addr().port());
    let pairs = pairs(PEERS / 2, |_| (url.clone(), url.clone()), |secret| options(secret, None)).await;
    let addr = |node: usize| world.cluster.node(node).unwrap().addr();
    let ways = (0..NODES).map(|node| (addr(node), addr((node + 1) % NODES)));
    let lanes = Lanes::start(ways, &raw(), LOAD).await;
    let life = Life { sessions: Traffic::start(pairs, SLOW_PACE), lanes };
    life.goes_on().await;

    let connected = proxy.connections().len();
    assert!(connected >= PEERS, "{connected}");
    let before = proxy.accepted_so_far();
    proxy.cut(Cut::Reset).await;
    let start = Instant::now();
    proxy.accepted(before + PEERS, PATIENCE).await.unwrap();
    measured(&format!(
        "{PEERS} peers that reconnect at once are back after {:.2} s",
        start.elapsed().as_secs_f64()
    ));
    world.ends_well("200 peers reconnect at once", life).await;
}
