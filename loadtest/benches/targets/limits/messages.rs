//! What Redis itself needs for a message from one publisher to one subscriber.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use culvert_testkit::redis::RedisPlan;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Bench;
use crate::machine::{self, median};

/// Payload bytes: a frame that travels alone, and a message of the relay's bus that is full.
const SIZES: [usize; 2] = [128, 4 << 10];
/// Messages written at once, as a busy publisher does.
const AT_ONCE: usize = 16;
/// Longest wait for anything here.
const LIMIT: Duration = Duration::from_secs(20);

pub(super) async fn run(bench: &Bench) -> Result<()> {
    println!("Redis alone, PUBLISH with one subscriber, {AT_ONCE} at once:");
    let redis = machine::beside(RedisPlan::new()?.start()).await?;
    let pid = redis.process()?.pid();
    for size in SIZES {
        let mut rounds = Vec::new();
        for _ in 0..bench.rounds() {
            let cpu = machine::cpu(pid)?;
            let messages = tokio::time::timeout(LIMIT, publish(redis.addr(), size, bench.seconds()))
                .await
                .context("redis does not answer")??;
            rounds.push((machine::cpu(pid)? - cpu).as_secs_f64() * 1e6 / messages as f64);
        }
        println!("  {size:>5} B   {:.2} µs of CPU for each message", median(rounds));
    }
    Ok(())
}

/// Publishes for so long, by the protocol's own words (RESP), so that the load costs little; gives how many.
async fn publish(addr: std::net::SocketAddr, size: usize, seconds: f64) -> Result<u64> {
    let (mut publisher, mut subscriber) = (TcpStream::connect(addr).await?, TcpStream::connect(addr).await?);
    publisher.set_nodelay(true)?;
    subscriber.write_all(b"SUBSCRIBE inbox\r\n").await?;
    let mut buffer = vec![0; 256 << 10];
    let mut answer = 0;
    while !buffer[..answer].ends_with(b":1\r\n") {
        answer += subscriber.read(&mut buffer[answer..]).await?;
    }
    let word = |bytes: &[u8]| [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    let payload = word(&vec![b'x'; size]);
    let command = [b"*3\r\n".to_vec(), word(b"PUBLISH"), word(b"inbox"), payload.clone()].concat();
    let delivered = [b"*3\r\n".to_vec(), word(b"message"), word(b"inbox"), payload].concat().len();
    let batch = command.repeat(AT_ONCE);
    let (began, mut messages) = (Instant::now(), 0);
    while began.elapsed().as_secs_f64() < seconds {
        publisher.write_all(&batch).await?;
        // An answer of four bytes (`:1\r\n`) to each, and each at the subscriber.
        publisher.read_exact(&mut buffer[..4 * AT_ONCE]).await?;
        subscriber.read_exact(&mut buffer[..delivered * AT_ONCE]).await?;
        messages += AT_ONCE as u64;
    }
    Ok(messages)
}
