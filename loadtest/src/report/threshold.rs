//! Bounds that a run must keep, as people write them: `p99>5ms` fails a run whose 99th percentile is above.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, anyhow, bail};

use crate::report::Figures;
use crate::report::figures::{PERCENTILES, SHORT_FOR, figure, known};
use crate::report::unit::Unit;

/// `METRIC OP VALUE`: the run fails if this is so.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    /// As it was written.
    written: String,
    metric: String,
    unit: Unit,
    above: bool,
    inclusive: bool,
    value: f64,
}

impl FromStr for Threshold {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let form = "write METRIC, then one of > >= < <=, then a value, as in p99>5ms or 'undelivered > 0'";
        let Some(at) = text.find(['<', '>']) else { bail!("{text:?} compares nothing: {form}") };
        let (metric, rest) = (text[..at].trim(), &text[at + 1..]);
        let (inclusive, value) = match rest.strip_prefix('=') {
            Some(value) => (true, value),
            None => (false, rest),
        };
        if metric.is_empty() || value.trim().is_empty() {
            bail!("{text:?} is not whole: {form}");
        }
        let unit = unit_of(metric).with_context(|| unknown(metric))?;
        Ok(Self {
            written: text.trim().to_owned(),
            metric: metric.to_owned(),
            unit,
            above: text[at..].starts_with('>'),
            inclusive,
            value: unit.read(value)?,
        })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl Threshold {
    /// Why a run with these figures does not pass, or nothing if it does. A run that lacks the figure does not.
    pub fn check(&self, figures: &Figures) -> Option<String> {
        let found = names(&self.metric).into_iter().find_map(|name| Some((figures.get(&name)?, name)));
        let Some((&value, name)) = found else { return Some(self.absent(figures)) };
        let exceeded = match (self.above, self.inclusive) {
            (true, false) => value > self.value,
            (true, true) => value >= self.value,
            (false, false) => value < self.value,
            (false, true) => value <= self.value,
        };
        exceeded.then(|| format!("{name} is {}, and --fail-if says {}", self.unit.show(value), self.written))
    }

    fn absent(&self, figures: &Figures) -> String {
        let there: Vec<_> =
            figures.iter().filter(|(_, value)| **value != 0.0).map(|(name, _)| &**name).collect();
        format!(
            "{} was not measured in this run, so {} cannot be checked; there are: {}",
            self.metric,
            self.written,
            there.join(", ")
        )
    }
}

/// The figures that a metric may mean, the first that there is.
fn names(metric: &str) -> Vec<String> {
    if is_short(metric) {
        return SHORT_FOR.iter().map(|series| format!("{}.{metric}", series.name())).collect();
    }
    vec![metric.to_owned()]
}

fn is_short(metric: &str) -> bool {
    PERCENTILES.iter().any(|(suffix, ..)| *suffix == metric) || metric == "max" || metric == "mean"
}

fn unit_of(metric: &str) -> Option<Unit> {
    if is_short(metric) { Some(Unit::Seconds) } else { figure(metric).map(|figure| figure.unit) }
}

/// Says what was perhaps meant.
fn unknown(metric: &str) -> Error {
    let shorts = PERCENTILES.iter().map(|(suffix, ..)| *suffix);
    let names = shorts.chain(known().iter().map(|figure| &*figure.name));
    let scored = names.map(|name| (strsim::jaro_winkler(&metric.to_lowercase(), name), name));
    let nearest = scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.75);
    match nearest {
        Some((_, name)) => anyhow!("there is no figure {metric:?}; did you mean {name}?"),
        None => anyhow!(
            "there is no figure {metric:?}; there are frames_per_second, undelivered, p99 and those in \
             loadtest/README.md"
        ),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::{example, figures};

    fn check(threshold: &str, figures: &[(&str, f64)]) -> Option<String> {
        let figures = figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        threshold.parse::<Threshold>().unwrap().check(&figures)
    }

    #[test]
    fn a_run_fails_if_what_was_written_is_so() {
        let figures = [
            ("one_way.p99", 0.0062),
            ("undelivered", 0.0),
            ("memory_per_connection", 8192.0),
            ("cpu_per_frame.relay", 1.01e-6),
            ("frames_per_second", 480_000.0),
            ("resident_growth.relay", 0.02),
        ];
        for failing in [
            "p99>5ms",
            "one_way.p99 > 6199us",
            "undelivered>=0",
            "undelivered<1",
            "memory_per_connection>=8KiB",
            "cpu_per_frame.relay>1us",
            "frames_per_second<500k",
            "resident_growth.relay > 1%",
        ] {
            assert!(check(failing, &figures).is_some(), "{failing}");
        }
        for passing in [
            "p99>6.2ms",
            "undelivered>0",
            "memory_per_connection>8KiB",
            "cpu_per_frame.relay > 1.4us",
            "frames_per_second<=479999",
            "resident_growth.relay>5%",
        ] {
            assert_eq!(check(passing, &figures), None, "{passing}");
        }
        assert_eq!(check("p99>5ms", &figures).unwrap(), "one_way.p99 is 6.20 ms, and --fail-if says p99>5ms");
    }

    #[test]
    fn a_percentile_alone_is_of_round_trips_where_there_is_no_one_way_time() {
        let refusal = check("p50>1ms", &[("round_trip.p50", 0.004)]).unwrap();
        assert!(refusal.starts_with("round_trip.p50 is 4.00 ms"), "{refusal}");
    }

    #[test]
    fn a_figure_that_was_not_measured_fails_and_those_that_were_are_named() {
        let mut report = example::steady();
        report.total.times.clear();
        let threshold: Threshold = "one_way.p999>20ms".parse().unwrap();
        let refusal = threshold.check(&figures(&report)).unwrap();
        assert!(refusal.contains("one_way.p999 was not measured"), "{refusal}");
        assert!(refusal.contains("cpu_per_frame.relay, "), "{refusal}");
    }

    #[test]
    fn a_metric_that_there_is_not_is_refused_with_the_nearest() {
        for (written, meant) in [
            ("undeliverd>0", "did you mean undelivered?"),
            ("frame_per_second<1k", "did you mean frames_per_second?"),
            ("one_way.p9999>1ms", "did you mean one_way.p999?"),
            ("cpu_per_frame.rely>1us", "did you mean cpu_per_frame.relay?"),
            ("zzz>1", "frames_per_second, undelivered, p99"),
        ] {
            let refusal = written.parse::<Threshold>().unwrap_err().to_string();
            assert!(refusal.contains(meant), "{written}: {refusal}");
        }
    }

    #[test]
    fn what_is_no_threshold_is_refused_with_an_example() {
        for written in ["", "p99", "p99=5ms", ">5ms", "p99>", "p99>=", "p99>5 apples", "p99>>5ms", "p99>-1ms"]
        {
            let refusal = written.parse::<Threshold>().unwrap_err().to_string();
            assert!(refusal.contains("as in") || refusal.contains("such as"), "{written}: {refusal}");
        }
    }

    #[test]
    fn every_figure_of_a_run_can_have_a_threshold() {
        for (name, value) in figures(&example::chaos()) {
            let threshold = format!("{name} < {value}").parse::<Threshold>();
            if value >= 0.0 {
                let threshold = threshold.unwrap();
                assert_eq!(threshold.check(&[(name.clone(), value)].into()), None, "{name}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,30}") {
            let _read = text.parse::<Threshold>();
        }

        #[test]
        fn above_and_not_above_never_hold_together(value in 0.0..1e9_f64, bound in 0.0..1e9_f64) {
            let figures = [("undelivered", value)];
            let above = check(&format!("undelivered>{bound}"), &figures).is_some();
            let not_above = check(&format!("undelivered<={bound}"), &figures).is_some();
            prop_assert!(above != not_above);
        }
    }
}
