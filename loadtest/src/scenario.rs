//! The loads, one file each.
//!
//! A scenario's settings are command line arguments and part of the plan at once. Its `run` connects this
//! worker's share of peers, calls [`Stage::ready`], works until [`Stage::over`], and accounts for what was
//! under way.

pub mod chaos;
mod field;
pub mod files;
mod flow;
mod group;
pub mod idle;
pub mod latency;
mod pacer;
pub mod size;
pub mod soak;
pub mod steady;

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
    /// Peers that are connected and silent: memory per peer, and what connecting costs.
    Idle(idle::Idle),
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
            Scenario::Idle(_) => "idle",
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
            Scenario::Idle(idle) => idle.check(plan),
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
            Scenario::Idle(idle) => idle.connections(),
            Scenario::Files(files) => 2 * files.transfers,
            Scenario::Soak(soak) => soak.connections(),
            Scenario::Chaos(chaos) => chaos.connections(),
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
        Scenario::Idle(idle) => idle::run(&idle, &stage).await,
        Scenario::Files(files) => files::run(&files, &stage).await,
        Scenario::Soak(soak) => soak::run(&soak, &stage).await,
        Scenario::Chaos(chaos) => chaos::run(&chaos, &stage).await,
    }
}
