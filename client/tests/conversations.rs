//! Two peers and a real relay in the test's process.

#![allow(clippy::unwrap_used, reason = "in the helpers of tests, a panic is the failure")]

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use culvert_client::{
    PeerPolicy, ReconnectPolicy, RelayConnection, RelayOptions, RelayTransport, SyncBroadcaster, SyncEvent,
    TopicSecret, Transport, TransportConfig, TransportMode,
};
use culvert_testkit::relay::{Cluster, Embedded};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Longest wait for anything that should happen at once.
const SOON: Duration = Duration::from_secs(20);

struct Peer {
    transport: RelayTransport,
    connections: mpsc::Receiver<RelayConnection>,
}

fn transport(url: &str, options: RelayOptions) -> RelayTransport {
    let config = TransportConfig {
        mode: TransportMode::Relay,
        relay_url: Some(url.to_owned()),
        timeout_ms: 20_000,
        ..Default::default()
    };
    let reconnect = ReconnectPolicy { longest: Duration::from_millis(500), ..Default::default() };
    RelayTransport::new(config, RelayOptions { reconnect, ..options }).unwrap()
}

fn member(secret: &TopicSecret) -> RelayOptions {
    RelayOptions { topic_secret: Some(secret.clone()), ..Default::default() }
}

async fn peer(url: &str, topic: [u8; 32], options: RelayOptions) -> Result<Peer> {
    let mut transport = transport(url, options);
    let connections = transport.connect_relay(topic).await?;
    Ok(Peer { transport, connections })
}

impl Peer {
    async fn next(&mut self) -> Result<RelayConnection> {
        timeout(SOON, self.connections.recv()).await.context("no peer came")?.context("the transport ended")
    }
}

async fn pair(one: &str, two: &str) -> Result<[(Peer, RelayConnection); 2]> {
    let secret = TopicSecret::generate();
    let mut a = peer(one, secret.topic(), member(&secret)).await?;
    let mut b = peer(two, secret.topic(), member(&secret)).await?;
    let (to_b, to_a) = (a.next().await?, b.next().await?);
    assert_eq!((to_b.peer(), to_a.peer()), (b.transport.peer_id(), a.transport.peer_id()));
    Ok([(a, to_b), (b, to_a)])
}

async fn received(connection: &mut RelayConnection) -> Result<Bytes> {
    timeout(SOON, connection.receive_bytes())
        .await
        .context("nothing came")??
        .context("the conversation ended")
}

#[tokio::test]
async fn two_peers_exchange_messages_and_end_in_good_order() -> Result<()> {
    let relay = Embedded::open().await?;
    let [(mut a, mut to_b), (mut b, mut to_a)] = pair(&relay.url(), &relay.url()).await?;
    let one = async {
        for n in 0..100_usize {
            to_b.send_bytes(Bytes::from(n.to_string())).await?;
            assert_eq!(received(&mut to_b).await?.len(), n * 1000);
        }
        anyhow::Ok(())
    };
    let two = async {
        for n in 0..100_usize {
            to_a.send_bytes(Bytes::from(vec![7; n * 1000])).await?;
            assert_eq!(received(&mut to_a).await?, n.to_string());
        }
        anyhow::Ok(())
    };
    tokio::try_join!(one, two)?;
    let (mut send, _receive) = to_b.split();
    timeout(SOON, send.flush()).await??;
    timeout(SOON, send.close()).await??;
    assert_eq!(timeout(SOON, to_a.receive_bytes()).await??, None);
    assert!(to_a.send_bytes(Bytes::from_static(b"late")).await.is_err());
    timeout(SOON, a.transport.disconnect()).await??;
    timeout(SOON, b.transport.disconnect()).await??;
    Ok(())
}

/// Sends numbered messages of the given size until `count`, then flushes.
async fn send_numbered(connection: &mut culvert_client::SendHalf, count: u64, size: usize) -> Result<()> {
    for n in 0..count {
        let mut message = vec![0; size.max(8)];
        message[..8].copy_from_slice(&n.to_be_bytes());
        assert_eq!(connection.send(message.into()).await?, n);
    }
    connection.flush().await?;
    Ok(())
}

async fn receive_numbered(connection: &mut culvert_client::ReceiveHalf, numbers: Range<u64>) -> Result<()> {
    for n in numbers {
        let message = timeout(SOON, connection.receive()).await.context("nothing came")??;
        let message = message.with_context(|| format!("the end before message {n}"))?;
        assert_eq!(message[..8], n.to_be_bytes(), "in order, each once");
    }
    Ok(())
}

#[tokio::test]
async fn a_relay_that_restarts_midway_loses_and_doubles_nothing() -> Result<()> {
    let relay = Embedded::open().await?;
    let address = relay.addr();
    let [(_a, to_b), (_b, to_a)] = pair(&relay.url(), &relay.url()).await?;
    let (mut send, _keep) = to_b.split();
    let (_keep_too, mut receive) = to_a.split();
    let (count, size) = (3000, 4000);
    let sending = send_numbered(&mut send, count, size);
    let receiving = async {
        receive_numbered(&mut receive, 0..500).await?;
        relay.kill().await?;
        let mut config = Embedded::config();
        config.listen = address;
        let relay = Embedded::start(config).await?;
        receive_numbered(&mut receive, 500..count).await?;
        anyhow::Ok(relay)
    };
    let ((), _relay) = tokio::try_join!(sending, receiving)?;
    Ok(())
}

#[tokio::test]
async fn a_receiver_that_stops_consuming_stops_the_sender_within_bounds() -> Result<()> {
    let relay = Embedded::open().await?;
    let [(_a, mut to_b), (_b, mut to_a)] = pair(&relay.url(), &relay.url()).await?;
    let message = Bytes::from(vec![1; 64 * 1024]);
    let mut sent = 0_usize;
    while timeout(Duration::from_secs(2), to_b.send_bytes(message.clone())).await.is_ok() {
        sent += message.len();
        assert!(sent < 16 << 20, "the sender was never stopped");
    }
    // The other lane is not held up by it.
    let (mut bulk, _) = to_b.take_bulk().context("taken once")?;
    let (_, mut bulk_in) = to_a.take_bulk().context("taken once")?;
    bulk.send(Bytes::from_static(b"past it")).await?;
    let got = timeout(SOON, bulk_in.receive()).await.context("the bulk lane is stuck")??;
    assert_eq!(got.as_deref(), Some(&b"past it"[..]));
    // Whoever consumes again gets everything and frees the sender.
    let mut got = 0;
    while got < sent {
        got += received(&mut to_a).await?.len();
    }
    timeout(SOON, to_b.send_bytes(message)).await.context("the sender stays stuck")??;
    Ok(())
}

#[tokio::test]
async fn peers_on_different_nodes_of_a_cluster_talk() -> Result<()> {
    let cluster = Cluster::open(2).await?;
    let [one, two] = cluster.nodes() else { anyhow::bail!("two nodes") };
    let [(_a, mut to_b), (_b, mut to_a)] = pair(&one.url(), &two.url()).await?;
    to_b.send_bytes(Bytes::from_static(b"across")).await?;
    assert_eq!(received(&mut to_a).await?, "across");
    Ok(())
}

#[tokio::test]
async fn who_does_not_have_the_topic_secret_gets_no_handshake_completed() -> Result<()> {
    let relay = Embedded::open().await?;
    let secret = TopicSecret::generate();
    let mut member_a = peer(&relay.url(), secret.topic(), member(&secret)).await?;
    // Strangers who learnt the topic: one without a secret, one with another.
    let mut stranger = peer(&relay.url(), secret.topic(), RelayOptions::default()).await?;
    let mut other = peer(&relay.url(), secret.topic(), member(&TopicSecret::generate())).await?;
    let mut member_b = peer(&relay.url(), secret.topic(), member(&secret)).await?;
    let (to_b, to_a) = (member_a.next().await?, member_b.next().await?);
    assert_eq!((to_b.peer(), to_a.peer()), (member_b.transport.peer_id(), member_a.transport.peer_id()));
    // By now everybody has tried everybody, and the strangers have tried for longer.
    for connections in [&mut stranger.connections, &mut other.connections] {
        assert!(connections.try_recv().is_err());
    }
    assert!(member_a.connections.try_recv().is_err());
    Ok(())
}

#[tokio::test]
async fn a_pin_lets_only_its_own_peer_in() -> Result<()> {
    let relay = Embedded::open().await?;
    let secret = TopicSecret::generate();
    let mut wanted = transport(&relay.url(), member(&secret));
    let pinned = RelayOptions { peers: PeerPolicy::Only(vec![wanted.peer_id()]), ..member(&secret) };
    let mut a = peer(&relay.url(), secret.topic(), pinned).await?;
    let mut unwanted = peer(&relay.url(), secret.topic(), member(&secret)).await?;
    let mut to_wanted = wanted.connect_relay(secret.topic()).await?;
    let to_wanted_peer = a.next().await?;
    assert_eq!(to_wanted_peer.peer(), wanted.peer_id());
    // The two others talk to each other all the same.
    let first = timeout(SOON, to_wanted.recv()).await?.context("nobody")?;
    let second = timeout(SOON, to_wanted.recv()).await?.context("one only")?;
    let mut seen = [first.peer(), second.peer()];
    seen.sort_unstable();
    let mut expected = [a.transport.peer_id(), unwanted.transport.peer_id()];
    expected.sort_unstable();
    assert_eq!(seen, expected);
    assert_eq!(unwanted.next().await?.peer(), wanted.peer_id());
    assert!(a.connections.try_recv().is_err());
    Ok(())
}

#[tokio::test]
async fn a_peer_that_ends_leaves_the_others_an_end_and_events() -> Result<()> {
    let relay = Embedded::open().await?;
    let secret = TopicSecret::generate();
    let hub = SyncBroadcaster::default();
    let mut events = hub.subscribe();
    let options = RelayOptions { broadcaster: Some(hub), ..member(&secret) };
    let mut a = peer(&relay.url(), secret.topic(), options).await?;
    let mut b = peer(&relay.url(), secret.topic(), member(&secret)).await?;
    let (mut to_b, mut to_a) = (a.next().await?, b.next().await?);
    to_a.send_bytes(Bytes::from_static(b"last words")).await?;
    timeout(SOON, b.transport.disconnect()).await??;
    assert_eq!(received(&mut to_b).await?, "last words", "disconnect delivers first");
    assert_eq!(timeout(SOON, to_b.receive_bytes()).await??, None);
    let peer_id = b.transport.peer_id().to_string();
    let mut seen = Vec::new();
    while !matches!(seen.last(), Some(SyncEvent::PeerDisconnected { .. })) {
        seen.push(timeout(SOON, events.recv()).await??);
    }
    assert!(seen.contains(&SyncEvent::RelayConnected { connected: true }), "{seen:?}");
    assert!(seen.contains(&SyncEvent::PeerConnected { peer_id: peer_id.clone() }), "{seen:?}");
    assert!(seen.contains(&SyncEvent::PeerDisconnected { peer_id }), "{seen:?}");
    Ok(())
}

#[tokio::test]
async fn who_announced_is_found_before_and_after_entering() -> Result<()> {
    let relay = Embedded::open().await?;
    let (mut one, mut two) =
        (transport(&relay.url(), RelayOptions::default()), transport(&relay.url(), RelayOptions::default()));
    let topic = culvert_client::derive_topic("my-app-database");
    one.announce(topic).await?;
    let found = two.lookup(topic).await?;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].id.clone(), found[0].connected), (one.peer_id().to_string(), false));
    let mut connections = two.connect_relay(topic).await?;
    let mut others = one.connect_relay(topic).await?;
    let connection = timeout(SOON, connections.recv()).await?.context("nobody")?;
    let _kept = timeout(SOON, others.recv()).await?.context("nobody")?;
    assert_eq!(connection.peer(), one.peer_id());
    assert!(two.lookup(topic).await?[0].connected);
    let again = two.connect_relay(topic).await.unwrap_err().to_string();
    assert_eq!(again, "this topic is connected already; disconnect first");
    Ok(())
}

#[tokio::test]
async fn nobody_listening_is_said_at_once_enough() -> Result<()> {
    let relay = Embedded::open().await?;
    let url = relay.url();
    relay.kill().await?;
    let config = TransportConfig {
        mode: TransportMode::Relay,
        relay_url: Some(url),
        timeout_ms: 500,
        ..Default::default()
    };
    let mut transport = RelayTransport::new(config, RelayOptions::default())?;
    let error = timeout(SOON, transport.connect_relay([1; 32])).await?.unwrap_err().to_string();
    assert!(error.contains("no connection to localhost"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_drain_moves_conversations_to_another_node_and_loses_nothing() -> Result<()> {
    let cluster = Cluster::open(2).await?;
    let nodes = cluster.nodes();
    let (one, two) = (nodes[0].addr(), nodes[1].addr());
    // The balancer: new connections go where it points.
    let balancer = culvert_testkit::chaos::ChaosProxy::start(one).await?;
    let url = format!("ws://localhost:{}", balancer.addr().port());
    let [(_a, to_b), (_b, to_a)] = pair(&url, &url).await?;
    let (mut send, _keep) = to_b.split();
    let (_keep_too, mut receive) = to_a.split();
    let count = 20_000;
    let sending = send_numbered(&mut send, count, 1000);
    let receiving = async {
        receive_numbered(&mut receive, 0..1000).await?;
        balancer.set_target(two);
        cluster.nodes()[0].shutdown().request_drain();
        receive_numbered(&mut receive, 1000..count).await
    };
    tokio::try_join!(sending, receiving)?;
    Ok(())
}
