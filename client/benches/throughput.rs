//! How fast one conversation goes through a real relay on loopback, everything in this process:
//! `cargo bench -p culvert-client --bench throughput`.
//!
//! Prints megabytes (10^6) a second for messages of several sizes, sealed end to end, in clear text to
//! the relay. One run says little on a busy machine; the best of three counts.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use culvert_client::{
    RelayConnection, RelayOptions, RelayTransport, TopicSecret, Transport, TransportConfig, TransportMode,
};
use culvert_testkit::relay::Embedded;
use tokio::sync::mpsc;

const ROUNDS: usize = 3;
const BYTES: usize = 256 << 20;

#[tokio::main]
async fn main() -> Result<()> {
    // `cargo test` runs benches too; a smoke run is enough there.
    let bytes = if std::env::args().any(|arg| arg == "--bench") { BYTES } else { 1 << 20 };
    let relay = Embedded::open().await?;
    for size in [64, 1024, 16 * 1024, 128 * 1024] {
        let count = if size == 64 { bytes / size / 16 } else { bytes / size };
        let mut best = 0.0_f64;
        for _ in 0..ROUNDS {
            best = best.max(run(&relay.url(), size, count).await?);
        }
        let rate = best / 1e6;
        println!("{size:>7} B messages: {rate:>7.1} MB/s, {:>9.0} messages/s", best / size as f64);
    }
    Ok(())
}

async fn run(url: &str, size: usize, count: usize) -> Result<f64> {
    let secret = TopicSecret::generate();
    let (mut one, mut two) = (transport(url, &secret)?, transport(url, &secret)?);
    let (mut to_one, mut to_two) =
        (one.connect_relay(secret.topic()).await?, two.connect_relay(secret.topic()).await?);
    let (mut sender, mut receiver) = (next(&mut to_one).await?, next(&mut to_two).await?);
    let message = Bytes::from(vec![7; size]);
    let start = Instant::now();
    let sending = async {
        for _ in 0..count {
            sender.send_bytes(message.clone()).await?;
        }
        anyhow::Ok(())
    };
    let receiving = async {
        for _ in 0..count {
            receiver.receive_bytes().await?.context("ended early")?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(sending, receiving)?;
    let rate = (size * count) as f64 / start.elapsed().as_secs_f64();
    eprintln!("  {:?}", sender.stats());
    one.disconnect().await?;
    two.disconnect().await?;
    Ok(rate)
}

fn transport(url: &str, secret: &TopicSecret) -> Result<RelayTransport> {
    let config =
        TransportConfig { mode: TransportMode::Relay, relay_url: Some(url.to_owned()), ..Default::default() };
    Ok(RelayTransport::new(
        config,
        RelayOptions { topic_secret: Some(secret.clone()), ..Default::default() },
    )?)
}

async fn next(connections: &mut mpsc::Receiver<RelayConnection>) -> Result<RelayConnection> {
    let next = tokio::time::timeout(Duration::from_secs(20), connections.recv()).await;
    next.context("no peer came")?.context("the transport ended")
}
