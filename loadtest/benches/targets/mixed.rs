//! What a bulk sender at full speed does to others: the latency of interactive pairs with and without it.
//!
//! The bulk pair lives in a process of its own, at the lowest priority of the load's core: what is measured
//! is the relay's turn-taking, not that of the load.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use culvert_loadtest::frames::{Dialer, LARGE_BUFFER};
use culvert_loadtest::plan::{Admission, Reach};
use culvert_testkit::process::Plan;
use culvert_wire::Class;
use url::Url;

use crate::Bench;
use crate::latency::one_way;
use crate::machine::{median, quantile};
use crate::middle::Kind;
use crate::pairs::{Load, connect};
use crate::verdict::Bound;

/// Interactive pairs; one of them sends each millisecond.
const PAIRS: usize = 50;
/// Payload bytes of an interactive frame.
const PAYLOAD: usize = 64;
/// The 99th percentile with the bulk sender, as a multiple of that without.
const TARGET: f64 = 2.0;
/// Payload bytes of a bulk frame, and how many are in flight: half of a receiver's queue.
const BULK: (usize, usize) = (16 << 10, 32);
/// Longest wait for the bulk pair to be connected.
const READY: Duration = Duration::from_secs(20);

/// The bulk pair's own process.
#[derive(Parser, Clone, Debug)]
pub(crate) struct BulkArgs {
    /// The relay.
    #[arg(long)]
    url: Url,
    /// Trusted beside the system's authorities.
    #[arg(long)]
    authority: PathBuf,
}

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    println!("{PAIRS} interactive pairs, 1,000 frames a second in all, {PAYLOAD} B: microseconds one way");
    for security in bench.securities() {
        let mut rounds = Vec::new();
        for round in 1..=bench.rounds() {
            let middle = bench.surroundings.start(Kind::Relay(security)).await?;
            let mut figures = Vec::new();
            for bulk in [false, true] {
                let process = if bulk { Some(bulk_sender(bench, middle.url()?).await?) } else { None };
                let load = Load::of(PAYLOAD, PAIRS, 16);
                let mut pairs = Vec::new();
                for _ in 0..PAIRS {
                    pairs.push(load.connect(&middle).await?);
                }
                let cpu = middle.cpu()?;
                let times = one_way(pairs, bench.seconds()).await?;
                let busy = 100.0 * (middle.cpu()? - cpu).as_secs_f64() / (1.1 * bench.seconds());
                let (half, far) = (quantile(&times, 0.5), quantile(&times, 0.99));
                bench.say(format_args!(
                    "round {round}, {}, {}: median {half:.0}, p99 {far:.0} µs, relay's core busy {busy:.0} %",
                    security.name(),
                    if bulk { "beside bulk" } else { "alone" },
                ));
                figures.push((half, far));
                if let Some(mut process) = process {
                    ensure!(process.is_running(), process.failure("ended before the others"));
                    process.kill().await?;
                }
            }
            middle.stop().await?;
            rounds.push([figures[0].0, figures[0].1, figures[1].0, figures[1].1]);
        }
        let of = |figure: usize| median(rounds.iter().map(|round| round[figure]));
        println!(
            "{:>6}: alone {:.0}, p99 {:.0}; beside bulk {:.0}, p99 {:.0}",
            security.name(),
            of(0),
            of(1),
            of(2),
            of(3)
        );
        let what = format!("interactive p99 beside bulk, {}", security.name());
        bench.verdicts.judge(what, of(3) / of(1), "times", Bound::AtMost(TARGET));
    }
    Ok(())
}

async fn bulk_sender(bench: &Bench, url: String) -> Result<culvert_testkit::process::Process> {
    // The usual scheduling class, whatever this process has, and the last in it.
    let process = Plan::new("the bulk sender", "/usr/bin/chrt")
        .args(["-o", "0", "nice", "-n", "19"])
        .arg(std::env::current_exe()?)
        .args(["bulk", "--url", &url, "--authority"])
        .arg(bench.surroundings.authority.path())
        .start()?;
    process.line(READY, |line| (line == "sending").then_some(())).await?;
    Ok(process)
}

/// The bulk pair: sends until it is killed.
pub(crate) async fn bulk(args: &BulkArgs) -> Result<()> {
    let reach = Reach {
        urls: vec![args.url.clone()],
        admission: Admission::Open,
        authority: Some(std::fs::read_to_string(&args.authority)?),
    };
    let dialer = Dialer::new(&reach).await?;
    let load = Load { class: Class::Bulk, awake: false, ..Load::of(BULK.0, 1, BULK.1) };
    let pair = connect(&dialer, &dialer, load, LARGE_BUFFER).await?;
    let running = load.run(vec![pair])?;
    println!("sending");
    running.ended().await
}
