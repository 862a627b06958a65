//! What a frame costs that goes from one relay to another through Redis.
//!
//! Redis and both relays run on core 0, the load on core 1, as with one relay. Three figures, each a median
//! of rounds in one run: CPU per frame of every process with windows kept full; Redis' share of a core at a
//! fixed rate; latency at a low rate, in turns across the nodes and on one node.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use redis::ConnectionLike;
use tempfile::TempDir;
use tokio::time::MissedTickBehavior;

use crate::Args;
use crate::load::{End, Load, Running, connect};
use crate::relay::{Cpu, Relay, Security};

#[derive(clap::Args, Clone)]
pub(crate) struct Options {
    /// Payload bytes of a data frame.
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Pairs of a sender on one relay and a receiver on the other.
    #[arg(long, default_value_t = 100)]
    pairs: usize,
    /// Frames that each pair keeps in flight.
    #[arg(long, default_value_t = 64)]
    window: usize,
    /// Frames a second of the second figure.
    #[arg(long, default_value_t = 100_000)]
    rate: usize,
    /// Frames of each round of the third figure, one each millisecond.
    #[arg(long, default_value_t = 2_000)]
    paced: usize,
    /// Seconds measured in each round, after one second of warm-up.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rounds of each kind.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// A Redis of this benchmark's own, on the relays' core.
struct Redis {
    process: Child,
    port: u16,
    _files: TempDir,
}

impl Redis {
    async fn start() -> Result<Self> {
        let files = TempDir::new()?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let process = Command::new("taskset")
            .args(["-c", "0", "redis-server", "--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--loglevel", "warning", "--dir"])
            .arg(files.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("redis-server (package redis-server)")?;
        let redis = Self { process, port, _files: files };
        let client = redis::Client::open(redis.url())?;
        for _ in 0..500 {
            if client.get_connection().is_ok_and(|mut connection| connection.check_connection()) {
                return Ok(redis);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::bail!("redis-server does not answer")
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

struct Cluster {
    redis: Redis,
    left: Relay,
    right: Relay,
}

impl Cluster {
    async fn start(args: &Args) -> Result<Self> {
        let redis = Redis::start().await?;
        let mut relays = Vec::new();
        for _ in 0..2 {
            let mut more = vec!["--redis".to_owned(), redis.url()];
            more.extend(args.relay_args.iter().cloned());
            relays.push(args.start_with(Security::Clear, &more).await?);
        }
        let (right, left) = (relays.pop(), relays.pop());
        let cluster = Self { redis, left: left.context("relay")?, right: right.context("relay")? };
        // A node admits peers once it has its number.
        for relay in [&cluster.left, &cluster.right] {
            let until = Instant::now() + Duration::from_secs(20);
            while let Err(error) = connect(relay, relay, 8, 16).await {
                ensure!(Instant::now() < until, "a relay admits nobody: {error:#}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(cluster)
    }

    fn cpu(&self) -> Result<[Cpu; 3]> {
        Ok([self.left.cpu()?, self.right.cpu()?, Cpu::of(self.redis.process.id())?])
    }

    /// Microseconds of CPU of each process, frames that arrived, and seconds.
    async fn measure(&self, running: &Running, seconds: f64) -> Result<([f64; 3], u64, f64)> {
        let (cpu, frames, began) = (self.cpu()?, running.delivered(), Instant::now());
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        let (after, frames, took) = (self.cpu()?, running.delivered() - frames, began.elapsed());
        ensure!(frames > 0, "nothing arrived in {seconds} s");
        let micros = [0, 1, 2].map(|process| after[process].since(cpu[process]).total.as_secs_f64() * 1e6);
        Ok((micros, frames, took.as_secs_f64()))
    }

    fn stop(self) -> Result<()> {
        self.left.stop()?;
        self.right.stop()
    }
}

pub(crate) async fn run(args: &Args, options: &Options) -> Result<()> {
    println!(
        "two relays and Redis on one core; {} pairs, {} B payload, medians of {} rounds",
        options.pairs, options.payload, options.rounds
    );
    full_windows(args, options).await?;
    fixed_rate(args, options).await?;
    latency(args, options).await
}

async fn full_windows(args: &Args, options: &Options) -> Result<()> {
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let cluster = Cluster::start(args).await?;
        let load = Load { payload: options.payload, pairs: options.pairs, window: options.window };
        let running = load.start_across(&cluster.left, &cluster.right).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (micros, frames, took) = cluster.measure(&running, options.seconds).await?;
        let each = micros.map(|micros| micros / frames as f64);
        eprintln!(
            "round {number}: {:.0} frames/s; µs a frame: {:.2} sender's relay, {:.2} receiver's relay, {:.2} redis; \
             {} undelivered",
            frames as f64 / took,
            each[0],
            each[1],
            each[2],
            running.undelivered(),
        );
        running.check()?;
        cluster.stop()?;
        rounds.push([each[0], each[1], each[2], frames as f64 / took]);
    }
    let of = |figure: usize| median(rounds.iter().map(|round| round[figure]).collect());
    println!("{} in flight each: {:.0} frames/s through one core", options.window, of(3));
    println!(
        "  µs CPU per frame   sender's relay {:.2}   receiver's relay {:.2}   redis {:.2}",
        of(0),
        of(1),
        of(2)
    );
    Ok(())
}

async fn fixed_rate(args: &Args, options: &Options) -> Result<()> {
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let cluster = Cluster::start(args).await?;
        let load = Load { payload: options.payload, pairs: options.pairs, window: options.window };
        let running = load.start_paced(&cluster.left, &cluster.right, options.rate).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (micros, frames, took) = cluster.measure(&running, options.seconds).await?;
        let share = micros.map(|micros| micros / took / 1e4);
        let rate = frames as f64 / took;
        eprintln!(
            "round {number}: {rate:.0} frames/s; % of a core: {:.1} sender's relay, {:.1} receiver's relay, {:.1} redis",
            share[0], share[1], share[2],
        );
        ensure!(rate > 0.9 * options.rate as f64, "the load did not keep its rate: {rate:.0} frames/s");
        running.check()?;
        cluster.stop()?;
        rounds.push(share);
    }
    let of = |figure: usize| median(rounds.iter().map(|round| round[figure]).collect());
    println!("{} frames/s: % of a core", options.rate);
    println!(
        "                     sender's relay {:.1}   receiver's relay {:.1}   redis {:.1}",
        of(0),
        of(1),
        of(2)
    );
    Ok(())
}

async fn latency(args: &Args, options: &Options) -> Result<()> {
    let cluster = Cluster::start(args).await?;
    let mut across = connect(&cluster.left, &cluster.right, options.payload.max(8), 16).await?;
    let mut within = connect(&cluster.left, &cluster.left, options.payload.max(8), 16).await?;
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let (across, within) =
            (latencies(&mut across, options.paced).await?, latencies(&mut within, options.paced).await?);
        let at = |sorted: &[f64], percent: usize| sorted[sorted.len() * percent / 100];
        let round = [at(&across, 50), at(&within, 50), at(&across, 99), at(&within, 99)];
        let [across, within, across_p99, within_p99] = round;
        eprintln!(
            "round {number}: across {across:.0} µs (p99 {across_p99:.0}), on one node {within:.0} µs \
             (p99 {within_p99:.0})",
        );
        rounds.push(round);
    }
    cluster.stop()?;
    let of = |figure: usize| median(rounds.iter().map(|round| round[figure]).collect());
    println!(
        "1000 frames/s: median {:.0} µs across the nodes, {:.0} µs on one: {:.1} times; p99 {:.0} and {:.0} µs",
        of(0),
        of(1),
        of(0) / of(1),
        of(2),
        of(3),
    );
    Ok(())
}

/// Microseconds from write to read of so many frames, one each millisecond, sorted.
async fn latencies((sender, receiver): &mut (End, End), frames: usize) -> Result<Vec<f64>> {
    let epoch = Instant::now();
    let send = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for _ in 0..frames {
            ticks.tick().await;
            let sent = u64::try_from(epoch.elapsed().as_nanos())?;
            sender.send_stamped(sent).await?;
        }
        anyhow::Ok(())
    };
    let receive = async {
        let mut took = Vec::with_capacity(frames);
        while took.len() < frames {
            for sent in receiver.received_stamps().await? {
                took.push((epoch.elapsed().as_nanos() as f64 - sent as f64) / 1e3);
            }
        }
        took.sort_by(f64::total_cmp);
        anyhow::Ok(took)
    };
    let both = async { tokio::try_join!(send, receive) };
    Ok(tokio::time::timeout(Duration::from_secs(60), both).await.context("frames went missing")??.1)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}
