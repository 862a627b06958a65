//! Two peers and a real relay in the test's process.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use culvert_client::{
    ConnectionError, Identity, PeerPolicy, ReconnectPolicy, RelayConnection, RelayOptions, RelayTransport,
    SyncBroadcaster, SyncEvent, TopicSecret, Transport, TransportConfig, TransportMode,
};
use culvert_testkit::chaos::{ChaosProxy, Cut};
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

/// The predecessor dropped frames silently when a receiver lagged.
#[tokio::test]
async fn hole_3b_05_a_receiver_that_lags_stops_the_sender_within_bounds() -> Result<()> {
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

/// The predecessor did not authenticate peers: who knew the topic was in.
#[tokio::test]
async fn hole_3b_03_who_knows_only_the_topic_gets_no_handshake_completed() -> Result<()> {
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
    let balancer = ChaosProxy::start(one).await?;
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

/// The predecessor did not reconnect, and two dialling sides made two connections.
#[tokio::test]
async fn hole_3b_07_a_network_that_cuts_every_connection_loses_nothing() -> Result<()> {
    let relay = Embedded::open().await?;
    let network = ChaosProxy::start(relay.addr()).await?;
    let url = format!("ws://localhost:{}", network.addr().port());
    let [(_a, to_b), (_b, to_a)] = pair(&url, &url).await?;
    let (mut send, _keep) = to_b.split();
    let (_keep_too, mut receive) = to_a.split();
    let rounds = 5;
    let sending = send_numbered(&mut send, rounds * 1000, 1000);
    let receiving = async {
        for round in 0..rounds {
            receive_numbered(&mut receive, round * 1000..(round + 1) * 1000).await?;
            network.cut(Cut::Reset).await;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(sending, receiving)?;
    Ok(())
}

/// The other process is gone and a new one with the same key is there.
async fn restarts(stays: u8, restarted: u8) -> Result<()> {
    let relay = Embedded::open().await?;
    let secret = TopicSecret::generate();
    let options = |seed| RelayOptions { identity: Some(Identity::from_seed(&[seed; 32])), ..member(&secret) };
    let mut a = peer(&relay.url(), secret.topic(), options(stays)).await?;
    let mut b = peer(&relay.url(), secret.topic(), options(restarted)).await?;
    let (mut old, to_a) = (a.next().await?, b.next().await?);
    // Gone without a word, as after a kill: its task is dropped with everything it holds.
    drop((b, to_a));
    old.send_bytes(Bytes::from_static(b"to the old one")).await?;
    let mut b = peer(&relay.url(), secret.topic(), options(restarted)).await?;
    let (mut new, mut to_a) = (a.next().await?, b.next().await?);
    new.send_bytes(Bytes::from_static(b"to the new one")).await?;
    assert_eq!(received(&mut to_a).await?, "to the new one");
    let ended = timeout(SOON, old.receive_bytes()).await?.unwrap_err();
    assert!(matches!(ended, ConnectionError::PeerGone { .. }), "{ended}");
    let (mut send, _) = old.split();
    let lost = send.flush().await.unwrap_err().to_string();
    let expected =
        "the peer is gone: the peer restarted and lost this session; message 0 was not acknowledged";
    assert_eq!(lost, expected);
    Ok(())
}

#[tokio::test]
async fn a_peer_that_restarted_is_a_new_conversation_and_the_old_one_says_what_was_lost() -> Result<()> {
    // Either of the two may be the one that begins.
    tokio::try_join!(restarts(1, 2), restarts(2, 1))?;
    Ok(())
}

/// The predecessor's relay read everything it passed on.
#[tokio::test]
async fn hole_3b_01_what_the_relay_passes_on_is_sealed() -> Result<()> {
    let relay = Embedded::open().await?;
    let network = ChaosProxy::start(relay.addr()).await?;
    let capture = network.record();
    let url = format!("ws://localhost:{}", network.addr().port());
    let [(_a, mut to_b), (_b, mut to_a)] = pair(&url, &url).await?;
    let secret: Vec<u8> = (0..4096_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    to_b.send_bytes(secret.clone().into()).await?;
    assert_eq!(received(&mut to_a).await?, secret);
    assert!(capture.len() > 2 * secret.len(), "both ways were recorded");
    // On the way down nothing is masked: plain text would be found there.
    assert!(capture.find(&secret).is_none());
    Ok(())
}

/// The predecessor told a joiner of one peer only, and a peer's id was what it said it was; it had one
/// channel for all peers and no way to address one of them.
#[tokio::test]
async fn hole_3b_06_and_08_every_peer_meets_every_other_in_a_conversation_of_their_own() -> Result<()> {
    let relay = Embedded::open().await?;
    let secret = TopicSecret::generate();
    let mut peers = Vec::new();
    for _ in 0..4 {
        peers.push(peer(&relay.url(), secret.topic(), member(&secret)).await?);
    }
    let ids: Vec<_> = peers.iter().map(|peer| peer.transport.peer_id()).collect();
    let mut conversations = Vec::new();
    for peer in &mut peers {
        for _ in 0..ids.len() - 1 {
            conversations.push((peer.transport.peer_id(), peer.next().await?));
        }
    }
    for (me, connection) in &mut conversations {
        let text = format!("from {me} to {}", connection.peer());
        connection.send_bytes(text.into()).await?;
    }
    let mut met = Vec::new();
    for (me, connection) in &mut conversations {
        let expected = format!("from {} to {me}", connection.peer());
        assert_eq!(received(connection).await?, expected);
        met.push((*me, connection.peer()));
    }
    met.sort_unstable();
    met.dedup();
    assert_eq!(met.len(), ids.len() * (ids.len() - 1), "each pair once");
    Ok(())
}

#[tokio::test]
async fn disconnecting_waits_for_the_relay_and_says_what_was_not_delivered() -> Result<()> {
    let relay = Embedded::open().await?;
    let address = relay.addr();
    let [(mut a, mut to_b), (_b, mut to_a)] = pair(&relay.url(), &relay.url()).await?;
    relay.kill().await?;
    to_b.send_bytes(Bytes::from_static(b"said while it was away")).await?;
    let returns = async {
        let mut config = Embedded::config();
        config.listen = address;
        let relay = Embedded::start(config).await?;
        assert_eq!(received(&mut to_a).await?, "said while it was away");
        anyhow::Ok(relay)
    };
    let (delivered, relay) = tokio::join!(a.transport.disconnect(), returns);
    delivered?;
    drop(relay?);

    let relay = Embedded::open().await?;
    let config = TransportConfig {
        mode: TransportMode::Relay,
        relay_url: Some(relay.url()),
        timeout_ms: 1000,
        ..Default::default()
    };
    let secret = TopicSecret::generate();
    let mut hasty = RelayTransport::new(config, member(&secret))?;
    let mut connections = hasty.connect_relay(secret.topic()).await?;
    let mut b = peer(&relay.url(), secret.topic(), member(&secret)).await?;
    let mut to_b = timeout(SOON, connections.recv()).await?.context("nobody")?;
    let _to_hasty = b.next().await?;
    relay.kill().await?;
    for _ in 0..3 {
        to_b.send_bytes(Bytes::from_static(b"never arrives")).await?;
    }
    let error = timeout(SOON, hasty.disconnect()).await?.unwrap_err().to_string();
    assert!(error.starts_with("3 messages were not acknowledged"), "{error}");
    Ok(())
}
