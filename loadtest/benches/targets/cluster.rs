//! What a frame costs that goes from one relay to another through Redis.
//!
//! Redis and both relays run on core 0, the load on core 1, as with one relay. Three figures: CPU per frame
//! of every process with windows kept full; Redis' share of a core at a fixed rate; latency at a low rate, in
//! turns across the nodes and on one node.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use culvert_loadtest::frames::LARGE_BUFFER;
use culvert_testkit::redis::{RedisPlan, RedisServer};

use crate::Bench;
use crate::latency::one_way;
use crate::machine::{self, median, quantile};
use crate::middle::{Kind, Middle, Security};
use crate::pairs::{Load, Running, connect};
use crate::verdict::Bound;

/// Pairs of a sender on one relay and a receiver on the other.
const PAIRS: usize = 100;
/// Payload bytes of a data frame.
const PAYLOAD: usize = 64;
/// Frames a second of the second figure.
const RATE: usize = 100_000;
/// Microseconds of CPU per frame, of each relay and of Redis.
const TARGETS: (f64, f64) = (1.5, 0.3);
/// Percent of a core for Redis at the fixed rate.
const SHARE: f64 = 40.0;
/// The latency across the nodes as a multiple of that on one.
const SLOWER: f64 = 4.0;
/// Longest wait for a node to be given its number, without which it admits nobody.
const ADMITS: Duration = Duration::from_secs(20);

struct Cluster {
    redis: RedisServer,
    left: Middle,
    right: Middle,
}

impl Cluster {
    async fn start(bench: &Bench) -> Result<Self> {
        let redis = machine::beside(RedisPlan::new()?.start()).await?;
        let url = redis.reach().url();
        let settings = [("redis", url.as_str())];
        let relay = Kind::Relay(Security::Clear);
        let left = bench.surroundings.start_with(relay, &settings).await?;
        let right = bench.surroundings.start_with(relay, &settings).await?;
        for relay in [&left, &right] {
            let until = Instant::now() + ADMITS;
            while let Err(error) = connect(relay.dialer()?, relay.dialer()?, load(), LARGE_BUFFER).await {
                ensure!(Instant::now() < until, "a relay admits nobody: {error:#}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(Self { redis, left, right })
    }

    fn cpu(&self) -> Result<[Duration; 3]> {
        Ok([self.left.cpu()?, self.right.cpu()?, machine::cpu(self.redis.process()?.pid())?])
    }

    /// Microseconds of CPU of each process, frames that arrived, and seconds.
    async fn measure(&self, running: &Running, seconds: f64) -> Result<([f64; 3], u64, f64)> {
        let (cpu, frames, began) = (self.cpu()?, running.delivered(), Instant::now());
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        let (after, frames, took) = (self.cpu()?, running.delivered() - frames, began.elapsed());
        ensure!(frames > 0, "nothing arrived in {seconds} s");
        let micros = [0, 1, 2].map(|process| (after[process] - cpu[process]).as_secs_f64() * 1e6);
        Ok((micros, frames, took.as_secs_f64()))
    }

    async fn stop(self) -> Result<()> {
        self.left.stop().await?;
        self.right.stop().await
    }
}

fn load() -> Load {
    Load::of(PAYLOAD, PAIRS, 64)
}

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    println!("two relays and Redis on one core; {PAIRS} pairs across them, {PAYLOAD} B, clear text");
    full_windows(bench).await?;
    fixed_rate(bench).await?;
    latency(bench).await
}

async fn full_windows(bench: &mut Bench) -> Result<()> {
    let mut rounds = Vec::new();
    for number in 1..=bench.rounds() {
        let cluster = Cluster::start(bench).await?;
        let running = load().start_across(cluster.left.dialer()?, cluster.right.dialer()?).await?;
        bench.warm_up().await;
        let (micros, frames, took) = cluster.measure(&running, bench.seconds()).await?;
        let [left, right, redis] = micros.map(|micros| micros / frames as f64);
        let rate = frames as f64 / took;
        bench.say(format_args!(
            "round {number}: {rate:.0} frames/s; µs a frame: {left:.2} sender's relay, {right:.2} receiver's \
             relay, {redis:.2} redis; {} undelivered",
            running.undelivered(),
        ));
        running.check()?;
        cluster.stop().await?;
        rounds.push([left, right, redis, rate]);
    }
    let of = |figure: usize| median(rounds.iter().map(|round| round[figure]));
    println!("{} in flight each: {:.0} frames/s through one core", load().window, of(3));
    println!(
        "  µs of CPU per frame: {:.2} sender's relay, {:.2} receiver's relay, {:.2} redis",
        of(0),
        of(1),
        of(2)
    );
    bench.verdicts.judge("across nodes, per frame, sender's relay", of(0), "µs", Bound::AtMost(TARGETS.0));
    bench.verdicts.judge("across nodes, per frame, receiver's relay", of(1), "µs", Bound::AtMost(TARGETS.0));
    bench.verdicts.judge("across nodes, per frame, Redis", of(2), "µs", Bound::AtMost(TARGETS.1));
    Ok(())
}

async fn fixed_rate(bench: &mut Bench) -> Result<()> {
    let mut rounds = Vec::new();
    for number in 1..=bench.rounds() {
        let cluster = Cluster::start(bench).await?;
        let running = load().start_paced(cluster.left.dialer()?, cluster.right.dialer()?, RATE).await?;
        bench.warm_up().await;
        let (micros, frames, took) = cluster.measure(&running, bench.seconds()).await?;
        let share = micros.map(|micros| micros / took / 1e4);
        let rate = frames as f64 / took;
        bench.say(format_args!(
            "round {number}: {rate:.0} frames/s; % of a core: {:.1} sender's relay, {:.1} receiver's relay, \
             {:.1} redis",
            share[0], share[1], share[2],
        ));
        ensure!(rate > 0.9 * RATE as f64, "the load did not keep its rate: {rate:.0} frames/s");
        running.check()?;
        cluster.stop().await?;
        rounds.push(share);
    }
    let of = |figure: usize| median(rounds.iter().map(|round| round[figure]));
    println!("{RATE} frames/s that come one by one:");
    println!("  % of a core: {:.1} sender's relay, {:.1} receiver's relay, {:.1} redis", of(0), of(1), of(2));
    let what = format!("Redis at {RATE} frames/s that come one by one");
    bench.verdicts.judge(what, of(2), "% of core", Bound::AtMost(SHARE));
    Ok(())
}

async fn latency(bench: &mut Bench) -> Result<()> {
    let cluster = Cluster::start(bench).await?;
    let (left, right) = (cluster.left.dialer()?, cluster.right.dialer()?);
    let mut rounds = Vec::new();
    for number in 1..=bench.rounds() {
        let across =
            one_way(vec![connect(left, right, load(), LARGE_BUFFER).await?], bench.seconds()).await?;
        let within = one_way(vec![connect(left, left, load(), LARGE_BUFFER).await?], bench.seconds()).await?;
        let both = |part: f64| (quantile(&across, part), quantile(&within, part));
        let ((across, within), (across_p99, within_p99)) = (both(0.5), both(0.99));
        bench.say(format_args!(
            "round {number}: across {across:.0} µs (p99 {across_p99:.0}), on one node {within:.0} µs \
             (p99 {within_p99:.0})",
        ));
        rounds.push([across, within, across_p99, within_p99]);
    }
    cluster.stop().await?;
    let of = |figure: usize| median(rounds.iter().map(|round| round[figure]));
    println!(
        "1,000 frames/s: median {:.0} µs across the nodes, {:.0} µs on one; p99 {:.0} and {:.0} µs",
        of(0),
        of(1),
        of(2),
        of(3),
    );
    bench.verdicts.judge("median latency across nodes", of(0) / of(1), "times", Bound::AtMost(SLOWER));
    Ok(())
}
