//! Connections that are joined and silent.

use std::time::Duration;

use anyhow::Result;
use culvert_wire::TopicId;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::peer::Peer;
use crate::relay::Relay;

/// Handshakes at once.
const AT_ONCE: usize = 16;
/// For what the relay still does after the last join: it frees what its handshakes needed.
const SETTLE: Duration = Duration::from_secs(2);

/// Connects so many peers, two in each topic, and gives them when the relay is quiet.
pub(crate) async fn connect(relay: &Relay, connections: usize) -> Result<Vec<Peer>> {
    let peers: Vec<Peer> = stream::iter(0..connections)
        .map(async |number| {
            let mut topic = TopicId([0; 32]);
            topic.0[..8].copy_from_slice(&(number as u64 / 2).to_le_bytes());
            let mut peer = Peer::connect(relay, 1024).await?;
            peer.join(topic).await?;
            anyhow::Ok(peer)
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    tokio::time::sleep(SETTLE).await;
    Ok(peers)
}
