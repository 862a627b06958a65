//! What a node promises between two connections: order, untouched bytes, and a word about every drop.

use std::time::Duration;

use bytes::Bytes;
use culvert_relay::Config;
use culvert_wire::{Class, Close, ConnId, Frame, Handle, JoinRefusal, Notice, TopicId, Verdict};

use crate::common::{self, TOPIC, fill, pair, peer, relay};

fn send(handle: Handle, to: ConnId, payload: &'static str) -> Frame {
    Frame::Send { class: Class::Normal, handle, to, payload: Bytes::from_static(payload.as_bytes()) }
}

#[tokio::test]
async fn frames_arrive_in_order_with_the_senders_address_and_the_receivers_handle() {
    let relay = relay(|_| {}).await;
    let (mut a, mut b) = pair(&relay).await;
    for n in 0..1000u32 {
        let payload = Bytes::copy_from_slice(&n.to_be_bytes());
        a.peer
            .send(&Frame::Send { class: Class::Bulk, handle: a.handle, to: b.conn, payload })
            .await
            .unwrap();
    }
    for n in 0..1000u32 {
        let frame = b.peer.recv().await.unwrap();
        let Frame::Deliver { class: Class::Bulk, broadcast: false, handle, from, payload } = frame else {
            panic!("{frame:?}");
        };
        assert_eq!((handle, from, &payload[..]), (b.handle, a.conn, &n.to_be_bytes()[..]));
    }
    relay.kill().await.unwrap();
}

#[tokio::test]
async fn members_are_told_of_joins_and_departures_and_a_lookup_does_not_enter() {
    let relay = relay(|_| {}).await;
    let (mut a, b) = pair(&relay).await;
    let mut onlooker = peer(&relay).await;
    onlooker.peer.send(&Frame::Lookup { topic: TOPIC }).await.unwrap();
    let Frame::Peers { topic: TOPIC, members } = onlooker.peer.recv().await.unwrap() else { panic!() };
    assert_eq!((members.total, members.list.len(), members.degraded), (2, 2, false));
    let b_conn = b.conn;
    let b_peer = b.id;
    drop(b);
    let left = a.peer.recv().await.unwrap();
    assert_eq!(left, Frame::PeerLeft { handle: a.handle, conn: b_conn, peer: b_peer });
    relay.kill().await.unwrap();
}

#[tokio::test]
async fn every_undelivered_frame_gets_a_verdict() {
    let relay = relay(|_| {}).await;
    let (mut a, b) = pair(&relay).await;
    let cases = [
        (a.handle, ConnId(0x0000_dead_beef_0001), Verdict::Gone),
        (a.handle, ConnId(0xffff_dead_beef_0001), Verdict::Gone),
        (Handle(77), b.conn, Verdict::NotAllowed),
    ];
    for (handle, to, verdict) in cases {
        a.peer.send(&send(handle, to, "x")).await.unwrap();
        let expected = Frame::Undeliverable { broadcast: false, handle, to, verdict, count: 1 };
        assert_eq!(a.peer.recv().await.unwrap(), expected);
    }
    // A connection that shares no topic with the sender is as good as not there.
    let stranger = peer(&relay).await;
    a.peer.send(&send(a.handle, stranger.conn, "x")).await.unwrap();
    let frame = a.peer.recv().await.unwrap();
    assert!(matches!(frame, Frame::Undeliverable { verdict: Verdict::Gone, count: 1, .. }), "{frame:?}");
    relay.kill().await.unwrap();
}

#[tokio::test]
async fn a_receiver_that_left_the_topic_is_gone_although_it_was_reached_before() {
    let relay = relay(|_| {}).await;
    let (mut a, mut b) = pair(&relay).await;
    a.peer.send(&send(a.handle, b.conn, "1")).await.unwrap();
    assert!(matches!(b.peer.recv().await.unwrap(), Frame::Deliver { .. }));
    b.peer.send(&Frame::Leave { handle: b.handle }).await.unwrap();
    assert!(matches!(a.peer.recv().await.unwrap(), Frame::PeerLeft { .. }));
    a.peer.send(&send(a.handle, b.conn, "2")).await.unwrap();
    let frame = a.peer.recv().await.unwrap();
    assert!(matches!(frame, Frame::Undeliverable { verdict: Verdict::Gone, .. }), "{frame:?}");
    relay.kill().await.unwrap();
}

#[tokio::test]
async fn frames_that_wait_for_a_connection_when_it_ends_are_gone() {
    let relay = relay(|config| config.limits.queue_bytes = 64 << 10).await;
    let (mut a, b) = pair(&relay).await;
    let payload = Bytes::from(vec![7; 1024]);
    let frame = Frame::Send { class: Class::Normal, handle: a.handle, to: b.conn, payload };
    fill(&mut a, &frame).await;
    let (conn, peer) = (b.conn, b.id);
    drop(b);
    let gone = |frame: &Frame| matches!(frame, Frame::Undeliverable { verdict: Verdict::Gone, .. });
    let verdict = a.peer.recv_until(gone).await.unwrap();
    let Frame::Undeliverable { broadcast: false, handle, to, count, .. } = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!((handle, to), (a.handle, conn));
    assert!(count >= 16, "a quarter of what the queue holds, and it was full: {count}");
    let left = Frame::PeerLeft { handle: a.handle, conn, peer };
    assert_eq!(a.peer.recv_until(|frame| *frame == left).await.unwrap(), left);
    relay.kill().await.unwrap();
}

#[tokio::test]
async fn the_ledger_of_an_overloaded_receiver_balances_to_the_frame() {
    let relay = relay(|config| config.limits.queue_bytes = 64 << 10).await;
    let (mut a, mut b) = pair(&relay).await;
    const SENT: u32 = 20_000;
    let payload = Bytes::from(vec![7; 1024]);
    let frame = Frame::Send { class: Class::Normal, handle: a.handle, to: b.conn, payload };
    for _ in 0..SENT {
        a.peer.send(&frame).await.unwrap();
    }
    // A frame of another class behind them marks the end for the receiver; it fits once there is room.
    a.peer.send(&Frame::Ping { token: 1, padding: Bytes::new() }).await.unwrap();
    let mut refused = 0;
    loop {
        match a.peer.recv().await.unwrap() {
            Frame::Undeliverable { verdict: Verdict::Full, count, .. } => refused += count,
            Frame::Pong { token: 1, .. } => break,
            other => panic!("{other:?}"),
        }
    }
    // The verdicts before the pong are all there is: it was answered after the last frame was judged.
    let mut delivered = 0;
    while delivered + refused < SENT {
        match b.peer.recv().await.unwrap() {
            Frame::Deliver { .. } => delivered += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(refused > 0, "the queue was never full");
    b.peer.send(&Frame::Ping { token: 2, padding: Bytes::new() }).await.unwrap();
    assert!(matches!(b.peer.recv().await.unwrap(), Frame::Pong { token: 2, .. }), "nothing more came");
    relay.kill().await.unwrap();
}

#[tokio::test]
async fn a_broadcast_reaches_everybody_but_the_senders_own_peer() {
    let relay = relay(|_| {}).await;
    let (mut a, mut b) = pair(&relay).await;
    let mut c = peer(&relay).await;
    c.join(TOPIC).await;
    let mut own = common::peer_as(&relay, &a.identity, 2).await;
    own.join(TOPIC).await;
    let payload = Bytes::from_static(b"all");
    let frame = Frame::Broadcast { class: Class::Normal, handle: a.handle, payload: payload.clone() };
    a.peer.send(&frame).await.unwrap();
    for receiver in [&mut b, &mut c] {
        let frame = receiver.until(|frame| matches!(frame, Frame::Deliver { .. })).await;
        let expected = Frame::Deliver {
            class: Class::Normal,
            broadcast: true,
            handle: receiver.handle,
            from: a.conn,
            payload: payload.clone(),
        };
        assert_eq!(frame, expected);
    }
    own.peer.send(&Frame::Ping { token: 3, padding: Bytes::new() }).await.unwrap();
    let next = own.until(|frame| matches!(frame, Frame::Deliver { .. } | Frame::Pong { .. })).await;
    assert!(matches!(next, Frame::Pong { token: 3, .. }), "{next:?}");
    relay.kill().await.unwrap();
}

#[tokio::test]
async fn a_newer_connection_of_the_same_peer_is_announced_to_the_older_unless_it_takes_over() {
    let relay = relay(|_| {}).await;
    let mut first = peer(&relay).await;
    first.join(TOPIC).await;
    let mut second = common::peer_as(&relay, &first.identity, 2).await;
    second.join(TOPIC).await;
    let notice = first.until(|frame| matches!(frame, Frame::Notice(_))).await;
    assert_eq!(notice, Frame::Notice(Notice::Duplicate { newest: second.conn }));
    let mut third = common::peer_taking_over(&relay, &first.identity, 3, second.conn).await;
    third.join(TOPIC).await;
    let notice = first.until(|frame| matches!(frame, Frame::Notice(_))).await;
    assert_eq!(notice, Frame::Notice(Notice::Duplicate { newest: third.conn }));
    let joined = second
        .until(|frame| matches!(frame, Frame::PeerJoined { member, .. } if member.conn == third.conn))
        .await;
    assert!(matches!(joined, Frame::PeerJoined { .. }));
    second.peer.send(&Frame::Ping { token: 4, padding: Bytes::new() }).await.unwrap();
    assert!(matches!(second.peer.recv().await.unwrap(), Frame::Pong { token: 4, .. }), "no notice");
    relay.kill().await.unwrap();
}

#[tokio::test]
async fn topics_are_limited_per_connection_and_leaving_makes_room() {
    let relay = relay(|config| config.limits.topics_per_connection = 2).await;
    let mut a = peer(&relay).await;
    let topic = |n| TopicId([n; 32]);
    a.join(topic(1)).await;
    a.join(topic(2)).await;
    a.peer.send(&Frame::Join { topic: topic(3) }).await.unwrap();
    let refused = Frame::JoinRefused { topic: topic(3), refusal: JoinRefusal::TooManyTopics };
    assert_eq!(a.peer.recv().await.unwrap(), refused);
    a.peer.send(&Frame::Leave { handle: a.handle }).await.unwrap();
    a.join(topic(3)).await;
    relay.kill().await.unwrap();
}

#[tokio::test]
async fn a_flood_is_slowed_down_and_told_so_once() {
    let relay = relay(|config: &mut Config| {
        config.limits.connection_frames = culvert_relay::quota::Rate { per_second: 2000, burst: 1000 };
    })
    .await;
    let (mut a, mut b) = pair(&relay).await;
    for _ in 0..1500 {
        a.peer.send(&send(a.handle, b.conn, "x")).await.unwrap();
    }
    let started = tokio::time::Instant::now();
    for _ in 0..1500 {
        assert!(matches!(b.peer.recv().await.unwrap(), Frame::Deliver { .. }), "nothing is lost");
    }
    assert!(started.elapsed() > Duration::from_millis(100), "{:?}", started.elapsed());
    assert_eq!(a.peer.recv().await.unwrap(), Frame::Notice(Notice::Throttled));
    relay.kill().await.unwrap();
}

#[tokio::test]
async fn what_is_no_frame_ends_the_connection_as_a_protocol_error() {
    let relay = relay(|_| {}).await;
    for bytes in [&b""[..], b"\x13", &[0x13, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0x24; 12]] {
        let mut a = peer(&relay).await;
        a.peer.send_message(tokio_tungstenite::tungstenite::Message::binary(bytes.to_vec())).await.unwrap();
        let end = a.peer.closed().await.unwrap();
        assert_eq!(end, Close::Protocol, "{bytes:?}");
    }
    relay.kill().await.unwrap();
}
