//! Peers that speak end to end, through the client library as applications do.
//!
//! [`Door`] makes transports to the relays of a plan; a [`Pair`] is two of them in conversation. [`Sessions`]
//! are many pairs in which one sends numbered messages and the other checks that each comes once and in
//! order; what became of them is in a [`Ledger`].

mod conversation;
mod pace;
mod pair;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use culvert_client::RelayConnection;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub use pace::{Due, Lives, Pace};
pub use pair::{Door, Pair};

use self::conversation::Conversation;
use crate::ledger::Ledger;
use crate::measure::{Count, Recorder};
use crate::stage::{Ending, Phase, Stage};

/// Pairs that connect at a time: their handshakes are all that the machine does then.
const AT_ONCE: usize = 16;
/// Between two attempts to connect a pair anew.
const RETRY: Duration = Duration::from_secs(1);
/// From the end of the load to the last message. A client that has tried for 20 s, the time between two faults,
/// waits for less than that until it tries again.
const LAST: Duration = Duration::from_secs(60);
/// Errors of conversations that are quoted in the report.
const QUOTED: usize = 5;
/// Least bytes of a message: pair, number, and when it was due.
pub const SMALLEST: usize = 24;

/// What sessions carry.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// Pairs of all workers.
    pub pairs: usize,
    /// When each sends.
    pub pace: Pace,
    /// Bytes of a message; several take turns.
    pub sizes: Vec<usize>,
    /// About how long two peers stay in conversation before both connect anew, wherever the balancer puts
    /// them then. Without it, to the end.
    pub stay: Option<Duration>,
}

/// Pairs in conversation.
pub struct Sessions {
    scene: Rc<Scene>,
    pairs: Vec<Connected>,
    running: JoinSet<()>,
}

/// A pair, and its conversation as each of the two holds it.
type Connected = (Pair, [RelayConnection; 2]);

/// What all pairs of a worker share.
struct Scene {
    load: Load,
    lives: Lives,
    door: Door,
    recorder: Rc<Recorder>,
    epoch: Instant,
    phase: watch::Receiver<Phase>,
    ledger: RefCell<Ledger>,
    quotes: RefCell<Vec<String>>,
    retransmitted: Cell<u64>,
    moves: Cell<u64>,
    broken: Cell<u64>,
}

impl Load {
    /// Checks what no single setting shows.
    ///
    /// # Errors
    /// A sentence that says which setting to change.
    pub fn check(&self) -> Result<()> {
        let (sizes, largest) = (&self.sizes, culvert_client::relay::MAX_MESSAGE);
        ensure!(
            !sizes.is_empty() && sizes.iter().all(|size| (SMALLEST..=largest).contains(size)),
            "--size must be from {SMALLEST}B to {}KiB for messages of sessions",
            largest / 1024
        );
        self.pace.check()
    }

    /// Of the message with this number.
    fn size(&self, number: u64) -> usize {
        let turn = number % self.sizes.len().max(1) as u64;
        usize::try_from(turn).ok().and_then(|turn| self.sizes.get(turn).copied()).unwrap_or(SMALLEST)
    }

    /// Open sockets at most: a peer that searches another way has up to three, and a sender has a timer.
    pub fn connections(&self) -> usize {
        7 * self.pairs
    }
}

/// Session-level mode of a scenario: pairs that send at this pace until the end.
///
/// # Errors
/// A pair cannot be connected.
pub async fn run(load: Load, stage: &Stage) -> Result<Ending> {
    let sessions = Sessions::connect(load, stage).await?;
    stage.ready().await;
    let sessions = sessions.start();
    stage.over().await;
    Ok(sessions.end().await)
}

impl Sessions {
    /// Connects this worker's share of the pairs.
    ///
    /// # Errors
    /// One of them cannot be connected.
    pub async fn connect(load: Load, stage: &Stage) -> Result<Self> {
        let pairs_here = stage.share().part(load.pairs);
        let scene = Rc::new(Scene {
            load,
            lives: Lives::new(stage.plan().seed, stage.share().index),
            door: Door::new(stage.reach())?,
            recorder: stage.recorder().clone(),
            epoch: stage.epoch(),
            phase: stage.phase(),
            ledger: RefCell::default(),
            quotes: RefCell::default(),
            retransmitted: Cell::default(),
            moves: Cell::default(),
            broken: Cell::default(),
        });
        let (turns, mut connecting) = (Rc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
        for number in 0..pairs_here {
            let (scene, turns) = (scene.clone(), turns.clone());
            connecting.spawn_local(async move {
                let _turn = turns.acquire().await?;
                Pair::connect(&scene.door, number, &scene.recorder).await
            });
        }
        let mut pairs = Vec::new();
        while let Some(pair) = connecting.join_next().await {
            pairs.push(pair.context("a pair broke")??);
            scene.recorder.set_connections(scene.recorder.connections() + 2);
        }
        Ok(Self { scene, pairs, running: JoinSet::new() })
    }

    /// Lets them send.
    #[must_use]
    pub fn start(mut self) -> Self {
        let all = self.pairs.len();
        for (place, pair) in std::mem::take(&mut self.pairs).into_iter().enumerate() {
            let scene = self.scene.clone();
            let spread = place as f64 / all as f64;
            self.running.spawn_local(async move { scene.live(pair, spread).await });
        }
        self
    }

    /// After the end of the load: waits for what is on the way, and says what became of everything.
    pub async fn end(mut self) -> Ending {
        let mut ending = Ending::default();
        while let Some(ended) = self.running.join_next().await {
            if let Err(error) = ended {
                ending.failures.push(format!("a pair of the load broke: {error}"));
            }
        }
        let scene = &self.scene;
        let ledger = scene.ledger.borrow();
        ending.failures.extend(ledger.failures("messages"));
        ending.notes.push(ledger.note("messages"));
        ending.notes.push(format!(
            "sessions changed their way {} times and sent {} again",
            scene.moves.get(),
            bytesize::ByteSize(scene.retransmitted.get())
        ));
        if scene.broken.get() > 0 {
            let quotes = scene.quotes.borrow().join("; ");
            ending.notes.push(format!("{} sessions ended early, such as: {quotes}", scene.broken.get()));
        }
        ending
    }
}

impl Scene {
    /// Keeps a pair in conversation until the end; one that breaks is connected anew.
    async fn live(&self, mut connected: Connected, spread: f64) {
        loop {
            let (mut pair, ends) = connected;
            match Conversation::new(self, &pair).hold(ends, spread).await {
                Ok(()) => pair.leave().await,
                Err(error) => self.broke(&format!("{}: {error}", pair.name())),
            }
            let number = pair.number();
            drop(pair);
            if self.is_over() {
                return;
            }
            let again = async {
                loop {
                    match Pair::connect(&self.door, number, &self.recorder).await {
                        Ok(connected) => return connected,
                        Err(_) => tokio::time::sleep(RETRY).await,
                    }
                }
            };
            connected = tokio::select! {
                connected = again => connected,
                () = self.reached(Phase::Over) => return,
            };
        }
    }

    fn is_over(&self) -> bool {
        *self.phase.borrow() >= Phase::Over
    }

    fn broke(&self, why: &str) {
        self.recorder.add(Count::Disconnected, 1);
        self.broken.set(self.broken.get() + 1);
        let mut quotes = self.quotes.borrow_mut();
        if quotes.len() < QUOTED {
            quotes.push(why.to_owned());
        }
    }

    async fn reached(&self, wanted: Phase) {
        // A director that is gone means the end.
        drop(self.phase.clone().wait_for(|phase| *phase >= wanted).await);
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
