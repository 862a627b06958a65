//! Reports such as runs produce, from a seed: for tests of everything that shows them.

// Numbers of frames and nanoseconds are far below 2^53.
#![allow(clippy::cast_possible_truncation)]

use std::sync::LazyLock;
use std::time::Duration;

use clap::Parser;
use culvert_wire::{Close, Verdict};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::measure::{Count, Recorder, Sample, Series};
use crate::report::{Fault, ProcessUse, Report, Role, Run, SCHEMA, UsePoint};
use crate::scenario::Scenario;

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    scenario: Scenario,
}

/// What differs between runs.
#[derive(Clone)]
pub(super) struct Shape {
    pub(super) seed: u64,
    pub(super) seconds: u64,
    /// Frames a second.
    pub(super) rate: f64,
    /// Median of the one-way time.
    pub(super) median: Duration,
    /// Processor time of a relay for a frame.
    pub(super) cpu_per_frame: Duration,
    pub(super) connections: u64,
    pub(super) relays: usize,
    pub(super) faults: bool,
}

const STEADY: Shape = Shape {
    seed: 4,
    seconds: 30,
    rate: 960_000.0,
    median: Duration::from_micros(3200),
    cpu_per_frame: Duration::from_nanos(1010),
    connections: 100,
    relays: 1,
    faults: false,
};

/// A saturated relay.
pub(super) fn steady() -> Report {
    static MADE: LazyLock<Report> = LazyLock::new(|| run(&STEADY));
    MADE.clone()
}

/// The same with other numbers.
pub(super) fn like_steady(change: impl FnOnce(&mut Shape)) -> Report {
    let mut shape = STEADY;
    change(&mut shape);
    run(&shape)
}

/// Three relays under faults, and frames that did not arrive.
pub(super) fn chaos() -> Report {
    static MADE: LazyLock<Report> = LazyLock::new(make_chaos);
    MADE.clone()
}

fn make_chaos() -> Report {
    let shape = Shape {
        seed: 9,
        seconds: 120,
        rate: 24_000.0,
        median: Duration::from_micros(240),
        cpu_per_frame: Duration::from_nanos(4100),
        connections: 600,
        relays: 3,
        faults: true,
    };
    let mut report = run(&shape);
    report.run.command =
        "culvert-loadtest chaos --spawn 3 --duration 2m --seed 9 <script>alert(1)</script>".into();
    report.run.target = "3 relays with Redis 7.0.15 behind haproxy".into();
    report.notes = vec!["relay 2 was restarted by the test; its processor time begins anew at 40 s".into()];
    report.failures = vec!["the ledger does not balance: 3 of 2,880,000 messages are missing".into()];
    report
}

fn run(shape: &Shape) -> Report {
    let mut random = StdRng::seed_from_u64(shape.seed);
    let recorder = Recorder::default();
    let mut total = Sample::default();
    let mut timeline = Vec::new();
    let mut processes = processes(shape);
    let faults = faults(shape);
    for second in 1..=shape.seconds {
        let at = Duration::from_secs(second);
        let disturbed = faults.iter().any(|fault| at > fault.at && at <= fault.at + fault.lasted);
        let factor = 1.0 + 0.06 * (random.random::<f64>() - 0.5) - if disturbed { 0.4 } else { 0.0 };
        let frames = shape.rate * factor;
        load(&recorder, shape, frames as u64, disturbed, &mut random);
        let sample = recorder.take(at, Duration::from_secs(1));
        total.add(&sample).unwrap();
        for process in &mut processes {
            let share = match process.role {
                Role::Relay => shape.cpu_per_frame.as_secs_f64() / shape.relays as f64,
                Role::Redis => 0.3e-6,
                Role::Balancer => 0.2e-6,
                Role::Load => 0.95e-6,
            };
            let cpu = share * frames * (1.0 + 0.02 * (random.random::<f64>() - 0.5));
            let grown = 15_000 * shape.connections / shape.relays as u64 + 4096 * second;
            let cpu = Duration::from_secs_f64(cpu);
            process.points.push(UsePoint { at, cpu, resident: process.resident_before + grown });
        }
        timeline.push(sample);
    }
    total.at = Duration::from_secs(shape.seconds);
    total.span = total.at;
    total.connections = shape.connections;
    Report {
        schema: SCHEMA,
        run: Run {
            started_at: 1_763_660_000,
            command: "culvert-loadtest steady --spawn 1 --pairs 50 --json 'run & report.json'".into(),
            version: "0.1.0".into(),
            commit: Some("e3f1bc6".into()),
            machine: "Intel Xeon, 2 cores, 7.8 GiB, Linux 6.18".into(),
            target: "1 relay of this program, clear text".into(),
            workers: 1,
            warm_up: Duration::from_secs(5),
            measured: Duration::from_secs(shape.seconds),
        },
        scenario: Line::parse_from(["loadtest", "steady"]).scenario,
        total,
        timeline,
        processes,
        faults,
        failures: Vec::new(),
        notes: vec!["the load used 98 % of its core: the relay may be able to carry more".into()],
    }
}

fn load(recorder: &Recorder, shape: &Shape, frames: u64, disturbed: bool, random: &mut StdRng) {
    recorder.set_connections(if disturbed { shape.connections * 2 / 3 } else { shape.connections });
    let lost = if disturbed { frames / 50 } else { 0 };
    recorder.add(Count::Sent, frames);
    recorder.add(Count::SentBytes, frames * 64);
    recorder.add(Count::Delivered, frames - lost);
    recorder.add(Count::DeliveredBytes, (frames - lost) * 64);
    if disturbed {
        recorder.undelivered(Verdict::Gone, lost / 2);
        recorder.undelivered(Verdict::Unreachable, lost / 3);
        recorder.undelivered(Verdict::Unknown, lost - lost / 2 - lost / 3);
        recorder.closed(Close::Drained);
        recorder.add(Count::Disconnected, 12);
        recorder.add(Count::Connected, 12);
    }
    let slower = if disturbed { 6.0 } else { 1.0 };
    for _ in 0..2000 {
        // The sum of uniform numbers is close to a normal one; its exponent has the long tail of real times.
        let normal: f64 = (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
        let nanos = shape.median.as_nanos() as f64 * slower * (0.28 * normal).exp();
        recorder.record(Series::OneWay, nanos as u64);
        if disturbed && random.random::<f64>() < 0.01 {
            recorder.record(Series::Reconnect, (nanos * 120.0) as u64);
        }
    }
}

fn processes(shape: &Shape) -> Vec<ProcessUse> {
    let process =
        |role, name: String, resident_before| ProcessUse { role, name, resident_before, points: Vec::new() };
    let mut processes: Vec<_> =
        (1..=shape.relays).map(|n| process(Role::Relay, format!("relay {n}"), 9 << 20)).collect();
    if shape.relays > 1 {
        processes.push(process(Role::Redis, "redis".into(), 6 << 20));
        processes.push(process(Role::Balancer, "haproxy".into(), 24 << 20));
    }
    processes.push(process(Role::Load, "worker 1".into(), 12 << 20));
    processes
}

fn faults(shape: &Shape) -> Vec<Fault> {
    let fault = |at: u64, lasted: u64, what: &str| Fault {
        at: Duration::from_secs(at),
        lasted: Duration::from_millis(lasted),
        what: what.into(),
    };
    if !shape.faults {
        return Vec::new();
    }
    vec![
        fault(20, 2300, "relay 2 was killed and started again"),
        fault(40, 6100, "relay 1 was restarted: it drained first"),
        fault(60, 4000, "Redis was stopped for 4 s"),
        fault(80, 900, "relay 3 was killed and started again"),
        fault(100, 5200, "Redis was killed and started again, empty"),
    ]
}
