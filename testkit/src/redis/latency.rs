//! `redis-cli --latency` while something else happens.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::server::RedisServer;
use crate::binaries::installed;
use crate::process::{Plan, Process};

/// From its start to its first sample: one connection and one PING.
const FIRST: Duration = Duration::from_secs(30);

/// A running `redis-cli`, which times a PING every 10 ms.
pub struct LatencyProbe {
    process: Process,
}

/// What it saw, in its unit: whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// The slowest answer.
    pub worst: Duration,
    /// How many answers it timed.
    pub samples: u64,
}

impl LatencyProbe {
    /// Starts it in front of a server that asks for no password and speaks no TLS, and waits for its
    /// first sample.
    ///
    /// # Errors
    /// redis-cli is not installed, or the server does not answer it.
    pub async fn start(server: &RedisServer) -> Result<Self> {
        let cli = installed(&["/usr/bin/redis-cli"], "redis-tools")?;
        // Into a pipe it would write in blocks; line by line it tells the running maximum at each sample.
        let process = Plan::new("redis-cli --latency", installed(&["/usr/bin/stdbuf"], "coreutils")?)
            .arg("-oL")
            .arg(cli)
            .args(["-h", "127.0.0.1", "-p", &server.port().to_string()])
            .args(["--raw", "--latency-history", "-i", "86400"])
            .start()?;
        process.line(FIRST, |line| parse(line).map(drop)).await?;
        Ok(Self { process })
    }

    /// What it has seen so far, without an end.
    ///
    /// # Errors
    /// It has ended, because the server did.
    pub fn so_far(&mut self) -> Result<Latency> {
        ensure!(self.process.is_running(), self.process.failure("ended"));
        let lines = self.process.output().lines();
        lines.iter().rev().find_map(|line| parse(&line.text)).context("a sample was there at the start")
    }

    /// Waits until it has timed this many answers more, so that two runs compare like with like.
    ///
    /// # Errors
    /// It has not within `deadline`, or ended.
    pub async fn more(&mut self, samples: u64, deadline: Duration) -> Result<Latency> {
        let wanted = self.so_far()?.samples + samples;
        let enough = |line: &str| parse(line).filter(|latency| latency.samples >= wanted);
        self.process.line(deadline, enough).await
    }
}

/// A line of raw output: the fastest, the slowest, the average, the count.
fn parse(line: &str) -> Option<Latency> {
    let mut words = line.split(' ');
    let (_, worst, _, samples) = (words.next()?, words.next()?, words.next()?, words.next()?);
    Some(Latency { worst: Duration::from_millis(worst.parse().ok()?), samples: samples.parse().ok()? })
}
