//! All peers lose their connections at once and come back at once.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::field::Field;
use super::idle::{Resting, connect, gather, listen};
use crate::frames::Peer;
use crate::plan::Plan;
use crate::stage::{Ending, Phase, Stage};

/// How often it is looked whether everybody is back.
const LOOK: Duration = Duration::from_millis(5);
/// Every peer is in one topic, with one other.
const RESTING: Resting = Resting { topics: 1, first_frame: None };

/// Settings of `storm`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
pub struct Storm {
    /// Peers that lose their connections and come back. Relays refuse more than some from one address;
    /// see their settings connections-per-source and handshakes-per-source.
    #[arg(long, default_value_t = 1000)]
    pub peers: usize,
    /// How many times. The first is at the beginning of what is measured, and the next one when everybody
    /// is back.
    #[arg(long, default_value_t = 1)]
    pub rounds: usize,
    /// Between the moment at which everybody is back and the next round.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub pause: Duration,
}

impl Storm {
    /// See [`crate::scenario::Scenario::check`].
    pub(super) fn check(&self, plan: &Plan) -> Result<()> {
        let workers = plan.share.of;
        ensure!(self.peers >= workers, "--peers must be at least {workers}, one for each worker");
        ensure!(self.rounds > 0, "--rounds must be at least 1");
        let pauses = self.pause.saturating_mul(u32::try_from(self.rounds - 1).unwrap_or(u32::MAX));
        ensure!(pauses < plan.duration, "--duration must be longer than the pauses between --rounds");
        Ok(())
    }

    pub(super) fn connections(&self) -> usize {
        self.peers
    }
}

pub(super) async fn run(settings: &Storm, stage: &Stage) -> Result<Ending> {
    let field = Field::new(stage).await?;
    let peers = gather(&field, stage.share().part(settings.peers), RESTING).await?;
    let count = peers.len();
    let (storm, seen) = watch::channel(0);
    let back = Rc::new(Cell::new(0));
    let mut tasks = JoinSet::new();
    for (local, peer) in peers.into_iter().enumerate() {
        tasks.spawn_local(endure(field.clone(), local, peer, seen.clone(), back.clone()));
    }
    stage.ready().await;
    stage.reached(Phase::Measuring).await;
    let mut finished = 0;
    let storms = async {
        for round in 1..=settings.rounds {
            back.set(0);
            storm.send_replace(round);
            while back.get() < count {
                tokio::time::sleep(LOOK).await;
            }
            finished = round;
            tokio::time::sleep(settings.pause).await;
        }
    };
    tokio::select! {
        () = storms => stage.over().await,
        () = stage.over() => {}
    }
    if finished < settings.rounds {
        field.fail(format!(
            "of --rounds {} only {finished} came to an end; in the next one {} of {count} peers were back: \
             give a longer --duration, or see the reasons for which connecting failed",
            settings.rounds,
            back.get()
        ));
    }
    Ok(field.finish().await)
}

/// A peer that drops its connection whenever there is a storm, and comes back.
async fn endure(
    field: Rc<Field>,
    local: usize,
    peer: Peer,
    mut storm: watch::Receiver<usize>,
    back: Rc<Cell<usize>>,
) {
    let mut next = Some(peer);
    while let Some(peer) = next.take() {
        let lost = tokio::select! {
            // The peer, and with it the connection, is dropped by whichever branch ends.
            biased;
            changed = storm.changed() => match changed {
                Ok(()) => None,
                Err(_ended) => return,
            },
            ended = listen(&field, peer) => Some(ended),
        };
        if let Some(ended) = &lost {
            field.crew.disconnected(ended);
        }
        let connect = async || connect(&field, local, RESTING).await;
        next = field.come_back(Instant::now(), lost.as_ref(), connect).await;
        if lost.is_none() && next.is_some() {
            back.set(back.get() + 1);
        }
    }
}
