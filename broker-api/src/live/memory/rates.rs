//! Buckets by the generic cell rate algorithm (ITU-T I.371).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::live::{Rate, Taken};

/// Each bucket as the moment at which it is full again; one that is full is not kept.
#[derive(Default)]
pub(super) struct Rates(HashMap<String, Instant>);

impl Rates {
    /// Takes tokens from all of these buckets or none.
    pub(super) fn charge(&mut self, buckets: &[(String, Rate)], count: u32, now: Instant) -> Taken {
        let mut full = Vec::with_capacity(buckets.len());
        let mut wait = Duration::ZERO;
        for (name, rate) in buckets {
            let before = self.0.get(name).copied().unwrap_or(now).max(now);
            let after = before + rate.period().saturating_mul(count);
            wait = wait.max((after - now).saturating_sub(rate.period().saturating_mul(rate.burst)));
            full.push(after);
        }
        if !wait.is_zero() {
            return Taken::Wait(wait);
        }
        for ((name, _), full) in buckets.iter().zip(full) {
            self.0.insert(name.clone(), full);
        }
        Taken::Allowed
    }

    /// Puts tokens back, as far as they fit.
    pub(super) fn refund(&mut self, buckets: &[(String, Rate)], count: u32) {
        for (name, rate) in buckets {
            if let Some(full) = self.0.get_mut(name) {
                // What would be before the start of the clock is long full.
                *full = full.checked_sub(rate.period().saturating_mul(count)).unwrap_or(*full);
            }
        }
    }

    /// Forgets buckets that are full.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.0.retain(|_, full| *full > now);
    }
}
