//! How much one write to Redis carries.
//!
//! A write that takes longer than the time for an answer is lost in doubt: its letters are `unknown`, and
//! the connection is dropped. So where Redis, or the way to it, carries little, less is written at once:
//! then the queue fills, and its senders are told `full` in time.

use std::time::Duration;

/// At most, where Redis answers at once.
const MOST: usize = 512 << 10;
/// At least: one letter of the largest size.
const LEAST: usize = 16 << 10;

/// The bytes that the next write may carry.
#[derive(Debug)]
pub struct Volume {
    bytes: usize,
    limit: Duration,
}

impl Volume {
    /// As much as possible; `limit` is the time for an answer.
    pub fn new(limit: Duration) -> Self {
        Self { bytes: MOST, limit }
    }

    /// Bytes that the next write may carry, beside what its last message is longer.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Learns from a write: less where the answer took a quarter of its time, more where it took little.
    pub fn took(&mut self, written: usize, time: Duration) {
        if time > self.limit / 4 {
            self.bytes = (written.min(self.bytes) / 2).max(LEAST);
        } else if time < self.limit / 16 && written >= self.bytes / 2 {
            self.bytes = (self.bytes * 2).min(MOST);
        }
    }

    /// Learns from a write without an answer.
    pub fn failed(&mut self) {
        self.bytes = (self.bytes / 2).max(LEAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    /// Writes as much as it may through a way that carries so many bytes a second.
    fn longest_of(volume: &mut Volume, rate: usize, writes: usize) -> Duration {
        let took = |volume: &mut Volume| {
            let (written, time) =
                (volume.bytes(), Duration::from_secs_f64(volume.bytes() as f64 / rate as f64));
            volume.took(written, time);
            time
        };
        (0..writes).map(|_| took(volume)).max().unwrap_or_default()
    }

    #[test]
    fn a_narrow_way_gets_writes_that_it_carries_in_time() {
        let mut volume = Volume::new(LIMIT);
        longest_of(&mut volume, 600 << 10, 5);
        assert!(longest_of(&mut volume, 600 << 10, 100) < LIMIT / 2);
        volume.failed();
        assert!(volume.bytes() >= LEAST);
    }

    #[test]
    fn a_wide_way_gets_all_that_waits_again_and_small_writes_prove_nothing() {
        let mut volume = Volume::new(LIMIT);
        (0..20).for_each(|_| volume.failed());
        assert_eq!(volume.bytes(), LEAST);
        volume.took(100, Duration::from_micros(80));
        assert_eq!(volume.bytes(), LEAST);
        longest_of(&mut volume, 1 << 30, 10);
        assert_eq!(volume.bytes(), MOST);
    }
}
