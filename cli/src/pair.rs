//! Two peers of this process that pass a file through a relay, each over a connection of its own: what `culvert
//! demo` shows and `culvert doctor --transfer` checks.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use culvert_client::link::Link;
use culvert_client::transfer::{Offer, Progress, ReceiveOptions, Received, Served, ignore, receive};
use culvert_client::{Connection, Identity, PeerPolicy, RelayOptions};
use tokio_util::sync::CancellationToken;

use crate::network::Meeting;

/// The longest that one peer waits for the other, restarts of the relay included.
const MEET: Duration = Duration::from_secs(60);

/// The sender: joins, waits for the receiver, serves it.
pub(crate) async fn give(
    file: &Path,
    link: &Link,
    identity: Identity,
    options: RelayOptions,
    cancelled: &CancellationToken,
) -> Result<Served> {
    let silent = ignore();
    let offer = Offer::paths(&[file], silent.clone())?;
    let mut meeting =
        Meeting::join(&link.relay, link.topic_secret(), Some(identity), PeerPolicy::Anyone, options).await?;
    let mut lane =
        tokio::time::timeout(MEET, meeting.next()).await.context("the receiver did not come")??;
    let served = offer.serve(&mut lane, &silent, cancelled).await?;
    lane.close().await?;
    meeting.leave().await;
    Ok(served)
}

/// The receiver: joins with what the link carries.
pub(crate) async fn take(
    out: &Path,
    link: &Link,
    identity: Identity,
    options: RelayOptions,
    progress: &Progress,
    cancelled: &CancellationToken,
) -> Result<Received> {
    let only = PeerPolicy::Only(vec![link.sender]);
    let options = RelayOptions { admission: link.admission(), ..options };
    let mut meeting = Meeting::join(&link.relay, link.topic_secret(), Some(identity), only, options).await?;
    let mut lane = tokio::time::timeout(MEET, meeting.next()).await.context("the sender did not come")??;
    let options = ReceiveOptions { out: PathBuf::from(out), overwrite: false };
    let received = receive(&mut lane, &options, progress, cancelled).await?;
    // The sender closes when it has heard that this is all.
    let _ = tokio::time::timeout(MEET, lane.receive()).await;
    meeting.leave().await;
    Ok(received)
}

/// What both sides say agrees with what is on the disk: the hash of what was sent and has arrived.
pub(crate) async fn verify(sent: &Path, served: Served, received: &Received) -> Result<blake3::Hash> {
    ensure!(served.is_complete() && received.left == 0, "not everything arrived: {received:?}");
    let arrived = received.paths.first().context("nothing arrived")?.clone();
    let sent = sent.to_owned();
    let hashes = tokio::task::spawn_blocking(move || anyhow::Ok((hash(&sent)?, hash(&arrived)?)));
    let (sent, arrived) = hashes.await??;
    ensure!(sent == arrived, "the file that arrived is another one: BLAKE3 {arrived} instead of {sent}");
    Ok(arrived)
}

fn hash(path: &Path) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize())
}
