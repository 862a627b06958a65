//! The samples of all workers, added up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;

use crate::measure::{Encoded, Sample, Series, Times};

/// Most points over time in a report, so that its size is bounded however long the run is: of longer runs
/// several seconds become one point.
const POINTS: u64 = 900;

/// A sample that comes by less than this too late belongs to the second that it was meant for.
const HALF: Duration = Duration::from_millis(500);

/// How many seconds become one point of a run of this length.
pub(super) fn seconds_per_point(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs().div_ceil(POINTS).max(1)).unwrap_or(u32::MAX)
}

/// Everything that was measured so far.
pub(super) struct Tally {
    workers: usize,
    per_point: u32,
    /// Seconds that not all workers have told of yet.
    open: BTreeMap<u32, Second>,
    points: BTreeMap<u32, Sample>,
    total: Sample,
    times: BTreeMap<Series, Times>,
    /// Seconds that somebody told of.
    told: BTreeSet<u32>,
    /// Workers and seconds before that of a sample which it tells of, too.
    covered: BTreeSet<(usize, u32)>,
}

struct Second {
    from: Vec<bool>,
    sample: Sample,
}

/// What all of it comes to.
pub(super) struct Sum {
    pub(super) total: Sample,
    pub(super) timeline: Vec<Sample>,
    /// Workers and seconds of which no sample tells.
    pub(super) gaps: Vec<(usize, u32)>,
    /// Workers and seconds of which only the sample of a later second tells, because it came late.
    pub(super) late: Vec<(usize, u32)>,
}

impl Tally {
    pub(super) fn new(workers: usize, per_point: u32) -> Self {
        Self {
            workers,
            per_point,
            open: BTreeMap::new(),
            points: BTreeMap::new(),
            total: Sample::default(),
            times: BTreeMap::new(),
            told: BTreeSet::new(),
            covered: BTreeSet::new(),
        }
    }

    /// Adds what a worker measured in a second; gives the sum of all workers when it was the last one.
    pub(super) fn second(&mut self, worker: usize, number: u32, sample: &Sample) -> Result<Option<Sample>> {
        self.rest(sample)?;
        let workers = self.workers;
        let second = self
            .open
            .entry(number)
            .or_insert_with(|| Second { from: vec![false; workers], sample: Sample::default() });
        second.sample.add(sample)?;
        second.sample.connections += sample.connections;
        second.sample.at = second.sample.at.max(sample.at);
        second.sample.span = second.sample.span.max(sample.span);
        second.from[worker] = true;
        self.told.insert(number);
        let since = (sample.at.saturating_sub(sample.span) + HALF).as_secs();
        let first = u32::try_from(since).unwrap_or(u32::MAX).saturating_add(1);
        self.covered.extend((first..number).map(|second| (worker, second)));
        if second.from.iter().all(|told| *told) {
            let whole = second.sample.clone();
            self.open.remove(&number);
            self.close(number, &whole)?;
            return Ok(Some(whole));
        }
        Ok(None)
    }

    /// Adds what a worker counted after the measuring to the total: what was on its way, and the accounts.
    pub(super) fn rest(&mut self, sample: &Sample) -> Result<()> {
        let counts = Sample { times: BTreeMap::new(), ..sample.clone() };
        self.total.add(&counts)?;
        for (series, encoded) in &sample.times {
            let times = encoded.decode()?;
            match self.times.get_mut(series) {
                None => drop(self.times.insert(*series, times)),
                Some(sum) => sum.add(times).map_err(|error| anyhow::anyhow!("{error:?}"))?,
            }
        }
        Ok(())
    }

    fn close(&mut self, number: u32, sample: &Sample) -> Result<()> {
        let point = self.points.entry(number.saturating_sub(1) / self.per_point).or_default();
        point.add(sample)?;
        point.at = point.at.max(sample.at);
        point.span += sample.span;
        point.connections = sample.connections;
        Ok(())
    }

    /// The end: seconds that not all workers told of count as far as they were told.
    pub(super) fn sum(mut self) -> Result<Sum> {
        let mut gaps = Vec::new();
        for (number, second) in std::mem::take(&mut self.open) {
            let silent = second.from.iter().enumerate().filter(|(_, told)| !**told);
            gaps.extend(silent.map(|(worker, _)| (worker, number)));
            self.close(number, &second.sample)?;
        }
        // Nobody may have told of a second either.
        let untold =
            (1..=self.told.last().copied().unwrap_or_default()).filter(|number| !self.told.contains(number));
        gaps.extend(untold.flat_map(|number| (0..self.workers).map(move |worker| (worker, number))));
        let (late, gaps) = gaps.into_iter().partition(|gap| self.covered.contains(gap));
        let mut total = self.total;
        let timeline: Vec<Sample> = self.points.into_values().collect();
        total.at = timeline.last().map_or(Duration::ZERO, |last| last.at);
        total.span = total.at;
        total.connections = timeline.last().map_or(0, |last| last.connections);
        total.times = self.times.iter().map(|(series, times)| (*series, Encoded::of(times))).collect();
        Ok(Sum { total, timeline, gaps, late })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Count, Recorder};

    const SECOND: Duration = Duration::from_secs(1);

    fn sample(number: u32, delivered: u64) -> Sample {
        let recorder = Recorder::default();
        recorder.add(Count::Delivered, delivered);
        recorder.record(Series::OneWay, delivered * 1000);
        recorder.set_connections(delivered);
        recorder.take(SECOND * number, SECOND)
    }

    #[test]
    fn a_second_is_there_when_all_workers_have_told_of_it() {
        let mut tally = Tally::new(2, 1);
        assert!(tally.second(0, 1, &sample(1, 5)).unwrap().is_none());
        assert!(tally.second(0, 2, &sample(2, 6)).unwrap().is_none());
        let first = tally.second(1, 1, &sample(1, 7)).unwrap().unwrap();
        assert_eq!((first.count(Count::Delivered), first.connections, first.at), (12, 12, SECOND));
        assert_eq!(first.times[&Series::OneWay].decode().unwrap().len(), 2);
        tally.second(1, 2, &sample(2, 8)).unwrap().unwrap();
        tally.rest(&sample(0, 100)).unwrap();
        let sum = tally.sum().unwrap();
        assert_eq!(sum.timeline.len(), 2);
        assert_eq!((sum.total.count(Count::Delivered), sum.total.span), (126, 2 * SECOND));
        assert_eq!(sum.total.times[&Series::OneWay].decode().unwrap().len(), 5);
        assert_eq!((sum.total.connections, sum.gaps), (14, vec![]));
    }

    #[test]
    fn seconds_without_a_sample_are_named() {
        let mut tally = Tally::new(2, 1);
        tally.second(0, 1, &sample(1, 5)).unwrap();
        tally.second(1, 1, &sample(1, 5)).unwrap();
        tally.second(0, 2, &sample(2, 5)).unwrap();
        tally.second(0, 4, &sample(4, 5)).unwrap();
        tally.second(1, 4, &sample(4, 5)).unwrap();
        let sum = tally.sum().unwrap();
        assert_eq!(sum.gaps, [(1, 2), (0, 3), (1, 3)]);
        assert_eq!(sum.total.count(Count::Delivered), 25, "what was told counts");
    }

    #[test]
    fn a_late_sample_tells_of_the_seconds_before_it() {
        let mut tally = Tally::new(1, 1);
        tally.second(0, 1, &sample(1, 5)).unwrap();
        let late = Sample { at: 3 * SECOND + SECOND / 5, span: 2 * SECOND + SECOND / 5, ..sample(3, 10) };
        tally.second(0, 3, &late).unwrap();
        tally.second(0, 5, &sample(5, 5)).unwrap();
        let sum = tally.sum().unwrap();
        assert_eq!((sum.late, sum.gaps), (vec![(0, 2)], vec![(0, 4)]), "the fourth is really missing");
    }

    #[test]
    fn long_runs_have_fewer_points_and_lose_nothing() {
        assert_eq!(seconds_per_point(Duration::from_secs(10)), 1);
        assert_eq!(seconds_per_point(Duration::from_secs(4 * 3600)), 16);
        let mut tally = Tally::new(1, 4);
        for number in 1..=10 {
            tally.second(0, number, &sample(number, u64::from(number))).unwrap();
        }
        let sum = tally.sum().unwrap();
        let spans: Vec<_> =
            sum.timeline.iter().map(|point| (point.at, point.span, point.connections)).collect();
        assert_eq!(
            spans,
            [(4 * SECOND, 4 * SECOND, 4), (8 * SECOND, 4 * SECOND, 8), (10 * SECOND, 2 * SECOND, 10)]
        );
        assert_eq!(sum.total.count(Count::Delivered), 55);
        assert_eq!(sum.gaps, vec![]);
    }
}
