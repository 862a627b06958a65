//! The loads, one file each.
//!
//! A scenario's settings are command line arguments and part of the plan at once. Its `run` connects this
//! worker's share of peers, calls [`Stage::ready`], works until [`Stage::over`], and accounts for what was
//! under way.

pub mod chaos;
pub mod churn;
pub mod fanout;
mod field;
pub mod files;
mod flow;
mod group;
pub mod idle;
pub mod latency;
pub mod mixed;
mod pacer;
pub mod size;
pub mod slow;
pub mod soak;
pub mod steady;
pub mod storm;

use anyhow::Result;
use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::faults::Faults;
use crate::plan::Plan;
use crate::report::Report;
use crate::stage::{Ending, Stage};

/// What load to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Subcommand)]
#[serde(tag = "scenario", rename_all = "snake_case")]
pub enum Scenario {
    /// Pairs of peers that keep a window of frames in flight, or send at a fixed rate.
    Steady(steady::Steady),
    /// Frames at a fixed rate, each timed from the moment at which it was due.
    Latency(latency::Latency),
    /// Interactive pairs beside others that send as fast as they can: what bulk does to latency.
    Mixed(mixed::Mixed),
    /// Groups in which everybody hears everybody, by broadcast or one by one.
    Fanout(fanout::Fanout),
    /// Readers that stop, beside readers that do not.
    Slow(slow::Slow),
    /// Peers that are connected and silent: memory per peer, and what connecting costs.
    Idle(idle::Idle),
    /// All peers lose their connections at once and come back at once.
    Storm(storm::Storm),
    /// Members come and go, and everybody in a topic has to hear of it.
    Churn(churn::Churn),
    /// Files passed from peer to peer, each compared with what was sent.
    Files(files::Files),
    /// Load for hours: fails if a relay's memory grows.
    Soak(soak::Soak),
    /// Relays and Redis are killed, stopped and restarted beside load whose ledgers must balance.
    Chaos(chaos::Chaos),
}

impl Scenario {
    /// Its name on the command line and in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Scenario::Steady(_) => "steady",
            Scenario::Latency(_) => "latency",
            Scenario::Mixed(_) => "mixed",
            Scenario::Fanout(_) => "fanout",
            Scenario::Slow(_) => "slow",
            Scenario::Idle(_) => "idle",
            Scenario::Storm(_) => "storm",
            Scenario::Churn(_) => "churn",
            Scenario::Files(_) => "files",
            Scenario::Soak(_) => "soak",
            Scenario::Chaos(_) => "chaos",
        }
    }

    /// Checks what no single setting shows.
    ///
    /// # Errors
    /// A sentence that says which setting to change.
    pub fn check(&self, plan: &Plan) -> Result<()> {
        match self {
            Scenario::Steady(steady) => steady.check(plan),
            Scenario::Latency(latency) => latency.check(plan),
            Scenario::Mixed(mixed) => mixed.check(plan),
            Scenario::Fanout(fanout) => fanout.check(plan),
            Scenario::Slow(slow) => slow.check(plan),
            Scenario::Idle(idle) => idle.check(plan),
            Scenario::Storm(storm) => storm.check(plan),
            Scenario::Churn(churn) => churn.check(plan),
            Scenario::Files(files) => files.check(plan),
            Scenario::Soak(soak) => soak.check(plan),
            Scenario::Chaos(chaos) => chaos.check(plan),
        }
    }

    /// Connections that all workers together hold, by which the limit of open files is checked.
    pub fn connections(&self) -> usize {
        match self {
            Scenario::Steady(steady) => steady.connections(),
            Scenario::Latency(latency) => latency.connections(),
            Scenario::Mixed(mixed) => mixed.connections(),
            Scenario::Fanout(fanout) => fanout.connections(),
            Scenario::Slow(slow) => slow.connections(),
            Scenario::Idle(idle) => idle.connections(),
            Scenario::Storm(storm) => storm.connections(),
            Scenario::Churn(churn) => churn.connections(),
            Scenario::Files(files) => 2 * files.transfers,
            Scenario::Soak(soak) => soak.connections(),
            Scenario::Chaos(chaos) => chaos.connections(),
        }
    }

    /// Workers that it needs at least to measure what it promises.
    pub fn workers_at_least(&self) -> usize {
        match self {
            // The interactive pairs are to have a worker of their own.
            Scenario::Mixed(_) => 2,
            _ => 1,
        }
    }

    /// Faults that the coordinator makes while it measures.
    pub fn faults(&self, seed: u64) -> Option<Faults> {
        match self {
            Scenario::Chaos(chaos) => Some(chaos.faults(seed)),
            _ => None,
        }
    }

    /// What the finished report, with all samples of processes, says against the run: a sentence each.
    pub fn judge(&self, report: &Report) -> Vec<String> {
        match self {
            Scenario::Soak(soak) => soak.judge(report),
            Scenario::Chaos(_) => chaos::Chaos::judge(report),
            _ => Vec::new(),
        }
    }
}

/// Runs this worker's part.
///
/// # Errors
/// It could not be run to its end; what was recorded means nothing then.
pub async fn run(stage: Stage) -> Result<Ending> {
    match stage.plan().scenario.clone() {
        Scenario::Steady(steady) => steady::run(&steady, &stage).await,
        Scenario::Latency(latency) => latency::run(&latency, &stage).await,
        Scenario::Mixed(mixed) => mixed::run(&mixed, &stage).await,
        Scenario::Fanout(fanout) => fanout::run(&fanout, &stage).await,
        Scenario::Slow(slow) => slow::run(&slow, &stage).await,
        Scenario::Idle(idle) => idle::run(&idle, &stage).await,
        Scenario::Storm(storm) => storm::run(&storm, &stage).await,
        Scenario::Churn(churn) => churn::run(&churn, &stage).await,
        Scenario::Files(files) => files::run(&files, &stage).await,
        Scenario::Soak(soak) => soak::run(&soak, &stage).await,
        Scenario::Chaos(chaos) => chaos::run(&chaos, &stage).await,
    }
}
