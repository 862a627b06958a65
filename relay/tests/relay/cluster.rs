//! Several nodes over the in-process bus: what holds over every bus, and what only this one can show.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use culvert_relay::Config;
use culvert_relay::admission::{Revocations, Revoked};
use culvert_relay::bus::memory::Hub;
use culvert_service_kit::Clock;
use culvert_testkit::relay::Embedded;
use culvert_wire::{Class, Frame, JoinRefusal, NodeId, Notice, TopicId, Verdict};
use parking_lot::Mutex;

use crate::common::{self, TOPIC, node_of, pair_across, peer};
use crate::conformance::{World, conformance, numbered};

/// Nodes of this process.
#[derive(Default)]
struct InProcess {
    hub: Arc<Hub>,
    nodes: Mutex<Vec<NodeId>>,
    revocations: Mutex<Revocations>,
}

impl InProcess {
    fn others(&self, node: &Embedded) -> Vec<NodeId> {
        self.nodes.lock().iter().copied().filter(|other| *other != node.id()).collect()
    }
}

#[async_trait(?Send)]
impl World for InProcess {
    async fn node_with(&self, config: Config) -> Embedded {
        let bus = Arc::new(self.hub.bus());
        let node = Embedded::start_on(bus, config, Clock::system()).await.unwrap();
        self.nodes.lock().push(node.id());
        node
    }

    async fn cut(&self, node: &Embedded) {
        for other in self.others(node) {
            self.hub.cut(node.id(), other);
        }
    }

    async fn heal(&self, node: &Embedded) {
        for other in self.others(node) {
            self.hub.heal(node.id(), other);
        }
    }

    async fn revoke(&self, revoked: Revoked, until: u64) {
        let mut list = self.revocations.lock();
        list.add(revoked, until);
        self.hub.revoke(list.clone());
    }

    async fn fence(&self, node: &Embedded) {
        self.hub.fence(node.id());
    }
}

conformance!(InProcess::default());

#[tokio::test]
async fn a_cut_between_nodes_is_told_and_what_was_lost_is_announced_when_it_heals() {
    let hub = Hub::new();
    let (left, right) = (node_of(&hub).await, node_of(&hub).await);
    let (mut a, mut b) = pair_across(&left, &right).await;
    hub.cut(left.id(), right.id());
    for peer in [&mut a, &mut b] {
        assert_eq!(peer.peer.recv().await.unwrap(), Frame::Notice(Notice::Degraded));
    }
    a.peer.send(&numbered(&a, b.conn, 1)).await.unwrap();
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
    a.peer.send(&numbered(&a, b.conn, 2)).await.unwrap();
    b.until(|frame| matches!(frame, Frame::Deliver { .. })).await;
    assert_eq!(left.metrics().sum("culvert_relay_degraded", &[]), 0.0);
    left.kill().await.unwrap();
    right.kill().await.unwrap();
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
