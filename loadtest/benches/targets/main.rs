//! Every figure that is promised of a relay, beside what was promised, and beside what the machine allows.
//!
//! What is measured (the real `culvert-relay`, and what it is held against) runs on core 0, the load on
//! core 1. Everything that is compared is measured in turns in one run, some rounds each, and the medians
//! are shown; processor time is the scheduler's, kernel included.
//!
//! ```text
//! cargo bench -p culvert-loadtest --bench targets                 # everything
//! cargo bench -p culvert-loadtest --bench targets -- frames       # CPU per forwarded frame
//! cargo bench -p culvert-loadtest --bench targets -- limits       # beside haproxy and a copying loop; AES-GCM;
//!                                                                 # system calls; Redis
//! cargo bench -p culvert-loadtest --bench targets -- latency      # one way, beside haproxy
//! cargo bench -p culvert-loadtest --bench targets -- idle         # memory per silent peer
//! cargo bench -p culvert-loadtest --bench targets -- handshake    # CPU per new peer
//! cargo bench -p culvert-loadtest --bench targets -- growth       # 10,000 peers, 100,000 topics
//! cargo bench -p culvert-loadtest --bench targets -- mixed        # interactive peers beside a bulk sender
//! cargo bench -p culvert-loadtest --bench targets -- cluster      # two relays through Redis
//! cargo bench -p culvert-loadtest --bench targets -- syscalls     # strace -c -f
//! ```
//!
//! The figure for a frame is the relay's processor time divided by the data frames that arrived. Each pair
//! keeps a window of frames in flight, and the receiver acknowledges every 16th with a tiny frame through
//! the relay, so the acknowledgements' cost is in it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its result is what it prints")]

mod cluster;
mod copier;
mod frames;
mod growth;
mod handshake;
mod idle;
mod latency;
mod limits;
mod machine;
mod middle;
mod mixed;
mod pairs;
mod strace;
mod verdict;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tokio::task::LocalSet;

use crate::middle::{Security, Surroundings};
use crate::pairs::Load;
use crate::verdict::Verdicts;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Another relay binary than the one of this tree.
    #[arg(long, global = true)]
    relay: Option<PathBuf>,
    /// Only in clear text, or only with TLS, where both are measured for themselves.
    #[arg(long, global = true, value_enum)]
    only: Option<Security>,
    /// More settings for the relay, one each, such as `read-buffer=4KiB`.
    #[arg(long = "relay-arg", global = true, allow_hyphen_values = true)]
    relay_args: Vec<String>,
    /// Rounds of each kind.
    #[arg(long, global = true, default_value_t = 5)]
    rounds: usize,
    /// Seconds measured in each round.
    #[arg(long, global = true, default_value_t = 3.0)]
    seconds: f64,
    /// Seconds of load before.
    #[arg(long, global = true, default_value_t = 1.0)]
    warm_up: f64,
    /// Pairs of a sender and a receiver.
    #[arg(long, global = true, default_value_t = 50)]
    pairs: usize,
    /// Frames that each pair keeps in flight.
    #[arg(long, global = true, default_value_t = 64)]
    window: usize,
    /// Shows the medians only.
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Given by `cargo bench`.
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Everything below.
    All,
    /// CPU per forwarded frame of 64 B, 1 KiB and 16 KiB.
    Frames,
    /// The same beside haproxy and a loop that only copies; AES-GCM, system calls and Redis alone.
    Limits,
    /// One-way latency at a low rate, beside haproxy.
    Latency,
    /// Resident memory per silent peer.
    Idle,
    /// CPU per new peer.
    Handshake,
    /// CPU per frame where there are more peers, or more topics.
    Growth,
    /// Latency of interactive pairs beside a bulk sender.
    Mixed,
    /// Two relays and Redis.
    Cluster,
    /// System calls per forwarded frame.
    Syscalls,
    /// The copying loop, as a process of its own.
    #[command(hide = true)]
    Copy(copier::CopyArgs),
    /// The bulk pair, as a process of its own.
    #[command(hide = true)]
    Bulk(mixed::BulkArgs),
    /// What needs no load, as a process of its own.
    #[command(hide = true)]
    Alone(limits::AloneArgs),
}

/// One run of this program.
struct Bench {
    args: Args,
    surroundings: Surroundings,
    verdicts: Verdicts,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    middle::use_provider()?;
    let what = args.what.take().unwrap_or(What::All);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        match what {
            // Started by this program, on the core where it was to be.
            What::Copy(copy) => copier::copy(&copy).await,
            What::Bulk(bulk) => mixed::bulk(&bulk).await,
            What::Alone(alone) => limits::alone(&alone),
            what => measure(args, &what).await,
        }
    })
}

async fn measure(args: Args, what: &What) -> Result<()> {
    let relay = match &args.relay {
        Some(relay) => relay.clone(),
        None => culvert_testkit::binaries::relay().await?,
    };
    machine::check()?;
    machine::pin(machine::LOAD)?;
    let surroundings = Surroundings::new(relay, args.relay_args.clone())?;
    let mut bench = Bench { args, surroundings, verdicts: Verdicts::default() };
    match what {
        What::All => {
            for what in [
                What::Frames,
                What::Limits,
                What::Latency,
                What::Idle,
                What::Handshake,
                What::Growth,
                What::Mixed,
                What::Cluster,
                What::Syscalls,
            ] {
                println!("\n== {}", format!("{what:?}").to_lowercase());
                bench.run(&what).await?;
            }
        }
        what => bench.run(what).await?,
    }
    if !bench.verdicts.is_empty() {
        println!("\n{}", bench.verdicts);
    }
    Ok(())
}

impl Bench {
    async fn run(&mut self, what: &What) -> Result<()> {
        match what {
            What::Frames => frames::run(self).await,
            What::Limits => limits::run(self).await,
            What::Latency => latency::run(self).await,
            What::Idle => idle::run(self).await,
            What::Handshake => handshake::run(self).await,
            What::Growth => growth::run(self).await,
            What::Mixed => mixed::run(self).await,
            What::Cluster => cluster::run(self).await,
            What::Syscalls => frames::syscalls(self).await,
            What::All | What::Copy(_) | What::Bulk(_) | What::Alone(_) => Ok(()),
        }
    }

    fn rounds(&self) -> usize {
        self.args.rounds
    }

    fn seconds(&self) -> f64 {
        self.args.seconds
    }

    fn securities(&self) -> Vec<Security> {
        Security::kinds(self.args.only)
    }

    fn load(&self, payload: usize) -> Load {
        Load::of(payload, self.args.pairs, self.args.window)
    }

    async fn warm_up(&self) {
        tokio::time::sleep(Duration::from_secs_f64(self.args.warm_up)).await;
    }

    /// Says what one round measured.
    fn say(&self, what: fmt::Arguments<'_>) {
        if !self.args.quiet {
            eprintln!("{what}");
        }
    }
}
