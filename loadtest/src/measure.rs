//! What a worker measures: counts, and times as HDR histograms.
//!
//! A [`Recorder`] belongs to one thread and costs a few nanoseconds a call. Once a second it is emptied into
//! a [`Sample`], which travels to the coordinator; samples add up. Nothing is averaged on the
//! way: percentiles are those of all values of all workers.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use culvert_wire::{Close, Verdict};
use data_encoding::BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

/// Longest time that is told apart from longer ones.
const LONGEST: Duration = Duration::from_secs(3600);
/// Significant decimal digits of a recorded time.
const DIGITS: u8 = 3;

macro_rules! names {
    ($(#[$outer:meta])* $enum:ident { $($(#[doc = $help:literal])+ $variant:ident = $name:literal),+ $(,)? }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $enum { $($(#[doc = $help])+ #[serde(rename = $name)] $variant),+ }

        impl $enum {
            /// All of them, in the order in which reports show them.
            pub const ALL: &'static [$enum] = &[$($enum::$variant),+];

            /// Its name in reports, thresholds and JSON.
            pub const fn name(self) -> &'static str {
                match self { $($enum::$variant => $name),+ }
            }

            /// What it means, as `loadtest/README.md` says it.
            pub const fn help(self) -> &'static str {
                match self { $($enum::$variant => concat!($($help),+)),+ }
            }
        }
    };
}

names! {
    /// Something that is counted.
    Count {
        /// Data frames or messages handed to a socket or a session.
        Sent = "sent",
        /// Their payload bytes.
        SentBytes = "sent_bytes",
        /// Data frames or messages that arrived.
        Delivered = "delivered",
        /// Their payload bytes.
        DeliveredBytes = "delivered_bytes",
        /// Frames that did not arrive and that nobody reported: the ledger does not balance.
        Missing = "missing",
        /// Frames or messages that were on their way when one of their connections ended.
        Cut = "cut",
        /// Frames or messages that arrived more than once.
        Duplicated = "duplicated",
        /// Frames or messages that arrived before one that was sent earlier.
        Reordered = "reordered",
        /// Frames of which a receiver was told that some were lost.
        Gaps = "gaps",
        /// Messages that the error of a session named as not acknowledged.
        Unacknowledged = "unacknowledged",
        /// Frames that the load sent more than a millisecond after they were due.
        Late = "late",
        /// Frames that were due and never sent, because their connection took no more.
        Unsent = "unsent",
        /// Connections from dial to welcome.
        Connected = "connected",
        /// Attempts to connect that failed.
        ConnectFailures = "connect_failures",
        /// Connections that the load did not end itself.
        Disconnected = "disconnected",
        /// Topics joined.
        Joined = "joined",
        /// Joins that were refused.
        JoinsRefused = "joins_refused",
        /// Topics left.
        Left = "left",
        /// Notices that a member came.
        PeersJoined = "peers_joined",
        /// Notices that a member left.
        PeersLeft = "peers_left",
        /// Files that arrived whole.
        Files = "files",
    }
}

names! {
    /// Something whose duration is recorded.
    Series {
        /// From the moment at which a frame or message was due to its arrival.
        OneWay = "one_way",
        /// The same for interactive pairs while others send as fast as they can.
        OneWayLoaded = "one_way_loaded",
        /// The same for pairs beside readers that have stopped.
        OneWayBeside = "one_way_beside",
        /// From the moment at which it was due to the arrival of the answer.
        RoundTrip = "round_trip",
        /// From dial to welcome: TCP, TLS, upgrade, hello.
        Connect = "connect",
        /// From dial after a disconnection until connected and joined again.
        Reconnect = "reconnect",
        /// From a join to its answer.
        Join = "join",
        /// From a join until another member was told.
        MemberNotice = "member_notice",
        /// From a departure until another member was told.
        LeaveNotice = "leave_notice",
        /// Between two messages of a session, beyond their interval, if it was more than 100 ms.
        Pause = "pause",
        /// From the offer of a file until it had arrived whole.
        Transfer = "transfer",
    }
}

/// Times in nanoseconds, to three digits.
pub type Times = Histogram<u64>;

/// An empty histogram.
pub fn times() -> Times {
    let longest = u64::try_from(LONGEST.as_nanos()).unwrap_or(u64::MAX);
    Times::new_with_max(longest, DIGITS).unwrap_or_else(|_| unreachable!("the bounds are constants"))
}

/// What one worker measures; for one thread.
pub struct Recorder {
    counts: Vec<Cell<u64>>,
    undelivered: Vec<Cell<u64>>,
    closed: Vec<Cell<u64>>,
    times: RefCell<BTreeMap<Series, Times>>,
    connections: Cell<u64>,
}

impl Default for Recorder {
    fn default() -> Self {
        let cells = |len| std::iter::repeat_with(Cell::default).take(len).collect();
        Self {
            counts: cells(Count::ALL.len()),
            undelivered: cells(Verdict::ALL.len()),
            closed: cells(Close::ALL.len()),
            times: RefCell::default(),
            connections: Cell::default(),
        }
    }
}

impl Recorder {
    /// Counts so many.
    pub fn add(&self, count: Count, number: u64) {
        let cell = &self.counts[count as usize];
        cell.set(cell.get() + number);
    }

    /// Counts frames that a relay reported as undelivered.
    pub fn undelivered(&self, verdict: Verdict, number: u64) {
        if let Some(at) = Verdict::ALL.iter().position(|known| *known == verdict) {
            self.undelivered[at].set(self.undelivered[at].get() + number);
        }
    }

    /// Counts a connection that a relay ended.
    pub fn closed(&self, close: Close) {
        if let Some(at) = Close::ALL.iter().position(|known| *known == close) {
            self.closed[at].set(self.closed[at].get() + 1);
        }
    }

    /// Records a duration in nanoseconds; longer ones than an hour count as an hour.
    pub fn record(&self, series: Series, nanoseconds: u64) {
        self.times.borrow_mut().entry(series).or_insert_with(times).saturating_record(nanoseconds);
    }

    /// Says how many connections are open.
    pub fn set_connections(&self, number: u64) {
        self.connections.set(number);
    }

    /// Connections that are open.
    pub fn connections(&self) -> u64 {
        self.connections.get()
    }

    /// What was counted since the last sample.
    pub fn count(&self, count: Count) -> u64 {
        self.counts[count as usize].get()
    }

    /// Empties it into a sample of so long a time, `at` after the beginning of what is measured.
    pub fn take(&self, at: Duration, span: Duration) -> Sample {
        let take = |cells: &[Cell<u64>], name: &dyn Fn(usize) -> &'static str| {
            let taken = cells.iter().enumerate().map(|(at, cell)| (name(at).to_owned(), cell.take()));
            taken.filter(|(_, number)| *number > 0).collect()
        };
        let counts = Count::ALL.iter().zip(&self.counts).map(|(count, cell)| (*count, cell.take()));
        Sample {
            at,
            span,
            connections: self.connections.get(),
            counts: counts.filter(|(_, number)| *number > 0).collect(),
            undelivered: take(&self.undelivered, &|at| Verdict::ALL[at].name()),
            closed: take(&self.closed, &|at| Close::ALL[at].name()),
            times: self
                .times
                .take()
                .into_iter()
                .map(|(series, times)| (series, Encoded::of(&times)))
                .collect(),
        }
    }
}

/// What a worker, or all of them together, measured in a span of time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The end of the span, from the beginning of what is measured.
    pub at: Duration,
    /// Its length.
    pub span: Duration,
    /// Connections open at its end.
    pub connections: u64,
    /// Counts that are not zero.
    pub counts: BTreeMap<Count, u64>,
    /// Frames reported as undelivered, by [`Verdict::name`].
    pub undelivered: BTreeMap<String, u64>,
    /// Connections ended by a relay, by [`Close::name`].
    pub closed: BTreeMap<String, u64>,
    /// Durations.
    pub times: BTreeMap<Series, Encoded>,
}

impl Sample {
    /// A count, zero if it is not there.
    pub fn count(&self, count: Count) -> u64 {
        self.counts.get(&count).copied().unwrap_or_default()
    }

    /// Adds another worker's sample of the same span, or the next sample of the same worker.
    ///
    /// Connections are added for another worker and replaced for a later span, by the caller.
    ///
    /// # Errors
    /// The other's histograms are damaged.
    pub fn add(&mut self, other: &Sample) -> Result<()> {
        for (count, number) in &other.counts {
            *self.counts.entry(*count).or_default() += number;
        }
        for (mine, others) in [(&mut self.undelivered, &other.undelivered), (&mut self.closed, &other.closed)]
        {
            for (name, number) in others {
                *mine.entry(name.clone()).or_default() += number;
            }
        }
        for (series, encoded) in &other.times {
            match self.times.get_mut(series) {
                None => drop(self.times.insert(*series, encoded.clone())),
                Some(mine) => {
                    let mut sum = mine.decode()?;
                    sum.add(encoded.decode()?).map_err(|error| anyhow!("{error:?}"))?;
                    *mine = Encoded::of(&sum);
                }
            }
        }
        Ok(())
    }
}

/// A histogram in the V2 format of HdrHistogram, compressed, in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Encoded(pub String);

impl Encoded {
    /// Encodes one.
    pub fn of(times: &Times) -> Self {
        let mut bytes = Vec::new();
        // Writing to a vector cannot fail.
        let _written = V2DeflateSerializer::new().serialize(times, &mut bytes);
        Self(BASE64.encode(&bytes))
    }

    /// Decodes it.
    ///
    /// # Errors
    /// It is damaged.
    pub fn decode(&self) -> Result<Times> {
        let bytes = BASE64.decode(self.0.as_bytes()).context("a histogram is not base64")?;
        let times = Deserializer::new().deserialize(&mut bytes.as_slice());
        times.map_err(|error| anyhow!("a histogram is damaged: {error:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_two_workers_add_up_to_the_percentiles_of_all_values() {
        let (a, b) = (Recorder::default(), Recorder::default());
        for value in 1..=100 {
            a.record(Series::OneWay, value * 1000);
            b.record(Series::OneWay, (value + 100) * 1000);
        }
        a.add(Count::Sent, 3);
        b.add(Count::Sent, 4);
        b.undelivered(Verdict::Full, 2);
        b.closed(Close::Slow);
        let span = Duration::from_secs(1);
        let mut sum = a.take(span, span);
        sum.add(&b.take(span, span)).unwrap();
        assert_eq!(sum.count(Count::Sent), 7);
        assert_eq!(sum.undelivered["full"], 2);
        assert_eq!(sum.closed["slow"], 1);
        let times = sum.times[&Series::OneWay].decode().unwrap();
        assert_eq!(times.len(), 200);
        assert!((99_000..=101_000).contains(&times.value_at_quantile(0.5)));
        assert_eq!(a.take(span, span).counts, BTreeMap::new(), "a sample empties its recorder");
    }

    #[test]
    fn a_sample_survives_json() {
        let recorder = Recorder::default();
        recorder.add(Count::Delivered, 5);
        recorder.record(Series::Connect, 1_234_567);
        let sample = recorder.take(Duration::from_secs(2), Duration::from_secs(1));
        let text = serde_json::to_string(&sample).unwrap();
        assert_eq!(serde_json::from_str::<Sample>(&text).unwrap(), sample);
    }
}
