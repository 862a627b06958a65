//! What goes wrong between two nodes on Redis, and the series that show it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use culvert_relay::bus::redis::RedisBus;
use culvert_relay::bus::redis::message::{HEADER, Header};
use culvert_relay::bus::redis::settings::{Mode, Server, Settings};
use culvert_service_kit::Clock;
use culvert_testkit::chaos::{ChaosConnection, ChaosProxy, Cut, Mode as Flow};
use culvert_testkit::redis::{RedisPlan, RedisServer};
use culvert_testkit::relay::Embedded;
use culvert_wire::{Class, Frame, NodeId, Verdict};
use tokio::time::Instant;

use crate::common::{self, Peer, pair_across};

const PATIENCE: Duration = Duration::from_secs(60);

/// Two nodes, each behind a proxy of its own, and a peer on each that know of each other.
struct World {
    redis: RedisServer,
    left: Embedded,
    to_left: ChaosProxy,
    right: Embedded,
    to_right: ChaosProxy,
    a: Peer,
    b: Peer,
}

impl World {
    async fn start() -> Self {
        Self::with_lease(Settings::LEASE).await
    }

    async fn with_lease(lease: Duration) -> Self {
        let redis = RedisPlan::new().unwrap().start().await.unwrap();
        let (left, to_left) = node(&redis, lease).await;
        let (right, to_right) = node(&redis, lease).await;
        let (a, b) = pair_across(&left, &right).await;
        let mut world = Self { redis, left, to_left, right, to_right, a, b };
        // Both ways carry something before anything goes wrong.
        world.talk().await;
        world
    }

    /// A frame each way.
    async fn talk(&mut self) {
        pass(&mut self.a, &mut self.b).await;
        pass(&mut self.b, &mut self.a).await;
    }

    /// Sends from left to right until something arrives again.
    async fn talks_again(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        let to = self.b.conn;
        loop {
            assert!(Instant::now() < deadline, "nothing arrives any more");
            tokio::select! {
                _ = ticks.tick() => self.a.peer.send(&frame(&self.a, to, 9)).await.unwrap(),
                delivered = self.b.peer.recv() => {
                    if matches!(delivered.unwrap(), Frame::Deliver { payload, .. } if payload.len() == 9) {
                        return;
                    }
                }
            }
        }
    }

    /// The subscriptions of the node on the right.
    async fn subscriptions(&self) -> Vec<ChaosConnection> {
        let subscribers: Vec<_> = self
            .redis
            .clients()
            .await
            .unwrap()
            .into_iter()
            .filter(|client| client.subscriptions > 0)
            .collect();
        let ours = |connection: &ChaosConnection| {
            subscribers.iter().any(|client| client.addr == connection.source())
        };
        self.to_right.connections().into_iter().filter(ours).collect()
    }
}

async fn node(redis: &RedisServer, lease: Duration) -> (Embedded, ChaosProxy) {
    let proxy = ChaosProxy::start(redis.addr()).await.unwrap();
    let server = Server { host: proxy.addr().ip().to_string(), port: proxy.addr().port(), tls: false };
    let mut settings = Settings::new(vec![server], Mode::Standalone);
    settings.lease = lease;
    settings.timeout = settings.timeout.min(lease / 3);
    let bus = RedisBus::new(settings, Clock::system()).unwrap();
    let node = Embedded::start_on(Arc::new(bus), Embedded::config(), Clock::system()).await.unwrap();
    (node, proxy)
}

async fn pass(from: &mut Peer, to: &mut Peer) {
    from.peer.send(&frame(from, to.conn, 8)).await.unwrap();
    to.until(|frame| matches!(frame, Frame::Deliver { .. })).await;
}

fn frame(from: &Peer, to: culvert_wire::ConnId, size: usize) -> Frame {
    let payload = Bytes::from(vec![7; size]);
    Frame::Send { class: Class::Normal, handle: from.handle, to, payload }
}

/// Waits until a series of a node is at least so much.
async fn reaches(node: &Embedded, series: &str, labels: &[(&str, &str)], least: f64) {
    let deadline = Instant::now() + PATIENCE;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    while node.metrics().sum(series, labels) < least {
        assert!(Instant::now() < deadline, "{series} {labels:?} stays below {least}");
        ticks.tick().await;
    }
}

fn total(node: &Embedded, series: &str, labels: &[(&str, &str)]) -> f64 {
    node.metrics().sum(series, labels)
}

/// Published to a node's inbox by somebody else; gives how many heard it.
async fn publish(redis: &RedisServer, to: NodeId, message: &[u8]) -> u64 {
    let channel = format!("culvert:in:{{{}.0}}", to.0);
    redis.ask(&[b"PUBLISH", channel.as_bytes(), message]).await.unwrap()
}

#[tokio::test]
async fn letters_messages_and_bytes_are_counted_on_both_sides() {
    let mut world = World::start().await;
    let before = total(&world.left, "culvert_relay_bus_letters_total", &[("direction", "sent")]);
    let to = world.b.conn;
    for _ in 0..1_000 {
        world.a.peer.feed(&frame(&world.a, to, 64)).await.unwrap();
    }
    world.a.peer.flush().await.unwrap();
    for _ in 0..1_000 {
        world.b.until(|frame| matches!(frame, Frame::Deliver { .. })).await;
    }
    let sent = total(&world.left, "culvert_relay_bus_letters_total", &[("direction", "sent")]);
    assert_eq!(sent - before, 1_000.0);
    let received = total(&world.right, "culvert_relay_bus_letters_total", &[("direction", "received")]);
    assert!(received >= 1_000.0);
    let messages = total(&world.left, "culvert_relay_bus_messages_total", &[("direction", "sent")]);
    assert!(messages < 500.0, "letters that wait share messages: {messages}");
    assert!(total(&world.left, "culvert_relay_bus_bytes_total", &[("direction", "sent")]) > 64_000.0);
    assert!(total(&world.right, "culvert_relay_bus_messages_total", &[("direction", "received")]) >= 1.0);
    assert!(total(&world.right, "culvert_relay_bus_bytes_total", &[("direction", "received")]) > 64_000.0);
    assert!(total(&world.left, "culvert_relay_bus_flush_seconds_count", &[]) >= 1.0);
}

/// Waits until Redis has published what [`frame`] carries: until then a node may only have it in its queue.
/// Redis must log all its commands, of whose words it keeps 128 bytes.
async fn published(redis: &RedisServer) {
    type Entry = (u64, u64, u64, Vec<Vec<u8>>, redis::Value, redis::Value);
    let deadline = Instant::now() + PATIENCE;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    loop {
        let commands: Vec<Entry> = redis.ask(&["SLOWLOG", "GET", "-1"]).await.unwrap();
        let carries = |word: &Vec<u8>| word.windows(4).any(|bytes| bytes == [7; 4]);
        if commands.iter().any(|(_, _, _, words, ..)| words[0] == b"PUBLISH" && words.iter().any(carries)) {
            return;
        }
        assert!(Instant::now() < deadline, "Redis publishes nothing");
        ticks.tick().await;
    }
}

#[tokio::test]
async fn letters_that_were_lost_behind_redis_are_unknown_and_announced() {
    let mut world = World::start().await;
    let _: String = world.redis.ask(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]).await.unwrap();
    let subscriptions = world.subscriptions().await;
    assert_eq!(subscriptions.len(), usize::from(Settings::SHARDS));
    // Redis hands them over to connections that carry them no further, and then they are cut.
    for subscription in &subscriptions {
        subscription.set(|faults| faults.down.mode = Flow::Stall);
    }
    let to = world.b.conn;
    world.a.peer.send(&frame(&world.a, to, 64)).await.unwrap();
    published(&world.redis).await;
    reaches(&world.left, "culvert_relay_bus_held_bytes", &[], 64.0).await;
    reaches(&world.left, "culvert_relay_bus_fullest_bytes", &[], 64.0).await;
    assert_eq!(
        total(&world.left, "culvert_relay_bus_fullest_bytes_limit", &[]),
        Settings::QUEUE_BYTES as f64
    );
    for subscription in &subscriptions {
        subscription.cut(Cut::Reset).await;
    }
    let unknown = world.a.until(|frame| matches!(frame, Frame::Undeliverable { .. })).await;
    assert!(
        matches!(unknown, Frame::Undeliverable { verdict: Verdict::Unknown, count: 1, .. }),
        "{unknown:?}"
    );
    let gap = world.b.until(|frame| matches!(frame, Frame::Gap { .. })).await;
    assert_eq!(gap, Frame::Gap { from: None, count: 1 });
    assert_eq!(total(&world.right, "culvert_relay_bus_lost_letters_total", &[]), 1.0);
    assert!(total(&world.left, "culvert_relay_bus_epochs_ended_total", &[("reason", "missed")]) >= 1.0);
    world.talk().await;
}

#[tokio::test]
async fn an_inbox_that_nobody_hears_is_unreachable_until_it_is_heard_again() {
    let mut world = World::start().await;
    world.to_right.refuse_new(true);
    world.to_right.cut(Cut::Reset).await;
    let to = world.b.conn;
    let deadline = Instant::now() + PATIENCE;
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    // What Redis took before it noticed may be reported later, as unknown.
    while total(&world.left, "culvert_relay_bus_unheard_total", &[]) == 0.0 {
        assert!(Instant::now() < deadline);
        ticks.tick().await;
        world.a.peer.send(&frame(&world.a, to, 64)).await.unwrap();
    }
    let closed = |frame: &Frame| matches!(frame, Frame::Undeliverable { verdict: Verdict::Unreachable, .. });
    world.a.until(closed).await;
    world.to_right.refuse_new(false);
    world.talks_again().await;
}

#[tokio::test]
async fn publishes_that_redis_does_not_answer_are_unknown() {
    let mut world = World::start().await;
    world.to_left.stall();
    let to = world.b.conn;
    world.a.peer.send(&frame(&world.a, to, 64)).await.unwrap();
    let unknown = world.a.until(|frame| matches!(frame, Frame::Undeliverable { .. })).await;
    assert!(
        matches!(unknown, Frame::Undeliverable { verdict: Verdict::Unknown, count: 1, .. }),
        "{unknown:?}"
    );
    assert!(total(&world.left, "culvert_relay_bus_flush_failures_total", &[]) >= 1.0);
    assert!(total(&world.left, "culvert_relay_bus_epochs_ended_total", &[("reason", "unanswered")]) >= 1.0);
    world.to_left.pass();
    world.talks_again().await;
}

#[tokio::test]
async fn a_node_whose_inbox_stands_still_gets_no_more_than_its_credit() {
    let mut world = World::start().await;
    for subscription in world.subscriptions().await {
        subscription.set(|faults| faults.down.mode = Flow::Stall);
    }
    let to = world.b.conn;
    for _ in 0..500 {
        world.a.peer.feed(&frame(&world.a, to, 8 << 10)).await.unwrap();
    }
    world.a.peer.flush().await.unwrap();
    reaches(&world.left, "culvert_relay_bus_credit_stalls_total", &[], 1.0).await;
    let published = total(&world.left, "culvert_relay_bus_bytes_total", &[("direction", "sent")]);
    assert!(published < f64::from(2 << 20), "{published} bytes were published into an inbox that is deaf");
}

#[tokio::test]
async fn messages_that_do_not_belong_are_discarded_and_counted() {
    const DISCARDED: &str = "culvert_relay_bus_discarded_total";
    let mut world = World::start().await;
    let (left, right) = (world.left.id(), world.right.id());
    assert_eq!(publish(&world.redis, right, b"\x01not a message").await, 1);
    reaches(&world.right, DISCARDED, &[("reason", "malformed")], 1.0).await;
    let table: Vec<(String, String)> = world.redis.ask(&["HGETALL", "{culvert}:nodes"]).await.unwrap();
    let instance = |node: NodeId| {
        let lease = table.iter().find(|(number, _)| *number == node.0.to_string()).unwrap();
        u64::from_str_radix(lease.1.split(' ').next().unwrap(), 16).unwrap()
    };
    let header = |source: NodeId, instance, target, epoch| {
        let mut message = bytes::BytesMut::with_capacity(HEADER);
        let header = Header {
            version: 1,
            flags: culvert_relay::bus::redis::message::EMPTY,
            source,
            instance,
            target,
            epoch,
            sequence: 0,
            offset: 0,
            letters: 0,
            confirmed_epoch: 0,
            confirmed: 0,
            granted: 0,
        };
        header.put(&mut message);
        message
    };
    publish(&world.redis, right, &header(left, instance(left), instance(right) ^ 1, 9)).await;
    reaches(&world.right, DISCARDED, &[("reason", "foreign")], 1.0).await;
    publish(&world.redis, right, &header(left, instance(left), instance(right), 0)).await;
    reaches(&world.right, DISCARDED, &[("reason", "old")], 1.0).await;
    publish(&world.redis, right, &header(left, instance(left) ^ 1, instance(right), 9)).await;
    reaches(&world.right, DISCARDED, &[("reason", "fenced")], 1.0).await;
    world.talk().await;
    let ended = [("reason", "lease")];
    let before = total(&world.right, "culvert_relay_bus_epochs_ended_total", &ended);
    world.left.kill().await.unwrap();
    reaches(&world.right, "culvert_relay_bus_epochs_ended_total", &ended, before + 1.0).await;
}

#[tokio::test]
async fn a_node_whose_lease_is_in_doubt_takes_nothing() {
    let mut world = World::with_lease(Duration::from_secs(3)).await;
    let subscriptions = world.subscriptions().await;
    // Everything but its subscriptions is cut off.
    world.to_right.refuse_new(true);
    for connection in world.to_right.connections() {
        if subscriptions.iter().all(|subscription| subscription.source() != connection.source()) {
            connection.cut(Cut::Reset).await;
        }
    }
    let to = world.b.conn;
    let deadline = Instant::now() + PATIENCE;
    let invalid = [("reason", "invalid")];
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    while total(&world.right, "culvert_relay_bus_discarded_total", &invalid) == 0.0 {
        assert!(Instant::now() < deadline);
        ticks.tick().await;
        world.a.peer.send(&frame(&world.a, to, 64)).await.unwrap();
    }
    world.to_right.refuse_new(false);
    world.b.until(|frame| *frame == Frame::Notice(culvert_wire::Notice::Restored)).await;
}

#[tokio::test]
async fn a_flood_to_one_node_leaves_room_for_another_where_redis_carries_little() {
    let mut world = World::start().await;
    let (third, _to_third) = node(&world.redis, Settings::LEASE).await;
    let topic = culvert_wire::TopicId([0x33; 32]);
    let (mut d, mut c) = (common::peer(&world.left).await, common::peer(&third).await);
    d.join(topic).await;
    assert_eq!(c.join(topic).await.total, 1);
    d.until(|frame| matches!(frame, Frame::PeerJoined { .. })).await;
    world.to_left.set(|faults| faults.up.bytes_per_second = Some(256 << 10));
    let (to_b, to_c) = (world.b.conn, c.conn);
    let flood = async {
        loop {
            world.a.peer.feed(&frame(&world.a, to_b, 8 << 10)).await.unwrap();
            world.a.peer.flush().await.unwrap();
            // Its verdicts are read, or it would be paused.
            tokio::select! {
                read = world.a.peer.recv() => drop(read.unwrap()),
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
        }
    };
    let talk = async {
        // Long enough for many writes that are full of the flood.
        for _ in 0..20 {
            d.peer.send(&frame(&d, to_c, 64)).await.unwrap();
            c.until(|frame| matches!(frame, Frame::Deliver { .. })).await;
        }
    };
    tokio::select! {
        () = flood => {}
        done = tokio::time::timeout(PATIENCE, talk) => done.expect("the other node is starved"),
    }
}
