//! Every number that a run is judged by: its name, what it means, and how it comes from a [`Report`].
//!
//! What was not measured has no figure: an absent figure is not zero. What was counted and did not happen is
//! zero.

mod list;
#[cfg(test)]
mod tests;

use std::time::Duration;

use culvert_wire::{Close, Verdict};

use self::list::RATES;
pub(crate) use self::list::verdict_sentence;
pub use self::list::{Better, Figure, Group, figure, known, markdown};
use crate::measure::{Count, Sample, Series, Times};
use crate::report::usage::{Part, part};
use crate::report::{Figures, Report, Role};

/// Percentiles that have a figure: its suffix, the share of values below it, its name for people.
pub(crate) const PERCENTILES: [(&str, f64, &str); 4] =
    [("p50", 0.5, "p50"), ("p90", 0.9, "p90"), ("p99", 0.99, "p99"), ("p999", 0.999, "p99.9")];

/// Suffixes of times that people write alone, and whose times are then meant, the first that there is.
pub(crate) const SHORT_FOR: [Series; 2] = [Series::OneWay, Series::RoundTrip];

/// Where more frames arrive for each connection, the cost of a connection cannot be told from theirs.
const FRAMES_PER_CONNECTION: f64 = 10.0;

/// A percentile, if there are enough values for one to lie beyond it.
pub(crate) fn percentile(times: &Times, quantile: f64) -> Option<f64> {
    let beyond = times.len() as f64 * (1.0 - quantile);
    // 1000 × (1 − 0.999) is a little less than 1.
    (beyond > 1.0 - 1e-6).then(|| times.value_at_quantile(quantile) as f64 / 1e9)
}

/// The figures of a run, in base units.
pub fn figures(report: &Report) -> Figures {
    let mut figures = Figures::new();
    let mut put = |name: String, value: Option<f64>| {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            figures.insert(name, value);
        }
    };
    counts(report, &mut put);
    times(report, &mut put);
    for role in Role::ALL {
        cost(report, role, &mut put);
    }
    let peak = peak(report);
    put("connections".into(), Some(peak.1 as f64));
    put("memory_per_connection".into(), report.memory_per_connection(peak.0, peak.1));
    figures
}

/// When most connections were open, the last time, and how many.
fn peak(report: &Report) -> (Duration, u64) {
    let whole = (report.run.measured, report.total.connections);
    let samples = report.timeline.iter().map(|sample| (sample.at, sample.connections));
    samples.max_by_key(|(_, connections)| *connections).unwrap_or(whole)
}

fn counts(report: &Report, put: &mut impl FnMut(String, Option<f64>)) {
    let total = &report.total;
    let seconds = report.run.measured.as_secs_f64();
    let count = |count| total.count(count) as f64;
    for known in Count::ALL {
        put(known.name().into(), Some(count(*known)));
    }
    // The total has also what arrived after what was measured.
    let whole = Part { from: Duration::ZERO, to: report.run.measured };
    let rate = |what| report.count_within(what, whole) / seconds;
    for (what, name, ..) in RATES {
        let always = matches!(what, Count::Delivered | Count::Sent);
        put(name.into(), Some(rate(what)).filter(|rate| always || *rate > 0.0));
    }
    put("bytes_per_second".into(), Some(rate(Count::DeliveredBytes)));
    // The last sample may be of a moment only.
    let whole_seconds = report.timeline.iter().filter(|sample| sample.span.as_secs_f64() >= 0.5);
    let rates = whole_seconds.map(|sample| sample.count(Count::Delivered) as f64 / sample.span.as_secs_f64());
    put("frames_per_second.min".into(), rates.min_by(f64::total_cmp));

    for verdict in Verdict::ALL {
        put(format!("undelivered.{}", verdict.name()), Some(0.0));
    }
    for (name, number) in &total.undelivered {
        put(format!("undelivered.{name}"), Some(*number as f64));
    }
    let undelivered = total.undelivered.values().sum::<u64>() as f64;
    put("undelivered".into(), Some(undelivered));
    put("undelivered_share".into(), Some(undelivered / (undelivered + count(Count::Delivered))));
    for close in Close::ALL {
        put(format!("closed.{}", close.name()), Some(0.0));
    }
    for (name, number) in &total.closed {
        put(format!("closed.{name}"), Some(*number as f64));
    }
    put("closed".into(), Some(total.closed.values().sum::<u64>() as f64));
    put("measured".into(), Some(seconds));
    put("faults".into(), Some(report.faults.len() as f64));
    put("failures".into(), Some(report.failures.len() as f64));
}

fn times(report: &Report, put: &mut impl FnMut(String, Option<f64>)) {
    for (series, encoded) in &report.total.times {
        // A report that was read from a file is whole: reading checks it.
        let Ok(times) = encoded.decode() else { continue };
        if times.is_empty() {
            continue;
        }
        let name = series.name();
        for (suffix, quantile, _) in PERCENTILES {
            put(format!("{name}.{suffix}"), percentile(&times, quantile));
        }
        put(format!("{name}.max"), Some(times.max() as f64 / 1e9));
        put(format!("{name}.mean"), Some(times.mean() / 1e9));
        put(format!("{name}.count"), Some(times.len() as f64));
    }
}

fn cost(report: &Report, role: Role, put: &mut impl FnMut(String, Option<f64>)) {
    let name = role.name();
    if let Some(known) = report.known(role) {
        let cpu = report.cpu(role, known);
        let each = |count| {
            let number = report.count_within(count, known);
            cpu.filter(|_| number > 0.0).map(|cpu| cpu / number)
        };
        put(format!("cpu_per_frame.{name}"), each(Count::Delivered));
        let mostly_connecting = report.count_within(Count::Delivered, known)
            <= FRAMES_PER_CONNECTION * report.count_within(Count::Connected, known);
        put(format!("cpu_per_connection.{name}"), each(Count::Connected).filter(|_| mostly_connecting));
        put(format!("bytes_per_cpu_second.{name}"), each(Count::DeliveredBytes).map(|cost| 1.0 / cost));
        put(format!("cores.{name}"), cpu.map(|cpu| cpu / known.length().as_secs_f64()));
    }
    let points = report.of_role(role).flat_map(|process| &process.points);
    let most = points.map(|point| point.resident).max();
    put(format!("resident.{name}.max"), most.map(|bytes| bytes as f64));
    put(format!("resident_growth.{name}"), growth(report, role));
}

/// By how much the process that grew most exceeded what it had in the beginning.
fn growth(report: &Report, role: Role) -> Option<f64> {
    let five_minutes = Duration::from_secs(300);
    let beginning = (report.run.measured / 6).min(five_minutes);
    let of_each = report.of_role(role).filter_map(|process| {
        let most = |later: bool| {
            let points = process.points.iter().filter(|point| (point.at > beginning) == later);
            points.map(|point| point.resident).max()
        };
        match (most(false), most(true)) {
            (Some(first), Some(later)) if first > 0 => Some(later as f64 / first as f64 - 1.0),
            _ => None,
        }
    });
    of_each.max_by(f64::total_cmp)
}

/// Figures of one part of a run: as if only that part had been measured.
pub(crate) fn figures_within(report: &Report, within: Part) -> anyhow::Result<Figures> {
    let mut run = report.run.clone();
    run.measured = within.length();
    let mut total = Sample { at: within.length(), span: within.length(), ..Default::default() };
    let mut timeline = Vec::new();
    for sample in report.timeline.iter().filter(|sample| within.of(part(sample)) > 0.5) {
        total.add(sample)?;
        total.connections = sample.connections;
        let at = sample.at.saturating_sub(within.from);
        timeline.push(Sample { at, ..sample.clone() });
    }
    let processes = report.processes.iter().map(|process| process.within(within));
    let part = Report {
        run,
        total,
        timeline,
        processes: processes.collect(),
        faults: Vec::new(),
        failures: Vec::new(),
        notes: Vec::new(),
        ..report.clone()
    };
    Ok(figures(&part))
}
