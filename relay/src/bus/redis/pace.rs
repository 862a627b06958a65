//! Rests between flushes under load.
//!
//! A flush costs Redis about the same whether it carries one frame or sixty, so above a few thousand
//! flushes a second a short rest between them fills the messages and halves Redis' work. Below that rate
//! nothing waits. The runtime's own timer counts milliseconds; this one is the kernel's.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Least time from one flush to the next under load.
const REST: Duration = Duration::from_micros(200);
/// Flushes that follow each other faster than this on average are load: about 3,000 a second.
const LOAD: f64 = 330e-6;
/// Weight of the newest interval in the average.
const NEWEST: f64 = 1.0 / 32.0;

/// Decides when the next flush may begin.
pub struct Pace {
    timer: AsyncFd<OwnedFd>,
    last: Instant,
    /// Seconds between flushes, a moving average.
    average: f64,
}

impl Pace {
    /// No load yet. To be called inside the runtime.
    ///
    /// # Errors
    /// The kernel has no timer for us.
    pub fn new() -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; an owned descriptor keeps the promise it asks"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { timer, last: Instant::now(), average: 1.0 })
    }

    /// Waits until the next flush may begin.
    pub async fn rest(&mut self) {
        let since = self.last.elapsed();
        self.average += (since.as_secs_f64().min(1.0) - self.average) * NEWEST;
        if self.average < LOAD
            && let Some(rest) = REST.checked_sub(since)
            && !rest.is_zero()
            && self.sleep(rest).await.is_err()
        {
            // Without its timer the flush only comes earlier than it could.
            tokio::task::yield_now().await;
        }
        self.last = Instant::now();
    }

    async fn sleep(&self, time: Duration) -> io::Result<()> {
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
        let timer = Itimerspec { it_interval: none, it_value: once };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &timer)?;
        let mut expired = [0; 8];
        loop {
            let mut ready = self.timer.readable().await?;
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut expired)?));
            if let Ok(read) = read {
                return read.map(drop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flush_now_and_then_does_not_wait_and_a_storm_of_them_is_spaced() {
        let mut pace = Pace::new().unwrap();
        for _ in 0..10 {
            pace.rest().await;
        }
        assert!(pace.average > LOAD, "the first ones do not wait");
        for _ in 0..1_000 {
            pace.rest().await;
        }
        let start = Instant::now();
        for _ in 0..100 {
            pace.rest().await;
        }
        assert!(start.elapsed() >= REST * 99, "{:?}", start.elapsed());
    }
}
