//! Readers that stop beside readers that do not.
//!
//! One half of what is measured everybody reads; then some stop, for a while or for good. The others are to
//! notice nothing, and the senders to those that stopped are to be told about every frame that does not
//! arrive. When the run is over everybody reads again, so that the books can be closed.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use culvert_wire::Class;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::field::Field;
use super::flow::Times;
use super::group::Shape;
use super::latency;
use super::size::{Size, class};
use super::steady::{check_rate, check_sizes, gather, pace, sit_down};
use crate::frames::Dialer;
use crate::measure::Series;
use crate::plan::Plan;
use crate::stage::{Ending, Phase, Stage};

/// Settings of `slow`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
pub struct Slow {
    /// Pairs that read all the time, whose frames are timed.
    #[arg(long, default_value_t = 50)]
    pub pairs: usize,
    /// Frames a second that every one of their senders sends.
    #[arg(long, default_value_t = 10.0)]
    pub rate_per_pair: f64,
    /// Payload of their frames. Several, separated by commas, are mixed at random.
    #[arg(long, default_value = "64B", value_delimiter = ',')]
    pub size: Vec<Size>,
    /// How urgent all frames are: control, normal or bulk.
    #[arg(long, default_value = "normal", value_parser = class)]
    pub class: Class,
    /// Pairs whose receivers stop reading after half of what is measured.
    #[arg(long, default_value_t = 5)]
    pub slow_pairs: usize,
    /// Frames a second to each of them.
    #[arg(long, default_value_t = 500.0)]
    pub slow_rate: f64,
    /// Payload of those frames.
    #[arg(long, default_value = "4KiB")]
    pub slow_size: Size,
    /// How long they do not read; for the rest of the run if it is not given. A relay closes a connection
    /// that takes nothing for its write-timeout, 30s by default.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub stop_for: Option<Duration>,
    /// What the kernel of a slow reader may take for it, so that the relay soon feels it.
    #[arg(long, default_value = "64KiB")]
    pub receive_buffer: Size,
}

impl Slow {
    /// See [`crate::scenario::Scenario::check`].
    pub(super) fn check(&self, plan: &Plan) -> Result<()> {
        let workers = plan.share.of;
        ensure!(self.pairs >= workers, "--pairs must be at least {workers}, one for each worker");
        ensure!(self.slow_pairs > 0, "--slow-pairs must be at least 1");
        check_rate("--rate-per-pair", Some(self.rate_per_pair))?;
        check_rate("--slow-rate", Some(self.slow_rate))?;
        check_sizes(&self.size)?;
        self.slow_size.check("--slow-size")?;
        let buffer = (4096..=64 << 20).contains(&self.receive_buffer.0);
        ensure!(buffer, "--receive-buffer must be from 4KiB to 64MiB");
        let stop = self.stop_for.is_none_or(|stop| !stop.is_zero() && stop <= plan.duration / 2);
        ensure!(stop, "--stop-for must be at most half of --duration");
        Ok(())
    }

    pub(super) fn connections(&self) -> usize {
        2 * (self.pairs + self.slow_pairs)
    }

    fn shape(&self) -> Shape {
        Shape {
            receivers: 1,
            topics: 1,
            sizes: self.size.clone(),
            class: self.class,
            batch: latency::BATCH,
            same_node: false,
        }
    }
}

pub(super) async fn run(settings: &Slow, stage: &Stage) -> Result<Ending> {
    let share = stage.share();
    let field = Field::new(stage).await?;
    let dialer = Dialer::new(stage.reach()).await?.receive_buffer(settings.receive_buffer.0);
    let slow = Field::dialing(stage, dialer);
    let shape = Rc::new(settings.shape());
    let slow_shape = Rc::new(Shape { sizes: vec![settings.slow_size], ..settings.shape() });
    let (pairs, slow_pairs) = (share.part(settings.pairs), share.part(settings.slow_pairs));
    let groups = gather(&field, pairs, &shape).await?;
    let slow_groups = gather(&slow, slow_pairs, &slow_shape).await?;
    let mut tasks = JoinSet::new();
    let times = Rc::new(Times::of(Series::OneWay, Series::OneWayBeside));
    let seats = sit_down(&field, &shape, &times, false, groups, &mut tasks);
    let none = Rc::new(Times::none());
    let slow_seats = sit_down(&slow, &slow_shape, &none, false, slow_groups, &mut tasks);
    stage.ready().await;
    pace(&field, seats, settings.rate_per_pair * pairs as f64, &mut tasks);
    pace(&slow, slow_seats, settings.slow_rate * slow_pairs as f64, &mut tasks);
    stage.reached(Phase::Measuring).await;
    let half = Instant::now() + stage.plan().duration / 2;
    times.change(field.nanos_of(half));
    let stop = async {
        tokio::time::sleep_until(half.into()).await;
        slow.read(false);
        match settings.stop_for {
            Some(stop) => {
                tokio::time::sleep(stop).await;
                slow.read(true);
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = stop => stage.over().await,
        () = stage.over() => {}
    }
    field.stop();
    slow.stop();
    slow.read(true);
    field.absorb(slow.finish().await);
    Ok(field.finish().await)
}
