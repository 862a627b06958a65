//! Resident memory per peer that is joined and silent, before and after it has ever sent a large frame.

use std::time::Duration;

use anyhow::Result;
use culvert_loadtest::frames::Peer;
use culvert_testkit::process::allow_open_files;
use culvert_wire::{Class, Frame, Handle};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::Bench;
use crate::middle::{Kind, Security};
use crate::pairs::topic;
use crate::verdict::Bound;

/// Peers, two in each topic.
const PEERS: usize = 5_000;
/// KiB per peer, in clear text and with TLS.
const TARGETS: (f64, f64) = (8.0, 14.0);
/// What one reads of the other: the largest frame, and the load's own memory does not matter.
const BUFFER: usize = 17 << 10;
/// The largest payload.
const LARGE: usize = 16 << 10;
/// Connections being made at once.
const AT_ONCE: usize = 16;
/// For what the relay still does after the last peer: it frees what was needed meanwhile.
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    allow_open_files(2 * PEERS as u64)?;
    println!("resident memory of the relay for each of {PEERS} idle peers, two in a topic");
    for security in bench.securities() {
        let middle = bench.surroundings.start(Kind::Relay(security)).await?;
        let before = middle.resident()?;
        let each = |now: u64| now.saturating_sub(before) as f64 / PEERS as f64 / 1024.0;
        let mut peers: Vec<(Peer, Handle)> = stream::iter(0..PEERS)
            .map(async |number| {
                let mut peer = Peer::connect(middle.dialer()?, number, BUFFER).await?;
                let (handle, _) = peer.join(topic(number as u64 / 2)).await?;
                anyhow::Ok((peer, handle))
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        tokio::time::sleep(SETTLE).await;
        let joined = each(middle.resident()?);
        for pair in peers.chunks_exact_mut(2) {
            if let [one, other] = pair {
                exchange(one, &mut other.0).await?;
                exchange(other, &mut one.0).await?;
            }
        }
        tokio::time::sleep(SETTLE).await;
        let after = each(middle.resident()?);
        println!(
            "{:>6}: {joined:.1} KiB, and {after:.1} KiB after one frame of {LARGE} B each; {:.1} MiB without peers",
            security.name(),
            before as f64 / 1024.0 / 1024.0,
        );
        let target = if security == Security::Clear { TARGETS.0 } else { TARGETS.1 };
        let what = format!("memory per idle peer, {}", security.name());
        bench.verdicts.judge(what.clone(), joined, "KiB", Bound::AtMost(target));
        bench.verdicts.judge(what + ", after a large frame", after, "KiB", Bound::AtMost(target));
        drop(peers);
        middle.stop().await?;
    }
    Ok(())
}

async fn exchange(from: &mut (Peer, Handle), to: &mut Peer) -> Result<()> {
    let (sender, handle) = from;
    let payload = vec![0x5a; LARGE].into();
    sender.send(&Frame::Send { class: Class::Normal, handle: *handle, to: to.conn, payload }).await?;
    loop {
        if let Frame::Deliver { .. } = to.receive().await? {
            return Ok(());
        }
    }
}
