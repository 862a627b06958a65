//! Every series moves when what it counts happens.

use bytes::Bytes;
use culvert_relay::bus::memory::Hub;
use culvert_relay::metrics::Metrics;
use culvert_relay::quota::Rate;
use culvert_service_kit::Clock;
use culvert_testkit::relay::Embedded;
use culvert_testkit::{HelloOptions, Identity, RawOptions, RawPeer};
use culvert_wire::{Class, Close, ConnId, Frame, Header, TopicId};

use crate::common::{self, TOPIC, pair_across, peer};

/// Moved by tests of their own: running out of file descriptors takes a process to itself (descriptors),
/// a node without a number another bus (placement), full queues their time (ledger), key sets a service that
/// has them (key_sets).
const ELSEWHERE: &[&str] = &[
    "culvert_relay_accept_pauses_total",
    "culvert_relay_ticket_key_fetches_total",
    "culvert_relay_unplaced",
    "culvert_relay_queued_bytes",
    "culvert_relay_verdicts_orphaned_total",
];

#[tokio::test]
async fn every_series_is_moved_by_what_it_counts() {
    let hub = Hub::new();
    let node = common::node(hub.bus(), Clock::system(), |config| {
        config.limits.connection_frames = Rate { per_second: 5000, burst: 400 };
        config.limits.topics_per_connection = 1;
        config.limits.connections_per_peer = 1;
    })
    .await;
    let other = common::node_of(&hub).await;
    let mut moved: Vec<&str> = ELSEWHERE.to_vec();
    let mut note = |node: &Embedded| {
        let metrics = node.metrics();
        let series = |line: &str| {
            Metrics::SERIES.iter().find(|series| {
                // A histogram is exported as three series.
                let rest = line.strip_prefix(series.name).unwrap_or_default();
                let rest = rest.strip_prefix("_count").unwrap_or(rest);
                rest.starts_with(['{', ' '])
            })
        };
        let positive = metrics
            .text()
            .lines()
            .filter(|line| line.rsplit(' ').next().is_some_and(|v| v.parse::<f64>().is_ok_and(|v| v > 0.0)));
        moved.extend(positive.filter_map(series).map(|series| series.name));
    };

    // A handshake under way, and one that is refused.
    let waiting = RawPeer::connect(node.addr(), &RawOptions::plain("localhost")).await.unwrap();
    note(&node);
    waiting.close(Close::Done).await.unwrap();
    let (mut a, mut b) = pair_across(&node, &other).await;
    let mut again = RawPeer::connect(node.addr(), &RawOptions::plain("localhost")).await.unwrap();
    let error = again.hello(&HelloOptions::new(&a.identity)).await.unwrap_err();
    assert_eq!(error.close(), Some(Close::Overloaded));

    // Frames that arrive here and there, that do not, that nobody knows, and too many of them.
    let handle = a.handle;
    let send = |to| Frame::Send { class: Class::Normal, handle, to, payload: Bytes::from_static(b"x") };
    a.peer.send(&send(b.conn)).await.unwrap();
    b.until(|frame| matches!(frame, Frame::Deliver { .. })).await;
    a.peer.send(&send(ConnId::new(node.id(), 1))).await.unwrap();
    a.until(|frame| matches!(frame, Frame::Undeliverable { .. })).await;
    let unknown = Header { kind: 0xee, ..Header::plain(culvert_wire::Kind::Ping) };
    a.peer.send_bytes(Bytes::copy_from_slice(&unknown.to_bytes())).await.unwrap();
    a.peer.send(&Frame::Join { topic: TopicId([9; 32]) }).await.unwrap();
    a.until(|frame| matches!(frame, Frame::JoinRefused { .. })).await;
    let mut local = peer(&node).await;
    local.join(TOPIC).await;
    for _ in 0..1000 {
        a.peer.send(&send(local.conn)).await.unwrap();
    }
    a.until(|frame| matches!(frame, Frame::Notice(culvert_wire::Notice::Throttled))).await;

    // The other node out of reach and back.
    hub.cut(node.id(), other.id());
    note(&node);
    b.peer
        .send(&Frame::Send { class: Class::Normal, handle: b.handle, to: a.conn, payload: Bytes::new() })
        .await
        .unwrap();
    b.until(|frame| matches!(frame, Frame::Undeliverable { .. })).await;
    hub.heal(node.id(), other.id());
    a.until(|frame| matches!(frame, Frame::Gap { .. })).await;

    // An end.
    let mut brief = common::peer_as(&node, &Identity::random().unwrap(), 1).await;
    brief.peer.send_bytes(Bytes::new()).await.unwrap();
    assert_eq!(brief.peer.closed().await.unwrap(), Close::Protocol);
    note(&node);

    let still: Vec<&str> =
        Metrics::SERIES.iter().map(|series| series.name).filter(|name| !moved.contains(name)).collect();
    assert!(still.is_empty(), "never moved: {still:?}\n{}", node.metrics().text());
    node.kill().await.unwrap();
    other.kill().await.unwrap();
}
