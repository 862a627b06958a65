//! One run of a worker, by the orders of its coordinator.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use culvert_testkit::process::resources;
use rustix::time::{ClockId, clock_gettime};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::control::{Moment, Order, Receiver, Sender, Used, WORD_EVERY, Word};
use crate::frames::{Dialer, Peer, SMALL_BUFFER};
use crate::plan::Plan;
use crate::scenario;
use crate::stage::{Director, Ending, Phase, Stage};
use crate::target;

/// From the channel to the plan: relays are started before workers.
const PLANNED: Duration = Duration::from_secs(60);
/// For the one connection that shows that the relays can be reached and let peers in.
const PROBE: Duration = Duration::from_secs(15);

/// Plays one plan; within a [`tokio::task::LocalSet`].
///
/// # Errors
/// Why the run failed, which the coordinator was told too, or that it is gone.
pub(super) async fn play((mut sender, mut orders): (Sender, Receiver)) -> Result<()> {
    sender.send(&Word::Here { pid: std::process::id(), used: used()? }).await?;
    let order = timeout(PLANNED, orders.recv()).await.context("the coordinator sends no plan")?;
    let Some(Order::Plan(plan)) = order.context("no plan")? else { bail!("the coordinator is gone") };
    let run = async {
        prepared(&plan, &mut sender, &mut orders).await?;
        Run::new(*plan, &mut sender).direct(&mut orders).await
    };
    let failed = match run.await {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    // If the coordinator is gone, too, there is nobody to tell.
    let _sent = sender.send(&Word::Failed(format!("{failed:#}"))).await;
    Err(failed)
}

/// Prepares, and says meanwhile that it is alive.
async fn prepared(plan: &Plan, sender: &mut Sender, orders: &mut Receiver) -> Result<()> {
    let mut preparing = std::pin::pin!(prepare(plan));
    let mut ticks = ticker();
    loop {
        tokio::select! {
            prepared = &mut preparing => return prepared,
            order = orders.recv::<Order>() => {
                bail!("the coordinator {}", if order?.is_some() { "is in a hurry" } else { "is gone" })
            }
            _ = ticks.tick() => {
                let (moment, sample) = (Moment::Connecting, Box::default());
                sender.send(&Word::Sample { moment, sample, used: used()? }).await?;
            }
        }
    }
}

/// Finds out what would make the run fail, while it is one sentence and not a thousand errors.
async fn prepare(plan: &Plan) -> Result<()> {
    plan.check()?;
    let connections = plan.scenario.connections();
    target::ensure_open_files(connections, plan.share)?;
    target::ensure_ports(plan.share.part(connections), &plan.reach)?;
    let dialer = timeout(PROBE, Dialer::new(&plan.reach)).await;
    let dialer = dialer.map_err(|_| anyhow!("no name was looked up within {PROBE:?}"))??;
    for (number, url) in plan.reach.urls.iter().enumerate() {
        let connected = timeout(PROBE, Peer::connect(&dialer, number, SMALL_BUFFER)).await;
        let connected = connected.map_err(|_| anyhow!("no answer within {PROBE:?}"));
        drop(connected.and_then(|peer| Ok(peer?)).with_context(|| format!("{url} cannot be used"))?);
    }
    Ok(())
}

/// The director of one scenario.
struct Run<'a> {
    sender: &'a mut Sender,
    director: Director,
    scenario: JoinSet<Result<Ending>>,
    times: (Duration, Duration),
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Connecting,
    /// All peers are connected, and the others' may not be.
    Waiting,
    WarmUp {
        until: Instant,
    },
    Measuring {
        since: Instant,
        sampled: Instant,
    },
    Accounts,
}

impl<'a> Run<'a> {
    fn new(plan: Plan, sender: &'a mut Sender) -> Self {
        let times = (plan.warm_up, plan.duration);
        let (stage, director) = Stage::new(plan);
        let mut scenario = JoinSet::new();
        scenario.spawn_local(scenario::run(stage));
        Self { sender, director, scenario, times, state: State::Connecting }
    }

    async fn direct(mut self, orders: &mut Receiver) -> Result<()> {
        let mut ready = self.director.ready.clone();
        let mut ticks = ticker();
        loop {
            let next = self.next_boundary();
            tokio::select! {
                ended = self.scenario.join_next() => return self.ended(ended).await,
                order = orders.recv() => match order? {
                    Some(Order::Go) if self.state == State::Waiting => {
                        self.director.phase.send_replace(Phase::WarmUp);
                        self.state = State::WarmUp { until: Instant::now() + self.times.0 };
                    }
                    Some(Order::Over) => self.over().await?,
                    Some(_) => bail!("the coordinator gave an order that makes no sense now"),
                    None => bail!("the coordinator is gone"),
                },
                Ok(_) = ready.wait_for(|ready| *ready), if self.state == State::Connecting => {
                    self.state = State::Waiting;
                    self.sender.send(&Word::Ready).await?;
                }
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    self.boundary(&mut ticks).await?;
                }
                _ = ticks.tick() => self.tick().await?,
            }
        }
    }

    /// When the state changes by itself.
    fn next_boundary(&self) -> Option<Instant> {
        match self.state {
            State::WarmUp { until } => Some(until),
            State::Measuring { since, .. } => Some(since + self.times.1),
            _ => None,
        }
    }

    async fn boundary(&mut self, ticks: &mut tokio::time::Interval) -> Result<()> {
        if let State::WarmUp { .. } = self.state {
            self.sample(Moment::WarmUp, Duration::ZERO, Duration::ZERO).await?;
            let since = Instant::now();
            self.state = State::Measuring { since, sampled: since };
            self.director.phase.send_replace(Phase::Measuring);
            *ticks = ticker();
            // The first tick of an interval is due at once.
            ticks.tick().await;
            Ok(())
        } else {
            self.over().await
        }
    }

    /// Something is said in every state, so that silence means that the process hangs.
    async fn tick(&mut self) -> Result<()> {
        match self.state {
            State::Connecting | State::Waiting => {
                self.sample(Moment::Connecting, Duration::ZERO, WORD_EVERY).await
            }
            State::WarmUp { .. } => self.sample(Moment::WarmUp, Duration::ZERO, WORD_EVERY).await,
            State::Measuring { since, .. } => {
                // Ticks come at whole seconds, and a little late.
                let number = whole(since.elapsed() + WORD_EVERY / 2);
                // The last one belongs to the boundary, which it may outrun.
                if number < self.seconds() { self.second(number).await } else { Ok(()) }
            }
            State::Accounts => self.sample(Moment::Accounts, Duration::ZERO, WORD_EVERY).await,
        }
    }

    /// How many seconds are measured; the last one may be shorter.
    fn seconds(&self) -> u32 {
        whole(self.times.1.saturating_sub(Duration::from_nanos(1))) + 1
    }

    /// The sample of the second of this number, or of what has passed of it.
    async fn second(&mut self, number: u32) -> Result<()> {
        let State::Measuring { since, sampled } = self.state else { return Ok(()) };
        let now = Instant::now();
        self.state = State::Measuring { since, sampled: now };
        self.sample(Moment::Second(number), now - since, now - sampled).await
    }

    /// The end of the measuring, by the clock or by an order.
    async fn over(&mut self) -> Result<()> {
        if self.state == State::Accounts {
            return Ok(());
        }
        if let State::Measuring { since, .. } = self.state {
            self.second(self.seconds().min(whole(since.elapsed()) + 1)).await?;
        }
        self.state = State::Accounts;
        self.director.phase.send_replace(Phase::Over);
        Ok(())
    }

    async fn sample(&mut self, moment: Moment, at: Duration, span: Duration) -> Result<()> {
        let sample = Box::new(self.director.recorder.take(at, span));
        Ok(self.sender.send(&Word::Sample { moment, sample, used: used()? }).await?)
    }

    async fn ended(&mut self, ended: Option<Result<Result<Ending>, JoinError>>) -> Result<()> {
        let ended = ended.context("there is no scenario")?;
        let ending = ended.map_err(|error| anyhow!("the scenario broke off: {error}"))??;
        if self.state != State::Accounts {
            bail!("the scenario ended before the run was over");
        }
        let rest = Box::new(self.director.recorder.take(Duration::ZERO, Duration::ZERO));
        Ok(self.sender.send(&Word::Done { ending, rest }).await?)
    }
}

/// Whole seconds in this time.
fn whole(time: Duration) -> u32 {
    u32::try_from(time.as_nanos() / WORD_EVERY.as_nanos()).unwrap_or(u32::MAX)
}

fn ticker() -> tokio::time::Interval {
    let mut ticks = interval(WORD_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// What this process has used: processor time to the nanosecond, ended threads included.
fn used() -> Result<Used> {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu = Duration::try_from(cpu).context("no processor time")?;
    Ok(Used { cpu, resident: resources(std::process::id())?.resident })
}
