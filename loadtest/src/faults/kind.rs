//! What can happen to a target.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, seq};
use tokio::time::sleep;

use super::command;
use crate::target::Target;

/// For how long Redis is away, in milliseconds: from shorter to longer than the relays wait for an answer.
const REDIS_AWAY: std::ops::Range<u64> = 500..6_000;

/// One fault. Relays are numbered from 0 here, and from 1 for readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// `kill -9` of relays, all at once, and started again after a time.
    Kill(Vec<usize>, Duration),
    /// `SIGSTOP`, and `SIGCONT` after a time.
    Hang(usize, Duration),
    /// `SIGTERM`, and started again.
    Drain(usize),
    /// `kill -9` of Redis, and started empty after a time.
    LoseRedis(Duration),
    /// `SIGSTOP` of Redis, and `SIGCONT` after a time.
    HangRedis(Duration),
    /// Whatever the operator's command does, and takes back before it ends.
    Command(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kill,
    KillTwo,
    Hang,
    Drain,
    EmptyRedis,
    LoseRedis,
    HangRedis,
}

/// Faults in the order that the seed gives.
pub(super) struct Deck {
    relays: usize,
    kinds: Vec<Kind>,
    left: Vec<Kind>,
    random: SmallRng,
}

impl Deck {
    pub(super) fn new(target: &Target, random: SmallRng) -> Self {
        Self::of(target.relays(), target.has_redis(), random)
    }

    fn of(relays: usize, redis: bool, random: SmallRng) -> Self {
        let mut kinds = vec![Kind::Kill, Kind::Hang, Kind::Drain];
        if relays > 2 {
            kinds.push(Kind::KillTwo);
        }
        if redis {
            kinds.extend([Kind::EmptyRedis, Kind::LoseRedis, Kind::HangRedis]);
        }
        Self { relays, kinds, left: Vec::new(), random }
    }

    /// The next one; relays hang for so long, and stay down for less.
    pub(super) fn next(&mut self, hang: Duration) -> Fault {
        let kind = self.left.pop().unwrap_or_else(|| {
            self.left.clone_from(&self.kinds);
            self.left.shuffle(&mut self.random);
            self.left.pop().unwrap_or(Kind::Kill)
        });
        let relay = self.random.random_range(0..self.relays.max(1));
        let away = Duration::from_millis(self.random.random_range(REDIS_AWAY));
        // Shorter than a lease, or longer.
        let down = hang.mul_f64(self.random.random_range(0.0..1.0));
        match kind {
            Kind::Kill => Fault::Kill(vec![relay], down),
            Kind::KillTwo => {
                let mut both = seq::index::sample(&mut self.random, self.relays, 2).into_vec();
                both.sort_unstable();
                Fault::Kill(both, down)
            }
            Kind::Hang => Fault::Hang(relay, hang),
            Kind::Drain => Fault::Drain(relay),
            Kind::EmptyRedis => Fault::LoseRedis(Duration::ZERO),
            Kind::LoseRedis => Fault::LoseRedis(away),
            Kind::HangRedis => Fault::HangRedis(away),
        }
    }
}

impl Fault {
    /// Makes it, and takes it back.
    pub(super) async fn happen(&self, target: &Target, patience: Duration) -> Result<()> {
        match self {
            Fault::Kill(relays, down) => {
                for relay in relays {
                    target.kill(*relay).await?;
                }
                sleep(*down).await;
                for relay in relays {
                    target.start(*relay).await?;
                }
            }
            Fault::Hang(relay, time) => {
                target.pause(*relay).await?;
                sleep(*time).await;
                target.resume(*relay).await?;
            }
            Fault::Drain(relay) => {
                target.drain(*relay, patience).await?;
                target.start(*relay).await?;
            }
            Fault::LoseRedis(time) => {
                target.kill_redis().await?;
                sleep(*time).await;
                target.start_redis().await?;
            }
            Fault::HangRedis(time) => {
                target.pause_redis().await?;
                sleep(*time).await;
                target.resume_redis().await?;
            }
            Fault::Command(command) => command::run(command, patience).await?,
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill(relays, down) => match &relays[..] {
                [one] => write!(f, "relay {} was killed and started again after {down:.1?}", one + 1),
                many => {
                    let names: Vec<_> = many.iter().map(|relay| (relay + 1).to_string()).collect();
                    let names = names.join(" and ");
                    write!(f, "relays {names} were killed at once and started again after {down:.1?}")
                }
            },
            Fault::Hang(relay, time) => write!(f, "relay {} was stopped for {time:.1?}", relay + 1),
            Fault::Drain(relay) => write!(f, "relay {} was drained and started again", relay + 1),
            Fault::LoseRedis(time) if time.is_zero() => f.write_str("Redis was killed and started empty"),
            Fault::LoseRedis(time) => write!(f, "Redis was killed and started empty after {time:.1?}"),
            Fault::HangRedis(time) => write!(f, "Redis was stopped for {time:.1?}"),
            Fault::Command(command) => write!(f, "`{command}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const HANG: Duration = Duration::from_secs(10);

    fn first(seed: u64, count: usize) -> Vec<Fault> {
        let mut deck = Deck::of(3, true, SmallRng::seed_from_u64(seed));
        (0..count).map(|_| deck.next(HANG)).collect()
    }

    #[test]
    fn the_seed_decides_what_happens() {
        assert_eq!(first(1, 30), first(1, 30));
        assert_ne!(first(1, 30), first(2, 30));
    }

    #[test]
    fn every_kind_has_its_turn_before_one_comes_again() {
        let faults = first(3, 7);
        let count = |wanted: fn(&Fault) -> bool| faults.iter().filter(|fault| wanted(fault)).count();
        assert_eq!(count(|fault| matches!(fault, Fault::Kill(relays, _) if relays.len() == 1)), 1);
        assert_eq!(count(|fault| matches!(fault, Fault::Kill(relays, _) if relays.len() == 2)), 1);
        assert_eq!(count(|fault| matches!(fault, Fault::Hang(..))), 1);
        assert_eq!(count(|fault| matches!(fault, Fault::Drain(_))), 1);
        assert_eq!(count(|fault| matches!(fault, Fault::LoseRedis(_))), 2);
        assert_eq!(count(|fault| matches!(fault, Fault::HangRedis(_))), 1);
    }

    #[test]
    fn one_relay_alone_is_killed_stopped_and_drained() {
        let mut deck = Deck::of(1, false, SmallRng::seed_from_u64(5));
        for _ in 0..9 {
            let fault = deck.next(HANG);
            assert!(!matches!(fault, Fault::LoseRedis(_) | Fault::HangRedis(_)), "{fault}");
            assert!(!fault.to_string().contains("relay 2"), "{fault}");
        }
    }
}
