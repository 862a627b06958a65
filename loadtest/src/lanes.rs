//! Raw frames in lanes, whose ledger balances to the frame although connections come and go.
//!
//! In a lane one peer sends numbered frames to another. Each comes back through the balancer when its
//! connection ends, so frames flow between changing pairs of connections; every such pair is a flow with an
//! account of its own. Below the sessions frames may be lost, but never silently: see [`crate::ledger`].

mod flows;
mod receiver;
mod sender;
mod wire;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use culvert_wire::{ConnId, TopicId};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::flows::Flows;
use self::wire::Wire;
use crate::frames::Crew;
use crate::ledger::Ledger;
use crate::measure::Recorder;
use crate::sessions::{Lives, Pace};
use crate::stage::{Ending, Phase, Stage};

/// Least bytes of a frame: lane, number, and when it was due.
pub const SMALLEST: usize = 24;
/// From the end of the load until everything has arrived or was reported.
const LAST: Duration = Duration::from_secs(60);

/// What lanes carry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Lanes of all workers.
    pub lanes: usize,
    /// Frames a second in each.
    pub rate: f64,
    /// Bytes of a frame.
    pub size: usize,
    /// How long a relay may take to deliver or to report a frame; longer than a lease.
    pub settle: Duration,
    /// About how long a peer keeps a connection before it comes back on another, wherever the balancer puts
    /// it then. Without it, to the end.
    pub stay: Option<Duration>,
}

/// Lanes with both peers connected.
pub struct Lanes {
    scene: Rc<Scene>,
    lanes: Vec<(Rc<Lane>, [Wire; 2])>,
    running: JoinSet<()>,
}

/// What all lanes of a worker share.
struct Scene {
    load: Load,
    lives: Lives,
    crew: Rc<Crew>,
    recorder: Rc<Recorder>,
    epoch: Instant,
    phase: watch::Receiver<Phase>,
    ledger: RefCell<Ledger>,
}

/// One lane.
struct Lane {
    number: usize,
    topic: TopicId,
    flows: RefCell<Flows>,
    /// Where the receiver is now.
    to: watch::Sender<Option<ConnId>>,
    /// The sender has nothing more to wait for.
    done: watch::Sender<bool>,
}

impl Load {
    /// Checks what no single setting shows.
    ///
    /// # Errors
    /// A sentence that says which setting to change.
    pub fn check(&self) -> Result<()> {
        let largest = culvert_wire::limits::MAX_PAYLOAD;
        let sizes = SMALLEST..=largest;
        ensure!(sizes.contains(&self.size), "--size must be between {SMALLEST} and {largest} bytes");
        Pace::Rate(self.rate).check()
    }
}

impl Lanes {
    /// Connects this worker's share of the lanes.
    ///
    /// # Errors
    /// One of them cannot be connected.
    pub async fn connect(load: Load, stage: &Stage) -> Result<Self> {
        let scene = Rc::new(Scene {
            load,
            lives: Lives::new(stage.plan().seed, stage.share().index),
            crew: Crew::new(stage).await?,
            recorder: stage.recorder().clone(),
            epoch: stage.epoch(),
            phase: stage.phase(),
            ledger: RefCell::default(),
        });
        let connect = async |number: usize| {
            let topic = TopicId(rand::random());
            let receiver = Wire::open(&scene, 2 * number + 1, topic).await?;
            let sender = Wire::open(&scene, 2 * number, topic).await?;
            let lane = Lane {
                number,
                topic,
                flows: RefCell::default(),
                to: watch::Sender::new(Some(receiver.conn())),
                done: watch::Sender::new(false),
            };
            Ok((Rc::new(lane), [sender, receiver]))
        };
        let lanes = scene.crew.gather(stage.share().part(load.lanes), connect).await;
        Ok(Self { lanes: lanes.context("no lane of frames")?, scene, running: JoinSet::new() })
    }

    /// Lets them send.
    #[must_use]
    pub fn start(mut self) -> Self {
        let all = self.lanes.len();
        for (place, (lane, [sender, receiver])) in std::mem::take(&mut self.lanes).into_iter().enumerate() {
            let spread = place as f64 / all as f64;
            let (scene, sends) = (self.scene.clone(), lane.clone());
            self.running.spawn_local(async move { sender::run(&scene, &sends, sender, spread).await });
            let scene = self.scene.clone();
            self.running.spawn_local(async move { receiver::run(scene, lane, receiver).await });
        }
        self
    }

    /// After the end of the load: waits for what is on the way, and says what became of everything.
    pub async fn end(mut self) -> Ending {
        let mut ending = Ending::default();
        while let Some(ended) = self.running.join_next().await {
            if let Err(error) = ended {
                ending.failures.push(format!("a lane of the load broke: {error}"));
            }
        }
        let ledger = self.scene.ledger.borrow();
        ending.failures.extend(ledger.failures("frames"));
        ending.notes.push(ledger.note("frames"));
        self.scene.crew.conclude(&mut ending);
        ending
    }
}

impl Scene {
    async fn reached(&self, wanted: Phase) {
        // A director that is gone means the end.
        drop(self.phase.clone().wait_for(|phase| *phase >= wanted).await);
    }

    fn nanos(&self) -> u64 {
        crate::frames::nanos(self.epoch.elapsed())
    }
}
