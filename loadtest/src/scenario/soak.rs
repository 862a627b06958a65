//! Load for hours, at half of what the relays can do, to see whether anything grows.
//!
//! Sessions and raw frames flow all the time, with ledgers that must balance, and further peers come and go.
//! The verdict is about memory: of each relay, the most that it ever had in memory after the first minutes,
//! against the most that it had in them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use culvert_wire::TopicId;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::size::Size;
use crate::frames::{Crew, SMALL_BUFFER};
use crate::lanes::{self, Lanes};
use crate::measure::Count;
use crate::plan::Plan;
use crate::report::{Report, Role};
use crate::sessions::{self, Due, Pace, Sessions};
use crate::stage::{Ending, Phase, Stage};

/// The first part of a run, in which memory may grow: buffers, tables and pools find their size.
const SETTLING: Duration = Duration::from_secs(300);
/// Of a run that is too short for it, this part.
const SETTLING_PART: u32 = 6;
/// By how much a point may come later than its second.
const LATE: Duration = Duration::from_millis(500);
/// Comers that are in their topics at a time.
const STAYING: usize = 32;

/// Settings of `soak`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
pub struct Soak {
    /// Pairs of peers in conversation.
    #[arg(long, default_value_t = 100)]
    pub pairs: usize,
    /// Pairs of raw peers.
    #[arg(long, default_value_t = 100)]
    pub lanes: usize,
    /// Messages, or frames, a second in each.
    #[arg(long, default_value_t = 50.0)]
    pub rate: f64,
    /// Payload of a message or frame.
    #[arg(long, default_value = "1KiB")]
    pub size: Size,
    /// Further peers a second that connect, enter a topic of their own, and leave.
    #[arg(long, default_value_t = 10.0)]
    pub comers: f64,
    /// By how much a relay's resident memory may grow beyond its maximum in the first five minutes, or in the
    /// first sixth of a shorter run.
    #[arg(long, value_name = "PERCENT", value_parser = percent, default_value = "5%")]
    pub max_growth: f64,
    /// How long a relay may take to deliver or to report a frame.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "15s")]
    pub settle: Duration,
}

/// Sessions, raw frames, and peers that come and go, in one run.
#[derive(Debug, Clone)]
pub(super) struct Both {
    pub(super) sessions: sessions::Load,
    pub(super) lanes: lanes::Load,
    /// Peers a second.
    pub(super) comers: f64,
}

impl Soak {
    /// See [`crate::scenario::Scenario::check`].
    pub(super) fn check(&self, _plan: &Plan) -> Result<()> {
        ensure!(self.comers == 0.0 || Pace::Rate(self.comers).check().is_ok(), "--comers makes no sense");
        self.both().check()
    }

    pub(super) fn connections(&self) -> usize {
        self.both().connections()
    }

    /// See [`crate::scenario::Scenario::judge`].
    pub(super) fn judge(&self, report: &Report) -> Vec<String> {
        let relays = report.processes.iter().filter(|process| process.role == Role::Relay);
        let mut seen = 0;
        let mut failures = Vec::new();
        for relay in relays {
            let Some(growth) = growth(relay.points.iter().map(|point| (point.at, point.resident))) else {
                continue;
            };
            seen += 1;
            if growth > 1.0 + self.max_growth {
                failures.push(format!(
                    "the resident memory of {} grew by {:.1} % over its maximum of the first minutes; \
                     --max-growth is {:.1}%",
                    relay.name,
                    (growth - 1.0) * 100.0,
                    self.max_growth * 100.0
                ));
            }
        }
        if seen == 0 {
            failures.push(
                "nothing is known of the relays' memory, so nothing can be said about its growth: use --spawn, \
                 or --metrics for relays elsewhere"
                    .to_owned(),
            );
        }
        failures
    }

    fn both(&self) -> Both {
        let (pace, rate, size, stay) = (Pace::Rate(self.rate), self.rate, self.size.0, None);
        Both {
            sessions: sessions::Load { pairs: self.pairs, pace, sizes: vec![size], stay },
            lanes: lanes::Load { lanes: self.lanes, rate, size, settle: self.settle, stay },
            comers: self.comers,
        }
    }
}

pub(super) async fn run(settings: &Soak, stage: &Stage) -> Result<Ending> {
    settings.both().run(stage).await
}

impl Both {
    pub(super) fn check(&self) -> Result<()> {
        ensure!(self.sessions.pairs + self.lanes.lanes > 0, "--pairs and --lanes must not both be 0");
        self.sessions.check()?;
        self.lanes.check()
    }

    /// A peer that moves, or searches, has more than one connection for a while.
    pub(super) fn connections(&self) -> usize {
        let comers = if self.comers > 0.0 { STAYING } else { 0 };
        self.sessions.connections() + 3 * self.lanes.lanes + comers
    }

    pub(super) async fn run(self, stage: &Stage) -> Result<Ending> {
        // A worker of many may have no share in one of them.
        let share = stage.share();
        let sessions = match share.part(self.sessions.pairs) {
            0 => None,
            _ => Some(Sessions::connect(self.sessions, stage).await?),
        };
        let lanes = match share.part(self.lanes.lanes) {
            0 => None,
            _ => Some(Lanes::connect(self.lanes, stage).await?),
        };
        let comers = share.rate(self.comers);
        let crew = if comers > 0.0 { Some(Crew::new(stage).await?) } else { None };
        stage.ready().await;
        let (sessions, lanes) = (sessions.map(Sessions::start), lanes.map(Lanes::start));
        let mut coming = JoinSet::new();
        if let Some(crew) = crew {
            let (phase, rate) = (stage.phase(), comers);
            coming.spawn_local(come_and_go(crew, rate, phase));
        }
        stage.over().await;
        let mut ending = Ending::default();
        let (sessions, lanes) = tokio::join!(
            async { if let Some(sessions) = sessions { Some(sessions.end().await) } else { None } },
            async { if let Some(lanes) = lanes { Some(lanes.end().await) } else { None } },
        );
        for part in [sessions, lanes].into_iter().flatten() {
            ending.failures.extend(part.failures);
            ending.notes.extend(part.notes);
        }
        while let Some(came) = coming.join_next().await {
            let crew = came.context("the peers that come and go broke")?;
            crew.conclude(&mut ending);
        }
        Ok(ending)
    }
}

/// Lets peers come at this rate, enter a topic of their own, and leave in the order in which they came.
async fn come_and_go(
    crew: std::rc::Rc<Crew>,
    rate: f64,
    mut phase: tokio::sync::watch::Receiver<Phase>,
) -> std::rc::Rc<Crew> {
    let mut due = Due::new(Pace::Rate(rate).interval(), 0.0);
    let (mut number, mut staying) = (0, std::collections::VecDeque::new());
    let coming = async {
        loop {
            due.next().await;
            number += 1;
            if staying.len() >= STAYING {
                staying.pop_front();
                crew.recorder().add(Count::Left, 1);
            }
            // A failure is counted, and told at the end.
            let Ok(mut peer) = crew.connect(number, SMALL_BUFFER).await else { continue };
            match crew.join(&mut peer, TopicId(rand::random())).await {
                Ok(_) => staying.push_back(peer),
                Err(ended) => crew.disconnected(&ended),
            }
        }
    };
    tokio::select! {
        () = coming => {}
        // A director that is gone means the end.
        _ = phase.wait_for(|phase| *phase >= Phase::Over) => {}
    }
    crew
}

/// The most after the first minutes over the most in them, of values at moments from the beginning.
///
/// `None` without a value in each part.
pub(crate) fn growth(points: impl Iterator<Item = (Duration, u64)> + Clone) -> Option<f64> {
    let end = points.clone().map(|(at, _)| at).max()?;
    let settled = SETTLING.min(end / SETTLING_PART) + LATE;
    // A process that did not run has no memory.
    let points = points.filter(|(_, resident)| *resident > 0);
    let first = points.clone().filter(|(at, _)| *at <= settled).map(|(_, resident)| resident).max()?;
    let later = points.filter(|(at, _)| *at > settled).map(|(_, resident)| resident).max()?;
    Some(later as f64 / first as f64)
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches('%').trim();
    match number.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number / 100.0),
        _ => Err("give a percentage, such as 5%".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, mib: u64) -> (Duration, u64) {
        (Duration::from_secs(seconds), mib << 20)
    }

    #[test]
    fn growth_is_that_beyond_the_maximum_of_the_first_five_minutes() {
        let points = [at(1, 20), at(200, 40), at(300, 30), at(301, 41), at(3000, 38)];
        assert_eq!(growth(points.into_iter()), Some(41.0 / 40.0));
    }

    #[test]
    fn a_short_run_settles_in_its_first_sixth() {
        let points = [at(1, 20), at(10, 25), at(11, 30), at(60, 28)];
        assert_eq!(growth(points.into_iter()), Some(30.0 / 25.0));
    }

    #[test]
    fn without_a_value_in_both_parts_there_is_no_growth() {
        assert_eq!(growth([at(60, 20)].into_iter()), None);
        assert_eq!(growth([at(1, 0), at(60, 20)].into_iter()), None, "it did not run at first");
    }

    #[test]
    fn a_percentage_may_carry_its_sign() {
        assert_eq!(percent("5%"), Ok(0.05));
        assert_eq!(percent("0.5"), Ok(0.005));
        assert!(percent("five").is_err() && percent("-1%").is_err() && percent("NaN").is_err());
    }
}
