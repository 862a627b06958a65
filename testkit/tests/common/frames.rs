//! Bare frames between nodes, and a ledger of them that balances to the frame.
//!
//! In every lane one raw peer sends numbered frames to another, which may be on another node. Below the
//! sessions frames may be lost, but never silently: what was sent was delivered, or came back with a
//! definite verdict, or was reported as unknown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use culvert_testkit::{HelloOptions, Identity, RawOptions, RawPeer};
use culvert_wire::{Class, ConnId, Frame, Handle, TopicId, Verdict};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::PATIENCE;

/// Bytes of a frame, unless a test wants others: the size that costs are measured with.
const PAYLOAD: usize = 64;
/// A sign of life; relays want one within 45 s.
const ALIVE: Duration = Duration::from_secs(5);
/// The ping that follows the last frame.
const LAST: u64 = u64::MAX;

/// What was seen of the frames of all lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    /// Frames that a relay was given.
    pub(crate) sent: u64,
    /// Frames that arrived.
    pub(crate) delivered: u64,
    /// Frames with a verdict that says they did not arrive.
    pub(crate) definite: u64,
    /// Frames of which the relay cannot say whether they arrived.
    pub(crate) unknown: u64,
    /// Frames that arrived a second time, or after a later one.
    pub(crate) misplaced: u64,
    /// Frames that receivers were told they may have missed.
    pub(crate) gaps: u64,
}

#[derive(Default)]
struct Counters {
    sent: AtomicU64,
    delivered: AtomicU64,
    definite: AtomicU64,
    unknown: AtomicU64,
    misplaced: AtomicU64,
    gaps: AtomicU64,
    /// Senders from whom the relay has read everything.
    read: AtomicU64,
    /// Receivers whose connection has ended.
    ended: AtomicU64,
    /// Frames that arrived, by lane.
    lanes: Vec<AtomicU64>,
}

/// Senders and receivers of numbered frames, one of each in a lane.
pub(crate) struct Lanes {
    stage: watch::Sender<Stage>,
    counters: Arc<Counters>,
    peers: JoinSet<()>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Sending,
    /// Nothing more is sent; frames and verdicts may still come.
    Settling,
    Over,
}

/// So many frames at once, each time so long after the last.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) frames: u32,
    pub(crate) every: Duration,
}

impl Tally {
    /// Whether every frame is accounted for. Some of those reported unknown may have arrived.
    pub(crate) fn balances(&self) -> bool {
        let settled = self.delivered + self.definite;
        settled <= self.sent && self.sent - settled <= self.unknown && self.misplaced == 0
    }
}

impl Counters {
    fn tally(&self) -> Tally {
        let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        Tally {
            sent: read(&self.sent),
            delivered: read(&self.delivered),
            definite: read(&self.definite),
            unknown: read(&self.unknown),
            misplaced: read(&self.misplaced),
            gaps: read(&self.gaps),
        }
    }
}

impl Lanes {
    /// Connects a pair for each of these, sender and receiver on the nodes at these addresses, and lets the
    /// senders send.
    pub(crate) async fn start(
        lanes: impl IntoIterator<Item = (SocketAddr, SocketAddr)>,
        options: &RawOptions,
        load: Load,
    ) -> Self {
        Self::sized(lanes, options, load, PAYLOAD).await
    }

    /// As [`Lanes::start`], with frames of so many bytes.
    pub(crate) async fn sized(
        lanes: impl IntoIterator<Item = (SocketAddr, SocketAddr)>,
        options: &RawOptions,
        load: Load,
        payload: usize,
    ) -> Self {
        let stage = watch::Sender::new(Stage::Sending);
        let mut entered = Vec::new();
        for (from, to) in lanes {
            let topic = TopicId(Identity::random().unwrap().peer().0);
            let (receiver, to, _) = enter(to, options, topic).await;
            let (sender, _, handle) = enter(from, options, topic).await;
            entered.push((receiver, sender, Lane { handle, to, load, payload }));
        }
        let lanes = entered.iter().map(|_| AtomicU64::new(0)).collect();
        let counters = Arc::new(Counters { lanes, ..Counters::default() });
        let mut peers = JoinSet::new();
        for (number, (receiver, sender, lane)) in entered.into_iter().enumerate() {
            peers.spawn(receive(receiver, number, counters.clone(), stage.subscribe()));
            peers.spawn(send(sender, lane, counters.clone(), stage.subscribe()));
        }
        Self { stage, counters, peers }
    }

    /// What was seen so far.
    pub(crate) fn tally(&self) -> Tally {
        self.counters.tally()
    }

    /// Waits until so many frames more have been delivered than now.
    pub(crate) async fn deliver(&self, more: u64, deadline: Duration) {
        let wanted = self.tally().delivered + more;
        self.reach(deadline, |tally| tally.delivered >= wanted).await;
    }

    /// All lanes, by their order at the start.
    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.counters.lanes.len()).collect()
    }

    /// Waits until each of these lanes, by their order at the start, has delivered so many frames more.
    pub(crate) async fn go_on(&self, lanes: &[usize], more: u64, deadline: Duration) {
        let delivered = |lane: &usize| self.counters.lanes[*lane].load(Ordering::SeqCst);
        let wanted: Vec<u64> = lanes.iter().map(|lane| delivered(lane) + more).collect();
        self.reach(deadline, |_| lanes.iter().zip(&wanted).all(|(lane, wanted)| delivered(lane) >= *wanted))
            .await;
    }

    /// Stops sending, and waits until the relays have read everything that was sent.
    pub(crate) async fn settle(&self) {
        self.stage.send_replace(Stage::Settling);
        let (counters, senders) = (&self.counters, self.counters.lanes.len() as u64);
        self.reach(PATIENCE, |_| counters.read.load(Ordering::SeqCst) == senders).await;
    }

    /// Stops sending, waits until the ledger balances, and gives it. Panics if it does not, or if a
    /// connection has ended: what was on its way there is in no ledger.
    pub(crate) async fn end(mut self) -> Tally {
        self.settle().await;
        self.reach(PATIENCE, Tally::balances).await;
        self.stage.send_replace(Stage::Over);
        while let Some(ended) = self.peers.join_next().await {
            ended.unwrap();
        }
        let (tally, ended) = (self.tally(), self.counters.ended.load(Ordering::SeqCst));
        assert!(tally.balances(), "what came late does not balance: {tally:?}");
        assert_eq!(ended, 0, "receivers lost their connection");
        tally
    }

    async fn reach(&self, deadline: Duration, enough: impl Fn(&Tally) -> bool) {
        let end = Instant::now() + deadline;
        let mut ticks = interval(Duration::from_millis(20));
        while !enough(&self.tally()) {
            ticks.tick().await;
            assert!(Instant::now() < end, "not after {deadline:?}: {:?}", self.tally());
        }
    }
}

struct Lane {
    handle: Handle,
    to: ConnId,
    load: Load,
    payload: usize,
}

async fn enter(at: SocketAddr, options: &RawOptions, topic: TopicId) -> (RawPeer, ConnId, Handle) {
    let mut peer = RawPeer::connect(at, options).await.unwrap();
    let welcome = peer.hello(&HelloOptions::new(&Identity::random().unwrap())).await.unwrap();
    let (handle, _) = peer.join(topic).await.unwrap();
    // As long as a fault of the network behind the relay may last.
    peer.set_deadline(PATIENCE);
    (peer, welcome.conn, handle)
}

async fn send(mut peer: RawPeer, lane: Lane, counters: Arc<Counters>, mut stage: watch::Receiver<Stage>) {
    let mut ticks = interval(lane.load.every);
    // A sender that was held back does not make up for it.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut alive, mut number, mut sending) = (interval(ALIVE), 0u64, true);
    loop {
        tokio::select! {
            frame = peer.recv() => match frame.unwrap() {
                Frame::Undeliverable { verdict, count, .. } => {
                    let unknown = verdict == Verdict::Unknown;
                    let counter = if unknown { &counters.unknown } else { &counters.definite };
                    counter.fetch_add(u64::from(count), Ordering::SeqCst);
                }
                Frame::Pong { token: LAST, .. } => {
                    counters.read.fetch_add(1, Ordering::SeqCst);
                }
                _ => {}
            },
            _ = alive.tick() => ping(&mut peer, 0).await,
            _ = ticks.tick(), if sending => {
                for _ in 0..lane.load.frames {
                    let mut payload = vec![0; lane.payload];
                    payload[..8].copy_from_slice(&number.to_be_bytes());
                    number += 1;
                    counters.sent.fetch_add(1, Ordering::SeqCst);
                    let (handle, to) = (lane.handle, lane.to);
                    let frame = Frame::Send { class: Class::Normal, handle, to, payload: payload.into() };
                    peer.feed(&frame).await.unwrap();
                }
                peer.flush().await.unwrap();
            }
            () = reached(&mut stage, if sending { Stage::Settling } else { Stage::Over }) => {
                if !sending {
                    return;
                }
                sending = false;
                ping(&mut peer, LAST).await;
            }
        }
    }
}

async fn receive(mut peer: RawPeer, lane: usize, counters: Arc<Counters>, mut stage: watch::Receiver<Stage>) {
    let (mut alive, mut next) = (interval(ALIVE), 0);
    loop {
        tokio::select! {
            frame = peer.recv() => match frame {
                Ok(Frame::Deliver { payload, .. }) => {
                    let number = u64::from_be_bytes(payload[..8].try_into().unwrap());
                    let counter = if number < next { &counters.misplaced } else { &counters.delivered };
                    counter.fetch_add(1, Ordering::SeqCst);
                    counters.lanes[lane].fetch_add(1, Ordering::SeqCst);
                    next = next.max(number + 1);
                }
                Ok(Frame::Gap { count, .. }) => {
                    counters.gaps.fetch_add(u64::from(count), Ordering::SeqCst);
                }
                Ok(_) => {}
                Err(end) if end.is_end() => {
                    counters.ended.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                Err(error) => panic!("{error}"),
            },
            // An end is noticed above, where what came before it is read first.
            _ = alive.tick() => drop(peer.send(&Frame::Ping { token: 0, padding: Bytes::new() }).await),
            () = reached(&mut stage, Stage::Over) => return,
        }
    }
}

async fn reached(stage: &mut watch::Receiver<Stage>, wanted: Stage) {
    // The lanes are gone with the test, and this task with them.
    let _ = stage.wait_for(|stage| *stage >= wanted).await;
}

async fn ping(peer: &mut RawPeer, token: u64) {
    peer.send(&Frame::Ping { token, padding: Bytes::new() }).await.unwrap();
}
