//! What connects the nodes breaks, and heals.

use culvert_wire::{Close, Frame, Notice, Verdict};
use futures_util::FutureExt;

use super::{Account, World, eventually, kill, numbered};
use crate::common::{Peer, TOPIC, pair_across, peer};

/// The addresses that a lookup shows.
async fn seen(peer: &mut Peer) -> Vec<culvert_wire::ConnId> {
    peer.peer.send(&Frame::Lookup { topic: TOPIC }).await.unwrap();
    let Frame::Peers { members, .. } = peer.until(|frame| matches!(frame, Frame::Peers { .. })).await else {
        unreachable!()
    };
    members.list.iter().map(|member| member.conn).collect()
}

pub(crate) async fn a_node_that_is_cut_off_serves_its_own_and_says_so(world: &dyn World) {
    let (left, right) = (world.node().await, world.node().await);
    let (mut a, mut b) = pair_across(&left, &right).await;
    let mut near = peer(&left).await;
    near.join(TOPIC).await;
    world.cut(&left).await;
    for peer in [&mut a, &mut near] {
        peer.until(|frame| *frame == Frame::Notice(Notice::Degraded)).await;
    }
    assert_eq!(left.metrics().sum("culvert_relay_degraded", &[]), 1.0);
    a.peer.send(&numbered(&a, near.conn, 1)).await.unwrap();
    near.until(|frame| matches!(frame, Frame::Deliver { .. })).await;
    let mut late = peer(&left).await;
    let members = late.join(TOPIC).await;
    assert!(members.degraded && members.list.iter().any(|member| member.conn == a.conn), "{members:?}");
    near.until(|frame| matches!(frame, Frame::PeerJoined { member, .. } if member.conn == late.conn)).await;

    world.heal(&left).await;
    a.until(|frame| *frame == Frame::Notice(Notice::Restored)).await;
    eventually("everybody seeing everybody", async || {
        let all = [a.conn, near.conn, late.conn, b.conn];
        // A lookup does not show whoever asks.
        let from_left = [seen(&mut a).await, vec![a.conn]].concat();
        let from_right = [seen(&mut b).await, vec![b.conn]].concat();
        all.iter().all(|conn| from_left.contains(conn) && from_right.contains(conn))
    })
    .await;
    assert_eq!(left.metrics().sum("culvert_relay_degraded", &[]), 0.0);
    arrives(&mut late, &mut b).await;
    arrives(&mut b, &mut late).await;
    kill([left, right]).await;
}

/// Sends until a frame arrives.
async fn arrives(from: &mut Peer, to: &mut Peer) {
    let mut n = 0;
    eventually("a frame arriving", async || {
        n += 1;
        let frame = numbered(from, to.conn, n);
        from.peer.send(&frame).await.unwrap();
        let mut came = false;
        while let Some(frame) = to.peer.recv().now_or_never() {
            came |= matches!(frame.unwrap(), Frame::Deliver { from: sender, .. } if sender == from.conn);
        }
        came
    })
    .await;
}

pub(crate) async fn what_was_sent_over_a_cut_is_delivered_or_reported_or_announced(world: &dyn World) {
    let (left, right) = (world.node().await, world.node().await);
    let (mut a, mut b) = pair_across(&left, &right).await;
    let mut sent = 0;
    let to = b.conn;
    let send = async |a: &mut Peer, sent: &mut u32| {
        for _ in 0..200 {
            let frame = numbered(a, to, *sent);
            a.peer.feed(&frame).await.unwrap();
            *sent += 1;
        }
        a.peer.flush().await.unwrap();
    };
    send(&mut a, &mut sent).await;
    world.cut(&right).await;
    send(&mut a, &mut sent).await;
    b.until(|frame| *frame == Frame::Notice(Notice::Degraded)).await;
    send(&mut a, &mut sent).await;
    world.heal(&right).await;
    b.until(|frame| *frame == Frame::Notice(Notice::Restored)).await;
    let mut account = Account::default();
    eventually("an account of every frame, and frames that arrive again", async || {
        send(&mut a, &mut sent).await;
        account.receive(&mut b, a.conn);
        account.learn(&mut a, to, &[Verdict::Unreachable, Verdict::Unknown, Verdict::Full]);
        let accounted = account.got + account.reported + account.announced;
        account.last.is_some_and(|last| last >= 600) && accounted >= u64::from(sent)
    })
    .await;
    kill([left, right]).await;
}

pub(crate) async fn a_node_that_lost_its_number_starts_over_under_another(world: &dyn World) {
    let (left, right) = (world.node().await, world.node().await);
    let (mut a, mut b) = pair_across(&left, &right).await;
    let lost = right.id();
    world.fence(&right).await;
    assert_eq!(b.peer.closed().await.unwrap(), Close::Fenced);
    a.until(|frame| matches!(frame, Frame::PeerLeft { conn, .. } if *conn == b.conn)).await;
    eventually("another number", async || right.number().is_some_and(|number| number != lost)).await;
    let mut again = peer(&right).await;
    assert_ne!(again.conn.node(), lost);
    let members = again.join(TOPIC).await;
    assert_eq!((members.total, members.list[0].conn), (1, a.conn));
    arrives(&mut a, &mut again).await;
    arrives(&mut again, &mut a).await;
    eventually("frames to the old address being gone", async || {
        let frame = numbered(&a, b.conn, 1);
        a.peer.send(&frame).await.unwrap();
        let verdict = a.until(|frame| matches!(frame, Frame::Undeliverable { .. })).await;
        matches!(verdict, Frame::Undeliverable { verdict: Verdict::Gone, .. })
    })
    .await;
    kill([left, right]).await;
}
