//! Pairs of peers that keep a window of frames in flight: what a relay forwards at most, and at which cost.
//! Or at a fixed rate: what it costs when it has time to spare.

use std::rc::Rc;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use culvert_wire::Class;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::field::Field;
use super::flow::{ACKNOWLEDGED_AT_ONCE, Acks, Answer, Flows, Times, receive, send};
use super::group::{Group, Seat, Shape, attend, first, keep};
use super::idle::{self, Resting};
use super::pacer::Pacer;
use super::size::{Size, class};
use crate::frames::{Books, Ended};
use crate::measure::Series;
use crate::plan::Plan;
use crate::sessions::{self, Pace};
use crate::stage::{Ending, Stage};

/// Settings of `steady`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
pub struct Steady {
    /// Pairs of a sender and a receiver, each in a topic of its own.
    #[arg(long, default_value_t = 50)]
    pub pairs: usize,
    /// Frames that a sender keeps in flight to each receiver, which acknowledges every sixteenth with a
    /// small frame of its own.
    #[arg(long, default_value_t = 64, conflicts_with = "rate")]
    pub window: usize,
    /// Frames a second, of all pairs together, instead of a window: sent when they are due and not
    /// acknowledged.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Payload of a frame. Several, separated by commas, are mixed at random.
    #[arg(long, default_value = "64B", value_delimiter = ',')]
    pub size: Vec<Size>,
    /// Members of a topic: one sends to all others in turn.
    #[arg(long, default_value_t = 2)]
    pub group: usize,
    /// Peers that are connected and joined besides, and silent.
    #[arg(long, default_value_t = 0)]
    pub idle_peers: usize,
    /// Topics that every connection is in; frames go to all of them in turn.
    #[arg(long, default_value_t = 1)]
    pub topics: usize,
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

/// At which level load is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Raw frames of the wire protocol.
    #[default]
    Frames,
    /// Messages through the client library.
    Sessions,
}

impl Steady {
    /// See [`crate::scenario::Scenario::check`].
    pub(super) fn check(&self, plan: &Plan) -> Result<()> {
        let workers = plan.share.of;
        ensure!(self.pairs >= workers, "--pairs must be at least {workers}, one for each worker");
        if self.mode == Mode::Sessions {
            let plain = self.group == 2
                && self.topics == 1
                && self.idle_peers == 0
                && self.class == Class::Normal
                && !self.same_node;
            ensure!(
                plain,
                "--mode sessions has two peers in each topic and nobody else: leave out --group, --topics, \
                 --idle-peers, --class and --same-node"
            );
            return self.sessions().check();
        }
        let window = self.window >= ACKNOWLEDGED_AT_ONCE;
        ensure!(window, "--window must be at least {ACKNOWLEDGED_AT_ONCE}: fewer are never acknowledged");
        ensure!(self.window <= 1 << 16, "--window must be at most {}", 1 << 16);
        check_rate("--rate", self.rate)?;
        check_sizes(&self.size)?;
        ensure!((2..=1000).contains(&self.group), "--group must be from 2 to 1000");
        ensure!((1..=10_000).contains(&self.topics), "--topics must be from 1 to 10000");
        Ok(())
    }

    pub(super) fn connections(&self) -> usize {
        match self.mode {
            Mode::Frames => self.pairs * self.group + self.idle_peers,
            Mode::Sessions => self.sessions().connections(),
        }
    }

    fn sessions(&self) -> sessions::Load {
        let pace = match self.rate {
            None => Pace::Window(self.window),
            Some(rate) => Pace::Rate(rate / self.pairs.max(1) as f64),
        };
        let sizes = self.size.iter().map(|size| size.0).collect();
        sessions::Load { pairs: self.pairs, pace, sizes, stay: None }
    }

    fn shape(&self) -> Shape {
        let receivers = self.group - 1;
        Shape {
            receivers,
            topics: self.topics,
            sizes: self.size.clone(),
            class: self.class,
            batch: self.window * receivers,
            same_node: self.same_node,
        }
    }
}

/// Checks a rate that may be given.
pub(super) fn check_rate(setting: &str, rate: Option<f64>) -> Result<()> {
    let fine = rate.is_none_or(|rate| rate > 0.0 && rate <= 1e8);
    ensure!(fine, "{setting} must be above 0 frames a second and at most 100,000,000");
    Ok(())
}

/// Checks a list of sizes.
pub(super) fn check_sizes(sizes: &[Size]) -> Result<()> {
    ensure!(!sizes.is_empty(), "--size must name at least one size");
    sizes.iter().try_for_each(|size| size.check("--size"))
}

pub(super) async fn run(settings: &Steady, stage: &Stage) -> Result<Ending> {
    if settings.mode == Mode::Sessions {
        return sessions::run(settings.sessions(), stage).await;
    }
    let field = Field::new(stage).await?;
    let shape = Rc::new(settings.shape());
    let share = stage.share();
    let groups = gather(&field, share.part(settings.pairs), &shape).await?;
    let idle = share.part(settings.idle_peers);
    let resting = Resting { topics: settings.topics, first_frame: None };
    let idle = idle::gather(&field, idle, resting).await?;
    let mut tasks = JoinSet::new();
    idle::rest(&field, idle, resting, &mut tasks);
    stage.ready().await;
    match settings.rate {
        None => {
            let times = Rc::new(Times::some());
            for group in groups {
                let (field, shape, times) = (field.clone(), shape.clone(), times.clone());
                tasks.spawn_local(keep_window(field, shape, settings.window, times, group));
            }
        }
        Some(rate) => {
            let times = Rc::new(Times::all(Series::OneWay));
            let seats = sit_down(&field, &shape, &times, false, groups, &mut tasks);
            pace(&field, seats, share.rate(rate), &mut tasks);
        }
    }
    stage.over().await;
    Ok(field.finish().await)
}

/// Connects so many groups.
pub(super) async fn gather(field: &Field, count: usize, shape: &Shape) -> Result<Vec<Group>> {
    let connect = async |local| Group::connect(field, field.number(local), shape).await;
    let groups = field.crew.gather(count, connect).await?;
    if let Some(group) = groups.first() {
        field.check_sizes(&shape.sizes, group.sender.peer.welcome.max_payload)?;
    }
    Ok(groups)
}

/// Keeps windows of frames in flight within a group, however often it has to be connected anew.
pub(super) async fn keep_window(
    field: Rc<Field>,
    shape: Rc<Shape>,
    window: usize,
    times: Rc<Times>,
    group: Group,
) {
    let books = field.accounts.open();
    let work = {
        let (field, shape, books) = (field.clone(), shape.clone(), books.clone());
        async move |group| in_flight(&field, &shape, &books, window, &times, group).await
    };
    keep(field, shape, books, group, work).await;
}

/// Keeps windows of frames in flight until a connection of the group ends.
async fn in_flight(
    field: &Rc<Field>,
    shape: &Shape,
    books: &Rc<Books>,
    window: usize,
    times: &Rc<Times>,
    group: Group,
) -> Result<Ended> {
    let ring = group.ring(field, shape)?;
    let to = group.sender.peer.conn;
    let receivers: Vec<_> = group.receivers.iter().map(|end| end.peer.conn).collect();
    let window = (window * receivers.len()) as u64;
    let mut tasks = JoinSet::new();
    for end in group.receivers {
        let answer = Answer::Acknowledge(Acks::new(shape.class, end.handles[0], to)?);
        tasks.spawn_local(receive(field.clone(), books.clone(), end, answer, times.clone(), Flows::Topics));
    }
    tasks.spawn_local(send(field.clone(), books.clone(), group.sender, ring, window, receivers));
    Ok(first(&mut tasks).await)
}

/// Has every group read, and gives the seats of their senders.
pub(super) fn sit_down(
    field: &Rc<Field>,
    shape: &Rc<Shape>,
    times: &Rc<Times>,
    round_trip: bool,
    groups: Vec<Group>,
    tasks: &mut JoinSet<()>,
) -> Vec<Rc<Seat>> {
    let seat = |group| {
        let (seat, books) = (Rc::<Seat>::default(), field.accounts.open());
        let work = {
            let (field, shape, books) = (field.clone(), shape.clone(), books.clone());
            let (seat, times) = (seat.clone(), times.clone());
            async move |group| attend(&field, &shape, &books, &seat, &times, round_trip, group).await
        };
        tasks.spawn_local(keep(field.clone(), shape.clone(), books, group, work));
        seat
    };
    groups.into_iter().map(seat).collect()
}

/// Sends at a rate from these seats, until the run is over.
pub(super) fn pace(field: &Rc<Field>, seats: Vec<Rc<Seat>>, rate: f64, tasks: &mut JoinSet<()>) {
    let field = field.clone();
    tasks.spawn_local(async move {
        let pacer = Pacer::new(&field, seats.len(), rate);
        let paced = pacer.run(field.clone(), |sender, due| seats[sender].send(&field, due)).await;
        if let Err(error) = paced {
            field.fail(format!("frames could not be sent when they were due: {error}"));
        }
    });
}
