//! The peer of a lane that receives.
//!
//! When it moves, the sender first learns of the next connection; the old one is read until everything that
//! was sent to it has arrived or was reported.

use std::rc::Rc;

use culvert_wire::{Close, Frame};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::wire::{BEAT, Wire};
use super::{Lane, Scene};
use crate::frames::{Ended, Event};
use crate::ledger::Arrival;
use crate::measure::{Count, Series};

/// Receives until the sender is done, on one connection after the other. One that a relay drains is read to
/// its end beside the next.
pub(super) async fn run(scene: Rc<Scene>, lane: Rc<Lane>, first: Wire) {
    let mut done = lane.done.subscribe();
    let (mut reading, mut next) = (JoinSet::new(), Some(first));
    while let Some(wire) = next.take() {
        lane.to.send_replace(Some(wire.conn()));
        let (leave, mut leaving) = watch::channel(false);
        let (scene_of, lane_of) = (scene.clone(), lane.clone());
        reading.spawn_local(async move { read(&scene_of, &lane_of, wire, &leave).await });
        tokio::select! {
            // An error says that the connection has ended.
            _ = leaving.wait_for(|leaving| *leaving) => {}
            () = scene.lives.end(scene.load.stay) => {}
            _ = done.wait_for(|done| *done) => break,
        }
        let again = Wire::again(&scene, 2 * lane.number + 1, lane.topic);
        next = tokio::select! {
            wire = again => wire,
            _ = done.wait_for(|done| *done) => break,
        };
    }
    // Frames for connections that are still read may come until the sender is done.
    drop(done.wait_for(|done| *done).await);
}

/// Reads a connection to its end; says when another one is needed.
async fn read(scene: &Scene, lane: &Lane, mut wire: Wire, leave: &watch::Sender<bool>) {
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let ended = loop {
        let step = tokio::select! {
            filled = wire.fill() => filled.and_then(|()| take(scene, lane, &mut wire, leave)),
            _ = beat.tick() => {
                let conn = wire.conn();
                // The sender writes to the next one, and all that it wrote to this one is settled.
                if lane.to.borrow().is_some_and(|to| to != conn) && lane.flows.borrow().are_settled_to(conn) {
                    return;
                }
                wire.beat(0)
            }
        };
        if let Err(ended) = step {
            break ended;
        }
    };
    lane.to.send_if_modified(|to| {
        let is_here = *to == Some(wire.conn());
        if is_here {
            *to = None;
        }
        is_here
    });
    // A relay that closes at the end of its drain has written, or reported, all that it had.
    if ended.close() != Some(Close::Drained) {
        lane.flows.borrow_mut().ended(wire.conn(), wire.last_sign(scene));
    }
    scene.crew.disconnected(&ended);
}

fn take(scene: &Scene, lane: &Lane, wire: &mut Wire, leave: &watch::Sender<bool>) -> Result<(), Ended> {
    let (to, recorder) = (wire.conn(), &scene.recorder);
    while let Some(event) = wire.peer.inbox.event()? {
        match event {
            Event::Deliver { from, payload, .. } => {
                let word = |at: usize| {
                    let word = payload.get(at..at + 8).and_then(|word| word.try_into().ok());
                    word.map_or(u64::MAX, u64::from_be_bytes)
                };
                // A frame of another lane has a number that nobody has sent here.
                let number = if word(0) == lane.number as u64 { word(8) } else { u64::MAX };
                match lane.flows.borrow_mut().arrive((from, to), number) {
                    Arrival::InOrder => {
                        recorder.add(Count::Delivered, 1);
                        recorder.add(Count::DeliveredBytes, payload.len() as u64);
                        recorder.record(Series::OneWay, scene.nanos().saturating_sub(word(16)));
                    }
                    Arrival::Reordered => recorder.add(Count::Reordered, 1),
                    Arrival::Doubled => recorder.add(Count::Duplicated, 1),
                    Arrival::Foreign => {}
                }
            }
            Event::Other(Frame::Gap { count, .. }) => recorder.add(Count::Gaps, count.into()),
            Event::Other(Frame::Drain { .. }) => drop(leave.send_replace(true)),
            Event::Undeliverable { .. } | Event::Other(_) => {}
        }
    }
    Ok(())
}
