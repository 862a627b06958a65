//! Relays in this process and peers that are connected to them by hand.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests: what fails here fails the test")]

use std::sync::Arc;

use bytes::Bytes;
use culvert_relay::Config;
use culvert_relay::bus::Bus;
use culvert_relay::bus::memory::{Hub, MemoryBus};
use culvert_service_kit::Clock;
use culvert_testkit::relay::Embedded;
use culvert_testkit::{HelloOptions, Identity, RawOptions, RawPeer};
use culvert_wire::{ConnId, Frame, Handle, Members, PeerId, TopicId, Verdict};

pub(crate) const TOPIC: TopicId = TopicId([0x70; 32]);

/// A node that is alone.
pub(crate) async fn relay(set: impl FnOnce(&mut Config)) -> Embedded {
    node(MemoryBus::alone(), Clock::system(), set).await
}

/// A node of a cluster.
pub(crate) async fn node_of(hub: &Arc<Hub>) -> Embedded {
    node(hub.bus(), Clock::system(), |_| {}).await
}

pub(crate) async fn node(bus: MemoryBus, clock: Clock, set: impl FnOnce(&mut Config)) -> Embedded {
    node_on(Arc::new(bus), clock, set).await
}

/// A node on any bus.
pub(crate) async fn node_on(bus: Arc<dyn Bus>, clock: Clock, set: impl FnOnce(&mut Config)) -> Embedded {
    let mut config = Embedded::config();
    set(&mut config);
    Embedded::start_on(bus, config, clock).await.unwrap()
}

/// An admitted peer.
pub(crate) struct Peer {
    pub(crate) peer: RawPeer,
    pub(crate) identity: Identity,
    pub(crate) id: PeerId,
    pub(crate) conn: ConnId,
    pub(crate) handle: Handle,
}

impl Peer {
    pub(crate) async fn join(&mut self, topic: TopicId) -> Members {
        let (handle, members) = self.peer.join(topic).await.unwrap();
        self.handle = handle;
        members
    }

    /// The next frame of the wanted kind; the others are read over.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        self.peer.recv_until(wanted).await.unwrap()
    }
}

pub(crate) async fn peer(relay: &Embedded) -> Peer {
    peer_as(relay, &Identity::random().unwrap(), 1).await
}

pub(crate) async fn peer_as(relay: &Embedded, identity: &Identity, generation: u64) -> Peer {
    peer_taking_over(relay, identity, generation, ConnId::NONE).await
}

pub(crate) async fn peer_taking_over(
    relay: &Embedded,
    identity: &Identity,
    generation: u64,
    replaces: ConnId,
) -> Peer {
    let hello = HelloOptions::new(identity).generation(generation).replaces(replaces);
    peer_with(relay, identity, &hello).await
}

pub(crate) async fn peer_with(relay: &Embedded, identity: &Identity, hello: &HelloOptions) -> Peer {
    let mut peer = RawPeer::connect(relay.addr(), &RawOptions::plain("localhost")).await.unwrap();
    let welcome = peer.hello(hello).await.unwrap();
    let identity = Identity::from_seed(identity.seed()).unwrap();
    Peer { peer, id: identity.peer(), identity, conn: welcome.conn, handle: Handle::NONE }
}

/// Two peers in [`TOPIC`] that know of each other.
pub(crate) async fn pair(relay: &Embedded) -> (Peer, Peer) {
    pair_across(relay, relay).await
}

/// The same, on two nodes.
pub(crate) async fn pair_across(left: &Embedded, right: &Embedded) -> (Peer, Peer) {
    let mut a = peer(left).await;
    assert_eq!(a.join(TOPIC).await.total, 0);
    let mut b = peer(right).await;
    let members = b.join(TOPIC).await;
    assert_eq!((members.total, members.list[0].conn), (1, a.conn));
    let joined = a.peer.recv().await.unwrap();
    assert!(matches!(joined, Frame::PeerJoined { member, .. } if member.conn == b.conn), "{joined:?}");
    (a, b)
}

/// Sends the frame until its receiver, which does not read, takes no more: the kernel's buffers and its
/// queue are full. The verdicts about refused frames are read.
pub(crate) async fn fill(sender: &mut Peer, frame: &Frame) {
    const ROUND: u32 = 100;
    for token in 0.. {
        for _ in 0..ROUND {
            sender.peer.feed(frame).await.unwrap();
        }
        sender.peer.send(&Frame::Ping { token, padding: Bytes::new() }).await.unwrap();
        let mut refused = 0;
        loop {
            match sender.peer.recv().await.unwrap() {
                Frame::Undeliverable { verdict: Verdict::Full, count, .. } => refused += count,
                Frame::Pong { .. } => break,
                other => panic!("{other:?}"),
            }
        }
        if refused == ROUND {
            return;
        }
    }
}
