//! Rate limits that hold over all replicas and cost almost nothing.
//!
//! The buckets are in [`Live`]. A replica takes a handful of tokens from one at a time and spends them by
//! itself, so most requests ask nobody; what is taken can never be more than the bucket has. When a bucket
//! is empty, everybody who draws on it is refused here until the moment it named, without asking anybody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_broker_wire::ErrorCode;
use culvert_service_kit::Clock;
use parking_lot::Mutex;
use quick_cache::sync::Cache;

use crate::core::Refusal;
use crate::live::{Live, Rate, Taken};

/// Who is remembered here; the others ask their bucket again.
const REMEMBERED: usize = 65_536;
/// Taken at a time at most.
const HANDFUL: u32 = 16;
/// What was taken and not spent by then is forgotten, so that it does not add to a bucket that filled again.
const SPEND_WITHIN: Duration = Duration::from_secs(1);

/// Limits how often something is done.
pub struct Limiter {
    live: Arc<dyn Live>,
    clock: Clock,
    rate: Rate,
    handful: u32,
    here: Cache<String, Arc<Mutex<Here>>>,
}

/// What this replica knows of one bucket.
#[derive(Clone, Copy)]
struct Here {
    /// Taken and not spent.
    tokens: u32,
    /// Until when they may be spent.
    spend_by: Instant,
    /// Empty until then.
    empty_until: Instant,
}

impl Limiter {
    /// Over these buckets.
    pub fn new(live: Arc<dyn Live>, clock: Clock, rate: Rate) -> Self {
        // A tenth of a burst: what a replica holds unspent is not there for the others.
        let handful = (rate.burst / 10).clamp(1, HANDFUL);
        Self { live, clock, rate, handful, here: Cache::new(REMEMBERED) }
    }

    /// Counts one request against the bucket with this name.
    ///
    /// # Errors
    /// `RATE_LIMITED`; `UNAVAILABLE` if the buckets cannot be asked: what cannot be counted is not let in.
    pub async fn charge(&self, bucket: &str) -> Result<(), Refusal> {
        let now = self.clock.now();
        let here = match self.here.get(bucket) {
            Some(here) => here,
            None => {
                let new = Arc::new(Mutex::new(Here { tokens: 0, spend_by: now, empty_until: now }));
                self.here.insert(bucket.to_owned(), new.clone());
                new
            }
        };
        if self.spend(&here, now)? {
            return Ok(());
        }
        let buckets = [(bucket.to_owned(), self.rate)];
        // The last tokens of a bucket are fewer than a handful.
        for count in [self.handful, 1] {
            match self.live.charge(&buckets, count).await? {
                Taken::Allowed => {
                    let mut here = here.lock();
                    let kept = if here.spend_by > now { here.tokens } else { 0 };
                    *here = Here {
                        tokens: (kept + count - 1).min(2 * self.handful),
                        spend_by: now + SPEND_WITHIN,
                        empty_until: now,
                    };
                    return Ok(());
                }
                Taken::Wait(wait) if count == 1 => {
                    here.lock().empty_until = now + wait;
                    return Err(refused(wait));
                }
                Taken::Wait(_) => {}
            }
        }
        Err(refused(Duration::from_secs(1)))
    }

    /// Whether a token that was taken before could be spent.
    fn spend(&self, here: &Mutex<Here>, now: Instant) -> Result<bool, Refusal> {
        let mut here = here.lock();
        if here.empty_until > now {
            return Err(refused(here.empty_until - now));
        }
        let spent = here.tokens > 0 && here.spend_by > now;
        if spent {
            here.tokens -= 1;
        }
        Ok(spent)
    }
}

fn refused(wait: Duration) -> Refusal {
    Refusal::new(ErrorCode::RateLimited, "too many requests; wait as long as `Retry-After` says").after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::memory::MemoryLive;

    const RATE: Rate = Rate { per_second: 1.0, burst: 30 };

    fn replicas(clock: &Clock) -> [Limiter; 2] {
        let live: Arc<dyn Live> = Arc::new(MemoryLive::new(clock.clone()));
        [0, 1].map(|_| Limiter::new(live.clone(), clock.clone(), RATE))
    }

    #[tokio::test]
    async fn two_replicas_together_let_through_what_one_bucket_has() {
        let clock = Clock::manual(0);
        let replicas = replicas(&clock);
        let mut passed = 0;
        for turn in 0..100 {
            passed += u32::from(replicas[turn % 2].charge("a").await.is_ok());
        }
        assert_eq!(passed, RATE.burst);
        assert!(replicas[0].charge("b").await.is_ok(), "buckets are apart");
    }

    #[tokio::test]
    async fn an_empty_bucket_says_when_it_has_something_again() {
        let clock = Clock::manual(0);
        let [limiter, other] = replicas(&clock);
        while limiter.charge("a").await.is_ok() {}
        let refused = limiter.charge("a").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::RateLimited);
        clock.advance(refused.retry_after.unwrap());
        assert!(limiter.charge("a").await.is_ok());
        assert!(limiter.charge("a").await.is_err() && other.charge("a").await.is_err());
    }

    #[tokio::test]
    async fn what_a_replica_holds_unspent_does_not_add_to_a_bucket_that_filled_again() {
        let clock = Clock::manual(0);
        let [limiter, _] = replicas(&clock);
        limiter.charge("a").await.unwrap();
        clock.advance(Duration::from_secs(60));
        let mut passed = 0;
        while limiter.charge("a").await.is_ok() {
            passed += 1;
        }
        assert_eq!(passed, RATE.burst);
    }
}
