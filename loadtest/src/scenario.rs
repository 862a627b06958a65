//! The loads, one file each.
//!
//! A scenario's settings are command line arguments and part of the plan at once. Its `run` connects this
//! worker's share of peers, calls [`Stage::ready`], works until [`Stage::over`], and accounts for what was
//! under way.

pub mod steady;

use anyhow::Result;
use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::stage::{Ending, Stage};

/// What load to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Subcommand)]
#[serde(tag = "scenario", rename_all = "snake_case")]
pub enum Scenario {
    /// Pairs of peers that keep a window of frames in flight, or send at a fixed rate.
    Steady(steady::Steady),
}

impl Scenario {
    /// Its name on the command line and in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Scenario::Steady(_) => "steady",
        }
    }

    /// Checks what no single setting shows.
    ///
    /// # Errors
    /// A sentence that says which setting to change.
    pub fn check(&self, plan: &Plan) -> Result<()> {
        match self {
            Scenario::Steady(steady) => steady.check(plan),
        }
    }

    /// Connections that all workers together hold, by which the limit of open files is checked.
    pub fn connections(&self) -> usize {
        match self {
            Scenario::Steady(steady) => 2 * steady.pairs,
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
    }
}
