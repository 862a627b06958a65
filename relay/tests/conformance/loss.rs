//! What is not delivered has a verdict, whichever node could not deliver it, and memory stays bounded.

use bytes::Bytes;
use culvert_testkit::relay::Embedded;
use culvert_wire::{Class, ConnId, Frame, NodeId, TopicId, Verdict};
use futures_util::FutureExt;
use tokio::task::JoinSet;

use super::{Account, World, balances, config, eventually, kill, large, number, numbered};
use crate::common::{Peer, TOPIC, pair_across, peer};

pub(crate) async fn frames_to_whoever_is_not_there_are_gone(world: &dyn World) {
    let (left, right) = (world.node().await, world.node().await);
    let (mut a, mut b) = pair_across(&left, &right).await;
    let free = (0..=u16::MAX).map(NodeId).find(|id| ![left.id(), right.id()].contains(id)).unwrap();
    let mut elsewhere = peer(&right).await;
    elsewhere.join(TopicId([9; 32])).await;
    for to in [ConnId::new(right.id(), 1), ConnId::new(free, 1), elsewhere.conn] {
        for n in 0..3 {
            a.peer.send(&numbered(&a, to, n)).await.unwrap();
        }
        let mut missing = 3;
        while missing > 0 {
            let frame = a.peer.recv().await.unwrap();
            let Frame::Undeliverable { handle, to: of, verdict, count, broadcast } = frame else {
                panic!("{frame:?}")
            };
            assert_eq!((handle, of, verdict, broadcast), (a.handle, to, Verdict::Gone, false));
            missing -= count;
        }
    }
    // Neither is anybody else's topic theirs.
    a.peer.send(&numbered(&a, b.conn, 7)).await.unwrap();
    let frame = b.peer.recv().await.unwrap();
    assert!(matches!(&frame, Frame::Deliver { payload, .. } if number(payload) == 7), "{frame:?}");
    balances(&[&left, &right]).await;
    kill([left, right]).await;
}

pub(crate) async fn frames_that_wait_for_a_receiver_that_ends_are_gone(world: &dyn World) {
    let left = world.node().await;
    let right = world.node_with(config(|config| config.limits.queue_bytes = 64 << 10)).await;
    let (mut a, b) = pair_across(&left, &right).await;
    let waiting = fill_remote(&mut a, b.conn, &right).await;
    assert_eq!(waiting, 7, "what the queue holds beside its reserve");
    drop(b);
    let gone = a.until(|frame| matches!(frame, Frame::Undeliverable { verdict: Verdict::Gone, .. })).await;
    let Frame::Undeliverable { handle, count, .. } = gone else { unreachable!() };
    assert_eq!((handle, u64::from(count)), (a.handle, waiting));
    balances(&[&left, &right]).await;
    kill([left, right]).await;
}

/// Sends frames of 8 KiB until their receiver, which does not read, takes no more; gives how many wait.
async fn fill_remote(sender: &mut Peer, to: ConnId, right: &Embedded) -> u64 {
    const ROUND: u64 = 100;
    let payload = Bytes::from(vec![0; 8 << 10]);
    let frame = Frame::Send { class: Class::Normal, handle: sender.handle, to, payload };
    let (mut sent, mut refused) = (0, 0);
    loop {
        for _ in 0..ROUND {
            sender.peer.feed(&frame).await.unwrap();
        }
        sender.peer.flush().await.unwrap();
        sent += ROUND;
        let before = refused;
        let mut waiting = 0;
        eventually("verdicts about what no queue holds", async || {
            while let Some(frame) = sender.peer.recv().now_or_never() {
                match frame.unwrap() {
                    Frame::Undeliverable { verdict: Verdict::Full, count, .. } => refused += u64::from(count),
                    other => panic!("{other:?}"),
                }
            }
            waiting = sent - refused - delivered(right);
            waiting <= 7
        })
        .await;
        if refused - before == ROUND {
            return waiting;
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of frames")]
fn delivered(node: &Embedded) -> u64 {
    node.metrics().sum("culvert_relay_frames_delivered_total", &[]) as u64
}

pub(crate) async fn a_receiver_that_does_not_read_costs_verdicts_and_flows_again_afterwards(
    world: &dyn World,
) {
    let left = world.node().await;
    let right = world.node_with(config(|config| config.limits.queue_bytes = 64 << 10)).await;
    let (mut a, mut b) = pair_across(&left, &right).await;
    let mut lively = peer(&right).await;
    lively.join(TOPIC).await;
    let (mut account, stuck) = (Account::default(), b.conn);
    const ROUNDS: u32 = 60;
    const ROUND: u32 = 50;
    for round in 0..ROUNDS {
        for n in 0..ROUND {
            let frame = large(&a, stuck, round * ROUND + n, 8 << 10);
            a.peer.feed(&frame).await.unwrap();
        }
        // One who does not read holds nobody else up.
        a.peer.send(&numbered(&a, lively.conn, round)).await.unwrap();
        let came = lively.until(|frame| matches!(frame, Frame::Deliver { .. })).await;
        assert!(matches!(&came, Frame::Deliver { payload, .. } if number(payload) == round), "{came:?}");
        account.learn(&mut a, stuck, &[Verdict::Full]);
    }
    assert!(account.reported > 0, "nothing was refused");
    let held = right.metrics().sum("culvert_relay_queued_bytes", &[]);
    assert!(held <= f64::from(2 * (64 << 10) + (32 << 10)), "{held} bytes wait");
    account.settle(&mut a, &mut b, u64::from(ROUNDS * ROUND)).await;
    a.peer.send(&numbered(&a, b.conn, u32::MAX)).await.unwrap();
    let came = b.until(|frame| matches!(frame, Frame::Deliver { .. })).await;
    assert!(matches!(&came, Frame::Deliver { payload, .. } if number(payload) == u32::MAX), "{came:?}");
    balances(&[&left, &right]).await;
    kill([left, right]).await;
}

pub(crate) async fn a_flood_between_two_nodes_is_bounded_and_accounted_for(world: &dyn World) {
    const BUDGET: u32 = 4 << 20;
    let small = config(|config| config.limits.node_queue_bytes = BUDGET as usize);
    let (left, right) = (world.node_with(small.clone()).await, world.node_with(small).await);
    let mut flows = JoinSet::new();
    for n in 0..8_u8 {
        let (mut a, mut b) = (peer(&left).await, peer(&right).await);
        let topic = TopicId([n; 32]);
        a.join(topic).await;
        b.join(topic).await;
        a.until(|frame| matches!(frame, Frame::PeerJoined { .. })).await;
        flows.spawn(async move {
            const SENT: u32 = 3_000;
            let mut account = Account::default();
            for n in 0..SENT {
                let frame = large(&a, b.conn, n, 4 << 10);
                a.peer.feed(&frame).await.unwrap();
                if n % 64 == 0 {
                    account.receive(&mut b, a.conn);
                    account.learn(&mut a, b.conn, &[Verdict::Full]);
                }
            }
            a.peer.flush().await.unwrap();
            account.settle(&mut a, &mut b, u64::from(SENT)).await;
        });
    }
    while let Some(ended) = flows.join_next().await {
        ended.unwrap();
        for node in [&left, &right] {
            let held = node.metrics().sum("culvert_relay_queued_bytes", &[]);
            assert!(held <= f64::from(BUDGET), "{held} bytes wait");
        }
    }
    balances(&[&left, &right]).await;
    kill([left, right]).await;
}
