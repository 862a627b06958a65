//! The timeline in few enough spans to be drawn and read.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::measure::{Count, Sample, Series, Times};
use crate::report::Report;
use crate::report::figures::{PERCENTILES, percentile};
use crate::report::usage::{Part, part};

/// What was measured in one span.
#[derive(Debug)]
pub(super) struct Span {
    /// When.
    pub(super) part: Part,
    counts: BTreeMap<Count, u64>,
    /// Frames reported as undelivered, by reason.
    pub(super) undelivered: BTreeMap<String, u64>,
    /// Connections at its end.
    pub(super) connections: u64,
    /// Its times.
    pub(super) times: BTreeMap<Series, Summary>,
}

/// Times in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Summary {
    /// As in [`PERCENTILES`].
    pub(super) percentiles: [Option<f64>; PERCENTILES.len()],
    pub(super) longest: f64,
}

impl Span {
    fn of(samples: &[Sample]) -> Result<Option<Self>> {
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Ok(None) };
        let mut counts = BTreeMap::new();
        let mut undelivered = BTreeMap::new();
        let mut merged: BTreeMap<Series, Times> = BTreeMap::new();
        for sample in samples {
            for (count, number) in &sample.counts {
                *counts.entry(*count).or_default() += number;
            }
            for (reason, number) in &sample.undelivered {
                *undelivered.entry(reason.clone()).or_default() += number;
            }
            for (series, encoded) in &sample.times {
                let times = encoded.decode()?;
                match merged.get_mut(series) {
                    None => drop(merged.insert(*series, times)),
                    Some(sum) => sum.add(times).map_err(|error| anyhow!("{error:?}"))?,
                }
            }
        }
        let filled = merged.into_iter().filter(|(_, times)| !times.is_empty());
        let times = filled.map(|(series, times)| {
            let percentiles = PERCENTILES.map(|(_, quantile, _)| percentile(&times, quantile));
            (series, Summary { percentiles, longest: times.max() as f64 / 1e9 })
        });
        Ok(Some(Self {
            part: Part { from: part(first).from, to: last.at },
            counts,
            undelivered,
            connections: last.connections,
            times: times.collect(),
        }))
    }

    /// How many of something, a second.
    pub(super) fn rate(&self, count: Count) -> f64 {
        self.count(count) as f64 / self.part.length().as_secs_f64()
    }

    /// How many frames were reported as undelivered for that reason, a second.
    pub(super) fn undelivered_rate(&self, reason: &str) -> f64 {
        let number = self.undelivered.get(reason).copied().unwrap_or_default();
        number as f64 / self.part.length().as_secs_f64()
    }

    /// How many of something.
    pub(super) fn count(&self, count: Count) -> u64 {
        self.counts.get(&count).copied().unwrap_or_default()
    }

    /// The moment that stands for it, in seconds.
    pub(super) fn middle(&self) -> f64 {
        (self.part.from + self.part.length() / 2).as_secs_f64()
    }
}

/// The timeline in at most `most` spans of equally many samples.
pub(super) fn spans(report: &Report, most: usize) -> Result<Vec<Span>> {
    let samples = worth_drawing(&report.timeline);
    let size = samples.len().div_ceil(most.max(1)).max(1);
    samples.chunks(size).filter_map(|chunk| Span::of(chunk).transpose()).collect()
}

/// All samples but one at the end that is of a moment only: its rates would mean nothing.
fn worth_drawing(samples: &[Sample]) -> &[Sample] {
    match samples {
        [rest @ .., last] if !rest.is_empty() && last.span < Duration::from_millis(500) => rest,
        _ => samples,
    }
}

/// Parts of equally many samples, at most `most`, for estimates of how much figures vary; what is left over
/// at the end is in none.
pub(super) fn blocks(report: &Report, most: usize) -> Vec<Part> {
    let samples = worth_drawing(&report.timeline);
    let size = samples.len().div_ceil(most.max(1)).max(1);
    let part = |block: &[Sample]| Some(Part { from: part(block.first()?).from, to: block.last()?.at });
    samples.chunks_exact(size).filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn spans_hold_everything_that_the_timeline_holds() {
        let report = example::chaos();
        for most in [1, 7, 50, 500] {
            let spans = spans(&report, most).unwrap();
            assert!(spans.len() <= most);
            let delivered = spans.iter().map(|span| span.count(Count::Delivered)).sum::<u64>();
            assert_eq!(delivered, report.total.count(Count::Delivered));
            let undelivered = spans.iter().flat_map(|span| span.undelivered.values()).sum::<u64>();
            assert_eq!(undelivered, report.total.undelivered.values().sum::<u64>());
            assert_eq!(spans.last().unwrap().part.to, report.run.measured);
            for pair in spans.windows(2) {
                assert_eq!(pair[0].part.to, pair[1].part.from);
            }
        }
    }

    #[test]
    fn the_percentiles_of_a_span_are_those_of_all_its_values() {
        let report = example::steady();
        let spans = spans(&report, 1).unwrap();
        let Summary { percentiles, longest } = spans[0].times[&Series::OneWay];
        let whole = report.total.times[&Series::OneWay].decode().unwrap();
        assert_eq!(percentiles[2], percentile(&whole, 0.99));
        assert_eq!(longest, whole.max() as f64 / 1e9);
    }

    #[test]
    fn a_last_sample_of_a_moment_is_not_drawn() {
        let mut report = example::steady();
        let mut last = report.timeline[0].clone();
        (last.at, last.span) = (Duration::from_millis(30_020), Duration::from_millis(20));
        report.timeline.push(last);
        assert_eq!(spans(&report, 100).unwrap().len(), 30);
    }

    #[test]
    fn blocks_are_equally_long_and_do_not_overlap() {
        let report = example::steady();
        for (most, number, length) in [(10, 10, 3), (8, 7, 4), (100, 30, 1)] {
            let blocks = blocks(&report, most);
            assert_eq!(blocks.len(), number);
            assert!(blocks.iter().all(|block| block.length() == Duration::from_secs(length)));
            assert!(blocks.windows(2).all(|pair| pair[0].to == pair[1].from));
        }
    }
}
