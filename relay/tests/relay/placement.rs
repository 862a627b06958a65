//! A node's number comes from the bus and may be taken away: then its addresses are void.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use culvert_relay::bus::{Arrival, AttachError, Bus, Inbox, Letter, Undelivered};
use culvert_relay::{Config, Relay};
use culvert_service_kit::metric_set::Registry;
use culvert_service_kit::{Clock, Shutdown};
use culvert_testkit::relay::{Embedded, Metrics};
use culvert_testkit::{HelloOptions, Identity, RawPeer};
use culvert_wire::{Close, ConnId, Frame, Member, Members, NodeId, TopicId, Verdict};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{TOPIC, pair, peer};

/// A bus that connects nobody and says what the test wants.
struct Handmade {
    first: Option<NodeId>,
    inbox: Mutex<Option<Arc<dyn Inbox>>>,
}

impl Handmade {
    fn new(first: Option<u16>) -> Arc<Self> {
        Arc::new(Self { first: first.map(NodeId), inbox: Mutex::default() })
    }

    fn place(&self, number: Option<u16>) {
        let inbox = self.inbox.lock().clone();
        inbox.expect("a node is attached").placed(number.map(NodeId));
    }
}

#[async_trait]
impl Bus for Handmade {
    async fn attach(&self, inbox: Arc<dyn Inbox>, _: &Registry) -> Result<(), AttachError> {
        inbox.placed(self.first);
        *self.inbox.lock() = Some(inbox);
        Ok(())
    }
    async fn detach(&self) {
        self.inbox.lock().take();
    }
    async fn join(&self, _: TopicId, _: Arrival, _: usize) -> Members {
        Members::default()
    }
    fn leave(&self, _: TopicId, _: Member) {}
    async fn lookup(&self, _: TopicId, _: usize) -> Members {
        Members::default()
    }
    fn forward(&self, _: &Letter<'_>) -> Result<(), Verdict> {
        Err(Verdict::Gone)
    }
    fn broadcast(&self, _: &Letter<'_>) -> Result<(), (u32, Verdict)> {
        Ok(())
    }
    fn report(&self, _: Undelivered) {}
}

/// A node whose readiness can be asked for.
fn config() -> Config {
    let mut config = Embedded::config();
    config.admin_listen = Some(([127, 0, 0, 1], 0).into());
    config
}

/// A node that has the number 1.
async fn placed() -> (Arc<Handmade>, Embedded) {
    let bus = Handmade::new(Some(1));
    let node = Embedded::start_on(bus.clone(), config(), Clock::system()).await.unwrap();
    (bus, node)
}

/// The status of the admin port's `/readyz`.
async fn readiness(admin: std::net::SocketAddr) -> u16 {
    let mut stream = tokio::net::TcpStream::connect(admin).await.unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Waits until the admin port says so; the node sets it in a task of its own.
async fn becomes(admin: std::net::SocketAddr, status: u16) {
    let wait = async { while readiness(admin).await != status {} };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("readiness follows the number");
}

async fn refused(addr: std::net::SocketAddr) -> Close {
    let mut raw = RawPeer::open(addr, &culvert_testkit::RawOptions::plain("localhost")).await.unwrap();
    raw.closed().await.unwrap()
}

#[tokio::test]
async fn a_node_without_its_first_number_is_not_ready_and_admits_nobody() {
    let bus = Handmade::new(None);
    let relay = Relay::bind_to(config(), bus.clone(), Clock::system()).await.unwrap();
    let (addr, admin, registry) =
        (relay.local_addr().unwrap(), relay.admin_addr().unwrap().unwrap(), relay.registry());
    let shutdown = Shutdown::new();
    let rest = async {
        let series = || Metrics::of(registry.render()).sum("culvert_relay_unplaced", &[]);
        assert_eq!(readiness(admin).await, 503);
        assert_eq!(refused(addr).await, Close::Fenced);
        assert_eq!(series(), 1.0);
        bus.place(Some(5));
        becomes(admin, 200).await;
        assert_eq!(series(), 0.0);
        let mut raw = RawPeer::connect(addr, &culvert_testkit::RawOptions::plain("localhost")).await.unwrap();
        let welcome = raw.hello(&HelloOptions::new(&Identity::random().unwrap())).await.unwrap();
        assert_eq!(welcome.conn.node(), NodeId(5));
        shutdown.kill();
    };
    tokio::join!(relay.run(shutdown.clone()), rest);
}

#[tokio::test]
async fn a_fenced_node_closes_everybody_and_admits_nobody_until_it_has_a_number_again() {
    let (bus, node) = placed().await;
    let admin = node.admin_addr().unwrap();
    becomes(admin, 200).await;
    let (mut a, mut b) = pair(&node).await;
    // One whose hello is under way while the number is lost.
    let mut half = RawPeer::connect(node.addr(), &node.raw()).await.unwrap();
    bus.place(None);
    for peer in [&mut a, &mut b] {
        assert_eq!(peer.peer.closed().await.unwrap(), Close::Fenced);
    }
    let error = half.hello(&HelloOptions::new(&Identity::random().unwrap())).await.unwrap_err();
    assert_eq!(error.close(), Some(Close::Fenced), "{error:?}");
    assert_eq!(refused(node.addr()).await, Close::Fenced);
    assert!(Close::Fenced.may_reconnect());
    becomes(admin, 503).await;
    assert_eq!(node.metrics().sum("culvert_relay_unplaced", &[]), 1.0);
    assert_eq!(node.metrics().sum("culvert_relay_connections", &[]), 0.0);

    bus.place(Some(2));
    becomes(admin, 200).await;
    let (a, b) = pair(&node).await;
    assert_eq!((a.conn.node(), b.conn.node()), (NodeId(2), NodeId(2)));
    node.kill().await.unwrap();
}

#[tokio::test]
async fn a_peer_that_was_challenged_under_one_number_is_not_admitted_under_another() {
    let (bus, node) = placed().await;
    let mut half = RawPeer::connect(node.addr(), &node.raw()).await.unwrap();
    assert_eq!(half.challenge().node, NodeId(1));
    bus.place(Some(2));
    let error = half.hello(&HelloOptions::new(&Identity::random().unwrap())).await.unwrap_err();
    assert_eq!(error.close(), Some(Close::Fenced), "{error:?}");
    assert_eq!(peer(&node).await.conn.node(), NodeId(2));
    node.kill().await.unwrap();
}

#[tokio::test]
async fn the_same_number_once_more_changes_nothing() {
    let (bus, node) = placed().await;
    let (mut a, mut b) = pair(&node).await;
    bus.place(Some(1));
    a.peer.send_to(a.handle, b.conn, "still here".into()).await.unwrap();
    b.until(|frame| matches!(frame, Frame::Deliver { .. })).await;
    assert_ne!(a.join(TOPIC).await.list[0].conn, ConnId::NONE);
    node.kill().await.unwrap();
}

/// Numbers that change while peers come in: whoever is welcomed has an address of the number at that
/// moment, and is closed when it is lost.
#[tokio::test]
async fn nobody_stays_under_a_number_that_is_lost() {
    let (bus, node) = placed().await;
    for number in 2..52 {
        let mut raw = RawPeer::connect(node.addr(), &node.raw()).await.unwrap();
        let hello = async {
            match raw.hello(&HelloOptions::new(&Identity::random().unwrap())).await {
                Ok(welcome) => {
                    assert_eq!(welcome.conn.node(), NodeId(number - 1));
                    raw.closed().await.unwrap()
                }
                Err(error) => error.close().unwrap(),
            }
        };
        let change = async { bus.place(Some(number)) };
        let (close, ()) = tokio::join!(hello, change);
        assert_eq!(close, Close::Fenced);
    }
    node.kill().await.unwrap();
}
