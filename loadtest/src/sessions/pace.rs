//! When the next message is due, and when a peer leaves.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::frames::Timer;

/// How a sender decides when to send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// As soon as fewer than so many are under way.
    Window(usize),
    /// So many a second from each, whatever is under way.
    Rate(f64),
}

/// The moments at which one sender's messages are due.
pub struct Due {
    /// Without one of the kernel's, which are limited as open files are, the runtime's does.
    timer: Option<Timer>,
    start: Instant,
    interval: Duration,
    number: u32,
}

impl Pace {
    /// Checks that it is one.
    ///
    /// # Errors
    /// A sentence that says which setting to change.
    pub fn check(self) -> Result<()> {
        match self {
            Pace::Window(window) => ensure!(window > 0, "--window must be at least 1"),
            Pace::Rate(rate) => {
                let sensible = rate.is_finite() && (0.001..=1e6).contains(&rate);
                ensure!(sensible, "--rate must be between 0.001 and 1000000 a second");
            }
        }
        Ok(())
    }

    /// The time between two messages, zero where there is none.
    pub fn interval(self) -> Duration {
        match self {
            Pace::Window(_) => Duration::ZERO,
            Pace::Rate(rate) => Duration::from_secs_f64(1.0 / rate),
        }
    }
}

impl Due {
    /// Begins a share of an interval from now, so that senders that begin together take turns. To be called
    /// inside the runtime.
    pub fn new(interval: Duration, share: f64) -> Self {
        let start = Instant::now() + interval.mul_f64(share);
        Self { timer: Timer::new().ok(), start, interval, number: 0 }
    }

    /// Waits for the next moment and gives it. One that has passed is given at once, as it was: a sender that
    /// was held up is late with everything that was due meanwhile. Cancel safe.
    pub async fn next(&mut self) -> Instant {
        let due = self.start + self.interval * self.number;
        match &mut self.timer {
            // A timer that the kernel gave does not fail; a message that came too early would be no harm.
            Some(timer) => drop(timer.until(due).await),
            None => tokio::time::sleep_until(due.into()).await,
        }
        self.number = self.number.wrapping_add(1);
        if self.number == 0 {
            self.start = due + self.interval;
        }
        due
    }

    /// Lets the moments pass that are over.
    pub fn skip(&mut self) {
        let late = Instant::now().saturating_duration_since(self.start);
        let passed = late.as_nanos().div_ceil(self.interval.as_nanos().max(1));
        self.number = self.number.max(u32::try_from(passed).unwrap_or(u32::MAX));
    }
}

/// How long each stays, drawn from the run's seed.
pub struct Lives(RefCell<SmallRng>);

impl Lives {
    /// Of this worker.
    pub fn new(seed: u64, worker: usize) -> Self {
        Self(RefCell::new(SmallRng::seed_from_u64(seed.wrapping_add(worker as u64))))
    }

    /// Waits for the end of a stay that lasts between half of this and half more; for ever without it.
    pub async fn end(&self, stay: Option<Duration>) {
        let Some(stay) = stay else { return std::future::pending().await };
        let stay = stay.mul_f64(self.0.borrow_mut().random_range(0.5..1.5));
        tokio::time::sleep(stay).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sender_that_was_held_up_gets_the_moments_it_missed() {
        let interval = Pace::Rate(100.0).interval();
        let mut due = Due::new(interval, 0.5);
        let first = due.next().await;
        assert!(Instant::now() >= first);
        tokio::time::sleep(interval * 3).await;
        assert_eq!(due.next().await, first + interval);
        due.skip();
        let now = Instant::now();
        assert!(due.next().await >= now);
    }

    #[test]
    fn a_pace_that_makes_no_sense_is_refused() {
        for pace in [Pace::Window(0), Pace::Rate(0.0), Pace::Rate(f64::NAN), Pace::Rate(-1.0)] {
            assert!(pace.check().is_err(), "{pace:?}");
        }
        assert!(Pace::Rate(10.0).check().is_ok());
    }
}
