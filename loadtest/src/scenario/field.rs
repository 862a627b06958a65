//! What the frame-level scenarios have in common: a crew, the books, and the end of a run.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use culvert_wire::{Frame, Handle, TopicId};
use rand::RngExt;
use tokio::sync::watch;

use super::size::Size;
use crate::frames::{Accounts, ConnectError, Crew, Dialer, Ended, Peer, backoff, nanos};
use crate::measure::{Count, Recorder, Series};
use crate::plan::Share;
use crate::stage::{Ending, Stage};

/// How long frames that are under way at the end of a run are waited for while none arrives.
pub(super) const SETTLE: Duration = Duration::from_secs(10);

/// The surroundings of a frame-level scenario. For one thread, within a [`tokio::task::LocalSet`].
pub(super) struct Field {
    pub(super) crew: Rc<Crew>,
    pub(super) recorder: Rc<Recorder>,
    pub(super) accounts: Accounts,
    pub(super) share: Share,
    pub(super) seed: u64,
    /// Random, so that two runs on the same relays do not meet in a topic.
    pub(super) topics: u64,
    epoch: Instant,
    over: Cell<bool>,
    /// Whether receivers read.
    reading: watch::Sender<bool>,
    ending: RefCell<Ending>,
}

impl Field {
    pub(super) async fn new(stage: &Stage) -> Result<Rc<Self>> {
        Ok(Self::with(stage, Crew::new(stage).await?))
    }

    /// The same with a dialer of its own.
    pub(super) fn dialing(stage: &Stage, dialer: Dialer) -> Rc<Self> {
        Self::with(stage, Crew::with(stage, dialer))
    }

    fn with(stage: &Stage, crew: Rc<Crew>) -> Rc<Self> {
        Rc::new(Self {
            crew,
            recorder: stage.recorder().clone(),
            accounts: Accounts::default(),
            share: stage.share(),
            seed: stage.plan().seed,
            topics: rand::rng().random(),
            epoch: stage.epoch(),
            over: Cell::new(false),
            reading: watch::Sender::new(true),
            ending: RefCell::default(),
        })
    }

    /// Another part of the same run with the same crew, which has books and an end of its own.
    pub(super) fn beside(&self) -> Rc<Self> {
        Rc::new(Self {
            crew: self.crew.clone(),
            recorder: self.recorder.clone(),
            accounts: Accounts::default(),
            over: Cell::new(false),
            reading: watch::Sender::new(true),
            ending: RefCell::default(),
            ..*self
        })
    }

    /// The moment on the clock of stamps.
    pub(super) fn nanos(&self) -> u64 {
        self.nanos_of(Instant::now())
    }

    /// The same of another moment.
    pub(super) fn nanos_of(&self, moment: Instant) -> u64 {
        nanos(moment.saturating_duration_since(self.epoch))
    }

    /// The number among all workers of this worker's `local`th pair, group or peer.
    pub(super) fn number(&self, local: usize) -> usize {
        local * self.share.of + self.share.index
    }

    /// Whether senders are to stop.
    pub(super) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Counts what a relay says beside payloads and verdicts.
    pub(super) fn note_frame(&self, frame: &Frame) {
        match frame {
            Frame::Gap { count, .. } => self.recorder.add(Count::Gaps, (*count).into()),
            Frame::PeerJoined { .. } => self.recorder.add(Count::PeersJoined, 1),
            Frame::PeerLeft { .. } => self.recorder.add(Count::PeersLeft, 1),
            _ => {}
        }
    }

    /// Adds to the reasons for which the run has failed.
    pub(super) fn fail(&self, sentence: String) {
        self.ending.borrow_mut().failures.push(sentence);
    }

    /// Adds to what a reader of the report should know.
    pub(super) fn note(&self, sentence: String) {
        self.ending.borrow_mut().notes.push(sentence);
    }

    /// Checks sizes against what the relay takes, which may be less than what frames could carry.
    pub(super) fn check_sizes(&self, sizes: &[Size], max_payload: u32) -> Result<()> {
        for size in sizes {
            ensure!(
                size.0 as u64 <= max_payload.into(),
                "--size: the relay takes at most {max_payload} bytes"
            );
        }
        Ok(())
    }

    /// Calls `connect` until it succeeds, and records how long that took since `lost`. At once if the load
    /// itself ended the connection, else, and after every failure, after a random wait. `None` if the run is
    /// over before, or if trying again is of no use, which fails the run.
    pub(super) async fn come_back<T>(
        &self,
        lost: Instant,
        ended: Option<&Ended>,
        connect: impl AsyncFn() -> Result<T, ConnectError>,
    ) -> Option<T> {
        if let Some(ended) = ended.filter(|ended| !ended.may_pass()) {
            self.fail(format!("a peer was shut out: {ended}"));
            return None;
        }
        let mut attempt = 0;
        let mut wait = ended.is_some();
        loop {
            if wait {
                tokio::time::sleep(backoff(attempt)).await;
                attempt += 1;
                if self.is_over() {
                    return None;
                }
            }
            wait = true;
            match connect().await {
                Ok(made) => {
                    self.recorder.record(Series::Reconnect, nanos(lost.elapsed()));
                    return Some(made);
                }
                Err(error) if error.may_pass() => {}
                Err(error) => {
                    self.fail(format!("a peer could not come back: {error}"));
                    return None;
                }
            }
        }
    }

    /// Has receivers stop reading, or go on.
    pub(super) fn read(&self, reading: bool) {
        self.reading.send_replace(reading);
    }

    /// Waits while receivers are not to read.
    pub(super) async fn may_read(&self) {
        if !*self.reading.borrow() {
            let mut reading = self.reading.subscribe();
            // It cannot fail: the other side is here.
            let _reading = reading.wait_for(|reading| *reading).await;
        }
    }

    /// Tells senders to stop.
    pub(super) fn stop(&self) {
        self.over.set(true);
    }

    /// Adds what another part of the run found.
    pub(super) fn absorb(&self, other: Ending) {
        let mut ending = self.ending.borrow_mut();
        ending.failures.extend(other.failures);
        ending.notes.extend(other.notes);
    }

    /// Stops the senders, waits for what is under way, and closes the books.
    pub(super) async fn close_books(&self) -> Ending {
        self.stop();
        self.accounts.settle(SETTLE).await;
        let mut ending = self.ending.take();
        self.accounts.close(&self.recorder, &mut ending);
        ending
    }

    /// The end of a run: closes the books, and says how connections failed and ended.
    pub(super) async fn finish(&self) -> Ending {
        let mut ending = self.close_books().await;
        self.crew.conclude(&mut ending);
        ending
    }
}

/// Joins a topic, with the error of a connection that could not be made ready.
pub(super) async fn join(crew: &Crew, peer: &mut Peer, topic: TopicId) -> Result<Handle, ConnectError> {
    let joined = crew.join(peer, topic).await;
    let joined = joined.map_err(ConnectError::Join).inspect_err(|error| crew.failed(error))?;
    Ok(joined.0)
}
