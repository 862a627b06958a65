//! All peers of a worker: connecting them at a bounded pace, counting them, and keeping them alive.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aws_lc_rs::digest;
use culvert_wire::{ConnId, Frame, Handle, Members, TopicId};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::task::JoinSet;

use super::dial::Dialer;
use super::error::{ConnectError, Ended};
use super::link::WeakLink;
use super::message::message;
use super::peer::Peer;
use super::timer::backoff;
use crate::measure::{Count, Recorder, Series};
use crate::stage::{Ending, Stage};

/// Handshakes at once while peers gather before a run.
const AT_ONCE: usize = 32;
/// How long peers gather in spite of refusals that may pass, such as too many handshakes a second.
const GATHER: Duration = Duration::from_secs(60);
/// How often it is looked who has to be kept alive.
const LOOK: Duration = Duration::from_millis(250);
/// Part of the keepalive interval after which a peer pings, so that no ping comes too late.
const KEEPALIVE_PART: f64 = 0.8;

/// The peers of a worker. Within a [`tokio::task::LocalSet`].
pub struct Crew {
    dialer: Dialer,
    recorder: Rc<Recorder>,
    alive: Rc<RefCell<VecDeque<Watched>>>,
    failures: RefCell<BTreeMap<&'static str, (u64, String)>>,
    ends: RefCell<BTreeMap<String, u64>>,
    /// Keeps peers alive; it ends with the crew.
    _keeper: JoinSet<()>,
}

struct Watched {
    link: WeakLink,
    every: Duration,
    due: Instant,
}

/// An open connection that is counted, until it is dropped.
pub(super) struct Held(Rc<Recorder>);

impl Held {
    fn new(recorder: &Rc<Recorder>) -> Self {
        recorder.set_connections(recorder.connections() + 1);
        Self(recorder.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.set_connections(self.0.connections() - 1);
    }
}

impl Crew {
    /// Nobody yet.
    ///
    /// # Errors
    /// The relays cannot be dialled, whatever their state: see [`Dialer::new`].
    pub async fn new(stage: &Stage) -> Result<Rc<Self>> {
        Ok(Self::with(stage, Dialer::new(stage.reach()).await?))
    }

    /// Nobody yet, with a dialer of its own.
    pub fn with(stage: &Stage, dialer: Dialer) -> Rc<Self> {
        let alive = Rc::<RefCell<VecDeque<Watched>>>::default();
        let mut keeper = JoinSet::new();
        keeper.spawn_local(keep_alive(alive.clone()));
        let recorder = stage.recorder().clone();
        Rc::new(Self {
            dialer,
            recorder,
            alive,
            failures: RefCell::default(),
            ends: RefCell::default(),
            _keeper: keeper,
        })
    }

    /// How many relays or balancers there are to choose from.
    pub fn ways(&self) -> usize {
        self.dialer.ways()
    }

    /// Where measurements go.
    pub fn recorder(&self) -> &Rc<Recorder> {
        &self.recorder
    }

    /// Connects one peer, once. See [`Peer::connect`].
    ///
    /// # Errors
    /// It failed, which is counted.
    pub async fn connect(&self, number: usize, buffer: usize) -> Result<Peer, ConnectError> {
        let began = Instant::now();
        let mut peer = match Peer::connect(&self.dialer, number, buffer).await {
            Ok(peer) => peer,
            Err(error) => {
                self.failed(&error);
                return Err(error);
            }
        };
        self.recorder.add(Count::Connected, 1);
        self.recorder.record(Series::Connect, nanos(began.elapsed()));
        peer.held = Some(Held::new(&self.recorder));
        if peer.welcome.keepalive_ms > 0 {
            let every = Duration::from_millis(peer.welcome.keepalive_ms.into()).mul_f64(KEEPALIVE_PART);
            let watched = Watched { link: peer.link.downgrade(), every, due: Instant::now() + every };
            self.alive.borrow_mut().push_back(watched);
        }
        Ok(peer)
    }

    /// Enters a topic. See [`Peer::join`].
    ///
    /// # Errors
    /// The relay refuses, or the connection ended.
    pub async fn join(&self, peer: &mut Peer, topic: TopicId) -> Result<(Handle, Members), Ended> {
        let began = Instant::now();
        let joined = peer.join(topic).await;
        match &joined {
            Ok(_) => {
                self.recorder.add(Count::Joined, 1);
                self.recorder.record(Series::Join, nanos(began.elapsed()));
            }
            Err(Ended::JoinRefused(_)) => self.recorder.add(Count::JoinsRefused, 1),
            Err(_) => {}
        }
        joined
    }

    /// Calls `make` for every number below `count`, some at once, before a run begins.
    ///
    /// What may pass is tried again for a minute, with a random wait; nobody who answers at the first
    /// attempt is not waited for.
    ///
    /// # Errors
    /// One of them failed for good.
    pub async fn gather<T>(
        &self,
        count: usize,
        make: impl AsyncFn(usize) -> Result<T, ConnectError>,
    ) -> Result<Vec<T>> {
        let make = &make;
        let until = Instant::now() + GATHER;
        let all = stream::iter(0..count).map(async |number| {
            let mut attempt = 0;
            loop {
                match make(number).await {
                    Ok(made) => return Ok(made),
                    Err(error) if self.is_worth_another_try(&error) && Instant::now() < until => {
                        tokio::time::sleep(backoff(attempt)).await;
                        attempt += 1;
                    }
                    Err(error) => return Err(error),
                }
            }
        });
        let all = all.buffered(AT_ONCE).try_collect().await;
        all.with_context(|| format!("connecting failed after {} connections", self.recorder.connections()))
    }

    /// A relay that nobody has reached yet is not waited for.
    fn is_worth_another_try(&self, error: &ConnectError) -> bool {
        let reached = self.recorder.connections() > 0;
        error.may_pass() && (reached || !matches!(error, ConnectError::Unreachable { .. }))
    }

    /// Counts a failure that [`Crew::connect`] has not seen.
    pub fn failed(&self, error: &ConnectError) {
        self.recorder.add(Count::ConnectFailures, 1);
        let mut failures = self.failures.borrow_mut();
        failures.entry(error.reason()).or_insert_with(|| (0, error.to_string())).0 += 1;
    }

    /// Counts a connection that the load did not end.
    pub fn disconnected(&self, ended: &Ended) {
        self.recorder.add(Count::Disconnected, 1);
        if let Some(close) = ended.close() {
            self.recorder.closed(close);
        }
        *self.ends.borrow_mut().entry(ended.to_string()).or_default() += 1;
    }

    /// Says which attempts to connect failed and which connections ended, and why.
    pub fn conclude(&self, ending: &mut Ending) {
        for (reason, (number, example)) in &*self.failures.borrow() {
            ending.notes.push(format!("{number} attempts to connect failed ({reason}), such as: {example}"));
        }
        for (ended, number) in &*self.ends.borrow() {
            ending.notes.push(format!("{number} connections ended that the load did not end: {ended}"));
        }
    }
}

/// A topic of its own for whoever is first in it: a hash, as in real life.
pub(crate) fn topic(first: ConnId, number: u64) -> TopicId {
    let mut seed = [0; 16];
    seed[..8].copy_from_slice(&first.0.to_be_bytes());
    seed[8..].copy_from_slice(&number.to_be_bytes());
    let mut topic = TopicId([0; 32]);
    topic.0.copy_from_slice(digest::digest(&digest::SHA256, &seed).as_ref());
    topic
}

/// A duration in nanoseconds.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Pings for everybody in turn: busy ones too, which costs less than to know who is.
async fn keep_alive(alive: Rc<RefCell<VecDeque<Watched>>>) {
    let Ok(ping) = message(&Frame::Ping { token: 0, padding: bytes::Bytes::new() }) else { return };
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        let now = Instant::now();
        let mut alive = alive.borrow_mut();
        for _ in 0..alive.len() {
            if alive.front().is_none_or(|next| next.due > now) {
                break;
            }
            let Some(mut next) = alive.pop_front() else { break };
            if let Some(link) = next.link.upgrade() {
                // Who is in the middle of a write needs no ping, and an end is noticed by the reader.
                let _posted = link.post(&ping);
                next.due = now + next.every;
                alive.push_back(next);
            }
        }
    }
}
