//! Faults, one after the other, beside load whose ledgers must balance to the frame.
//!
//! Two loads run: sessions, in which every message arrives once and in order, or the error of the session
//! names it; and raw frames, each of which arrives once or is reported, unless one of its two connections
//! ended while it was under way. What makes the faults is [`crate::faults`], in the coordinator.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::size::Size;
use super::soak::Both;
use crate::faults::Faults;
use crate::lanes;
use crate::plan::Plan;
use crate::report::Report;
use crate::sessions::{self, Pace};
use crate::stage::{Ending, Stage};

/// Settings of `chaos`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
pub struct Chaos {
    /// Pairs of peers in conversation.
    #[arg(long, default_value_t = 20)]
    pub pairs: usize,
    /// Pairs of raw peers.
    #[arg(long, default_value_t = 20)]
    pub lanes: usize,
    /// Messages, or frames, a second in each.
    #[arg(long, default_value_t = 50.0)]
    pub rate: f64,
    /// Payload of a message or frame.
    #[arg(long, default_value = "64B")]
    pub size: Size,
    /// About how long peers stay before they connect anew, so that relays that come back have peers again.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    pub stay: Duration,
    /// From the beginning of a fault to that of the next; later if it has not healed by then.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "20s")]
    pub every: Duration,
    /// A command that makes a fault and returns when it has healed, for relays that this run did not start;
    /// several take turns.
    #[arg(long, value_name = "COMMAND")]
    pub fault_command: Vec<String>,
    /// For how long a relay is stopped; longer than its redis-lease.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    pub hang: Duration,
    /// Longest wait for everything to be well again after a fault.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "90s")]
    pub recovery: Duration,
    /// How long a relay may take to deliver or to report a frame. What was sent longer before the last sign
    /// of life of its connection is missing, and not cut off with it.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "15s")]
    pub settle: Duration,
}

impl Chaos {
    /// See [`crate::scenario::Scenario::check`].
    pub(super) fn check(&self, plan: &Plan) -> Result<()> {
        ensure!(!self.every.is_zero(), "--every must be longer than 0s");
        ensure!(!self.stay.is_zero(), "--stay must be longer than 0s");
        ensure!(self.pairs > 0 && self.lanes > 0, "chaos needs both --pairs and --lanes");
        ensure!(
            plan.duration > 2 * self.every,
            "in {} no fault fits: --duration must be more than twice --every",
            humantime::format_duration(plan.duration)
        );
        self.both().check()
    }

    pub(super) fn connections(&self) -> usize {
        self.both().connections()
    }

    /// The faults that belong to it.
    pub(super) fn faults(&self, seed: u64) -> Faults {
        Faults {
            every: self.every,
            hang: self.hang,
            recovery: self.recovery,
            commands: self.fault_command.clone(),
            seed,
        }
    }

    /// See [`crate::scenario::Scenario::judge`].
    pub(super) fn judge(report: &Report) -> Vec<String> {
        if report.faults.is_empty() {
            return vec!["no fault happened: this run shows nothing".to_owned()];
        }
        Vec::new()
    }

    fn both(&self) -> Both {
        let (pace, rate, size, stay) = (Pace::Rate(self.rate), self.rate, self.size.0, Some(self.stay));
        Both {
            sessions: sessions::Load { pairs: self.pairs, pace, sizes: vec![size], stay },
            lanes: lanes::Load { lanes: self.lanes, rate, size, settle: self.settle, stay },
            comers: 0.0,
        }
    }
}

pub(super) async fn run(settings: &Chaos, stage: &Stage) -> Result<Ending> {
    settings.both().run(stage).await
}
