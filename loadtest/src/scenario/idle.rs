//! Peers that are connected and silent: what a connection costs that does nothing.
//!
//! They connect while it is measured, so that the relays' processor time and the times to connect are those
//! of connecting.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use culvert_wire::limits::MAX_PAYLOAD;
use culvert_wire::{ConnId, Frame, TopicId};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::field::{Field, join};
use super::size::Size;
use super::steady::check_rate;
use crate::frames::{ConnectError, Ended, Event, Peer, SMALL_BUFFER, topic};
use crate::plan::Plan;
use crate::stage::{Ending, Phase, Stage};

/// Settings of `idle`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
pub struct Idle {
    /// Peers that connect, join a topic with one other, and then only keep their connections alive.
    #[arg(long, default_value_t = 1000)]
    pub peers: usize,
    /// Peers a second that connect, of all workers together; as fast as they are let in if it is not given.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Has every peer first send a ping with so much padding, and get it back: the memory that the relay
    /// needed for it must be free again while the peer is idle.
    #[arg(long)]
    pub frame_first: Option<Size>,
}

impl Idle {
    /// See [`crate::scenario::Scenario::check`].
    pub(super) fn check(&self, plan: &Plan) -> Result<()> {
        let workers = plan.share.of;
        ensure!(self.peers >= workers, "--peers must be at least {workers}, one for each worker");
        check_rate("--rate", self.rate)?;
        if let Some(size) = self.frame_first {
            let fits = (1..=MAX_PAYLOAD).contains(&size.0);
            ensure!(fits, "--frame-first must be from 1B to {}KiB", MAX_PAYLOAD / 1024);
        }
        Ok(())
    }

    pub(super) fn connections(&self) -> usize {
        self.peers
    }
}

/// What a silent peer does before it is silent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resting {
    /// Topics that it joins, each with one other peer.
    pub(super) topics: usize,
    /// Bytes of a frame that it sends first.
    pub(super) first_frame: Option<usize>,
}

pub(super) async fn run(settings: &Idle, stage: &Stage) -> Result<Ending> {
    let field = Field::new(stage).await?;
    let resting = Resting { topics: 1, first_frame: settings.frame_first.map(|size| size.0) };
    let count = stage.share().part(settings.peers);
    let mut tasks = JoinSet::new();
    stage.ready().await;
    stage.reached(Phase::Measuring).await;
    let began = tokio::time::Instant::now();
    let step = settings.rate.map_or(0.0, |rate| 1.0 / stage.share().rate(rate));
    let peers = field.crew.gather(count, async |local| {
        tokio::time::sleep_until(began + Duration::from_secs_f64(local as f64 * step)).await;
        connect(&field, local, resting).await
    });
    tokio::select! {
        peers = peers => {
            let took = began.elapsed();
            rest(&field, peers?, resting, &mut tasks);
            field.note(format!("{count} peers of a worker were connected after {:.1} s", took.as_secs_f64()));
            stage.over().await;
        }
        () = stage.over() => {
            let there = field.recorder.connections();
            field.fail(format!(
                "only {there} of {count} peers of a worker were connected within --duration: give more time, \
                 or see why connecting failed"
            ));
        }
    }
    Ok(field.finish().await)
}

/// Connects so many silent peers.
pub(super) async fn gather(field: &Field, count: usize, resting: Resting) -> Result<Vec<Peer>> {
    field.crew.gather(count, async |local| connect(field, local, resting).await).await
}

/// Keeps them connected, and connects those anew that are cut off.
pub(super) fn rest(field: &Rc<Field>, peers: Vec<Peer>, resting: Resting, tasks: &mut JoinSet<()>) {
    for (local, peer) in peers.into_iter().enumerate() {
        let field = field.clone();
        tasks.spawn_local(async move {
            let mut next = Some(peer);
            while let Some(peer) = next {
                let ended = listen(&field, peer).await;
                let lost = Instant::now();
                field.crew.disconnected(&ended);
                if field.is_over() {
                    return;
                }
                next =
                    field.come_back(lost, Some(&ended), async || connect(&field, local, resting).await).await;
            }
        });
    }
}

/// Reads what comes to a peer that expects nothing, until its connection ends.
pub(super) async fn listen(field: &Field, mut peer: Peer) -> Ended {
    loop {
        if let Err(ended) = peer.fill().await {
            return ended;
        }
        loop {
            match peer.inbox.event() {
                Ok(Some(Event::Other(frame))) => field.note_frame(&frame),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(ended) => return ended,
            }
        }
    }
}

/// One peer, in its topics with the neighbour that has the same number but for the last bit.
pub(super) async fn connect(field: &Field, local: usize, resting: Resting) -> Result<Peer, ConnectError> {
    let mut peer = field.crew.connect(field.number(local), SMALL_BUFFER).await?;
    for index in 0..resting.topics {
        join(&field.crew, &mut peer, shared_topic(field, local / 2, index)).await?;
    }
    if let Some(bytes) = resting.first_frame {
        frame_first(&mut peer, bytes).await.map_err(ConnectError::Cut)?;
    }
    Ok(peer)
}

/// The topic of a pair of neighbours; that of another run with another random number.
pub(super) fn shared_topic(field: &Field, pair: usize, index: usize) -> TopicId {
    let pair = ConnId(field.topics.wrapping_add((pair as u64) << 16));
    topic(pair, index as u64)
}

/// Sends a large ping, which goes through the relay's buffers in both directions, and waits for its answer.
async fn frame_first(peer: &mut Peer, bytes: usize) -> Result<(), Ended> {
    let padding = vec![0x5a; bytes].into();
    peer.send(&Frame::Ping { token: 1, padding }).await?;
    loop {
        if let Frame::Pong { token: 1, padding } = peer.receive().await?
            && padding.len() == bytes
        {
            return Ok(());
        }
    }
}
