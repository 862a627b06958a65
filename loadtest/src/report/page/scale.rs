//! Axes with ticks at numbers that people expect, each with its unit.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use crate::report::unit::Unit;

/// Ticks on an axis across, and up: as many as there is room for.
const ACROSS: f64 = 6.0;
const UP: f64 = 6.0;
/// Where the next tick would be this close, in steps, the axis reaches it.
const CLOSE: f64 = 0.35;

/// One axis.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    range: Range<f64>,
    logarithmic: bool,
    ticks: Vec<(f64, String)>,
}

impl Scale {
    /// Seconds since the beginning, from 0.
    pub(super) fn time(until: f64) -> Self {
        const STEPS: [f64; 17] = [
            0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0,
            14_400.0, 43_200.0,
        ];
        let until = until.max(0.5);
        let fitting = STEPS.into_iter().find(|step| until / step <= ACROSS);
        let step = fitting.unwrap_or_else(|| (until / ACROSS / 86_400.0).ceil() * 86_400.0);
        let label = |seconds: f64| match step {
            _ if seconds == 0.0 => "0".to_owned(),
            _ if step >= 3600.0 => format!("{} h", seconds / 3600.0),
            _ if step >= 60.0 => format!("{} min", seconds / 60.0),
            _ => format!("{seconds} s"),
        };
        Self { range: 0.0..until, logarithmic: false, ticks: multiples(step, until, label) }
    }

    /// From 0 to a little above the most.
    pub(super) fn linear(unit: Unit, most: f64) -> Self {
        // Memory is read in powers of two.
        let base = if unit == Unit::Bytes {
            1024_f64.powf((most.max(1.0).ln() / 1024_f64.ln()).floor())
        } else {
            1.0
        };
        let most = if most > 0.0 { most * 1.06 / base } else { 1.0 };
        let mut step = nice_step(most / UP);
        if unit == Unit::Count {
            step = step.max(1.0);
        }
        let next = (most / step).ceil() * step;
        let until = if next - most <= CLOSE * step { next } else { most };
        let label = |value: f64| tick(unit, value * base, step * base);
        let ticks = multiples(step, until, label).into_iter().map(|(at, text)| (at * base, text));
        Self { range: 0.0..until * base, logarithmic: false, ticks: ticks.collect() }
    }

    /// From a round number below the least to one above the most, each decade as high as the others.
    pub(super) fn logarithmic(unit: Unit, least: f64, most: f64) -> Self {
        let round_down = |value: f64| steps_around(value).rev().find(|step| *step <= value * 1.001);
        let round_up = |value: f64| steps_around(value).find(|step| *step >= value * 0.999);
        let from = round_down(least).unwrap_or(least);
        let until = round_up(most).unwrap_or(most).max(from * 2.0);
        let decades = (until / from).log10();
        let mut ticks = Vec::new();
        let mut decade = 10_f64.powf(from.log10().floor());
        while decade <= until {
            // One tick a decade where there are many, three where there are few.
            let within: &[f64] = if decades > 3.2 { &[1.0] } else { &[1.0, 2.0, 5.0] };
            ticks.extend(within.iter().map(|factor| decade * factor));
            decade *= 10.0;
        }
        let inside = from * 0.999..until * 1.001;
        let labelled = ticks.into_iter().filter(|tick| inside.contains(tick));
        Self {
            range: from..until,
            logarithmic: true,
            ticks: labelled.map(|value| (value, tick(unit, value, value))).collect(),
        }
    }

    /// Shares of values, the last of them far apart: a tenth of those beyond one tick lie beyond the next.
    pub(super) fn nines(values: u64) -> Self {
        let until = (values.max(10) as f64).min(1e7);
        let mut ticks = vec![(2.0, "50 %".to_owned())];
        for (nines, name) in (1..).zip(["90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %"]) {
            ticks.push((10_f64.powi(nines), name.to_owned()));
        }
        ticks.retain(|(at, _)| *at <= until);
        Self { range: 1.0..until, logarithmic: true, ticks }
    }

    pub(super) fn label(&self, value: f64) -> String {
        let near = |at: f64| (at - value).abs() <= value.abs() * 1e-9;
        self.ticks.iter().find(|(at, _)| near(*at)).map(|(_, text)| text.clone()).unwrap_or_default()
    }

    pub(super) fn is_logarithmic(&self) -> bool {
        self.logarithmic
    }

    /// Characters of the longest label.
    pub(super) fn widest(&self) -> usize {
        self.ticks.iter().map(|(_, text)| text.chars().count()).max().unwrap_or_default()
    }
}

/// A tick's label: no more digits than its step needs.
fn tick(unit: Unit, value: f64, step: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if unit == Unit::Share || unit == Unit::Cores {
        let places = if step >= 0.01 { 0 } else { 1 };
        return format!("{:.places$} %", value * 100.0);
    }
    unit.brief(value)
}

/// 1, 2 or 5 times a power of ten, at least this.
fn nice_step(least: f64) -> f64 {
    steps_around(least).find(|step| *step >= least * 0.999_999).unwrap_or(least)
}

/// Nice steps from a decade below to a decade above.
fn steps_around(value: f64) -> impl DoubleEndedIterator<Item = f64> {
    let decade = 10_f64.powf(value.max(1e-12).log10().floor());
    [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0].into_iter().map(move |factor| decade * factor)
}

fn multiples(step: f64, until: f64, label: impl Fn(f64) -> String) -> Vec<(f64, String)> {
    let values = (0..100).map(|number| f64::from(number) * step);
    values.take_while(|value| *value <= until * 1.000_001).map(|value| (value, label(value))).collect()
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    // Pixels are whole numbers, and far fewer than fit.
    #[allow(clippy::cast_possible_truncation)]
    fn map(&self, value: &f64, (first, last): (i32, i32)) -> i32 {
        let linear = |value: f64| if self.logarithmic { value.max(1e-12).ln() } else { value };
        let (from, to) = (linear(self.range.start), linear(self.range.end));
        let part = ((linear(*value) - from) / (to - from)).clamp(0.0, 1.0);
        first + (part * f64::from(last - first)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Scale {
    fn format_ext(&self, value: &f64) -> String {
        self.label(*value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(scale: &Scale) -> Vec<String> {
        scale.ticks.iter().map(|(_, text)| text.clone()).collect()
    }

    #[test]
    fn ticks_are_numbers_that_people_expect() {
        assert_eq!(labels(&Scale::time(30.0)), ["0", "5 s", "10 s", "15 s", "20 s", "25 s", "30 s"]);
        assert_eq!(labels(&Scale::time(600.0)), ["0", "2 min", "4 min", "6 min", "8 min", "10 min"]);
        assert_eq!(
            labels(&Scale::linear(Unit::PerSecond, 960_000.0)),
            ["0", "200 k/s", "400 k/s", "600 k/s", "800 k/s", "1 M/s"]
        );
        assert_eq!(
            labels(&Scale::linear(Unit::Bytes, 3.0 * 1024.0 * 1024.0)),
            ["0", "1 MiB", "2 MiB", "3 MiB"]
        );
        assert_eq!(labels(&Scale::linear(Unit::Cores, 0.9)), ["0", "20 %", "40 %", "60 %", "80 %", "100 %"]);
        assert_eq!(labels(&Scale::linear(Unit::Count, 0.0)), ["0", "1"]);
        assert_eq!(
            labels(&Scale::logarithmic(Unit::Seconds, 0.00012, 0.0031)),
            ["100 µs", "200 µs", "500 µs", "1 ms", "2 ms", "5 ms"]
        );
        assert_eq!(labels(&Scale::nines(2000)), ["50 %", "90 %", "99 %", "99.9 %"]);
    }

    proptest! {
        #[test]
        fn every_axis_has_room_for_its_values_and_a_few_ticks(most in 1e-9..1e12_f64, factor in 0.0001..1.0_f64) {
            for unit in [Unit::Seconds, Unit::Bytes, Unit::Count, Unit::PerSecond, Unit::Cores] {
                let scale = Scale::linear(unit, most);
                prop_assert!(scale.range.end >= most, "{unit:?}");
                prop_assert!((2..=9).contains(&scale.ticks.len()), "{unit:?} {:?}", scale.ticks);
            }
            let scale = Scale::logarithmic(Unit::Seconds, most * factor, most);
            prop_assert!(scale.range.start <= most * factor * 1.01 && scale.range.end >= most * 0.99);
            prop_assert!((1..=12).contains(&scale.ticks.len()), "{:?}", scale.ticks);
            let time = Scale::time(most);
            prop_assert!((1..=9).contains(&time.ticks.len()), "{:?}", time.ticks);
        }

        #[test]
        fn positions_stay_within_the_plot(value in -1e9..1e9_f64, most in 1e-6..1e6_f64) {
            for scale in [Scale::linear(Unit::Seconds, most), Scale::logarithmic(Unit::Seconds, most / 7.0, most)] {
                prop_assert!((10..=300).contains(&scale.map(&value, (300, 10))));
            }
        }
    }
}
