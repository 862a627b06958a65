//! What the ends of a group do with what they read.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use culvert_wire::{Class, ConnId, Handle, Header, Kind, Verdict};

use super::field::Field;
use super::group::End;
use crate::frames::{Arrival, Books, Ended, Event, Ring, STAMP_LEN, Stamp, Track, nanos, send_message};
use crate::measure::Series;

/// A receiver acknowledges this many data frames with one of its own.
pub(super) const ACKNOWLEDGED_AT_ONCE: usize = 16;
/// Payload bytes of an acknowledgement: how many have arrived, modulo 2^32. Shorter than any stamp.
const ACK_LEN: usize = 4;
/// Acknowledgements that are put together in advance.
const ACKS: usize = 64;
/// Of frames without a moment at which they are due, every so many are timed.
const TIMED: u64 = 16;
/// Time around a change of circumstances in which frames belong to neither side: the workers do not
/// change in the same instant.
const CHANGE: Duration = Duration::from_millis(100);

/// As which series the time of a frame is recorded.
pub(super) struct Times {
    before: Option<Series>,
    /// From when on, by the stage's clock, another series is meant.
    change: Cell<u64>,
    after: Option<Series>,
    /// Every how many frames one is timed.
    every: u64,
}

impl Times {
    /// All frames, as this series.
    pub(super) fn all(series: Series) -> Self {
        Self { before: Some(series), change: Cell::new(u64::MAX), after: None, every: 1 }
    }

    /// Some of them: of frames that are sent as fast as they can be.
    pub(super) fn some() -> Self {
        Self { every: TIMED, ..Self::all(Series::OneWay) }
    }

    /// None.
    pub(super) fn none() -> Self {
        Self { before: None, ..Self::some() }
    }

    /// All frames, as the first series and, after [`Times::change`], as the second.
    pub(super) fn of(before: Series, after: Series) -> Self {
        Self { after: Some(after), ..Self::all(before) }
    }

    /// Circumstances change at this moment of the stage's clock.
    pub(super) fn change(&self, at: u64) {
        self.change.set(at);
    }

    /// The series of a frame that was due at this moment.
    fn series(&self, at: u64) -> Option<Series> {
        let (change, guard) = (self.change.get(), nanos(CHANGE));
        if at.saturating_add(guard) < change {
            self.before
        } else if at >= change.saturating_add(guard) {
            self.after
        } else {
            None
        }
    }
}

/// What a receiver sends back.
pub(super) enum Answer {
    Nothing,
    /// One small frame for every sixteen.
    Acknowledge(Acks),
    /// Every frame.
    Echo(Ring),
}

/// Acknowledgements, put together in advance and numbered in place.
pub(super) struct Acks {
    bytes: Vec<u8>,
    message: usize,
    arrived: u32,
}

impl Acks {
    pub(super) fn new(class: Class, handle: Handle, to: ConnId) -> Result<Self> {
        let header = Header { kind: Kind::Send.number(), class, broadcast: false, handle, conn: to };
        let mut message = Vec::new();
        send_message(header, &[0; ACK_LEN], &mut message)?;
        Ok(Self { bytes: message.repeat(ACKS), message: message.len(), arrived: 0 })
    }

    /// So many messages, each for sixteen frames more; none is the last one again.
    fn next(&mut self, count: usize) -> &[u8] {
        for place in 0..count.max(1) {
            if count > 0 {
                #[expect(clippy::cast_possible_truncation, reason = "the constant is 16")]
                let more = ACKNOWLEDGED_AT_ONCE as u32;
                self.arrived = self.arrived.wrapping_add(more);
            }
            let end = (place + 1) * self.message;
            self.bytes[end - ACK_LEN..end].copy_from_slice(&self.arrived.to_be_bytes());
        }
        &self.bytes[..count.max(1) * self.message]
    }
}

/// How many frames an acknowledgement speaks of, if the payload is one.
fn acknowledged(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(u32::from_be_bytes)
}

/// Counts, times and answers what arrives, until the connection ends.
pub(super) async fn receive(
    field: Rc<Field>,
    books: Rc<Books>,
    mut end: End,
    mut answer: Answer,
    times: Rc<Times>,
    flows: Flows,
) -> Ended {
    let recorder = field.recorder.clone();
    let mut tracks = Tracks::new(&end.handles, flows);
    let mut unacknowledged = 0;
    loop {
        if flows == Flows::Topics {
            field.may_read().await;
        }
        if let Err(ended) = end.peer.fill().await {
            return ended;
        }
        let now = field.nanos();
        let (mut arrived, mut bytes) = (0, 0);
        let mut again = false;
        let stop = loop {
            match end.peer.inbox.event() {
                Ok(None) => break None,
                Ok(Some(Event::Deliver { handle, payload, .. })) => {
                    let Some(stamp) = Stamp::read(payload) else { continue };
                    let arrival = tracks.of(handle, stamp.sender).arrived(stamp.number);
                    if arrival != Arrival::InOrder && !books.odd(&recorder, arrival) {
                        continue;
                    }
                    arrived += 1;
                    bytes += payload.len() as u64;
                    if stamp.number.is_multiple_of(times.every)
                        && let Some(series) = times.series(stamp.at)
                    {
                        recorder.record(series, now.saturating_sub(stamp.at));
                    }
                    if let Answer::Echo(ring) = &mut answer {
                        let batch = ring.stamp(1, stamp.at);
                        if end.peer.link.post(batch.bytes).unwrap_or(false) {
                            books.sent(&recorder, 1, batch.payload);
                        }
                    }
                }
                Ok(Some(Event::Undeliverable { verdict, count, .. })) => match &answer {
                    // Nobody counts acknowledgements; but without the last one a sender could wait for ever.
                    Answer::Acknowledge(_) => again = verdict != Verdict::Gone,
                    _ => books.undelivered(&recorder, verdict, count),
                },
                Ok(Some(Event::Other(frame))) => field.note_frame(&frame),
                Err(ended) => break Some(ended),
            }
        };
        books.delivered(&recorder, arrived, bytes);
        if let Some(ended) = stop {
            return ended;
        }
        if let Answer::Acknowledge(acks) = &mut answer {
            unacknowledged += usize::try_from(arrived).unwrap_or_default();
            while unacknowledged >= ACKNOWLEDGED_AT_ONCE || again {
                let count = (unacknowledged / ACKNOWLEDGED_AT_ONCE).min(ACKS);
                if let Err(ended) = end.peer.link.write_all(acks.next(count)).await {
                    return ended;
                }
                unacknowledged -= count * ACKNOWLEDGED_AT_ONCE;
                again = false;
            }
        }
    }
}

/// Keeps a window of frames in flight until the connection ends; stops when the run is over.
pub(super) async fn send(
    field: Rc<Field>,
    books: Rc<Books>,
    mut end: End,
    mut ring: Ring,
    window: u64,
    receivers: Vec<ConnId>,
) -> Ended {
    let recorder = field.recorder.clone();
    // Of each receiver, what it has acknowledged.
    let mut known = vec![0_u32; receivers.len()];
    let (mut sent, mut gone) = (0_u64, 0_u64);
    loop {
        while !field.is_over() && sent.saturating_sub(gone) < window {
            let room = usize::try_from(window - sent.saturating_sub(gone)).unwrap_or(usize::MAX);
            let batch = ring.stamp(room, field.nanos());
            sent += batch.count as u64;
            books.sent(&recorder, batch.count as u64, batch.payload);
            if let Err(ended) = end.peer.link.write_all(batch.bytes).await {
                return ended;
            }
        }
        if let Err(ended) = end.peer.fill().await {
            return ended;
        }
        loop {
            match end.peer.inbox.event() {
                Ok(None) => break,
                Ok(Some(Event::Deliver { from, payload, .. })) => {
                    let place = receivers.iter().position(|receiver| *receiver == from);
                    if let (Some(arrived), Some(place)) = (acknowledged(payload), place) {
                        // An acknowledgement that was repeated says nothing new.
                        gone += u64::from(arrived.wrapping_sub(known[place]));
                        known[place] = arrived;
                    }
                }
                Ok(Some(Event::Undeliverable { verdict, count, .. })) => {
                    gone += count;
                    books.undelivered(&recorder, verdict, count);
                }
                Ok(Some(Event::Other(frame))) => field.note_frame(&frame),
                Err(ended) => return ended,
            }
        }
    }
}

/// Which frames that an end receives are numbered together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flows {
    /// One sender's in each topic.
    Topics,
    /// Each sender's in the only topic.
    Senders,
}

/// The numbers that an end has seen.
struct Tracks {
    tracks: Vec<Track>,
    /// The place of each handle.
    handles: Vec<usize>,
    flows: Flows,
}

impl Tracks {
    fn new(handles: &[Handle], flows: Flows) -> Self {
        let largest = handles.iter().map(|handle| usize::from(handle.0)).max().unwrap_or_default();
        let mut places = vec![0; largest + 1];
        for (place, handle) in handles.iter().enumerate() {
            places[usize::from(handle.0)] = place;
        }
        let tracks = (0..handles.len().max(1)).map(|_| Track::default()).collect();
        Self { tracks, handles: places, flows }
    }

    fn of(&mut self, handle: Handle, sender: u16) -> &mut Track {
        let place = match self.flows {
            Flows::Senders => usize::from(sender),
            Flows::Topics => self.handles.get(usize::from(handle.0)).copied().unwrap_or_default(),
        };
        if place >= self.tracks.len() {
            self.tracks.resize_with(place + 1, Track::default);
        }
        &mut self.tracks[place]
    }
}

const _: () = assert!(ACK_LEN < STAMP_LEN);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_around_a_change_are_not_timed_and_the_others_on_their_side() {
        let times = Times::of(Series::OneWay, Series::OneWayLoaded);
        let second = 1_000_000_000;
        assert_eq!(times.series(second), Some(Series::OneWay), "no change is known");
        times.change(2 * second);
        assert_eq!(times.series(second), Some(Series::OneWay));
        assert_eq!(times.series(2 * second - 1), None);
        assert_eq!(times.series(2 * second + 1), None);
        assert_eq!(times.series(3 * second), Some(Series::OneWayLoaded));
        assert_eq!(Times::none().series(second), None);
    }

    #[test]
    fn acknowledgements_add_up_and_the_last_one_can_be_repeated() {
        let mut acks = Acks::new(Class::Normal, Handle(1), ConnId(2)).unwrap();
        let numbers = |bytes: &[u8], message: usize| -> Vec<u32> {
            bytes.chunks(message).filter_map(|one| acknowledged(&one[message - ACK_LEN..])).collect()
        };
        let message = acks.message;
        assert_eq!(numbers(acks.next(3), message), [16, 32, 48]);
        assert_eq!(numbers(acks.next(0), message), [48]);
        assert_eq!(numbers(acks.next(1), message), [64]);
        assert_eq!(acknowledged(&[0; STAMP_LEN]), None);
    }
}
