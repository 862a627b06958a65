use std::time::Duration;

use super::*;
use crate::measure::Recorder;
use crate::report::{UsePoint, example};

const SECOND: Duration = Duration::from_secs(1);

/// Ten seconds of 1,000 frames and 100 KB each, by one relay that used 10 ms in each of them.
fn plain() -> Report {
    let mut report = example::like_steady(|shape| shape.seconds = 10);
    report.total = Sample { at: 10 * SECOND, span: 10 * SECOND, connections: 100, ..Sample::default() };
    report.timeline.clear();
    for second in 1..=10 {
        let recorder = Recorder::default();
        recorder.add(Count::Sent, 1000);
        recorder.add(Count::Delivered, 1000);
        recorder.add(Count::DeliveredBytes, 100_000);
        recorder.set_connections(100);
        for value in 1..=20 {
            recorder.record(Series::OneWay, value * 1_000_000);
        }
        let sample = recorder.take(second * SECOND, SECOND);
        report.total.add(&sample).unwrap();
        report.timeline.push(sample);
    }
    report.processes.truncate(1);
    let relay = &mut report.processes[0];
    relay.resident_before = 1_000_000;
    relay.points = (1..=10)
        .map(|second| UsePoint {
            at: second * SECOND,
            cpu: Duration::from_millis(10),
            resident: 2_000_000 + u64::from(second) * 1000,
        })
        .collect();
    report
}

fn close_to(figures: &Figures, name: &str, expected: f64) {
    let found = figures.get(name).copied();
    let is_close = found.is_some_and(|found| (found - expected).abs() <= 0.002 * expected.abs());
    assert!(is_close, "{name} is {found:?}, not {expected}");
}

#[test]
fn figures_are_what_was_measured_in_base_units() {
    let figures = figures(&plain());
    for (name, expected) in [
        ("frames_per_second", 1000.0),
        ("frames_per_second.min", 1000.0),
        ("bytes_per_second", 100_000.0),
        ("delivered", 10_000.0),
        ("measured", 10.0),
        ("connections", 100.0),
        ("one_way.p50", 0.010),
        ("one_way.p90", 0.018),
        ("one_way.max", 0.020),
        ("one_way.mean", 0.0105),
        ("one_way.count", 200.0),
        ("cpu_per_frame.relay", 10e-6),
        ("cores.relay", 0.01),
        ("bytes_per_cpu_second.relay", 1e7),
        ("resident.relay.max", 2_010_000.0),
        ("memory_per_connection", 10_100.0),
    ] {
        close_to(&figures, name, expected);
    }
}

#[test]
fn what_did_not_happen_is_zero_and_what_was_not_measured_is_absent() {
    let all = figures(&plain());
    for zero in ["undelivered", "undelivered.full", "undelivered_share", "missing", "closed.slow", "failures"]
    {
        assert_eq!(all.get(zero), Some(&0.0), "{zero}");
    }
    for absent in [
        "round_trip.p50",
        "connects_per_second",
        "cpu_per_connection.relay",
        "cpu_per_frame.redis",
        "cores.load",
    ] {
        assert_eq!(all.get(absent), None, "{absent}");
    }
    let mut report = plain();
    report.processes.clear();
    report.run.measured = Duration::ZERO;
    let without = figures(&report);
    for absent in ["memory_per_connection", "cpu_per_frame.relay", "frames_per_second", "resident.relay.max"]
    {
        assert_eq!(without.get(absent), None, "{absent}");
    }
}

#[test]
fn a_percentile_needs_a_value_beyond_it() {
    let figures = figures(&plain());
    assert!(figures.contains_key("one_way.p99"), "200 values have two beyond it");
    assert!(!figures.contains_key("one_way.p999"), "200 values have none beyond it");
    let mut times = crate::measure::times();
    for value in 1..=1000 {
        times.record(value).unwrap();
    }
    assert!(percentile(&times, 0.999).is_some() && percentile(&times, 0.9999).is_none());
}

#[test]
fn processor_time_outside_of_what_is_measured_is_not_counted() {
    let mut report = plain();
    // The reading that covers the last half second and the half second after it.
    report.run.measured = Duration::from_millis(9500);
    close_to(&figures(&report), "cores.relay", 0.01);
    close_to(&figures(&report), "cpu_per_frame.relay", 10e-6);
    report.processes[0].points.push(UsePoint { at: 60 * SECOND, cpu: 40 * SECOND, resident: 0 });
    close_to(&figures(&report), "cores.relay", 0.01);
}

#[test]
fn a_relay_that_was_killed_and_started_again_used_what_both_used() {
    let mut report = plain();
    // Nothing was read at 4 and 5 s; at 6 s the new process had used 7 ms since its start.
    report.processes[0].points.retain(|point| ![4, 5].contains(&point.at.as_secs()));
    report.processes[0].points[3].cpu = Duration::from_millis(7);
    close_to(&figures(&report), "cores.relay", 0.0077);
}

#[test]
fn a_relay_that_was_looked_at_for_a_part_of_the_time_counts_for_that_part() {
    let mut report = plain();
    report.processes[0].points.truncate(8);
    close_to(&figures(&report), "cpu_per_frame.relay", 10e-6);
    report.processes[0].points.truncate(3);
    assert_eq!(figures(&report).get("cpu_per_frame.relay"), None, "a third says too little");
}

#[test]
fn frames_that_arrived_after_the_time_are_delivered_but_no_throughput() {
    let mut report = plain();
    *report.total.counts.get_mut(&Count::Delivered).unwrap() += 500;
    let figures = figures(&report);
    close_to(&figures, "delivered", 10_500.0);
    close_to(&figures, "frames_per_second", 1000.0);
}

#[test]
fn the_cost_of_a_connection_is_told_only_where_little_else_happens() {
    let mut report = plain();
    for sample in &mut report.timeline {
        sample.counts.insert(Count::Connected, 90);
    }
    assert_eq!(figures(&report).get("cpu_per_connection.relay"), None, "1,000 frames for 90 connections");
    for sample in &mut report.timeline {
        sample.counts.insert(Count::Connected, 200);
    }
    close_to(&figures(&report), "cpu_per_connection.relay", 50e-6);
}

#[test]
fn memory_is_divided_by_the_connections_of_the_same_moment() {
    let mut report = plain();
    report.timeline[4].connections = 200;
    close_to(&figures(&report), "memory_per_connection", 1_005_000.0 / 200.0);
    report.processes[0].resident_before = 0;
    assert_eq!(figures(&report).get("memory_per_connection"), None, "what it had before is not known");
}

#[test]
fn growth_is_measured_against_the_beginning() {
    let mut report = plain();
    report.run.measured = 60 * SECOND;
    // All points lie in the first sixth, which is the beginning.
    assert_eq!(figures(&report).get("resident_growth.relay"), None);
    report.processes[0].points.push(UsePoint { at: 30 * SECOND, cpu: SECOND, resident: 2_110_500 });
    close_to(&figures(&report), "resident_growth.relay", 0.05);
}

#[test]
fn figures_of_a_part_are_those_of_a_run_of_that_part() {
    let report = plain();
    let within = Part { from: 2 * SECOND, to: 6 * SECOND };
    let figures = figures_within(&report, within).unwrap();
    for (name, expected) in [
        ("measured", 4.0),
        ("delivered", 4000.0),
        ("frames_per_second", 1000.0),
        ("one_way.count", 80.0),
        ("cpu_per_frame.relay", 10e-6),
        ("memory_per_connection", 10_060.0),
    ] {
        close_to(&figures, name, expected);
    }
}

#[test]
fn every_figure_of_a_run_is_known() {
    for report in [plain(), example::steady(), example::chaos()] {
        for name in figures(&report).keys() {
            assert!(figure(name).is_some(), "{name}");
        }
    }
}
