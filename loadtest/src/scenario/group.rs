//! A sender and its receivers, in topics of their own: what `steady`, `latency`, `mixed` and `slow` are
//! made of.
//!
//! When a connection of a group ends, the whole group starts anew: what was under way is cut off, and
//! numbers begin at 0 again.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use anyhow::Result;
use culvert_wire::{Class, ConnId, Handle};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use super::field::{Field, join};
use super::flow::{Answer, Flows, Times, receive};
use super::size::Size;
use crate::frames::{Books, ConnectError, Ended, LARGE_BUFFER, Link, Peer, Ring, Slot, topic};
use crate::measure::{Count, Series};

/// Most bytes of messages that a sender has put together in advance, if it needs no more.
const RING_BYTES: usize = 1 << 20;

/// What a group is like.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) receivers: usize,
    /// Topics that every connection of the group is in.
    pub(super) topics: usize,
    pub(super) sizes: Vec<Size>,
    pub(super) class: Class,
    /// Frames that are sent at once, at most.
    pub(super) batch: usize,
    /// Whether both ends go to the same of several relays.
    pub(super) same_node: bool,
}

/// One end: its connection, and its number of each topic.
pub(super) struct End {
    pub(super) peer: Peer,
    pub(super) handles: Vec<Handle>,
}

/// All ends, the sender first.
pub(super) struct Group {
    pub(super) number: usize,
    pub(super) sender: End,
    pub(super) receivers: Vec<End>,
}

impl Group {
    /// Connects everybody and joins every topic; `number` is the group's among all workers.
    pub(super) async fn connect(field: &Field, number: usize, shape: &Shape) -> Result<Self, ConnectError> {
        let mut ends = Vec::with_capacity(1 + shape.receivers);
        let mut first = ConnId::NONE;
        for place in 0..=shape.receivers {
            let way = if shape.same_node { number } else { number + place };
            let mut peer = field.crew.connect(way, LARGE_BUFFER).await?;
            if place == 0 {
                first = peer.conn;
            }
            let mut handles = Vec::with_capacity(shape.topics);
            for index in 0..shape.topics {
                handles.push(join(&field.crew, &mut peer, topic(first, index as u64)).await?);
            }
            ends.push(End { peer, handles });
        }
        let mut ends = ends.into_iter();
        let sender = ends.next().ok_or_else(|| ConnectError::Own("a group of nobody".to_owned()))?;
        Ok(Self { number, sender, receivers: ends.collect() })
    }

    /// The sender's messages: every receiver in turn, in every topic, sizes drawn by the seed.
    pub(super) fn ring(&self, field: &Field, shape: &Shape) -> Result<Ring> {
        let (receivers, topics) = (self.receivers.len(), self.sender.handles.len());
        let mean = shape.sizes.iter().map(|size| size.0).sum::<usize>() / shape.sizes.len();
        let turn = receivers * topics;
        let messages = shape.batch.min(RING_BYTES / mean).max(turn).next_multiple_of(turn);
        let mut random = self.random(field);
        let slots: Vec<_> = (0..messages)
            .map(|index| {
                let (receiver, topic) = (index % receivers, index / receivers % topics);
                Slot {
                    to: Some(self.receivers[receiver].peer.conn),
                    handle: self.sender.handles[topic],
                    class: shape.class,
                    size: shape.sizes[random.random_range(0..shape.sizes.len())].0,
                    flow: receiver * topics + topic,
                }
            })
            .collect();
        Ring::new(0, &slots)
    }

    /// Messages back to the sender, of the same sizes; `place` is the receiver's, from 1.
    pub(super) fn answers(&self, field: &Field, shape: &Shape, place: usize) -> Result<Ring> {
        let mut random = self.random(field);
        let slots: Vec<_> = (0..shape.batch)
            .map(|_| Slot {
                to: Some(self.sender.peer.conn),
                handle: self.receivers[place - 1].handles[0],
                class: shape.class,
                size: shape.sizes[random.random_range(0..shape.sizes.len())].0,
                flow: 0,
            })
            .collect();
        Ring::new(u16::try_from(place)?, &slots)
    }

    fn random(&self, field: &Field) -> StdRng {
        StdRng::seed_from_u64(field.seed.wrapping_add(self.number as u64))
    }
}

/// Has `work` done by a group, and connects it anew whenever one of its connections ends. `work` gives why
/// the first of them ended.
pub(super) async fn keep(
    field: Rc<Field>,
    shape: Rc<Shape>,
    books: Rc<Books>,
    group: Group,
    work: impl AsyncFn(Group) -> Result<Ended>,
) {
    let number = group.number;
    let mut next = Some(group);
    while let Some(group) = next {
        let ended = match work(group).await {
            Ok(ended) => ended,
            Err(error) => return field.fail(format!("{error:#}")),
        };
        let lost = Instant::now();
        books.cut(&field.recorder);
        field.crew.disconnected(&ended);
        if field.is_over() {
            return;
        }
        next =
            field.come_back(lost, Some(&ended), async || Group::connect(&field, number, &shape).await).await;
    }
}

/// Where a pacer finds the sender of a group, while it is connected.
#[derive(Default)]
pub(super) struct Seat(RefCell<Option<Sitting>>);

struct Sitting {
    link: Link,
    ring: Ring,
    books: Rc<Books>,
}

impl Seat {
    /// Sends the next frame, which was due at this moment of the stage's clock.
    pub(super) fn send(&self, field: &Field, due: u64) {
        let mut sitting = self.0.borrow_mut();
        let posted = sitting.as_mut().is_some_and(|sitting| {
            let batch = sitting.ring.stamp(1, due);
            // The end of a connection is noticed by whoever reads from it.
            let posted = sitting.link.post(batch.bytes).unwrap_or(false);
            if posted {
                sitting.books.sent(&field.recorder, 1, batch.payload);
            }
            posted
        });
        if !posted {
            field.recorder.add(Count::Unsent, 1);
        }
    }
}

/// Reads for a group whose sender is paced, until a connection ends.
pub(super) async fn attend(
    field: &Rc<Field>,
    shape: &Shape,
    books: &Rc<Books>,
    seat: &Rc<Seat>,
    times: &Rc<Times>,
    round_trip: bool,
    group: Group,
) -> Result<Ended> {
    let ring = group.ring(field, shape)?;
    let mut tasks = JoinSet::new();
    let mut answers = Vec::new();
    for place in 1..=group.receivers.len() {
        answers.push(if round_trip {
            Answer::Echo(group.answers(field, shape, place)?)
        } else {
            Answer::Nothing
        });
    }
    let link = group.sender.peer.link.clone();
    *seat.0.borrow_mut() = Some(Sitting { link, ring, books: books.clone() });
    // What comes back to the sender are echoes.
    let echoes = Rc::new(Times::all(Series::RoundTrip));
    let (to_field, to_books) = (field.clone(), books.clone());
    tasks.spawn_local(receive(to_field, to_books, group.sender, Answer::Nothing, echoes, Flows::Senders));
    for (end, answer) in group.receivers.into_iter().zip(answers) {
        tasks.spawn_local(receive(field.clone(), books.clone(), end, answer, times.clone(), Flows::Topics));
    }
    let ended = first(&mut tasks).await;
    *seat.0.borrow_mut() = None;
    Ok(ended)
}

/// Why the first of some tasks ended.
pub(super) async fn first(tasks: &mut JoinSet<Ended>) -> Ended {
    match tasks.join_next().await {
        Some(Ok(ended)) => ended,
        Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        _ => Ended::Cut("nobody was at work".to_owned()),
    }
}
