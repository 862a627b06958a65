//! What one relay costs: CPU and system calls per forwarded frame, memory and CPU per connection.
//!
//! It starts the real `culvert-relay` on core 0 and puts the load on core 1. Pairs of peers keep a window
//! of frames in flight; the receiver acknowledges every 16th with a tiny frame through the relay. The
//! figure is the relay's CPU time divided by the data frames that arrived, so the acknowledgements'
//! cost is in it. Rounds in clear text and with TLS alternate, and the medians are printed.
//!
//! ```text
//! cargo bench -p culvert-relay --bench forward                  # CPU per frame
//! cargo bench -p culvert-relay --bench forward -- syscalls      # under strace -c
//! cargo bench -p culvert-relay --bench forward -- idle          # memory per connection
//! cargo bench -p culvert-relay --bench forward -- cluster       # two relays through Redis
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its result is what it prints")]

mod cluster;
mod idle;
mod load;
mod peer;
mod relay;
mod report;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use tokio::task::LocalSet;

use crate::load::Load;
use crate::relay::{Relay, Security};
use crate::report::{Round, Table};

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Another relay binary than the one built with this benchmark.
    #[arg(long, global = true)]
    relay: Option<PathBuf>,
    /// Only in clear text, or only with TLS.
    #[arg(long, global = true, value_enum)]
    only: Option<Security>,
    /// More arguments for the relay, one each.
    #[arg(long = "relay-arg", global = true, allow_hyphen_values = true)]
    relay_args: Vec<String>,
    /// Given by `cargo bench`.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand, Clone)]
enum What {
    /// CPU per forwarded frame.
    Throughput(Throughput),
    /// System calls per forwarded frame, counted by `strace -c -f`, which slows the relay down.
    Syscalls(Throughput),
    /// Two relays and a Redis of its own: CPU per frame on each, Redis' share of a core at a fixed rate, and
    /// latency beside that of one node.
    Cluster(cluster::Options),
    /// Resident memory per idle, joined connection, and the CPU that making it took.
    Idle {
        /// Connections.
        #[arg(long, default_value_t = 5000)]
        connections: usize,
    },
}

#[derive(clap::Args, Clone)]
struct Throughput {
    /// Payload bytes of a data frame.
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Pairs of a sender and a receiver.
    #[arg(long, default_value_t = 50)]
    pairs: usize,
    /// Frames that each pair keeps in flight.
    #[arg(long, default_value_t = 64)]
    window: usize,
    /// Seconds measured in each round, after one second of warm-up.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Rounds of each kind.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

fn main() -> Result<()> {
    let args = Args::parse();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another crypto provider is installed"))?;
    pin_to(1)?;
    let what = args.what.clone().unwrap_or_else(|| What::Throughput(Throughput::parse_from_defaults()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        match what {
            What::Throughput(options) => throughput(&args, &options, false).await,
            What::Syscalls(options) => throughput(&args, &options, true).await,
            What::Cluster(options) => cluster::run(&args, &options).await,
            What::Idle { connections } => memory(&args, connections).await,
        }
    })
}

impl Throughput {
    fn parse_from_defaults() -> Self {
        #[derive(Parser)]
        struct Defaults {
            #[command(flatten)]
            throughput: Throughput,
        }
        Defaults::parse_from(["forward"]).throughput
    }

    fn load(&self) -> Load {
        Load { payload: self.payload, pairs: self.pairs, window: self.window }
    }
}

impl Args {
    fn kinds(&self) -> Vec<Security> {
        self.only.map_or_else(|| vec![Security::Clear, Security::Tls], |only| vec![only])
    }

    async fn start(&self, security: Security) -> Result<Relay> {
        self.start_with(security, &self.relay_args).await
    }

    async fn start_with(&self, security: Security, more: &[String]) -> Result<Relay> {
        let binary = self.relay.clone().unwrap_or_else(|| env!("CARGO_BIN_EXE_culvert-relay").into());
        Relay::start(&binary, security, more).await
    }
}

async fn throughput(args: &Args, options: &Throughput, count_syscalls: bool) -> Result<()> {
    let mut table = Table::new(format!(
        "{} pairs, {} in flight each, {} B payload, {} rounds of {} s, medians",
        options.pairs, options.window, options.payload, options.rounds, options.seconds,
    ));
    for number in 1..=options.rounds {
        for security in args.kinds() {
            let relay = args.start(security).await?;
            let running = options.load().start(&relay).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let round = measure(&relay, &running, options.seconds, count_syscalls).await?;
            running.check()?;
            relay.stop()?;
            eprintln!("round {number}, {security}: {round}");
            table.add(security, round);
        }
    }
    println!("{table}");
    Ok(())
}

async fn measure(
    relay: &Relay,
    running: &load::Running,
    seconds: f64,
    count_syscalls: bool,
) -> Result<Round> {
    let tracer = if count_syscalls { Some(relay.trace().await?) } else { None };
    let (cpu, frames, began) = (relay.cpu()?, running.delivered(), std::time::Instant::now());
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let (cpu, frames, took) = (relay.cpu()?.since(cpu), running.delivered() - frames, began.elapsed());
    ensure!(frames > 0, "nothing arrived in {seconds} s");
    let syscalls = match tracer {
        Some(tracer) => Some(tracer.finish().await?),
        None => None,
    };
    Ok(Round { cpu, frames, took, syscalls, undelivered: running.undelivered() })
}

async fn memory(args: &Args, connections: usize) -> Result<()> {
    println!("{connections} idle connections, each in a topic with one other");
    for security in args.kinds() {
        let relay = args.start(security).await?;
        let (before, cpu) = (relay.resident()?, relay.cpu()?);
        let peers = idle::connect(&relay, connections).await?;
        let (after, cpu) = (relay.resident()?, relay.cpu()?.since(cpu));
        let each = after.saturating_sub(before) as f64 / connections as f64 / 1024.0;
        println!(
            "{security:>6}: {each:.1} KiB each ({} MiB before, {} MiB after); \
             {:.0} µs of CPU for each handshake and join",
            before >> 20,
            after >> 20,
            cpu.total.as_secs_f64() * 1e6 / connections as f64,
        );
        drop(peers);
        relay.stop()?;
    }
    Ok(())
}

/// Keeps the load away from the relay's core.
fn pin_to(core: usize) -> Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    ensure!(cores > core, "this benchmark needs two cores, one for the relay and one for the load");
    let pinned = Command::new("taskset")
        .args(["-a", "-p", "-c", &core.to_string(), &std::process::id().to_string()])
        .output()
        .context("taskset (package util-linux)")?;
    ensure!(pinned.status.success(), "taskset: {}", String::from_utf8_lossy(&pinned.stderr));
    Ok(())
}
