//! Frames at a fixed rate, each timed from the moment at which it was due.

use std::rc::Rc;

use anyhow::{Result, ensure};
use clap::Args;
use culvert_wire::Class;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::field::Field;
use super::flow::Times;
use super::group::Shape;
use super::size::{Size, class};
use super::steady::{Mode, check_rate, check_sizes, gather, pace, sit_down};
use crate::measure::Series;
use crate::plan::Plan;
use crate::sessions::{self, Pace};
use crate::stage::{Ending, Stage};

/// Messages that a sender has put together in advance.
pub(super) const BATCH: usize = 64;

/// Settings of `latency`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
pub struct Latency {
    /// Pairs of a sender and a receiver, each in a topic of its own.
    #[arg(long, default_value_t = 100)]
    pub pairs: usize,
    /// Frames a second that every sender sends; the senders' turns are spread evenly.
    #[arg(long, default_value_t = 10.0)]
    pub rate_per_pair: f64,
    /// Payload of a frame. Several, separated by commas, are mixed at random.
    #[arg(long, default_value = "64B", value_delimiter = ',')]
    pub size: Vec<Size>,
    /// Has the receiver send every frame back, and times the way there and back too. Frames sent back
    /// are counted like others.
    #[arg(long)]
    pub round_trip: bool,
    /// How urgent the frames are: control, normal or bulk.
    #[arg(long, default_value = "normal", value_parser = class)]
    pub class: Class,
    /// Puts the ends of a pair on the same of several --url, instead of on different ones.
    #[arg(long)]
    pub same_node: bool,
    /// What is sent: raw frames, or messages of end-to-end sessions, as applications send them.
    #[arg(long, value_enum, default_value_t = Mode::Frames)]
    pub mode: Mode,
}

impl Latency {
    /// See [`crate::scenario::Scenario::check`].
    pub(super) fn check(&self, plan: &Plan) -> Result<()> {
        let workers = plan.share.of;
        ensure!(self.pairs >= workers, "--pairs must be at least {workers}, one for each worker");
        if self.mode == Mode::Sessions {
            let plain = !self.round_trip && self.class == Class::Normal && !self.same_node;
            ensure!(
                plain,
                "--mode sessions goes without --round-trip, --class and --same-node: leave them out"
            );
            return self.sessions().check();
        }
        check_rate("--rate-per-pair", Some(self.rate_per_pair))?;
        check_sizes(&self.size)
    }

    pub(super) fn connections(&self) -> usize {
        match self.mode {
            Mode::Frames => 2 * self.pairs,
            Mode::Sessions => self.sessions().connections(),
        }
    }

    fn sessions(&self) -> sessions::Load {
        let sizes = self.size.iter().map(|size| size.0).collect();
        sessions::Load { pairs: self.pairs, pace: Pace::Rate(self.rate_per_pair), sizes, stay: None }
    }

    pub(super) fn shape(&self) -> Shape {
        Shape {
            receivers: 1,
            topics: 1,
            sizes: self.size.clone(),
            class: self.class,
            batch: BATCH,
            same_node: self.same_node,
        }
    }
}

pub(super) async fn run(settings: &Latency, stage: &Stage) -> Result<Ending> {
    if settings.mode == Mode::Sessions {
        return sessions::run(settings.sessions(), stage).await;
    }
    let field = Field::new(stage).await?;
    let shape = Rc::new(settings.shape());
    let count = stage.share().part(settings.pairs);
    let groups = gather(&field, count, &shape).await?;
    let mut tasks = JoinSet::new();
    let times = Rc::new(Times::all(Series::OneWay));
    let seats = sit_down(&field, &shape, &times, settings.round_trip, groups, &mut tasks);
    stage.ready().await;
    pace(&field, seats, settings.rate_per_pair * count as f64, &mut tasks);
    stage.over().await;
    Ok(field.finish().await)
}
