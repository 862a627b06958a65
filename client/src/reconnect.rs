//! When to come back after a connection to the relay was lost. Pure: no clock, no dice of its own.
//!
//! Full jitter (a uniformly random share of a cap that doubles) spreads the peers of a dead node over
//! time. The cap starts over only after a connection proved alive by carrying a message both ways:
//! networks that let a WebSocket open and then kill it would otherwise be hammered at the first delay.

use std::time::Duration;

use culvert_wire::Close;

/// How to come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReconnectPolicy {
    /// Cap of the first delay.
    pub first: Duration,
    /// Cap of every later delay.
    pub longest: Duration,
    /// Time for one attempt to connect, from the name to the welcome; doubles with every failure in a row,
    /// up to the transport's time-out. A balancer may pick a node that no longer answers, and another one
    /// at the next attempt.
    pub attempt: Duration,
    /// Connections in a row that opened and died without having carried a message both ways, after
    /// which [`Next::After`] says that the network seems to kill them.
    pub fast_deaths: u32,
}

impl Default for ReconnectPolicy {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(30),
            attempt: Duration::from_secs(5),
            fast_deaths: 3,
        }
    }
}

/// How a connection, or the attempt at one, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It never opened: no route, no TLS, no upgrade, no welcome in time.
    NeverOpened,
    /// It never opened, because the node that answered is going away: the next one may be another.
    SentOn,
    /// It opened and broke without a close frame.
    Broke,
    /// The relay closed it with this code.
    Closed(u16),
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Try again after this time.
    After {
        /// How long to wait.
        delay: Duration,
        /// Whether connections open and die as if something on the way killed them.
        killed_on_the_way: bool,
    },
    /// Do not come back: the same attempt would fail again.
    Stop,
}

/// Where in the policy a client is.
#[derive(Debug, Clone)]
pub struct Reconnect {
    policy: ReconnectPolicy,
    failures: u32,
    fast_deaths: u32,
    sent_on: u32,
}

/// Times in a row that a node may send this peer on before it waits as after any failure: the balancer
/// picks another node at once, or has not noticed yet.
const SENT_ON: u32 = 2;
/// Share of the first cap that is waited then.
const SENT_ON_SHARE: u32 = 4;

impl Reconnect {
    /// At the beginning of `policy`.
    pub fn new(policy: ReconnectPolicy) -> Self {
        Self { policy, failures: 0, fast_deaths: 0, sent_on: 0 }
    }

    /// The connection carried a message both ways.
    pub fn proved_alive(&mut self) {
        self.failures = 0;
        self.fast_deaths = 0;
        self.sent_on = 0;
    }

    /// How long the next attempt may take.
    pub fn attempt_limit(&self) -> Duration {
        self.policy.attempt.saturating_mul(2_u32.saturating_pow(self.failures))
    }

    /// A connection, or the attempt at one, has ended; `dice` is a random number.
    pub fn ended(&mut self, ended: Ended, dice: u64) -> Next {
        if let Ended::Closed(code) = ended
            && !Close::code_may_reconnect(code)
        {
            return Next::Stop;
        }
        match ended {
            // What the relay says in so many words is no sign of a middlebox, and an attempt that
            // never opened says nothing about one either way.
            Ended::Broke => self.fast_deaths = self.fast_deaths.saturating_add(1),
            Ended::Closed(_) | Ended::NeverOpened | Ended::SentOn => {}
        }
        let cap = if ended == Ended::SentOn && self.sent_on < SENT_ON {
            self.sent_on += 1;
            self.policy.first / SENT_ON_SHARE
        } else {
            let cap = self.cap();
            self.failures = self.failures.saturating_add(1);
            cap
        };
        Next::After {
            delay: cap.mul_f64(share(dice)),
            killed_on_the_way: self.fast_deaths >= self.policy.fast_deaths.max(1),
        }
    }

    fn cap(&self) -> Duration {
        let doubled = self.policy.first.saturating_mul(2_u32.saturating_pow(self.failures));
        doubled.min(self.policy.longest)
    }
}

/// A number from 0 to 1 out of all 64 bits.
#[expect(clippy::cast_precision_loss, reason = "53 random bits are plenty for a delay")]
fn share(dice: u64) -> f64 {
    dice as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn delay(next: Next) -> Duration {
        match next {
            Next::After { delay, .. } => delay,
            Next::Stop => panic!("stopped"),
        }
    }

    #[test]
    fn the_cap_doubles_up_to_the_longest_and_starts_over_after_a_proof_of_life() {
        let mut reconnect = Reconnect::new(ReconnectPolicy::default());
        let caps: Vec<_> =
            (0..10).map(|_| delay(reconnect.ended(Ended::NeverOpened, u64::MAX)).as_millis()).collect();
        assert_eq!(caps, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000]);
        reconnect.proved_alive();
        assert_eq!(delay(reconnect.ended(Ended::Broke, u64::MAX)), Duration::from_millis(100));
    }

    #[test]
    fn who_is_sent_on_by_a_leaving_node_tries_the_next_one_almost_at_once_and_not_for_ever() {
        let mut reconnect = Reconnect::new(ReconnectPolicy::default());
        let mut sent_on = || delay(reconnect.ended(Ended::SentOn, u64::MAX)).as_millis();
        assert_eq!([sent_on(), sent_on(), sent_on(), sent_on()], [25, 25, 100, 200]);
    }

    #[test]
    fn an_attempt_may_take_longer_after_every_failure() {
        let mut reconnect = Reconnect::new(ReconnectPolicy::default());
        assert_eq!(reconnect.attempt_limit(), Duration::from_secs(5));
        reconnect.ended(Ended::NeverOpened, 0);
        assert_eq!(reconnect.attempt_limit(), Duration::from_secs(10));
        reconnect.proved_alive();
        assert_eq!(reconnect.attempt_limit(), Duration::from_secs(5));
    }

    #[test]
    fn opening_alone_does_not_start_the_delays_over() {
        let mut reconnect = Reconnect::new(ReconnectPolicy::default());
        let caps: Vec<_> =
            (0..3).map(|_| delay(reconnect.ended(Ended::Broke, u64::MAX)).as_millis()).collect();
        assert_eq!(caps, [100, 200, 400]);
    }

    #[test]
    fn connections_that_die_young_are_recognised() {
        let mut reconnect = Reconnect::new(ReconnectPolicy::default());
        let killed = |next| matches!(next, Next::After { killed_on_the_way: true, .. });
        assert!(!killed(reconnect.ended(Ended::Broke, 0)));
        assert!(!killed(reconnect.ended(Ended::NeverOpened, 0)));
        assert!(!killed(reconnect.ended(Ended::Broke, 0)));
        assert!(killed(reconnect.ended(Ended::Broke, 0)));
        reconnect.proved_alive();
        assert!(!killed(reconnect.ended(Ended::Broke, 0)));
    }

    #[test]
    fn every_close_code_decides_whether_to_come_back() {
        for close in Close::ALL {
            let next = Reconnect::new(ReconnectPolicy::default()).ended(Ended::Closed(close.code()), 0);
            assert_eq!(next == Next::Stop, !close.may_reconnect(), "{close:?}");
        }
    }

    proptest! {
        #[test]
        fn a_delay_never_exceeds_its_cap(failures in 0_u32..10_000, dice: u64) {
            let mut reconnect = Reconnect::new(ReconnectPolicy::default());
            reconnect.failures = failures;
            let cap = reconnect.cap();
            prop_assert!(cap <= Duration::from_secs(30));
            prop_assert!(delay(reconnect.ended(Ended::Broke, dice)) <= cap);
        }
    }
}
