//! A raw peer's connection in its lane, and whether it still lives.

use std::time::{Duration, Instant};

use bytes::Bytes;
use culvert_wire::{ConnId, Frame, Handle, TopicId};
use tokio::time::timeout;

use super::Scene;
use crate::frames::{ConnectError, Ended, Peer, SMALL_BUFFER, backoff, message, nanos};
use crate::measure::Series;
use crate::stage::Phase;

/// How often the relay is asked for a sign of life.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// Without one for so long, the connection is given up.
const SILENT: Duration = Duration::from_secs(5);
/// From the dial to the answer to the join. Short, because a balancer may choose a relay that hangs.
const ENTERED: Duration = Duration::from_secs(5);
/// Attempts to come back after which the wait between them no longer grows: its bound is 1.6 s then.
const TRIES: u32 = 4;

/// A connection in a topic.
pub(super) struct Wire {
    pub(super) peer: Peer,
    pub(super) handle: Handle,
    last_sign: Instant,
}

impl Wire {
    pub(super) async fn open(scene: &Scene, number: usize, topic: TopicId) -> Result<Self, ConnectError> {
        let entered = async {
            let mut peer = scene.crew.connect(number, SMALL_BUFFER).await?;
            let (handle, _) = scene.crew.join(&mut peer, topic).await.map_err(ConnectError::Join)?;
            Ok(Self { peer, handle, last_sign: Instant::now() })
        };
        timeout(ENTERED, entered).await.unwrap_or(Err(ConnectError::Slow(ENTERED)))
    }

    /// Connects until it works; `None` if the run is over before.
    pub(super) async fn again(scene: &Scene, number: usize, topic: TopicId) -> Option<Self> {
        let began = Instant::now();
        let again = async {
            let mut attempt = 0;
            loop {
                match Self::open(scene, number, topic).await {
                    Ok(wire) => return wire,
                    Err(_) => tokio::time::sleep(backoff(attempt.min(TRIES))).await,
                }
                attempt += 1;
            }
        };
        tokio::select! {
            wire = again => {
                scene.recorder.record(Series::Reconnect, nanos(began.elapsed()));
                Some(wire)
            }
            () = scene.reached(Phase::Over) => None,
        }
    }

    pub(super) fn conn(&self) -> ConnId {
        self.peer.conn
    }

    /// When the relay was last heard, on the clock of the ledger.
    pub(super) fn last_sign(&self, scene: &Scene) -> u64 {
        nanos(self.last_sign.saturating_duration_since(scene.epoch))
    }

    /// Reads something. Cancel safe.
    pub(super) async fn fill(&mut self) -> Result<(), Ended> {
        self.peer.fill().await?;
        self.last_sign = Instant::now();
        Ok(())
    }

    /// Asks for a sign of life, if there was one lately.
    pub(super) fn beat(&self, token: u64) -> Result<(), Ended> {
        if self.last_sign.elapsed() > SILENT {
            return Err(Ended::Cut(format!("the relay said nothing for more than {SILENT:?}")));
        }
        let ping = message(&Frame::Ping { token, padding: Bytes::new() });
        let ping = ping.map_err(|error| Ended::Nonsense(error.to_string()))?;
        // A relay that takes nothing is noticed by its silence.
        self.peer.link.post(&ping).map(drop)
    }
}
