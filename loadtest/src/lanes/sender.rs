//! The peer of a lane that sends.

use std::time::Duration;

use culvert_wire::{Class, ConnId, Frame, Header, Kind};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use super::flows::Way;
use super::wire::{BEAT, Wire};
use super::{LAST, Lane, SMALLEST, Scene};
use crate::frames::{Ended, Event, nanos, send_message};
use crate::measure::Count;
use crate::sessions::{Due, Pace};
use crate::stage::Phase;

/// How often it is asked whether all has settled.
const POLL: Duration = Duration::from_millis(20);
/// The ping that follows the last frame of a connection.
const FINAL: u64 = u64::MAX;

/// Why a sender stops using a connection.
enum Leaving {
    /// The relay is going away, or this peer has stayed long enough.
    Moving,
    /// The run is over.
    Over,
    /// It ended.
    Ended(Ended),
}

/// Sends until the end, on one connection after the other, and closes the lane's accounts.
pub(super) async fn run(scene: &Scene, lane: &Lane, first: Wire, spread: f64) {
    let mut due = Due::new(Pace::Rate(scene.load.rate).interval(), spread);
    let mut next = Some(first);
    while let Some(mut wire) = next.take() {
        let settled = match send(scene, lane, &mut wire, &mut due).await {
            Leaving::Over => settle(scene, lane, &mut wire, Flowing::All).await,
            Leaving::Moving => settle(scene, lane, &mut wire, Flowing::Own).await,
            Leaving::Ended(ended) => Err(ended),
        };
        if let Err(ended) = settled {
            lane.flows.borrow_mut().ended(wire.conn(), wire.last_sign(scene));
            scene.crew.disconnected(&ended);
        }
        drop(wire);
        next = Wire::again(scene, 2 * lane.number, lane.topic).await;
        due.skip();
    }
    scene.reached(Phase::Over).await;
    lane.done.send_replace(true);
    lane.close(scene);
}

/// Sends what is due until this connection is of no more use.
async fn send(scene: &Scene, lane: &Lane, wire: &mut Wire, due: &mut Due) -> Leaving {
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut over = std::pin::pin!(scene.reached(Phase::Over));
    let mut stay = std::pin::pin!(scene.lives.end(scene.load.stay));
    loop {
        let step = tokio::select! {
            () = &mut over => return Leaving::Over,
            () = &mut stay => return Leaving::Moving,
            read = wire.fill() => match read {
                Ok(()) => match take(scene, lane, wire) {
                    Ok(Some(Told::Drain)) => return Leaving::Moving,
                    taken => taken.map(drop),
                },
                Err(ended) => Err(ended),
            },
            at = due.next() => {
                let at = nanos(at.saturating_duration_since(scene.epoch));
                let to = *lane.to.borrow();
                to.map_or(Ok(()), |to| one(scene, lane, wire, to, at))
            }
            _ = beat.tick() => wire.beat(0),
        };
        if let Err(ended) = step {
            return Leaving::Ended(ended);
        }
    }
}

/// Sends one frame.
fn one(scene: &Scene, lane: &Lane, wire: &Wire, to: ConnId, at: u64) -> Result<(), Ended> {
    let way: Way = (wire.conn(), to);
    let size = scene.load.size;
    let mut payload = vec![0; size.max(SMALLEST)];
    let number = lane.flows.borrow_mut().send(way, scene.nanos());
    payload[..8].copy_from_slice(&(lane.number as u64).to_be_bytes());
    payload[8..16].copy_from_slice(&number.to_be_bytes());
    payload[16..24].copy_from_slice(&at.to_be_bytes());
    let header = Header { class: Class::Normal, handle: wire.handle, conn: to, ..Header::plain(Kind::Send) };
    let mut message = Vec::with_capacity(size + crate::frames::OVERHEAD);
    send_message(header, &payload, &mut message).map_err(|error| Ended::Nonsense(error.to_string()))?;
    if wire.peer.link.post(&message)? {
        scene.recorder.add(Count::Sent, 1);
        scene.recorder.add(Count::SentBytes, size as u64);
    } else {
        // It was not taken at all.
        lane.flows.borrow_mut().withdraw(way);
        scene.recorder.add(Count::Unsent, 1);
    }
    Ok(())
}

/// What a relay said that a sender acts upon.
enum Told {
    Drain,
    Final,
}

/// Takes everything that was read.
fn take(scene: &Scene, lane: &Lane, wire: &mut Wire) -> Result<Option<Told>, Ended> {
    let (from, mut told) = (wire.conn(), None);
    while let Some(event) = wire.peer.inbox.event()? {
        match event {
            Event::Undeliverable { to, verdict, count } => {
                lane.flows.borrow_mut().report((from, to), verdict, count);
                scene.recorder.undelivered(verdict, count);
            }
            Event::Other(Frame::Drain { .. }) => told = Some(Told::Drain),
            Event::Other(Frame::Pong { token: FINAL, .. }) => told = Some(Told::Final),
            Event::Deliver { .. } | Event::Other(_) => {}
        }
    }
    Ok(told)
}

/// Whose frames are waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flowing {
    /// Those of this connection.
    Own,
    /// Those of the lane.
    All,
}

/// Waits until the relay has read everything, and until it has arrived or was reported.
async fn settle(scene: &Scene, lane: &Lane, wire: &mut Wire, whose: Flowing) -> Result<(), Ended> {
    let (mut read, end) = (false, Instant::now() + LAST);
    let (mut poll, mut beat) = (interval(POLL), interval_at(Instant::now() + BEAT, BEAT));
    wire.beat(FINAL)?;
    loop {
        tokio::select! {
            filled = wire.fill() => {
                filled?;
                read |= matches!(take(scene, lane, wire)?, Some(Told::Final));
            }
            _ = beat.tick() => wire.beat(FINAL)?,
            _ = poll.tick() => {
                let flows = lane.flows.borrow();
                let settled = match whose {
                    Flowing::Own => flows.are_settled_from(wire.conn()),
                    Flowing::All => flows.are_settled(),
                };
                // What has not come by the end is missing in the ledger.
                if (read && settled) || Instant::now() >= end {
                    return Ok(());
                }
            }
        }
    }
}
