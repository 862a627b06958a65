//! Between two nodes, everything arrives untouched and in the order it was given.

use bytes::Bytes;
use culvert_wire::limits::MAX_PAYLOAD;
use culvert_wire::{Class, Frame};

use super::{World, balances, kill, number, numbered};
use crate::common::{TOPIC, pair_across, peer, peer_as};

pub(crate) async fn frames_between_two_nodes_keep_their_order_in_both_directions(world: &dyn World) {
    let (left, right) = (world.node().await, world.node().await);
    let (mut a, mut b) = pair_across(&left, &right).await;
    assert_ne!(a.conn.node(), b.conn.node());
    const EACH: u32 = 2_000;
    for n in 0..EACH {
        a.peer.feed(&numbered(&a, b.conn, n)).await.unwrap();
        b.peer.feed(&numbered(&b, a.conn, n)).await.unwrap();
        if n % 100 == 99 {
            a.peer.flush().await.unwrap();
            b.peer.flush().await.unwrap();
        }
    }
    let (a_conn, b_conn) = (a.conn, b.conn);
    for n in 0..EACH {
        for (receiver, sender) in [(&mut a, b_conn), (&mut b, a_conn)] {
            let frame = receiver.peer.recv().await.unwrap();
            let Frame::Deliver { from, payload, handle, .. } = frame else { panic!("{frame:?} at {n}") };
            assert_eq!((from, handle, number(&payload)), (sender, receiver.handle, n));
        }
    }
    balances(&[&left, &right]).await;
    kill([left, right]).await;
}

pub(crate) async fn a_broadcast_reaches_every_member_once_and_in_order_with_unicast(world: &dyn World) {
    let (left, right) = (world.node().await, world.node().await);
    let (mut a, mut b) = pair_across(&left, &right).await;
    let mut here = peer(&left).await;
    here.join(TOPIC).await;
    let mut there = peer(&right).await;
    there.join(TOPIC).await;
    // The sender's own peer gets nothing of it, wherever else it is connected.
    let mut again = peer_as(&right, &a.identity, 1).await;
    again.join(TOPIC).await;
    for newcomer in [&here, &there, &again] {
        let conn = newcomer.conn;
        a.until(|frame| matches!(frame, Frame::PeerJoined { member, .. } if member.conn == conn)).await;
    }
    const EACH: u32 = 100;
    for n in 0..EACH {
        let payload = Bytes::copy_from_slice(&(2 * n).to_be_bytes());
        let broadcast = Frame::Broadcast { class: Class::Normal, handle: a.handle, payload };
        a.peer.feed(&broadcast).await.unwrap();
        for to in [b.conn, there.conn, here.conn, again.conn] {
            a.peer.feed(&numbered(&a, to, 2 * n + 1)).await.unwrap();
        }
    }
    a.peer.flush().await.unwrap();
    for receiver in [&mut b, &mut there, &mut here] {
        for n in 0..2 * EACH {
            let frame = receiver.until(|frame| matches!(frame, Frame::Deliver { .. })).await;
            let Frame::Deliver { from, payload, broadcast, .. } = frame else { unreachable!() };
            assert_eq!((from, number(&payload), broadcast), (a.conn, n, n % 2 == 0));
        }
    }
    for n in 0..EACH {
        let frame = again.until(|frame| matches!(frame, Frame::Deliver { .. })).await;
        let Frame::Deliver { payload, broadcast, .. } = frame else { unreachable!() };
        assert_eq!((number(&payload), broadcast), (2 * n + 1, false));
    }
    kill([left, right]).await;
}

pub(crate) async fn large_and_small_frames_arrive_untouched(world: &dyn World) {
    let (left, right) = (world.node().await, world.node().await);
    let (mut a, mut b) = pair_across(&left, &right).await;
    let sizes = [0, 1, 63, 64, 65, 4095, 4096, 4097, MAX_PAYLOAD - 1, MAX_PAYLOAD];
    let classes = [Class::Control, Class::Normal, Class::Bulk];
    for class in classes {
        for (n, size) in sizes.into_iter().enumerate() {
            let payload: Bytes = (0..=u8::MAX).cycle().skip(n).take(size).collect();
            let frame = Frame::Send { class, handle: a.handle, to: b.conn, payload: payload.clone() };
            a.peer.send(&frame).await.unwrap();
            let came = b.peer.recv().await.unwrap();
            let expected =
                Frame::Deliver { class, broadcast: false, handle: b.handle, from: a.conn, payload };
            assert!(came == expected, "{size} bytes in class {class:?}");
        }
    }
    balances(&[&left, &right]).await;
    kill([left, right]).await;
}
