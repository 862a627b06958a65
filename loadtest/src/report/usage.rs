//! What processes used in a part of the time, from the points at which they were looked at.
//!
//! A point says what was used since the one before it, so a part of its span has that part of it. A process
//! that was restarted used what its points say: nothing of it is lost or negative.

use std::time::Duration;

use crate::measure::{Count, Sample};
use crate::report::{ProcessUse, Report, Role, UsePoint};

/// Points further away than this, in their usual distance, say nothing about a moment.
const NEAR: f64 = 1.5;

/// A part of the time, from the beginning of what is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Part {
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

impl Part {
    pub(crate) fn length(self) -> Duration {
        self.to.saturating_sub(self.from)
    }

    /// Which part of `other` lies in this one, from 0 to 1.
    pub(crate) fn of(self, other: Part) -> f64 {
        if other.length().is_zero() {
            return f64::from(self.from < other.to && other.to <= self.to);
        }
        let common = Part { from: self.from.max(other.from), to: self.to.min(other.to) };
        common.length().as_secs_f64() / other.length().as_secs_f64()
    }
}

/// The part that a sample is of.
pub(crate) fn part(sample: &Sample) -> Part {
    Part { from: sample.at.saturating_sub(sample.span), to: sample.at }
}

impl ProcessUse {
    /// Processor seconds in a part of the time; absent where nothing is known about any of it.
    pub(crate) fn cpu(&self, within: Part) -> Option<f64> {
        let mut from = Duration::ZERO;
        let mut used = None;
        for point in &self.points {
            let share = within.of(Part { from, to: point.at });
            if share > 0.0 {
                *used.get_or_insert(0.0) += share * point.cpu.as_secs_f64();
            }
            from = point.at;
        }
        used
    }

    /// As if it had been looked at in a part of the time only.
    pub(crate) fn within(&self, within: Part) -> ProcessUse {
        let mut from = Duration::ZERO;
        let mut points = Vec::new();
        for point in &self.points {
            let share = within.of(Part { from, to: point.at });
            if share > 0.0 {
                let at = point.at.min(within.to).saturating_sub(within.from);
                points.push(UsePoint { at, cpu: point.cpu.mul_f64(share), ..*point });
            }
            from = point.at;
        }
        ProcessUse { points, ..self.clone() }
    }

    /// Resident bytes at a moment, of the nearest point; absent where none is near.
    pub(crate) fn resident(&self, at: Duration) -> Option<u64> {
        let nearest = self.points.iter().min_by_key(|point| point.at.abs_diff(at))?;
        let usual = self.known_until().div_f64(self.points.len() as f64);
        (nearest.at.abs_diff(at) <= usual.mul_f64(NEAR)).then_some(nearest.resident)
    }

    /// Until when it was looked at.
    fn known_until(&self) -> Duration {
        self.points.last().map_or(Duration::ZERO, |point| point.at)
    }
}

impl Report {
    /// Processes of a role.
    pub(crate) fn of_role(&self, role: Role) -> impl Iterator<Item = &ProcessUse> {
        self.processes.iter().filter(move |process| process.role == role)
    }

    /// The part of what is measured in which every process of a role was looked at; absent if that is less
    /// than half.
    pub(crate) fn known(&self, role: Role) -> Option<Part> {
        let until = self.of_role(role).map(ProcessUse::known_until).min()?.min(self.run.measured);
        (until * 2 >= self.run.measured && !until.is_zero())
            .then_some(Part { from: Duration::ZERO, to: until })
    }

    /// Processor seconds of all processes of a role in a part of the time; absent if one of them is unknown.
    pub(crate) fn cpu(&self, role: Role, within: Part) -> Option<f64> {
        let mut sum = None;
        for process in self.of_role(role) {
            *sum.get_or_insert(0.0) += process.cpu(within)?;
        }
        sum
    }

    /// How many of something there were in a part of the time.
    pub(crate) fn count_within(&self, count: Count, within: Part) -> f64 {
        if self.timeline.is_empty() {
            let whole = Part { from: Duration::ZERO, to: self.run.measured };
            return self.total.count(count) as f64 * within.of(whole);
        }
        self.timeline.iter().map(|sample| sample.count(count) as f64 * within.of(part(sample))).sum()
    }

    /// By how much the memory of all relays grew for each connection, at a moment; absent if one of them is
    /// unknown, or if together they did not grow.
    pub(crate) fn memory_per_connection(&self, at: Duration, connections: u64) -> Option<f64> {
        let mut growth = 0.0;
        for relay in self.of_role(Role::Relay) {
            if relay.resident_before == 0 {
                return None;
            }
            growth += relay.resident(at)? as f64 - relay.resident_before as f64;
        }
        (growth > 0.0 && connections > 0).then(|| growth / connections as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn process(points: &[(f64, f64, u64)]) -> ProcessUse {
        let points = points.iter().map(|&(at, cpu, resident)| UsePoint {
            at: seconds(at),
            cpu: seconds(cpu),
            resident,
        });
        ProcessUse {
            role: Role::Relay,
            name: "relay 1".into(),
            resident_before: 1000,
            points: points.collect(),
        }
    }

    #[test]
    fn a_point_that_reaches_beyond_a_part_counts_as_far_as_it_is_in_it() {
        let process = process(&[(1.0, 0.5, 0), (2.0, 0.7, 0), (3.0, 0.9, 0)]);
        let within = |from, to| process.cpu(Part { from: seconds(from), to: seconds(to) });
        assert_eq!(within(0.0, 2.0), Some(1.2));
        assert_eq!(within(1.0, 2.0), Some(0.7));
        assert!((within(1.5, 2.5).unwrap() - 0.8).abs() < 1e-9);
        assert_eq!(within(3.0, 4.0), None, "nothing is known about it");
    }

    #[test]
    fn a_process_that_was_restarted_used_what_its_points_say() {
        // Killed at 1.2 s, not there at 2 s, back at 2.9 s with a processor time that began anew.
        let process = process(&[(1.0, 0.5, 0), (3.0, 0.1, 0), (4.0, 0.5, 0)]);
        let whole = Part { from: Duration::ZERO, to: seconds(4.0) };
        assert!((process.cpu(whole).unwrap() - 1.1).abs() < 1e-9);
    }

    #[test]
    fn memory_of_a_moment_is_that_of_the_nearest_point_or_unknown() {
        let process = process(&[(1.0, 0.0, 5), (2.0, 0.0, 6)]);
        assert_eq!(process.resident(seconds(1.9)), Some(6));
        assert_eq!(process.resident(seconds(3.0)), Some(6));
        assert_eq!(process.resident(seconds(9.0)), None);
    }
}
