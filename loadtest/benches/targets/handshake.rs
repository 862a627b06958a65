//! The relay's processor time for a new peer: everything from accept to welcome, without a join.

use std::time::Duration;

use anyhow::Result;
use culvert_loadtest::frames::{Peer, SMALL_BUFFER};
use culvert_testkit::process::allow_open_files;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::Bench;
use crate::machine::median;
use crate::middle::{Kind, Middle, Security};
use crate::verdict::Bound;

/// Peers of a round.
const PEERS: usize = 1_000;
/// Connections being made at once.
const AT_ONCE: usize = 16;
/// Microseconds, in clear text and with a full TLS handshake.
const TARGETS: (f64, f64) = (90.0, 210.0);
/// For what the relay still does after its last welcome, and after the peers of a round have left.
const SETTLE: Duration = Duration::from_millis(50);

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    allow_open_files(2 * PEERS as u64)?;
    println!("processor time of the relay for each new peer, from accept to welcome");
    for security in bench.securities() {
        // One process for all rounds: the first, which is not counted, warms its allocator and its caches.
        let middle = bench.surroundings.start(Kind::Relay(security)).await?;
        let mut rounds = Vec::new();
        for round in 0..=bench.rounds() {
            let micros = newcomers(&middle).await?;
            bench.say(format_args!("round {round}, {}: {micros:.0} µs", security.name()));
            if round > 0 {
                rounds.push(micros);
            }
        }
        middle.stop().await?;
        let micros = median(rounds);
        println!("{:>6}: {micros:.0} µs", security.name());
        let (what, target) = match security {
            Security::Clear => ("new peer, clear", TARGETS.0),
            Security::Tls => ("new peer, full TLS handshake", TARGETS.1),
        };
        bench.verdicts.judge(what, micros, "µs", Bound::AtMost(target));
    }
    Ok(())
}

async fn newcomers(middle: &Middle) -> Result<f64> {
    let before = middle.cpu()?;
    let peers: Vec<Peer> = stream::iter(0..PEERS)
        .map(async |number| anyhow::Ok(Peer::connect(middle.dialer()?, number, SMALL_BUFFER).await?))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    tokio::time::sleep(SETTLE).await;
    let micros = (middle.cpu()? - before).as_secs_f64() * 1e6 / PEERS as f64;
    drop(peers);
    // Departures are not counted: they are over before the next round begins.
    tokio::time::sleep(10 * SETTLE).await;
    Ok(micros)
}
