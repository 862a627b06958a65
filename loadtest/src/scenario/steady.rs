//! Pairs of peers that keep a window of frames in flight: what a relay forwards at most, and at which cost.

use anyhow::{Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::stage::{Ending, Stage};

/// Settings of `steady`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
pub struct Steady {
    /// Pairs of a sender and a receiver, each in a topic of its own.
    #[arg(long, default_value_t = 50)]
    pub pairs: usize,
}

impl Steady {
    /// See [`crate::scenario::Scenario::check`].
    pub(super) fn check(&self, _plan: &Plan) -> Result<()> {
        ensure!(self.pairs > 0, "--pairs must be at least 1");
        Ok(())
    }
}

pub(super) async fn run(_settings: &Steady, stage: &Stage) -> Result<Ending> {
    stage.ready().await;
    stage.over().await;
    Ok(Ending::default())
}
