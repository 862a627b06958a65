//! Time that tests can set.
//!
//! Two kinds, because they answer different questions: [`Clock::unix_seconds`] is the date, which decides
//! whether a ticket is valid and can jump; [`Clock::now`] only goes forward and measures durations.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where a process reads the time; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Clock(Source);

#[derive(Debug, Clone, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<Mutex<Manual>>),
}

#[derive(Debug)]
struct Manual {
    unix: Duration,
    now: Instant,
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at this date until it is told otherwise.
    pub fn manual(unix_seconds: u64) -> Self {
        let manual = Manual { unix: Duration::from_secs(unix_seconds), now: Instant::now() };
        Self(Source::Manual(Arc::new(Mutex::new(manual))))
    }

    /// Seconds since the start of 1970, UTC; zero if the machine's date is before that.
    pub fn unix_seconds(&self) -> u64 {
        match &self.0 {
            Source::System => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            Source::Manual(manual) => lock(manual).unix.as_secs(),
        }
    }

    /// A moment that is never earlier than one read before.
    pub fn now(&self) -> Instant {
        match &self.0 {
            Source::System => Instant::now(),
            Source::Manual(manual) => lock(manual).now,
        }
    }

    /// Moves a manual clock forward, the date and the monotonic time alike.
    ///
    /// # Panics
    ///
    /// If this is the machine's clock.
    pub fn advance(&self, by: Duration) {
        let Source::Manual(manual) = &self.0 else {
            panic!("only a manual clock can be moved");
        };
        let mut manual = lock(manual);
        manual.unix += by;
        manual.now += by;
    }
}

/// A panic while the lock was held leaves two plain numbers, which are still times.
fn lock(manual: &Mutex<Manual>) -> MutexGuard<'_, Manual> {
    manual.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_shows_a_date_of_this_century_and_goes_forward() {
        let clock = Clock::system();
        assert!(clock.unix_seconds() > 1_700_000_000);
        let earlier = clock.now();
        assert!(clock.now() >= earlier);
    }

    #[test]
    fn clones_of_a_manual_clock_move_together() {
        let clock = Clock::manual(1_000);
        let (other, start) = (clock.clone(), clock.now());
        assert_eq!(other.now(), start);
        clock.advance(Duration::from_millis(1_500));
        assert_eq!(other.unix_seconds(), 1_001);
        assert_eq!(other.now() - start, Duration::from_millis(1_500));
    }
}
