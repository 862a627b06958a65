//! People who talk while others pass files: what bulk does to the latency of the rest.
//!
//! One half of what is measured is without bulk and the other with it, so that one run compares the two.
//! The interactive pairs are in worker 0 and bulk is in the others, so that not the load itself is what
//! delays.

use std::rc::Rc;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args;
use culvert_wire::Class;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::field::Field;
use super::flow::{ACKNOWLEDGED_AT_ONCE, Times};
use super::group::Shape;
use super::latency;
use super::size::{Size, class};
use super::steady::{check_rate, check_sizes, gather, keep_window, pace, sit_down};
use crate::measure::Series;
use crate::plan::{Plan, Share};
use crate::stage::{Ending, Phase, Stage};

/// Settings of `mixed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
pub struct Mixed {
    /// Interactive pairs, whose frames are timed. They are in the first worker.
    #[arg(long, default_value_t = 50)]
    pub pairs: usize,
    /// Frames a second that every interactive sender sends.
    #[arg(long, default_value_t = 10.0)]
    pub rate_per_pair: f64,
    /// Payload of their frames. Several, separated by commas, are mixed at random.
    #[arg(long, default_value = "64B", value_delimiter = ',')]
    pub size: Vec<Size>,
    /// How urgent their frames are: control, normal or bulk.
    #[arg(long, default_value = "normal", value_parser = class)]
    pub class: Class,
    /// Pairs that send as fast as they can, in the class bulk. They are in the other workers.
    #[arg(long, default_value_t = 1)]
    pub bulk_pairs: usize,
    /// Payload of their frames.
    #[arg(long, default_value = "16KiB")]
    pub bulk_size: Size,
    /// Frames that a bulk sender keeps in flight.
    #[arg(long, default_value_t = 64)]
    pub bulk_window: usize,
    /// Lowers the priority of the workers that make bulk by so much (1 to 19), where workers share a
    /// core: otherwise the interactive worker waits for them, and measures that.
    #[arg(long)]
    pub bulk_nice: Option<i32>,
    /// Begins with the half that has bulk in it.
    #[arg(long)]
    pub loaded_first: bool,
    /// Puts the ends of a pair on the same of several --url, instead of on different ones.
    #[arg(long)]
    pub same_node: bool,
}

impl Mixed {
    /// See [`crate::scenario::Scenario::check`].
    pub(super) fn check(&self, _plan: &Plan) -> Result<()> {
        ensure!(self.pairs > 0, "--pairs must be at least 1");
        ensure!(self.bulk_pairs > 0, "--bulk-pairs must be at least 1");
        let window = self.bulk_window >= ACKNOWLEDGED_AT_ONCE;
        ensure!(window, "--bulk-window must be at least {ACKNOWLEDGED_AT_ONCE}");
        let nice = self.bulk_nice.is_none_or(|nice| (1..=19).contains(&nice));
        ensure!(nice, "--bulk-nice must be from 1 to 19");
        check_rate("--rate-per-pair", Some(self.rate_per_pair))?;
        check_sizes(&self.size)?;
        self.bulk_size.check("--bulk-size")
    }

    pub(super) fn connections(&self) -> usize {
        2 * (self.pairs + self.bulk_pairs)
    }

    fn shape(&self) -> Shape {
        Shape {
            receivers: 1,
            topics: 1,
            sizes: self.size.clone(),
            class: self.class,
            batch: latency::BATCH,
            same_node: self.same_node,
        }
    }

    fn bulk_shape(&self) -> Shape {
        let (sizes, class, batch) = (vec![self.bulk_size], Class::Bulk, self.bulk_window);
        Shape { sizes, class, batch, ..self.shape() }
    }

    /// Interactive and bulk pairs of a worker. One worker alone has them all.
    fn parts(&self, share: Share) -> (usize, usize) {
        match share {
            Share { of: 1, .. } => (self.pairs, self.bulk_pairs),
            Share { index: 0, .. } => (self.pairs, 0),
            Share { index, of } => (0, Share { index: index - 1, of: of - 1 }.part(self.bulk_pairs)),
        }
    }
}

pub(super) async fn run(settings: &Mixed, stage: &Stage) -> Result<Ending> {
    let share = stage.share();
    let (pairs, bulk_pairs) = settings.parts(share);
    if let Some(nice) = settings.bulk_nice.filter(|_| share.index > 0) {
        rustix::process::nice(nice)?;
    }
    let field = Field::new(stage).await?;
    if share.of == 1 {
        field.note(
            "one worker made bulk and timed the interactive pairs: their delay is in part its own; give \
             --workers 2"
                .to_owned(),
        );
    }
    let bulk = field.beside();
    let (shape, bulk_shape) = (Rc::new(settings.shape()), Rc::new(settings.bulk_shape()));
    let groups = gather(&field, pairs, &shape).await?;
    let bulk_groups = gather(&bulk, bulk_pairs, &bulk_shape).await?;
    let mut tasks = JoinSet::new();
    let (before, after) = match settings.loaded_first {
        false => (Series::OneWay, Series::OneWayLoaded),
        true => (Series::OneWayLoaded, Series::OneWay),
    };
    let times = Rc::new(Times::of(before, after));
    let seats = sit_down(&field, &shape, &times, false, groups, &mut tasks);
    stage.ready().await;
    pace(&field, seats, settings.rate_per_pair * pairs as f64, &mut tasks);
    let mut bulk_groups = Some(bulk_groups);
    let mut start = |tasks: &mut JoinSet<()>| {
        for group in bulk_groups.take().into_iter().flatten() {
            let (bulk, shape) = (bulk.clone(), bulk_shape.clone());
            let times = Rc::new(Times::none());
            tasks.spawn_local(keep_window(bulk, shape, settings.bulk_window, times, group));
        }
    };
    if settings.loaded_first {
        start(&mut tasks);
    }
    stage.reached(Phase::Measuring).await;
    let half = Instant::now() + stage.plan().duration / 2;
    times.change(field.nanos_of(half));
    tokio::select! {
        () = tokio::time::sleep_until(half.into()) => {}
        () = stage.over() => {}
    }
    if settings.loaded_first {
        bulk.stop();
    } else {
        start(&mut tasks);
    }
    stage.over().await;
    field.stop();
    field.absorb(bulk.close_books().await);
    Ok(field.finish().await)
}
