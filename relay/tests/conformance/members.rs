//! Who is in a topic is known on every node, and news of a member keeps its place among its frames.

use culvert_relay::admission::Revoked;
use culvert_testkit::{HelloOptions, Identity, RawPeer};
use culvert_wire::{Close, Frame, Notice, TopicId, Verdict};

use super::{World, config, eventually, kill, number, numbered};
use crate::common::{TOPIC, pair_across, peer, peer_as, peer_taking_over};

pub(crate) async fn of_two_that_join_at_the_same_time_at_least_one_sees_the_other(world: &dyn World) {
    let (left, right) = (world.node().await, world.node().await);
    for n in 0..50 {
        let topic = TopicId([n; 32]);
        let (mut a, mut b) = (peer(&left).await, peer(&right).await);
        let (a_sees, b_sees) = tokio::join!(a.join(topic), b.join(topic));
        assert!(a_sees.total + b_sees.total >= 1, "round {n}");
        let (a_conn, b_conn) = (a.conn, b.conn);
        for (joiner, members, other) in [(&mut a, &a_sees, b_conn), (&mut b, &b_sees, a_conn)] {
            if members.total == 0 {
                let news =
                    |frame: &Frame| matches!(frame, Frame::PeerJoined { member, .. } if member.conn == other);
                joiner.until(news).await;
            }
        }
    }
    kill([left, right]).await;
}

pub(crate) async fn a_departure_is_told_behind_what_was_sent(world: &dyn World) {
    let (left, right) = (world.node().await, world.node().await);
    let (mut a, mut b) = pair_across(&left, &right).await;
    const SENT: u32 = 500;
    for n in 0..SENT {
        b.peer.feed(&numbered(&b, a.conn, n)).await.unwrap();
    }
    b.peer.send(&Frame::Leave { handle: b.handle }).await.unwrap();
    for n in 0..SENT {
        let frame = a.peer.recv().await.unwrap();
        assert!(matches!(&frame, Frame::Deliver { payload, .. } if number(payload) == n), "{frame:?}");
    }
    let left_it = a.peer.recv().await.unwrap();
    assert!(matches!(left_it, Frame::PeerLeft { conn, .. } if conn == b.conn), "{left_it:?}");
    a.peer.send(&numbered(&a, b.conn, 0)).await.unwrap();
    let verdict = a.peer.recv().await.unwrap();
    assert!(matches!(verdict, Frame::Undeliverable { verdict: Verdict::Gone, .. }), "{verdict:?}");
    kill([left, right]).await;
}

pub(crate) async fn a_lookup_spans_the_nodes_and_is_sampled(world: &dyn World) {
    let left = world.node().await;
    let right = world.node_with(config(|config| config.limits.members_listed = 2)).await;
    let (mut a, b) = pair_across(&left, &right).await;
    let mut more = Vec::new();
    for _ in 0..3 {
        let mut another = peer(&left).await;
        another.join(TOPIC).await;
        more.push(another);
    }
    for (node, listed) in [(&left, 5), (&right, 2)] {
        let mut onlooker = peer(node).await;
        onlooker.peer.send(&Frame::Lookup { topic: TOPIC }).await.unwrap();
        let Frame::Peers { members, topic } = onlooker.peer.recv().await.unwrap() else { panic!() };
        assert_eq!((topic, members.total, members.list.len(), members.degraded), (TOPIC, 5, listed, false));
    }
    // Looking is not joining.
    let list = a.join(TOPIC).await;
    assert_eq!(list.total, 4);
    assert!(list.list.iter().any(|member| member.conn == b.conn && member.peer == b.id));
    kill([left, right]).await;
}

pub(crate) async fn a_connection_that_replaces_another_is_announced_as_the_newest(world: &dyn World) {
    let (left, right) = (world.node().await, world.node().await);
    let (mut a, mut old) = pair_across(&left, &right).await;
    let mut handed = peer_taking_over(&left, &old.identity, 2, old.conn).await;
    let members = handed.join(TOPIC).await;
    assert_eq!(members.total, 2);
    let came = a.until(|frame| matches!(frame, Frame::PeerJoined { .. })).await;
    assert!(matches!(came, Frame::PeerJoined { member, .. }
        if member == (culvert_wire::Member { conn: handed.conn, peer: old.id, generation: culvert_wire::Generation(2) })));
    let mut newest = peer_as(&left, &old.identity, 3).await;
    newest.join(TOPIC).await;
    // One notice: about the one that does not say whom it replaces.
    let duplicate = old.until(|frame| matches!(frame, Frame::Notice(Notice::Duplicate { .. }))).await;
    assert_eq!(duplicate, Frame::Notice(Notice::Duplicate { newest: newest.conn }));
    kill([left, right]).await;
}

pub(crate) async fn a_node_that_goes_away_takes_its_members_along(world: &dyn World) {
    let (left, right) = (world.node().await, world.node().await);
    let (mut a, b) = pair_across(&left, &right).await;
    right.kill().await.unwrap();
    a.until(|frame| matches!(frame, Frame::PeerLeft { conn, .. } if *conn == b.conn)).await;
    eventually("frames to it being gone", async || {
        let frame = numbered(&a, b.conn, 1);
        a.peer.send(&frame).await.unwrap();
        let verdict = a.until(|frame| matches!(frame, Frame::Undeliverable { .. })).await;
        matches!(verdict, Frame::Undeliverable { verdict: Verdict::Gone, .. })
    })
    .await;
    assert_eq!(peer(&left).await.join(TOPIC).await.total, 1);
    kill([left]).await;
}

pub(crate) async fn what_was_revoked_is_out_on_every_node_and_on_later_ones(world: &dyn World) {
    let (left, right) = (world.node().await, world.node().await);
    let (mut a, mut b) = pair_across(&left, &right).await;
    let mut again = peer_as(&left, &b.identity, 2).await;
    world.revoke(Revoked::Peer(b.id), u64::MAX >> 8).await;
    for revoked in [&mut b, &mut again] {
        assert_eq!(revoked.peer.closed().await.unwrap(), Close::Revoked);
    }
    a.until(|frame| matches!(frame, Frame::PeerLeft { conn, .. } if *conn == b.conn)).await;
    a.peer.sync(1).await.unwrap();
    let later = world.node().await;
    let hello = HelloOptions::new(&b.identity);
    let asks = async |node: &culvert_testkit::relay::Embedded| {
        let mut raw = RawPeer::connect(node.addr(), &node.raw()).await.unwrap();
        match raw.hello(&hello).await {
            // A node that has not read the list yet closes the connection when it does.
            Ok(_) => raw.closed().await.unwrap(),
            Err(error) => error.close().unwrap(),
        }
    };
    for node in [&left, &right, &later] {
        assert_eq!(asks(node).await, Close::Revoked);
    }
    peer_as(&later, &Identity::random().unwrap(), 1).await;
    kill([left, right, later]).await;
}
