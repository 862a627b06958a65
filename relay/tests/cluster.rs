//! Two nodes and the bus between them. What holds here must hold over every bus.

mod common;

use bytes::Bytes;
use common::{TOPIC, fill, node_of, pair_across, peer};
use culvert_relay::bus::memory::Hub;
use culvert_service_kit::Clock;
use culvert_wire::{Class, ConnId, Frame, JoinRefusal, Notice, TopicId, Verdict};

fn frame(from: &common::Peer, to: ConnId, n: u32) -> Frame {
    let payload = Bytes::copy_from_slice(&n.to_be_bytes());
    Frame::Send { class: Class::Normal, handle: from.handle, to, payload }
}

#[tokio::test]
async fn peers_on_two_nodes_find_each_other_and_talk_in_order() {
    let hub = Hub::new();
    let (left, right) = (node_of(&hub).await, node_of(&hub).await);
    let (mut a, mut b) = pair_across(&left, &right).await;
    assert_ne!(a.conn.node(), b.conn.node());
    for n in 0..500 {
        a.peer.send(&frame(&a, b.conn, n)).await.unwrap();
        b.peer.send(&frame(&b, a.conn, n)).await.unwrap();
    }
    for n in 0..500u32 {
        let (a_conn, b_conn) = (a.conn, b.conn);
        for (receiver, sender) in [(&mut a, b_conn), (&mut b, a_conn)] {
            let Frame::Deliver { from, payload, handle, .. } = receiver.peer.recv().await.unwrap() else {
                panic!()
            };
            assert_eq!((from, handle, &payload[..]), (sender, receiver.handle, &n.to_be_bytes()[..]));
        }
    }
    left.kill().await.unwrap();
    right.kill().await.unwrap();
}

#[tokio::test]
async fn of_two_that_join_at_the_same_time_at_least_one_sees_the_other() {
    let hub = Hub::new();
    let (left, right) = (node_of(&hub).await, node_of(&hub).await);
    for n in 0..50 {
        let topic = TopicId([n; 32]);
        let (mut a, mut b) = (peer(&left).await, peer(&right).await);
        let (a_sees, b_sees) = tokio::join!(a.join(topic), b.join(topic));
        assert!(a_sees.total + b_sees.total >= 1, "round {n}");
        let (a_conn, b_conn) = (a.conn, b.conn);
        for (joiner, members, other) in [(&mut a, &a_sees, b_conn), (&mut b, &b_sees, a_conn)] {
            if members.total == 0 {
                let joined = joiner.peer.recv().await.unwrap();
                assert!(matches!(joined, Frame::PeerJoined { member, .. } if member.conn == other));
            }
        }
    }
    left.kill().await.unwrap();
    right.kill().await.unwrap();
}

#[tokio::test]
async fn a_departure_is_told_on_the_other_node_behind_what_was_sent() {
    let hub = Hub::new();
    let (left, right) = (node_of(&hub).await, node_of(&hub).await);
    let (mut a, mut b) = pair_across(&left, &right).await;
    for n in 0..100 {
        b.peer.send(&frame(&b, a.conn, n)).await.unwrap();
    }
    b.peer.send(&Frame::Leave { handle: b.handle }).await.unwrap();
    for _ in 0..100 {
        assert!(matches!(a.peer.recv().await.unwrap(), Frame::Deliver { .. }));
    }
    assert!(matches!(a.peer.recv().await.unwrap(), Frame::PeerLeft { conn, .. } if conn == b.conn));
    a.peer.send(&frame(&a, b.conn, 0)).await.unwrap();
    assert!(matches!(a.peer.recv().await.unwrap(), Frame::Undeliverable { verdict: Verdict::Gone, .. }));
    left.kill().await.unwrap();
    right.kill().await.unwrap();
}

#[tokio::test]
async fn a_broadcast_and_a_lookup_span_the_nodes() {
    let hub = Hub::new();
    let (left, right) = (node_of(&hub).await, node_of(&hub).await);
    let (mut a, mut b) = pair_across(&left, &right).await;
    let mut onlooker = peer(&right).await;
    onlooker.peer.send(&Frame::Lookup { topic: TOPIC }).await.unwrap();
    let Frame::Peers { members, .. } = onlooker.peer.recv().await.unwrap() else { panic!() };
    assert_eq!(members.total, 2);
    let payload = Bytes::from_static(b"all");
    a.peer.send(&Frame::Broadcast { class: Class::Bulk, handle: a.handle, payload }).await.unwrap();
    assert!(matches!(b.peer.recv().await.unwrap(), Frame::Deliver { broadcast: true, .. }));
    left.kill().await.unwrap();
    right.kill().await.unwrap();
}

#[tokio::test]
async fn a_cut_between_nodes_is_told_and_what_was_lost_is_announced_when_it_heals() {
    let hub = Hub::new();
    let (left, right) = (node_of(&hub).await, node_of(&hub).await);
    let (mut a, mut b) = pair_across(&left, &right).await;
    hub.cut(left.id(), right.id());
    for peer in [&mut a, &mut b] {
        assert_eq!(peer.peer.recv().await.unwrap(), Frame::Notice(Notice::Degraded));
    }
    a.peer.send(&frame(&a, b.conn, 1)).await.unwrap();
    let verdict = a.peer.recv().await.unwrap();
    assert!(matches!(verdict, Frame::Undeliverable { verdict: Verdict::Unreachable, .. }), "{verdict:?}");
    let payload = Bytes::from_static(b"all");
    a.peer.send(&Frame::Broadcast { class: Class::Bulk, handle: a.handle, payload }).await.unwrap();
    let verdict = a.peer.recv().await.unwrap();
    assert!(matches!(verdict, Frame::Undeliverable { broadcast: true, verdict: Verdict::Unreachable, .. }));
    let members = peer(&left).await.join(TOPIC).await;
    assert_eq!((members.total, members.degraded), (1, true), "only those on this node");
    assert_eq!(left.metrics().sum("culvert_relay_degraded", &[]), 1.0);
    hub.heal(left.id(), right.id());
    let gap = b.until(|frame| matches!(frame, Frame::Gap { .. })).await;
    assert_eq!(gap, Frame::Gap { from: None, count: 2 });
    b.until(|frame| *frame == Frame::Notice(Notice::Restored)).await;
    a.peer.send(&frame(&a, b.conn, 2)).await.unwrap();
    b.until(|frame| matches!(frame, Frame::Deliver { .. })).await;
    assert_eq!(left.metrics().sum("culvert_relay_degraded", &[]), 0.0);
    left.kill().await.unwrap();
    right.kill().await.unwrap();
}

#[tokio::test]
async fn a_node_that_left_is_gone_at_once() {
    let hub = Hub::new();
    let (left, right) = (node_of(&hub).await, node_of(&hub).await);
    let (mut a, b) = pair_across(&left, &right).await;
    right.kill().await.unwrap();
    a.until(|frame| matches!(frame, Frame::PeerLeft { conn, .. } if *conn == b.conn)).await;
    a.peer.send(&frame(&a, b.conn, 1)).await.unwrap();
    assert!(matches!(a.peer.recv().await.unwrap(), Frame::Undeliverable { verdict: Verdict::Gone, .. }));
    left.kill().await.unwrap();
}

#[tokio::test]
async fn a_full_queue_on_the_other_node_comes_back_as_a_verdict() {
    let hub = Hub::new();
    let left = node_of(&hub).await;
    let right = common::node(hub.bus(), Clock::system(), |config| {
        config.limits.queue_bytes = 16 << 10;
        config.limits.memberships = 1;
    })
    .await;
    let (mut a, mut b) = pair_across(&left, &right).await;
    b.peer.send(&Frame::Join { topic: TopicId([9; 32]) }).await.unwrap();
    let refused = Frame::JoinRefused { topic: TopicId([9; 32]), refusal: JoinRefusal::Limited };
    assert_eq!(b.peer.recv().await.unwrap(), refused);
    let payload = Bytes::from(vec![0; 8 << 10]);
    let frame = Frame::Send { class: Class::Normal, handle: a.handle, to: b.conn, payload };
    for _ in 0..2000 {
        a.peer.send(&frame).await.unwrap();
    }
    a.until(|frame| matches!(frame, Frame::Undeliverable { verdict: Verdict::Full, .. })).await;
    left.kill().await.unwrap();
    right.kill().await.unwrap();
}

#[tokio::test]
async fn frames_that_wait_on_the_other_node_when_their_receiver_ends_are_gone() {
    let hub = Hub::new();
    let left = node_of(&hub).await;
    let right = common::node(hub.bus(), Clock::system(), |config| config.limits.queue_bytes = 64 << 10).await;
    let (mut a, b) = pair_across(&left, &right).await;
    let payload = Bytes::from(vec![0; 8 << 10]);
    let frame = Frame::Send { class: Class::Normal, handle: a.handle, to: b.conn, payload };
    fill(&mut a, &frame).await;
    drop(b);
    let gone = a.until(|frame| matches!(frame, Frame::Undeliverable { verdict: Verdict::Gone, .. })).await;
    let Frame::Undeliverable { handle, count, .. } = gone else { panic!() };
    assert_eq!(handle, a.handle);
    assert_eq!(count, 7, "as many as the queue holds beside its reserve");
    left.kill().await.unwrap();
    right.kill().await.unwrap();
}
