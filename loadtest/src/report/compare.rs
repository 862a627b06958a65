//! Two runs side by side: what got better, what got worse, and what is only noise.
//!
//! The noise of a figure is estimated from within each run. The timeline is cut into up to [`BLOCKS`] parts of
//! equal length, the figure is taken of each part alone, and the standard error of their mean says how far the
//! whole run's figure may be from what another run of the same kind would have had (parts of several seconds,
//! because neighbouring seconds resemble each other). Two such errors, added in squares and doubled, bound what
//! chance explains in about 19 of 20 comparisons. Nothing below [`FLOOR`] counts as a difference: machines
//! differ by that much from one hour to the next, which no run can see from within.

use std::fmt::Write;

use crate::report::figures::{Better, figures, figures_within, known};
use crate::report::spans::blocks;
use crate::report::table::{align_right, plain, rendered, settings};
use crate::report::unit::{Unit, digits};
use crate::report::{Figures, Report};

/// Parts of a run.
const BLOCKS: usize = 10;
/// Fewer parts say nothing about how much a figure varies.
const FEWEST: usize = 4;
/// Differences below this are never more than noise.
const FLOOR: f64 = 0.02;
/// Columns of the comparison.
const WIDTH: u16 = 96;

/// The comparison of a run with an earlier one, as a text for the terminal.
pub fn compare(before: &Report, after: &Report) -> String {
    let [a, b] = [before, after].map(Measured::of);
    let mut table = plain(WIDTH);
    table.set_header(["FIGURE", "A", "B", "B/A", "noise", ""]);
    for figure in known() {
        let (Some(first), Some(second)) = (a.figures.get(&figure.name), b.figures.get(&figure.name)) else {
            continue;
        };
        if *first == 0.0 && *second == 0.0 {
            continue;
        }
        let noise =
            a.noise(&figure.name).zip(b.noise(&figure.name)).map(|(a, b)| (2.0 * a.hypot(b)).max(FLOOR));
        table.add_row([
            figure.name.as_str(),
            &figure.unit.show(*first),
            &figure.unit.show(*second),
            &ratio(*first, *second),
            &noise.map_or("unknown".to_owned(), |noise| format!("± {}", Unit::Share.show(noise))),
            judge(figure.better, *first, *second, noise).word(),
        ]);
    }
    align_right(&mut table, 1..5);
    let mut text = String::new();
    // Writing to a string cannot fail.
    for (letter, report) in [("A", before), ("B", after)] {
        let started = std::time::UNIX_EPOCH + std::time::Duration::from_secs(report.run.started_at);
        let _ = writeln!(
            text,
            "{letter}: {}, {}, {}",
            report.scenario.name(),
            report.run.target,
            humantime::format_rfc3339_seconds(started)
        );
    }
    for difference in differences(before, after) {
        let _ = writeln!(text, "WARNING: {difference}");
    }
    let only = |here: &Measured, there: &Measured| {
        let missing =
            here.figures.iter().filter(|(name, value)| **value != 0.0 && !there.figures.contains_key(*name));
        missing.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let _ = writeln!(text, "\n{}", rendered(&mut table));
    for (letter, names) in [("A", only(&a, &b)), ("B", only(&b, &a))] {
        if !names.is_empty() {
            let _ = writeln!(text, "only in {letter}: {names}");
        }
    }
    text.push_str(
        "\nnoise: twice the standard error of the figure over parts of both runs, at least 2 %; what differs by \
         less\nis no difference. unknown: too few parts have the figure, so only the ratio is shown.\n",
    );
    text
}

/// A run's figures, whole and in parts.
struct Measured {
    figures: Figures,
    parts: Vec<Figures>,
}

impl Measured {
    fn of(report: &Report) -> Self {
        let parts = blocks(report, BLOCKS).into_iter();
        Self {
            figures: figures(report),
            // A part whose histograms are damaged says nothing; reading a report refuses those.
            parts: parts.filter_map(|part| figures_within(report, part).ok()).collect(),
        }
    }

    /// The standard error of a figure, as a part of it.
    fn noise(&self, name: &str) -> Option<f64> {
        let values: Vec<f64> = self.parts.iter().filter_map(|part| part.get(name).copied()).collect();
        if values.len() < FEWEST.max(self.parts.len() / 2) {
            return None;
        }
        let number = values.len() as f64;
        let mean = values.iter().sum::<f64>() / number;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (number - 1.0);
        let deviation = variance.sqrt() / mean.abs();
        // An extreme does not settle when more is measured; a mean does.
        let is_extreme = name.ends_with(".max") || name.ends_with(".min");
        let error = if is_extreme { deviation } else { deviation / number.sqrt() };
        error.is_finite().then_some(error)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Better,
    Worse,
    /// It changed, and neither direction is better.
    Differs,
    Noise,
    Unknown,
}

impl Judgement {
    fn word(&self) -> &'static str {
        match self {
            Judgement::Better => "better",
            Judgement::Worse => "WORSE",
            Judgement::Differs => "differs",
            Judgement::Noise => "same",
            Judgement::Unknown => "",
        }
    }
}

fn judge(better: Better, first: f64, second: f64, noise: Option<f64>) -> Judgement {
    // What never happened before, or never happens any more, needs no noise to be a difference.
    let from_or_to_zero = (first == 0.0) != (second == 0.0);
    if !from_or_to_zero {
        match noise {
            None => return Judgement::Unknown,
            // Half as much is as far away as twice as much. What turned negative is a difference.
            Some(noise) if (second / first).ln().abs() <= noise.ln_1p() => return Judgement::Noise,
            Some(_) => {}
        }
    }
    match better {
        Better::Neither => Judgement::Differs,
        Better::Higher if second > first => Judgement::Better,
        Better::Lower if second < first => Judgement::Better,
        _ => Judgement::Worse,
    }
}

fn ratio(first: f64, second: f64) -> String {
    if first == 0.0 { "new".to_owned() } else { format!("× {}", digits(second / first)) }
}

/// Why the two may not be comparable, a sentence each.
fn differences(a: &Report, b: &Report) -> Vec<String> {
    let mut found = Vec::new();
    let mut differ = |what: &str, first: &str, second: &str| {
        if first != second {
            found.push(format!("{what}: {first} in A, {second} in B"));
        }
    };
    differ("the scenarios differ", a.scenario.name(), b.scenario.name());
    if a.scenario.name() == b.scenario.name() {
        let (first, second) = (settings(&a.scenario), settings(&b.scenario));
        let names =
            first.iter().chain(&second).map(|(name, _)| name).collect::<std::collections::BTreeSet<_>>();
        for name in names {
            let value = |settings: &[(String, String)]| {
                let found = settings.iter().find(|(known, _)| known == name);
                found.map_or("not set".to_owned(), |(_, value)| value.clone())
            };
            differ(&format!("--{name} differs"), &value(&first), &value(&second));
        }
    }
    differ("the machines differ", &a.run.machine, &b.run.machine);
    differ("the targets differ", &a.run.target, &b.run.target);
    differ("the workers differ", &a.run.workers.to_string(), &b.run.workers.to_string());
    let seconds = |report: &Report| Unit::Seconds.show(report.run.measured.as_secs_f64().round());
    differ("the times measured differ, so counts do", &seconds(a), &seconds(b));
    for (letter, report) in [("A", a), ("B", b)] {
        if !report.failures.is_empty() {
            found.push(format!("{letter} is of a run that failed: {}", report.failures.join("; ")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::example::{self, like_steady};

    /// The last word of a figure's line.
    fn verdict<'a>(text: &'a str, name: &str) -> &'a str {
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).split_whitespace().last().unwrap()
    }

    #[test]
    fn two_runs_of_the_same_kind_differ_by_noise_only() {
        for seed in 1..=3 {
            let text = compare(&example::steady(), &like_steady(|shape| shape.seed = 100 + seed));
            for name in ["frames_per_second", "one_way.p50", "one_way.p99", "cpu_per_frame.relay"] {
                assert_eq!(verdict(&text, name), "same", "{text}");
            }
            assert!(!text.contains("WARNING"), "{text}");
        }
    }

    #[test]
    fn what_got_better_or_worse_beyond_the_noise_is_said() {
        let after = like_steady(|shape| {
            shape.seed = 77;
            shape.rate *= 1.2;
            shape.median = shape.median.mul_f64(1.3);
            shape.cpu_per_frame = Duration::from_nanos(800);
        });
        let text = compare(&example::steady(), &after);
        println!("{text}");
        assert_eq!(verdict(&text, "frames_per_second"), "better", "{text}");
        assert_eq!(verdict(&text, "one_way.p99"), "WORSE", "{text}");
        assert_eq!(verdict(&text, "cpu_per_frame.relay"), "better", "{text}");
        assert_eq!(verdict(&text, "sent"), "differs", "{text}");
        assert!(text.contains("× 1.2"), "{text}");
    }

    #[test]
    fn runs_that_are_not_comparable_are_compared_with_a_warning() {
        let mut after = example::chaos();
        after.run.machine = "another".into();
        let text = compare(&example::steady(), &after);
        for warning in ["the machines differ", "the targets differ", "the times measured differ", "failed"] {
            assert!(text.contains(warning), "{warning}:\n{text}");
        }
        assert_eq!(verdict(&text, "undelivered.gone"), "WORSE", "{text}");
        assert!(text.contains("only in B: ") && text.contains("cpu_per_frame.redis"), "{text}");
    }

    #[test]
    fn the_noise_of_a_run_too_short_to_be_cut_is_unknown() {
        let short = like_steady(|shape| shape.seconds = 3);
        let text = compare(&short, &short);
        assert_eq!(verdict(&text, "frames_per_second"), "unknown", "{text}");
    }

    #[test]
    fn judgements_know_which_direction_is_better() {
        for (better, first, second, noise, expected) in [
            (Better::Lower, 1.0, 1.5, Some(0.1), Judgement::Worse),
            (Better::Lower, 1.0, 0.5, Some(0.1), Judgement::Better),
            (Better::Higher, 1.0, 1.5, Some(0.1), Judgement::Better),
            (Better::Higher, 1.0, 1.05, Some(0.1), Judgement::Noise),
            (Better::Higher, 1.0, 0.95, Some(0.1), Judgement::Noise),
            (Better::Lower, 1.0, 0.6, Some(1.0), Judgement::Noise),
            (Better::Lower, 1.0, 0.4, Some(1.0), Judgement::Better),
            (Better::Lower, 0.01, -0.01, Some(1.0), Judgement::Better),
            (Better::Neither, 1.0, 2.0, Some(0.1), Judgement::Differs),
            (Better::Lower, 1.0, 2.0, None, Judgement::Unknown),
            (Better::Lower, 0.0, 1.0, None, Judgement::Worse),
            (Better::Lower, 1.0, 0.0, None, Judgement::Better),
        ] {
            assert_eq!(judge(better, first, second, noise), expected);
        }
    }
}
