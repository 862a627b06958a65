//! A cluster in which things go well and badly, under a real Prometheus: every panel and every recorded
//! series has something to show, and trouble shows where the dashboards look for it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use culvert_testkit::binaries;
use culvert_testkit::broker::{BrokerPlan, BrokerProcess};
use culvert_testkit::certs::TestCa;
use culvert_testkit::postgres::PostgresPlan;
use culvert_testkit::process::Program;
use culvert_testkit::redis::{RedisPlan, RedisServer};
use culvert_testkit::relay::{RelayCluster, RelayClusterPlan, RelayProcess};
use culvert_testkit::{HelloOptions, Identity, RawOptions, RawPeer};
use culvert_wire::{Class, ConnId, Frame, Handle, TopicId};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::prometheus::Prometheus;
use crate::{alerts, boards, deploy};

const PATIENCE: Duration = Duration::from_secs(60);
const TOPIC: TopicId = TopicId([0x64; 32]);
/// Frames a second of the tenant, which the flood to the slow peer goes beyond.
const TENANT_FRAMES: &str = "500:500";
/// What the slow peer is sent: more than buffers of the system and its queue hold together.
const FLOOD: usize = 400;

/// An admitted member of the topic.
struct Member {
    peer: RawPeer,
    handle: Handle,
    conn: ConnId,
}

impl Member {
    async fn enter(relay: &RelayProcess, options: &RawOptions) -> Self {
        let mut peer = RawPeer::connect(relay.addr(), options).await.unwrap();
        let welcome = peer.hello(&HelloOptions::new(&Identity::random().unwrap())).await.unwrap();
        let (handle, _) = peer.join(TOPIC).await.unwrap();
        Self { peer, handle, conn: welcome.conn }
    }

    fn frame(&self, to: ConnId, bytes: usize) -> Frame {
        let payload = Bytes::from(vec![7; bytes]);
        Frame::Send { class: Class::Normal, handle: self.handle, to, payload }
    }
}

async fn relays(redis: &RedisServer, ca: &TestCa) -> RelayCluster {
    let leaf = ca.loopback().unwrap();
    let plan = RelayClusterPlan::open(3, redis.reach()).await.unwrap();
    let plan = plan.each(|_, relay| {
        let relay = relay.tls(&leaf, ca)?.set("write-timeout", "1s").set("tenant-frames", TENANT_FRAMES);
        Ok(relay.set("drain-delay", "0s").set("drain-window", "1s").set("drain-grace", "2s"))
    });
    plan.unwrap().start().await.unwrap()
}

async fn broker(database: &str, redis: &RedisServer) -> BrokerProcess {
    let program = Program::from(binaries::broker().await.unwrap());
    let plan = BrokerPlan::postgres(program, database).unwrap().redis(&redis.reach(), "culvert");
    plan.start().await.unwrap()
}

/// Frames from one node to another until they have arrived, and back.
async fn talk(a: &mut Member, b: &mut Member) {
    for _ in 0..50 {
        let (there, back) = (a.frame(b.conn, 100), b.frame(a.conn, 100));
        a.peer.send(&there).await.unwrap();
        b.peer.recv_until(|frame| matches!(frame, Frame::Deliver { .. })).await.unwrap();
        b.peer.send(&back).await.unwrap();
        a.peer.recv_until(|frame| matches!(frame, Frame::Deliver { .. })).await.unwrap();
    }
}

/// Somebody who reads nothing is sent too much, and closed as slow.
async fn flood_a_slow_peer(relay: &RelayProcess) {
    let mut sender = Member::enter(relay, &relay.raw()).await;
    let slow = Member::enter(relay, &RawOptions { receive_buffer: Some(4096), ..relay.raw() }).await;
    for _ in 0..FLOOD {
        sender.peer.feed(&sender.frame(slow.conn, 16_000)).await.unwrap();
    }
    sender.peer.flush().await.unwrap();
    for _ in 0..3 * FLOOD {
        sender.peer.feed(&sender.frame(slow.conn, 10)).await.unwrap();
    }
    sender.peer.flush().await.unwrap();
    until("the peer that reads nothing is closed", async || {
        relay.metrics().await.unwrap().sum("culvert_relay_closed_total", &[("close", "slow")]) >= 1.0
    })
    .await;
}

/// Clear text to a port that speaks TLS.
async fn fail_a_handshake(relay: SocketAddr) {
    let mut stream = TcpStream::connect(relay).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: relay\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    // However it ends, it ends.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
}

/// What users and guessers ask of a broker, by HTTP and by WebSocket.
async fn ask(broker: &BrokerProcess) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let status = async |path: &str| {
        let answer = client.get(format!("{}{path}", broker.url())).send().await.unwrap();
        answer.status().as_u16()
    };
    assert_eq!(status("/health").await, 200);
    assert_eq!(status("/api/shares/AAAAAAAAAAAAAAAAAAAAAA").await, 404);
    let guess = json!({ "user_id": "alice", "password": "wrong" });
    let refused = client.post(format!("{}/api/auth/login", broker.url())).json(&guess).send().await.unwrap();
    assert!(refused.status().is_client_error(), "{refused:?}");
    let stream = TcpStream::connect(broker.addr()).await.unwrap();
    let url = format!("ws://localhost:{}/ws", broker.addr().port());
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    socket.send(Message::text(r#"{"type":"get_challenge"}"#)).await.unwrap();
    socket.send(Message::text("no message")).await.unwrap();
    for _ in 0..2 {
        timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let (end, mut ticks) = (Instant::now() + PATIENCE, interval(Duration::from_millis(200)));
    while !holds().await {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        ticks.tick().await;
    }
}

/// A dashboard's query as Grafana would ask it, of all that may be chosen.
fn substituted(board: &Value, query: &str) -> String {
    let mut query = query.replace("$__rate_interval", "1m");
    for variable in boards::variables(board) {
        if let Some(all) = variable["allValue"].as_str() {
            query = query.replace(&format!("${}", variable["name"].as_str().unwrap()), all);
        }
    }
    assert!(!query.contains('$'), "{query} has a variable that nobody sets");
    query
}

/// What every dashboard has to be able to show.
fn questions() -> Vec<(String, String)> {
    let mut all: Vec<_> = alerts::records().into_iter().map(|name| (name.clone(), name)).collect();
    for board in boards::all() {
        let queries = boards::queries(&board).into_iter();
        all.extend(queries.map(|(place, query)| (place, substituted(&board, &query))));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_and_every_recorded_series_has_data_on_a_running_cluster() {
    let ca = TestCa::new("Culvert dashboards").unwrap();
    let redis = RedisPlan::new().unwrap().start().await.unwrap();
    let postgres = PostgresPlan::new().unwrap().start().await.unwrap();
    let database = postgres.create_database().await.unwrap();
    let cluster = relays(&redis, &ca).await;
    let brokers = [broker(&database, &redis).await, broker(&database, &redis).await];

    let scraped = |relays: &RelayCluster| {
        let relays = (0..relays.len()).map(|index| relays.node(index).unwrap().admin_addr()).collect();
        [
            ("culvert-relay", relays),
            ("culvert-broker-api", brokers.iter().map(BrokerProcess::admin_addr).collect()),
        ]
    };
    let rules = deploy("prometheus/rules.yaml");
    let prometheus = Prometheus::start(&scraped(&cluster), &rules).await.unwrap();
    // What happens before the first scrape is no increase.
    until("everything is scraped", async || {
        prometheus.query("sum(culvert_ready)").await.is_ok_and(|ready| ready == [5.0])
    })
    .await;

    let node = |index: usize| cluster.node(index).unwrap();
    let mut a = Member::enter(node(0), &node(0).raw()).await;
    let mut b = Member::enter(node(1), &node(1).raw()).await;
    talk(&mut a, &mut b).await;
    fail_a_handshake(node(0).addr()).await;
    flood_a_slow_peer(node(2)).await;
    for broker in &brokers {
        ask(broker).await;
    }
    // Its peer stays to the end; the scrape in between sees that it is not ready.
    cluster.node(1).unwrap().terminate().unwrap();
    let shows = async |query: &str| {
        until(query, async || {
            prometheus.query(query).await.is_ok_and(|found| found.iter().any(|value| *value > 0.0))
        })
        .await;
    };
    for trouble in [
        r#"sum(rate(culvert_relay_refused_total{reason="tls"}[1m]))"#,
        r#"sum(rate(culvert_relay_closed_total{close="slow"}[1m]))"#,
        r#"sum(rate(culvert_relay_undeliverable_total{verdict="full"}[1m]))"#,
        r#"sum(rate(culvert_relay_throttled_total{whose="tenant"}[1m]))"#,
        r#"sum(rate(culvert_relay_bus_letters_total{direction="received"}[1m]))"#,
        r#"sum(rate(culvert_broker_requests_total{route="share",status="refusal"}[1m]))"#,
        r#"sum(rate(culvert_broker_messages_total{type="unreadable"}[1m]))"#,
        r#"count(culvert_ready == 0 or up == 0)"#,
    ] {
        shows(trouble).await;
    }

    // Asked until all have data at once: what waits for a second sample gets it.
    let (questions, end) = (questions(), Instant::now() + PATIENCE);
    loop {
        let mut empty = Vec::new();
        for (place, query) in &questions {
            let found = prometheus.query(query).await.unwrap();
            if found.iter().all(|value| value.is_nan()) {
                empty.push(format!("{place}: {query}"));
            }
        }
        if empty.is_empty() {
            break;
        }
        assert!(Instant::now() < end, "no data for {} queries:\n{}", empty.len(), empty.join("\n"));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // The relay that left: two minutes before it fires, its alert waits.
    until("the alert on the relay that left waits", async || {
        prometheus.alerts().await.unwrap().iter().any(|alert| alert == "CulvertRelayDown")
    })
    .await;
    // Nobody started twice.
    assert_eq!(prometheus.query("max(changes(process_start_time_seconds[5m]))").await.unwrap(), [0.0]);
    assert!(!prometheus.alerts().await.unwrap().contains(&"CulvertRestarting".to_owned()));
    drop((a, b, brokers));
}
