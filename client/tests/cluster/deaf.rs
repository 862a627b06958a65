//! Connections that are open and over which nothing moves: networks forget them without telling anybody.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use culvert_client::{LivenessPolicy, RelayConnection, RelayOptions, TopicSecret};
use culvert_testkit::chaos::{ChaosProxy, Mode};
use culvert_testkit::relay::Embedded;
use tokio::time::timeout;

use crate::talk::{Peer, SOON, member};

async fn received(connection: &mut RelayConnection) -> Result<Bytes> {
    timeout(SOON, connection.receive_bytes())
        .await
        .context("nothing came")??
        .context("the conversation ended")
}

#[tokio::test]
async fn a_connection_that_went_deaf_is_noticed_and_replaced() -> Result<()> {
    let mut config = Embedded::config();
    config.timing.keepalive = Duration::from_secs(1);
    let relay = Embedded::start(config).await?;
    let network = ChaosProxy::start(relay.addr()).await?;
    let url = format!("ws://localhost:{}", network.addr().port());
    let secret = TopicSecret::generate();
    let mut a = Peer::enter(&url, secret.topic(), member(&secret)).await?;
    let mut b = Peer::enter(&relay.url(), secret.topic(), member(&secret)).await?;
    let (mut to_b, mut to_a) = (a.next().await?, b.next().await?);
    // What is open now hangs for ever; what comes later passes.
    for connection in network.connections() {
        connection.set(|faults| (faults.up.mode, faults.down.mode) = (Mode::Stall, Mode::Stall));
    }
    to_b.send_bytes(Bytes::from_static(b"into the void, at first")).await?;
    assert_eq!(received(&mut to_a).await?, "into the void, at first");
    to_a.send_bytes(Bytes::from_static(b"and back")).await?;
    assert_eq!(received(&mut to_b).await?, "and back");
    Ok(())
}

/// Keepalives would find it in 40 s; what waits for an answer asks sooner, and only where nothing comes.
#[tokio::test]
async fn a_connection_that_went_deaf_is_noticed_soon_while_something_waits_for_an_answer() -> Result<()> {
    let relay = Embedded::open().await?;
    let networks = [ChaosProxy::start(relay.addr()).await?, ChaosProxy::start(relay.addr()).await?];
    let secret = TopicSecret::generate();
    let liveness = LivenessPolicy { after: Duration::from_millis(500), answer: Duration::from_millis(1500) };
    let options = || RelayOptions { liveness: liveness.clone(), ..member(&secret) };
    let url = |network: &ChaosProxy| format!("ws://localhost:{}", network.addr().port());
    let mut a = Peer::enter(&url(&networks[0]), secret.topic(), options()).await?;
    let mut b = Peer::enter(&url(&networks[1]), secret.topic(), options()).await?;
    let (mut to_b, mut to_a) = (a.next().await?, b.next().await?);
    to_b.send_bytes(Bytes::from_static(b"all is well")).await?;
    assert_eq!(received(&mut to_a).await?, "all is well");
    for (round, mode) in [Mode::Stall, Mode::Deaf].into_iter().enumerate() {
        // What is open now hangs for ever; what comes later passes.
        for connection in networks[0].connections() {
            connection.set(|faults| (faults.up.mode, faults.down.mode) = (mode, mode));
        }
        to_b.send_bytes(Bytes::from_static(b"into the void")).await?;
        let heard = timeout(Duration::from_secs(12), to_a.receive_bytes()).await;
        assert_eq!(heard.context("not noticed")??.as_deref(), Some(&b"into the void"[..]));
        to_a.send_bytes(Bytes::from_static(b"and back")).await?;
        assert_eq!(received(&mut to_b).await?, "and back");
        networks[0].accepted(round + 2, SOON).await?;
    }
    assert_eq!(networks[1].accepted_so_far(), 1, "the other's connection was never the trouble");
    Ok(())
}

/// Who only listens has nothing that waits for an answer.
#[tokio::test]
async fn a_listener_notices_soon_that_its_connection_went_deaf() -> Result<()> {
    let relay = Embedded::open().await?;
    let network = ChaosProxy::start(relay.addr()).await?;
    let secret = TopicSecret::generate();
    let liveness = LivenessPolicy { after: Duration::from_millis(500), answer: Duration::from_millis(1500) };
    let options = || RelayOptions { liveness: liveness.clone(), ..member(&secret) };
    let url = format!("ws://localhost:{}", network.addr().port());
    let mut listener = Peer::enter(&url, secret.topic(), options()).await?;
    let mut speaker = Peer::enter(&relay.url(), secret.topic(), options()).await?;
    let (mut listens, speaks) = (listener.next().await?, speaker.next().await?);
    let (mut speaks, _keep) = speaks.split();
    for n in 0..3 {
        speaks.send(Bytes::from(n.to_string())).await?;
        assert_eq!(received(&mut listens).await?, n.to_string());
        timeout(SOON, speaks.flush()).await??;
    }
    // What is open now hangs for ever; what comes later passes.
    for connection in network.connections() {
        connection.set(|faults| (faults.up.mode, faults.down.mode) = (Mode::Stall, Mode::Stall));
    }
    speaks.send(Bytes::from_static(b"do you hear me?")).await?;
    // The keepalives of 15 s would have found it, too.
    let heard = timeout(Duration::from_secs(12), listens.receive_bytes()).await;
    assert_eq!(heard.context("not noticed")??.as_deref(), Some(&b"do you hear me?"[..]));
    Ok(())
}
