//! A run from its settings to its report.
//!
//! ```text
//! target ──▶ workers ──Plan──▶ Ready from all ──Go──▶ warm-up ──▶ samples ──▶ Done from all ──▶ report
//! ```
//!
//! One task hears everything that happens (`run::Run`). Every wait has a limit: whatever dies, hangs or
//! cannot connect ends the run with a sentence. What was measured until then is reported, marked as failed.
//!
//! The runtime is on the main thread and has no other: children are bound to the thread that starts them
//! ([`crate::launch`]).

mod crew;
mod machine;
mod outcome;
mod run;
mod signals;
mod tally;
mod usage;

use std::time::SystemTime;

use anyhow::Result;
use culvert_testkit::binaries::Missing;
use thiserror::Error;

use crate::args::{Relays, Settings};
use crate::launch::{self, Cores};
use crate::live::Live;
use crate::plan::Share;
use crate::target::{self, Spawn, Target};

use crew::Crew;
use outcome::Files;
use run::Run;
use signals::Interrupt;

/// Why there is no report.
#[derive(Debug, Error)]
pub enum Abort {
    /// Something is missing on this machine.
    #[error("{0:#}")]
    Missing(anyhow::Error),
    /// The run could not be made.
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Abort {
    fn from(error: anyhow::Error) -> Self {
        let is_missing = error.is::<Missing>() || error.is::<target::TooFew>();
        if is_missing { Abort::Missing(error) } else { Abort::Failed(error) }
    }
}

/// Makes a load test, prints what came out, and says whether it went as it should.
///
/// # Errors
/// There is nothing to report, or the report could not be written.
pub async fn conduct(settings: Settings) -> Result<bool, Abort> {
    let mut interrupt = Interrupt::new()?;
    let files = Files::of(&settings.output)?;
    let mut live = Live::new(settings.output.quiet, settings.duration);
    let started_at = SystemTime::now();
    let (target, crew) = tokio::select! {
        prepared = prepare(&settings, &mut live) => prepared?,
        () = interrupt.asked() => return Err(anyhow::anyhow!("interrupted before anything was measured").into()),
    };
    let run = Run::new(&settings, &target, crew, &mut live).await?;
    let measured = run.conduct(&mut interrupt).await?;
    live.end();
    let report = outcome::report(&settings, &target, started_at, measured)?;
    // Nothing that was started is needed any more, and some of it is large.
    drop(target);
    Ok(outcome::publish(&settings, &files, report)?)
}

/// Relays and workers, before anybody connects.
async fn prepare(settings: &Settings, live: &mut Live) -> Result<(Target, Crew)> {
    let (target_cores, load_cores) = if settings.pin { launch::pinned()? } else { (Cores::Any, Cores::Any) };
    let connections = settings.scenario.connections();
    for index in 0..settings.crew.local {
        target::ensure_open_files(connections, Share { index, of: settings.crew.size() })?;
    }
    let target = match &settings.relays {
        Relays::Existing { reach, .. } => Target::existing(reach.clone()),
        Relays::Spawned { relays, tls, admission, settings } => {
            live.stage(&format!("starting {relays} {}", if *relays == 1 { "relay" } else { "relays" }));
            let spawn = Spawn {
                program: launch::itself()?.arg("relay"),
                starter: Some(launch::starter(&target_cores)?),
                relays: *relays,
                tls: *tls,
                admission: admission.clone(),
                settings: settings.clone(),
                connections,
            };
            Target::spawn(&spawn).await?
        }
    };
    if let Some(faults) = settings.scenario.faults(settings.seed) {
        faults.check(&target)?;
    }
    live.stage("starting workers");
    let crew = Crew::assemble(&settings.crew, &launch::starter(&load_cores)?).await?;
    Ok((target, crew))
}
