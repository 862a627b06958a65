//! Groups in which everybody hears everybody.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use culvert_wire::limits::MAX_PAYLOAD;
use culvert_wire::{Class, TopicId};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::field::Field;
use super::flow::{Answer, Flows, Times, receive};
use super::group::{End, Group, Shape, first, keep};
use super::pacer::Pacer;
use super::size::{Size, class};
use super::steady::{check_rate, check_sizes, gather};
use crate::frames::{Books, ConnectError, Ended, Link, Ring, Slot, topic};
use crate::measure::{Count, Series};
use crate::plan::Plan;
use crate::stage::{Ending, Stage};

/// Frames that a member has put together in advance.
const BATCH: usize = 16;
/// Most bytes that one turn of a sender may have: a connection keeps 4 MiB for itself.
const TURN: usize = 2 << 20;
/// How long members may take to see each other.
const MEET: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Settings of `fanout`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
pub struct Fanout {
    /// Topics.
    #[arg(long, default_value_t = 10)]
    pub groups: usize,
    /// Members of each, who send in turn.
    #[arg(long, default_value_t = 20)]
    pub members: usize,
    /// Turns a second, of all groups together. In a turn, a member sends one frame to all the others.
    #[arg(long, default_value_t = 100.0)]
    pub rate: f64,
    /// Payload of a frame. Several, separated by commas, are mixed at random.
    #[arg(long, default_value = "64B", value_delimiter = ',')]
    pub size: Vec<Size>,
    /// Sends every other member a frame of its own, instead of one broadcast.
    #[arg(long)]
    pub unicast: bool,
    /// How urgent the frames are: control, normal or bulk.
    #[arg(long, default_value = "normal", value_parser = class)]
    pub class: Class,
    /// Puts a group on one of several --url, instead of spreading it.
    #[arg(long)]
    pub same_node: bool,
}

impl Fanout {
    /// See [`crate::scenario::Scenario::check`].
    pub(super) fn check(&self, plan: &Plan) -> Result<()> {
        let workers = plan.share.of;
        ensure!(self.groups >= workers, "--groups must be at least {workers}, one for each worker");
        ensure!((2..=4096).contains(&self.members), "--members must be from 2 to 4096");
        check_rate("--rate", Some(self.rate))?;
        check_sizes(&self.size)?;
        let largest = self.size.iter().map(|size| size.0).max().unwrap_or(MAX_PAYLOAD);
        let turn = !self.unicast || self.members * largest <= TURN;
        ensure!(turn, "--unicast: --members times --size must be at most 2MiB in one turn");
        Ok(())
    }

    pub(super) fn connections(&self) -> usize {
        self.groups * self.members
    }

    fn shape(&self) -> Shape {
        Shape {
            receivers: self.members - 1,
            topics: 1,
            sizes: self.size.clone(),
            class: self.class,
            batch: BATCH,
            same_node: self.same_node,
        }
    }
}

/// The members of a group that is connected, who send in turn.
#[derive(Default)]
struct Circle(RefCell<Option<Turns>>);

struct Turns {
    members: Vec<(Link, Ring)>,
    next: usize,
    unicast: bool,
    books: Rc<Books>,
}

impl Circle {
    /// The next member sends to all others what was due at this moment.
    fn send(&self, field: &Field, due: u64) {
        let mut circle = self.0.borrow_mut();
        let posted = circle.as_mut().is_some_and(|turns| {
            let others = turns.members.len() - 1;
            let (link, ring) = &mut turns.members[turns.next];
            turns.next = (turns.next + 1) % (others + 1);
            let batch = ring.stamp(if turns.unicast { others } else { 1 }, due);
            let posted = link.post(batch.bytes).unwrap_or(false);
            if posted {
                let bytes = if turns.unicast { batch.payload } else { batch.payload * others as u64 };
                turns.books.sent(&field.recorder, others as u64, bytes);
            }
            posted
        });
        if !posted {
            field.recorder.add(Count::Unsent, 1);
        }
    }
}

pub(super) async fn run(settings: &Fanout, stage: &Stage) -> Result<Ending> {
    let field = Field::new(stage).await?;
    let shape = Rc::new(settings.shape());
    let count = stage.share().part(settings.groups);
    let mut groups = gather(&field, count, &shape).await?;
    for group in &mut groups {
        meet(group).await?;
    }
    let mut tasks = JoinSet::new();
    let mut circles = Vec::with_capacity(count);
    for group in groups {
        let (circle, books) = (Rc::<Circle>::default(), field.accounts.open());
        circles.push(circle.clone());
        let unicast = settings.unicast;
        let work = {
            let (field, shape, books) = (field.clone(), shape.clone(), books.clone());
            async move |group| attend(&field, &shape, &books, &circle, unicast, group).await
        };
        tasks.spawn_local(keep(field.clone(), shape.clone(), books, group, work));
    }
    stage.ready().await;
    let rate = settings.rate * count as f64 / settings.groups as f64;
    tasks.spawn_local({
        let field = field.clone();
        async move {
            let pacer = Pacer::new(&field, circles.len(), rate);
            let paced = pacer.run(field.clone(), |group, due| circles[group].send(&field, due)).await;
            if let Err(error) = paced {
                field.fail(format!("frames could not be sent when they were due: {error}"));
            }
        }
    });
    stage.over().await;
    Ok(field.finish().await)
}

/// Waits until every member sees all others: before that, a broadcast may rightly miss some.
async fn meet(group: &mut Group) -> Result<(), ConnectError> {
    let others = group.receivers.len();
    let topic = group_topic(group);
    let until = Instant::now() + MEET;
    for end in std::iter::once(&mut group.sender).chain(&mut group.receivers) {
        loop {
            // Joining again asks for the members of now.
            let (_, members) = end.peer.join(topic).await.map_err(ConnectError::Join)?;
            if members.total as usize >= others {
                break;
            }
            if Instant::now() >= until {
                let seen = members.total;
                return Err(ConnectError::Own(format!(
                    "after {MEET:?} a member of a topic sees {seen} others, not {others}"
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

fn group_topic(group: &Group) -> TopicId {
    topic(group.sender.peer.conn, 0)
}

/// Reads for all members until a connection ends.
async fn attend(
    field: &Rc<Field>,
    shape: &Shape,
    books: &Rc<Books>,
    circle: &Rc<Circle>,
    unicast: bool,
    mut group: Group,
) -> Result<Ended> {
    match meet(&mut group).await {
        Ok(()) => {}
        Err(ConnectError::Join(ended)) => return Ok(ended),
        Err(error) => return Err(error.into()),
    }
    let ends: Vec<End> = std::iter::once(group.sender).chain(group.receivers).collect();
    let conns: Vec<_> = ends.iter().map(|end| end.peer.conn).collect();
    let mut members = Vec::with_capacity(ends.len());
    for (place, end) in ends.iter().enumerate() {
        let slot = |to, size: &Size, flow| Slot {
            to,
            handle: end.handles[0],
            class: shape.class,
            size: size.0,
            flow,
        };
        let sizes = shape.sizes.iter().cycle().skip(place).take(BATCH.next_multiple_of(shape.sizes.len()));
        let slots: Vec<_> = if unicast {
            let others = || conns.iter().enumerate().filter(|(other, _)| *other != place);
            let turn = |size| others().map(move |(other, conn)| slot(Some(*conn), size, other));
            shape.sizes.iter().flat_map(turn).collect()
        } else {
            sizes.map(|size| slot(None, size, 0)).collect()
        };
        members.push((end.peer.link.clone(), Ring::new(u16::try_from(place)?, &slots)?));
    }
    let mut tasks = JoinSet::new();
    let times = Rc::new(Times::all(Series::OneWay));
    for end in ends {
        let (field, books, times) = (field.clone(), books.clone(), times.clone());
        tasks.spawn_local(receive(field, books, end, Answer::Nothing, times, Flows::Senders));
    }
    *circle.0.borrow_mut() = Some(Turns { members, next: 0, unicast, books: books.clone() });
    let ended = first(&mut tasks).await;
    *circle.0.borrow_mut() = None;
    Ok(ended)
}
