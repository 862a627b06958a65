//! Two peers and a real relay in the test's process.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use culvert_client::{
    PeerPolicy, RelayConnection, RelayOptions, RelayTransport, ReconnectPolicy, SyncBroadcaster, SyncEvent, TopicSecret,
    Transport, TransportConfig, TransportMode,
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
    timeout(SOON, connection.receive_bytes()).await.context("nothing came")??.context("the conversation ended")
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

async fn receive_numbered(connection: &mut culvert_client::ReceiveHalf, count: u64) -> Result<()> {
    for n in 0..count {
        let message = timeout(SOON, connection.receive()).await.context("nothing came")??;
        let message = message.with_context(|| format!("the end after {n} of {count}"))?;
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
        receive_numbered(&mut receive, 500).await?;
        relay.kill().await?;
        let mut config = Embedded::config();
        config.listen = address;
        let relay = Embedded::start(config).await?;
        for n in 500..count {
            let message = timeout(SOON, receive.receive()).await.context("nothing came")??;
            assert_eq!(message.context("the end")?[..8], n.to_be_bytes());
        }
        anyhow::Ok(relay)
    };
    let ((), _relay) = tokio::try_join!(sending, receiving)?;
    Ok(())
}
