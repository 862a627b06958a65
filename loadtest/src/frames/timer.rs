//! Waiting to the microsecond, which the runtime's own timer, counting milliseconds, cannot.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rand::RngExt;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Bounds of the random wait before another attempt to connect, as the protocol asks.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A timer of the kernel.
pub struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// To be called inside the runtime.
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
        Ok(Self(timer))
    }

    /// Waits until this moment. Cancel safe.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn until(&mut self, moment: Instant) -> io::Result<()> {
        let wait = moment.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Ok(());
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        let timer = Itimerspec { it_interval: zero, it_value: once };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &timer)?;
        let mut expired = [0; 8];
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut expired)?));
            if let Ok(read) = read {
                return read.map(drop);
            }
        }
    }
}

/// A random wait before this attempt, counted from 0: up to a bound that doubles.
pub fn backoff(attempt: u32) -> Duration {
    let bound = FIRST_WAIT.saturating_mul(1 << attempt.min(10)).min(LONGEST_WAIT);
    bound.mul_f64(rand::rng().random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_waits_until_the_moment_and_far_less_than_a_millisecond_longer() {
        let mut timer = Timer::new().unwrap();
        let mut late = Vec::new();
        for _ in 0..50 {
            let moment = Instant::now() + Duration::from_micros(300);
            timer.until(moment).await.unwrap();
            assert!(Instant::now() >= moment);
            late.push(moment.elapsed());
        }
        late.sort();
        // The best of fifty, because the machine has other work.
        assert!(late[0] < Duration::from_micros(500), "{late:?}");
        timer.until(Instant::now()).await.unwrap();
    }
}
