//! How fast one WebSocket may send.

use std::time::Duration;

use tokio::time::Instant;

use crate::live::Rate;

/// Messages over the rate, without a pause that would fill the bucket, after which a connection is closed:
/// a client that hears `RATE_LIMITED` this often does not listen.
const MOST_STRIKES: u32 = 20;

/// The bucket of one connection.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Rate,
    tokens: f64,
    at: Instant,
    strikes: u32,
}

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is answered.
    Go,
    /// It is refused, and nothing is read before this moment.
    Pause(Instant),
    /// The connection ends.
    Flood,
}

impl Pace {
    /// A full bucket.
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, tokens: f64::from(rate.burst), at: now, strikes: 0 }
    }

    /// Judges one message.
    pub(super) fn take(&mut self, now: Instant) -> Verdict {
        let burst = f64::from(self.rate.burst);
        let came = (now - self.at).as_secs_f64() * self.rate.per_second;
        (self.tokens, self.at) = ((self.tokens + came).min(burst), now);
        if self.tokens >= burst {
            self.strikes = 0;
        }
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Verdict::Go;
        }
        self.strikes += 1;
        if self.strikes > MOST_STRIKES {
            return Verdict::Flood;
        }
        let wait = (1.0 - self.tokens) / self.rate.per_second;
        Verdict::Pause(now + Duration::try_from_secs_f64(wait).unwrap_or(Duration::from_secs(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10.0, burst: 3 };

    #[test]
    fn a_burst_passes_and_then_one_message_per_period() {
        let start = Instant::now();
        let mut pace = Pace::new(RATE, start);
        for _ in 0..3 {
            assert_eq!(pace.take(start), Verdict::Go);
        }
        let Verdict::Pause(until) = pace.take(start) else { panic!() };
        assert_eq!((until - start).as_millis(), 100);
        assert_eq!(pace.take(until), Verdict::Go);
        assert!(matches!(pace.take(until), Verdict::Pause(_)));
    }

    #[test]
    fn whoever_goes_on_over_the_rate_is_closed_and_whoever_pauses_is_forgiven() {
        let mut now = Instant::now();
        let mut pace = Pace::new(RATE, now);
        let flood = |pace: &mut Pace, now: &mut Instant| {
            (0..1000).find(|_| match pace.take(*now) {
                Verdict::Go => false,
                Verdict::Pause(until) => {
                    *now = until;
                    false
                }
                Verdict::Flood => true,
            })
        };
        let first = flood(&mut pace, &mut now).expect("never closed");
        assert!(first > 20, "{first}");
        now += Duration::from_secs(1);
        assert_eq!(pace.take(now), Verdict::Go);
    }
}
