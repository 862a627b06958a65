//! A worker's run as its scenario sees it: connect, wait for the others, work until it is over.
//!
//! ```text
//! Connecting ──ready()──▶ (all workers) ──▶ WarmUp ──▶ Measuring ──▶ Over
//! ```
//!
//! Whoever drives the run ([`alone`] here, the worker process elsewhere) moves the phase; what was recorded
//! before [`Phase::Measuring`] is thrown away.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use tokio::sync::watch;

use crate::measure::{Recorder, Sample};
use crate::plan::{Plan, Reach, Share};
use crate::scenario;

/// How often a recorder is emptied.
pub const SAMPLED: Duration = Duration::from_secs(1);

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Peers connect.
    Connecting,
    /// Load, not counted.
    WarmUp,
    /// Load, counted.
    Measuring,
    /// The scenario is to end, and to account for what is under way.
    Over,
}

/// How a scenario ended, beside what it recorded.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Ending {
    /// Why the run failed although it came to its end, a sentence each: a ledger that does not balance.
    pub failures: Vec<String>,
    /// What a reader of the report should know, a sentence each.
    pub notes: Vec<String>,
}

/// What a scenario has around it. For one thread, within a [`tokio::task::LocalSet`].
pub struct Stage {
    plan: Plan,
    recorder: Rc<Recorder>,
    phase: watch::Receiver<Phase>,
    ready: watch::Sender<bool>,
    epoch: Instant,
}

/// The other side of a [`Stage`]: moves its phase and hears when it is ready.
pub struct Director {
    /// Moves the phase.
    pub phase: watch::Sender<Phase>,
    /// Turns true when the scenario has connected its peers.
    pub ready: watch::Receiver<bool>,
    /// To be emptied into samples.
    pub recorder: Rc<Recorder>,
}

impl Stage {
    /// A stage for this plan, and its director.
    pub fn new(plan: Plan) -> (Self, Director) {
        let (phase, phase_seen) = watch::channel(Phase::Connecting);
        let (ready, ready_seen) = watch::channel(false);
        let recorder = Rc::new(Recorder::default());
        let director = Director { phase, ready: ready_seen, recorder: recorder.clone() };
        (Self { plan, recorder, phase: phase_seen, ready, epoch: Instant::now() }, director)
    }

    /// What to do.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where.
    pub fn reach(&self) -> &Reach {
        &self.plan.reach
    }

    /// Which part of it.
    pub fn share(&self) -> Share {
        self.plan.share
    }

    /// Where measurements go.
    pub fn recorder(&self) -> &Rc<Recorder> {
        &self.recorder
    }

    /// Nanoseconds since this stage was made: the clock of every stamp in a frame.
    pub fn nanos(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The moment at which [`Stage::nanos`] was 0.
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// The phase, for whoever waits for one.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.clone()
    }

    /// Says that this worker's peers are connected, and waits for those of the others.
    pub async fn ready(&self) {
        self.ready.send_replace(true);
        self.reached(Phase::WarmUp).await;
    }

    /// Waits for the end of the run.
    pub async fn over(&self) {
        self.reached(Phase::Over).await;
    }

    /// Waits for a phase. A director that is gone means the end.
    pub async fn reached(&self, wanted: Phase) {
        let mut phase = self.phase.clone();
        // An error says that the director is gone.
        let _ended = phase.wait_for(|phase| *phase >= wanted).await;
    }
}

/// What a run alone measured.
#[derive(Debug, Clone)]
pub struct Alone {
    /// How the scenario ended.
    pub ending: Ending,
    /// Everything that was counted.
    pub total: Sample,
}

/// Runs a plan in this thread, with no other workers: for tests and benchmarks.
///
/// # Errors
/// The plan makes no sense, or the scenario failed.
pub async fn alone(plan: Plan) -> Result<Alone> {
    plan.check()?;
    let (warm_up, duration) = (plan.warm_up, plan.duration);
    let (stage, director) = Stage::new(plan);
    let direct = async move {
        let Director { phase, mut ready, recorder } = director;
        // An error says that the scenario ended before it was ready.
        if ready.wait_for(|ready| *ready).await.is_err() {
            return None;
        }
        phase.send_replace(Phase::WarmUp);
        tokio::time::sleep(warm_up).await;
        drop(recorder.take(Duration::ZERO, Duration::ZERO));
        phase.send_replace(Phase::Measuring);
        tokio::time::sleep(duration).await;
        phase.send_replace(Phase::Over);
        Some(recorder)
    };
    let recorder = stage.recorder().clone();
    let duration = stage.plan().duration;
    let work = async { scenario::run(stage).await };
    let (ending, directed) = tokio::join!(work, direct);
    let ending = ending?;
    directed.ok_or_else(|| anyhow!("the scenario ended before its peers were connected"))?;
    Ok(Alone { ending, total: recorder.take(duration, duration) })
}
