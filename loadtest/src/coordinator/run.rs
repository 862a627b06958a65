//! The time from the first order to the last word.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::crew::{Crew, Heard};
use super::signals::Interrupt;
use super::tally::{Sum, Tally, seconds_per_point};
use super::usage::Meters;
use crate::args::{Relays, Settings};
use crate::control::{Moment, Order, WORD_EVERY, Word};
use crate::faults::Made;
use crate::live::{Live, Second};
use crate::plan::Share;
use crate::report::{Fault, ProcessUse};
use crate::target::Target;

/// For peers to connect, beside [`CONNECTING_EACH`].
const CONNECTING: Duration = Duration::from_secs(60);
/// For each connection more.
const CONNECTING_EACH: Duration = Duration::from_millis(10);
/// For the scenarios' accounts after the measuring, and for faults to heal.
const ACCOUNTS: Duration = Duration::from_secs(120);

/// What came out of it.
pub(super) struct Measured {
    pub(super) sum: Sum,
    pub(super) processes: Vec<ProcessUse>,
    pub(super) faults: Vec<Fault>,
    pub(super) failures: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// A run that is under way.
pub(super) struct Run<'a> {
    settings: &'a Settings,
    target: &'a Target,
    crew: Crew,
    live: &'a mut Live,
    meters: Meters,
    tally: Tally,
    /// Of each worker.
    connections: Vec<u64>,
    /// When the measuring was ended before its time, because of an interrupt or a failure.
    ended_early: Option<Instant>,
    relays: Option<Duration>,
    failures: Vec<String>,
    notes: Vec<String>,
    is_interrupted: bool,
}

impl<'a> Run<'a> {
    pub(super) async fn new(
        settings: &'a Settings,
        target: &'a Target,
        crew: Crew,
        live: &'a mut Live,
    ) -> Result<Self> {
        let per_point = seconds_per_point(settings.duration);
        let admins: &[_] = match &settings.relays {
            Relays::Existing { metrics, .. } => metrics,
            Relays::Spawned { .. } => &[],
        };
        let workers = crew.hands().iter().map(|hand| (hand.name.clone(), hand.used));
        let meters = Meters::new(&target.members(), admins, workers, per_point).await?;
        let size = crew.hands().len();
        Ok(Self {
            settings,
            target,
            crew,
            live,
            meters,
            tally: Tally::new(size, per_point),
            connections: vec![0; size],
            ended_early: None,
            relays: None,
            failures: Vec::new(),
            notes: Vec::new(),
            is_interrupted: false,
        })
    }

    pub(super) async fn conduct(mut self, interrupt: &mut Interrupt) -> Result<Measured> {
        self.connect(interrupt).await?;
        let faults = self.measure(interrupt).await?;
        let sum = self.tally.sum()?;
        // Workers hear of an early end, or of none any more, in the middle of a second.
        if self.ended_early.is_none() {
            self.notes.extend(late(&sum, &self.crew));
            self.failures.extend(gaps(&sum, &self.crew));
        }
        if self.is_interrupted {
            let (after, of) = (sum.total.at, self.settings.duration);
            let [after, of] = [after, of].map(|time| humantime::format_duration(whole_millis(time)));
            self.failures.push(format!("it was interrupted after {after} of {of}"));
        }
        // A report of nothing would be one that looks fine.
        ensure!(!sum.timeline.is_empty(), "nothing was measured: {}", self.failures.join("; "));
        let (processes, notes) = self.meters.end();
        self.notes.extend(notes);
        Ok(Measured { sum, processes, faults, failures: self.failures, notes: self.notes })
    }

    /// Until every worker's peers are connected. Whatever fails until then fails the run.
    async fn connect(&mut self, interrupt: &mut Interrupt) -> Result<()> {
        let (size, connections) = (self.crew.hands().len(), self.settings.scenario.connections());
        self.live.stage(&format!("connecting {connections} peers"));
        for index in 0..size {
            let share = Share { index, of: size };
            let plan = Box::new(self.settings.plan(self.target.reach().clone(), share));
            self.crew.order(index, &Order::Plan(plan)).await;
        }
        let each = CONNECTING_EACH.saturating_mul(u32::try_from(connections).unwrap_or(u32::MAX));
        let end = Instant::now() + CONNECTING + each;
        let (mut ready, mut ticks) = (0, interval(WORD_EVERY));
        while ready < size {
            tokio::select! {
                (index, heard) = self.crew.hear() => match heard {
                    Heard::Word(Word::Ready) => ready += 1,
                    Heard::Word(Word::Sample { sample, used, .. }) => {
                        self.meters.worker(index, used, None);
                        self.connections[index] = sample.connections;
                        self.live.connecting(self.connections.iter().sum(), connections);
                    }
                    heard => bail!(self.last_word(index, heard).await),
                },
                _ = ticks.tick() => {
                    if let Some(sentence) = self.crew.give_up_silent().pop() {
                        bail!(sentence);
                    }
                }
                () = sleep_until(end) => {
                    let now: u64 = self.connections.iter().sum();
                    bail!("only {now} of {connections} peers were connected after {:?}", CONNECTING + each);
                }
                () = interrupt.asked() => bail!("interrupted before anything was measured"),
            }
        }
        Ok(())
    }

    /// From the order to begin to the last word of every worker.
    async fn measure(&mut self, interrupt: &mut Interrupt) -> Result<Vec<Fault>> {
        let (warm_up, duration) = (self.settings.warm_up, self.settings.duration);
        if !warm_up.is_zero() {
            self.live.stage("warming up");
        }
        self.crew.order_all(&Order::Go).await;
        let begin = Instant::now() + warm_up;
        let (faults, target) = (self.settings.scenario.faults(self.settings.seed), self.target);
        let mut faults = std::pin::pin!(async {
            sleep_until(begin).await;
            match faults {
                Some(faults) => faults.make(target, duration).await,
                None => Made::default(),
            }
        });
        let (mut made, mut read) = (None, 0u32);
        let mut ticks = interval(WORD_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.crew.is_over() || made.is_none() {
            let next = begin + (WORD_EVERY * read).min(duration);
            let is_reading = self.ended_early.is_none() && WORD_EVERY * read < duration + WORD_EVERY;
            let end = self.ended_early.unwrap_or(begin + duration) + ACCOUNTS;
            if self.ended_early.is_some() {
                // What was broken on purpose stays so: the target goes with the run.
                made.get_or_insert_with(Made::default);
            }
            tokio::select! {
                (index, heard) = self.crew.hear() => self.hear(index, heard).await?,
                () = sleep_until(next), if is_reading => {
                    let at = begin.elapsed();
                    let relays = self.meters.read(&self.target.members(), read, at).await;
                    self.relays = (read > 0).then_some(relays);
                    read += 1;
                }
                result = &mut faults, if made.is_none() => made = Some(result),
                _ = ticks.tick() => {
                    let silent = self.crew.give_up_silent();
                    if !silent.is_empty() {
                        self.failures.extend(silent);
                        self.end_early().await;
                    }
                }
                () = interrupt.asked() => {
                    if self.is_interrupted {
                        bail!("interrupted a second time");
                    }
                    self.is_interrupted = true;
                    self.live.stage("ending early");
                    self.end_early().await;
                }
                () = sleep_until(end) => bail!("the accounts were not done {ACCOUNTS:?} after the measuring"),
            }
        }
        let made = made.unwrap_or_default();
        self.failures.extend(made.failure);
        Ok(made.faults)
    }

    async fn hear(&mut self, index: usize, heard: Heard) -> Result<()> {
        match heard {
            Heard::Word(Word::Sample { moment, sample, used }) => {
                let second = if let Moment::Second(number) = moment { Some(number) } else { None };
                self.meters.worker(index, used, second.map(|number| (number, sample.at)));
                match moment {
                    Moment::Connecting | Moment::WarmUp => {}
                    Moment::Second(number) => {
                        if let Some(whole) = self.tally.second(index, number, &sample)? {
                            self.live.second(number, &Second { sample: &whole, relays: self.relays });
                        }
                    }
                    Moment::Accounts => {
                        self.live.stage("doing the accounts");
                        self.tally.rest(&sample)?;
                    }
                }
            }
            Heard::Word(Word::Done { ending, rest }) => {
                self.tally.rest(&rest)?;
                for (from, to) in [(ending.failures, &mut self.failures), (ending.notes, &mut self.notes)] {
                    // All workers may have the same to say.
                    to.extend(from.into_iter().filter(|sentence| !to.contains(sentence)).collect::<Vec<_>>());
                }
            }
            heard => {
                let sentence = self.last_word(index, heard).await;
                self.failures.push(sentence);
                // Without it the others measure something else.
                self.end_early().await;
            }
        }
        Ok(())
    }

    /// Asks all workers for what they have measured so far.
    async fn end_early(&mut self) {
        self.ended_early.get_or_insert_with(Instant::now);
        self.crew.order_all(&Order::Over).await;
    }

    /// A sentence about a worker that ended too early.
    async fn last_word(&mut self, index: usize, heard: Heard) -> String {
        match heard {
            // A worker alone needs no name.
            Heard::Word(Word::Failed(sentence)) if self.crew.hands().len() == 1 => sentence,
            Heard::Word(Word::Failed(sentence)) => format!("{}: {sentence}", self.crew.hands()[index].name),
            Heard::Word(_) => format!("{} says what makes no sense now", self.crew.hands()[index].name),
            Heard::End(why) => self.crew.loss(index, &why).await,
        }
    }
}

/// A sentence about each worker that had no time for some of its samples.
fn late(sum: &Sum, crew: &Crew) -> Vec<String> {
    let hands = crew.hands().iter().enumerate();
    let late =
        hands.map(|(index, hand)| (hand, sum.late.iter().filter(|(worker, _)| *worker == index).count()));
    let late = late.filter(|(_, seconds)| *seconds > 0);
    late.map(|(hand, seconds)| {
        format!(
            "{} had no time for its samples in {seconds} seconds, which count to those after them: the machine \
             was busy with other things, and times are longer for it",
            hand.name
        )
    })
    .collect()
}

/// A sentence about each worker that left seconds out.
fn gaps(sum: &Sum, crew: &Crew) -> Vec<String> {
    let mut sentences = Vec::new();
    for (index, hand) in crew.hands().iter().enumerate() {
        let seconds: Vec<u32> =
            sum.gaps.iter().filter(|(worker, _)| *worker == index).map(|(_, n)| *n).collect();
        if let Some(first) = seconds.first() {
            let number = seconds.len();
            let what = if number == 1 { "second".to_owned() } else { format!("{number} seconds, first") };
            sentences.push(format!("{} gave no sample for {what} {first}", hand.name));
        }
    }
    sentences
}

fn whole_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
