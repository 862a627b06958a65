//! What is done to relays and Redis on purpose, while load runs.
//!
//! One fault after the other: it happens, everything comes back, and its time and duration are noted. Which
//! one is next the seed decides, in such a way that all kinds have had their turn before one comes again.
//! A spawned [`Target`] is in our hands; for relays elsewhere the operator gives commands.

mod command;
mod kind;

use std::time::Duration;

use anyhow::{Result, ensure};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::{Instant, interval, sleep_until};

use self::kind::{Deck, Fault};
use crate::report;
use crate::target::Target;

/// How often a target is asked whether it is whole again.
const POLL: Duration = Duration::from_millis(100);

/// What came of it.
#[derive(Debug, Default)]
pub struct Made {
    /// What happened.
    pub faults: Vec<report::Fault>,
    /// Why it ended early.
    pub failure: Option<String>,
}

/// What faults to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// From the beginning of one to the beginning of the next; later if it has not healed by then.
    pub every: Duration,
    /// For how long a relay is stopped: longer than its lease.
    pub hang: Duration,
    /// Longest wait for a target to be whole again.
    pub recovery: Duration,
    /// Commands that make the faults; without any they happen to what this run has spawned.
    pub commands: Vec<String>,
    /// For everything that is drawn.
    pub seed: u64,
}

impl Faults {
    /// Checks that there is something to which faults can happen.
    ///
    /// # Errors
    /// A sentence that says what to give.
    pub fn check(&self, target: &Target) -> Result<()> {
        ensure!(
            target.relays() > 0 || !self.commands.is_empty(),
            "chaos needs something that it may break: --spawn 3, or --fault-command for relays elsewhere"
        );
        Ok(())
    }

    /// Makes faults from now, when measuring begins, for so long. All have healed when it returns; the last
    /// one begins early enough for the load to go on after it. What did not heal is the last, and a failure.
    pub async fn make(&self, target: &Target, duration: Duration) -> Made {
        let began = Instant::now();
        let last = duration.saturating_sub(self.every);
        let mut deck = Deck::new(target, SmallRng::seed_from_u64(self.seed));
        let (mut made, mut at) = (Made::default(), self.every);
        while at <= last {
            sleep_until(began + at).await;
            let fault = self.draw(&mut deck, made.faults.len());
            let what = fault.to_string();
            let healed = self.one(target, &fault).await;
            made.faults.push(report::Fault { at, lasted: began.elapsed().saturating_sub(at), what });
            if let Err(error) = healed {
                made.failure = Some(format!("no recovery from a fault ({fault}): {error:#}"));
                break;
            }
            at = (at + self.every).max(began.elapsed());
        }
        made
    }

    fn draw(&self, deck: &mut Deck, number: usize) -> Fault {
        match self.commands.len() {
            0 => deck.next(self.hang),
            commands => Fault::Command(self.commands[number % commands].clone()),
        }
    }

    /// Makes one and waits until everything is as before.
    async fn one(&self, target: &Target, fault: &Fault) -> Result<()> {
        fault.happen(target, self.recovery).await?;
        let (end, mut ticks) = (Instant::now() + self.recovery, interval(POLL));
        loop {
            ticks.tick().await;
            let ill = target.ill().await;
            if ill.is_empty() {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "after {:?} not everything is well: {}",
                self.recovery,
                ill.join("; ")
            );
        }
    }
}
