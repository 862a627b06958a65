//! How much a connection, a peer, a tenant and a source address may do.
//!
//! A [`Bucket`] is a token bucket in the form of the generic cell rate algorithm (ITU-T I.371): one
//! atomic number, the time at which it would be full again. It is charged after the fact, per batch of
//! frames, and answers how long to stop reading; so the hot path pays for it once per batch.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A rate and how far it may be exceeded at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Units a second; 0 is no limit.
    pub per_second: u64,
    /// Units that may come at once after a pause.
    pub burst: u64,
}

impl Rate {
    /// No limit.
    pub const UNLIMITED: Rate = Rate { per_second: 0, burst: 0 };

    /// `per_second`, with one second's worth at once.
    pub const fn per_second(per_second: u64) -> Self {
        Self { per_second, burst: per_second }
    }

    /// The lower of this rate and `limit`, where there is one.
    pub fn at_most(self, limit: Option<u64>) -> Self {
        match limit {
            Some(limit) if self.per_second == 0 || limit < self.per_second => Self::per_second(limit.max(1)),
            _ => self,
        }
    }
}

/// One shared token bucket. Times are nanoseconds since any origin that all callers share.
#[derive(Debug)]
pub struct Bucket {
    /// Nanoseconds that one unit costs, in 1/1024 ns, so that a byte of a 10 GB/s limit still counts.
    unit_cost: u64,
    tolerance: u64,
    full_at: AtomicU64,
}

const FRACTION: u64 = 1024;
const SECOND: u64 = 1_000_000_000;

impl Bucket {
    /// A full bucket.
    pub fn new(rate: Rate) -> Self {
        let unit_cost = (SECOND * FRACTION).checked_div(rate.per_second).map_or(0, |cost| cost.max(1));
        let tolerance = rate.burst.max(1).saturating_mul(unit_cost) / FRACTION;
        Self { unit_cost, tolerance, full_at: AtomicU64::new(0) }
    }

    /// Takes `units` out, even below empty, and gives the pause that pays for it; zero while in credit.
    pub fn charge(&self, now: u64, units: u64) -> Duration {
        self.charge_part(now, units, 1)
    }

    /// The same as if rate and burst were one `parts`th of what they are, but at least one unit a second.
    pub fn charge_part(&self, now: u64, units: u64, parts: u32) -> Duration {
        if self.unit_cost == 0 {
            return Duration::ZERO;
        }
        let unit_cost = self.unit_cost.saturating_mul(u64::from(parts)).min(SECOND * FRACTION);
        let cost = units.saturating_mul(unit_cost) / FRACTION;
        let fill = |full_at: u64| Some(full_at.max(now).saturating_add(cost));
        let before =
            self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fill).unwrap_or_default();
        let full_at = before.max(now).saturating_add(cost);
        Duration::from_nanos(full_at.saturating_sub(now).saturating_sub(self.tolerance))
    }

    /// Takes one unit out if there is one.
    pub fn admit(&self, now: u64) -> bool {
        if self.unit_cost == 0 {
            return true;
        }
        let cost = self.unit_cost / FRACTION;
        let tolerance = self.tolerance;
        self.full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                let next = full_at.max(now).saturating_add(cost);
                (next - now <= tolerance).then_some(next)
            })
            .is_ok()
    }

    /// Whether forgetting this bucket would make no difference.
    pub fn is_full(&self, now: u64) -> bool {
        self.full_at.load(Ordering::Relaxed) <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_rest_is_paid_for_in_time() {
        let bucket = Bucket::new(Rate { per_second: 100, burst: 10 });
        assert_eq!(bucket.charge(0, 10), Duration::ZERO);
        assert_eq!(bucket.charge(0, 5), Duration::from_millis(50));
        assert_eq!(bucket.charge(50_000_000, 0), Duration::ZERO);
        assert_eq!(bucket.charge(50_000_000, 1), Duration::from_millis(10));
    }

    #[test]
    fn a_pause_gives_no_more_than_the_burst() {
        let bucket = Bucket::new(Rate { per_second: 10, burst: 2 });
        let hour = 3600 * SECOND;
        assert!(bucket.admit(hour));
        assert!(bucket.admit(hour));
        assert!(!bucket.admit(hour));
        assert!(bucket.admit(hour + SECOND / 10));
    }

    #[test]
    fn no_limit_never_waits_and_very_high_rates_still_count() {
        assert_eq!(Bucket::new(Rate::UNLIMITED).charge(0, u64::MAX), Duration::ZERO);
        let fast = Bucket::new(Rate::per_second(10_000_000_000));
        assert_eq!(fast.charge(0, 10_000_000_000), Duration::ZERO);
        let pause = fast.charge(0, 10_000_000_000);
        assert!(pause > Duration::from_millis(900) && pause < Duration::from_millis(1100), "{pause:?}");
    }

    #[test]
    fn a_part_of_a_rate_is_never_less_than_one_unit_a_second() {
        let bucket = Bucket::new(Rate::per_second(100));
        assert_eq!(bucket.charge_part(0, 25, 4), Duration::ZERO, "a fourth of the burst");
        assert_eq!(bucket.charge_part(0, 25, 4), Duration::from_secs(1));
        let slow = Bucket::new(Rate::per_second(2));
        slow.charge_part(0, 1, 1000);
        assert_eq!(slow.charge_part(0, 10, 1000), Duration::from_secs(10));
    }

    #[test]
    fn a_ticket_can_only_lower_a_rate() {
        assert_eq!(Rate::per_second(10).at_most(Some(5)).per_second, 5);
        assert_eq!(Rate::per_second(10).at_most(Some(50)).per_second, 10);
        assert_eq!(Rate::UNLIMITED.at_most(Some(7)).per_second, 7);
        assert_eq!(Rate::per_second(10).at_most(Some(0)).per_second, 1);
    }
}
