//! Round-trip time, estimated as in RFC 6298.

use std::time::Duration;

use crate::received::MAX_ACK_DELAY;

/// Lower limit of the probe timeout; relays batch, and a timer that fires early only adds load.
pub(crate) const MIN_PTO: Duration = Duration::from_millis(200);
/// The probe timeout before anything was measured.
const INITIAL_PTO: Duration = Duration::from_millis(500);

#[derive(Default, Debug)]
pub(super) struct Rtt {
    smoothed: Duration,
    variation: Duration,
    /// Whether the next sample replaces what is known.
    fresh: bool,
}

impl Rtt {
    /// Takes a measurement, less the time the peer says it waited.
    pub(super) fn sample(&mut self, measured: Duration, delay: Duration) {
        let sample = measured.saturating_sub(delay.min(MAX_ACK_DELAY));
        if self.smoothed.is_zero() || self.fresh {
            (self.smoothed, self.variation) = (sample.max(Duration::from_micros(1)), sample / 2);
            self.fresh = false;
            return;
        }
        self.variation = (self.variation * 3 + self.smoothed.abs_diff(sample)) / 4;
        self.smoothed = (self.smoothed * 7 + sample) / 8;
    }

    /// The path changed: the estimate serves until the first measurement, which replaces it.
    pub(super) fn doubt(&mut self) {
        self.fresh = true;
    }

    pub(super) fn smoothed(&self) -> Duration {
        self.smoothed
    }

    /// max(200 ms, srtt + 4 · rttvar), and the longest wait of the peer before it acknowledges.
    pub(super) fn probe_timeout(&self) -> Duration {
        if self.smoothed.is_zero() {
            return INITIAL_PTO;
        }
        MIN_PTO.max(self.smoothed + self.variation * 4 + MAX_ACK_DELAY)
    }
}
