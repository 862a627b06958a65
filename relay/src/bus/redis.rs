//! The bus through Redis: for a cluster of any number of nodes.
//!
//! Redis carries and remembers nothing that matters. Frames travel through one inbox per node (pub/sub,
//! coalesced); who is where is registered under leases, and all of it is registered anew by the nodes when
//! Redis comes back empty.
//!
//! - [`reach`] knows where Redis is and connects to it, whatever the mode; [`mod@check`] says whether it is fit.
//! - [`lease`] holds the node's number and tells what becomes of the other nodes.
//! - [`flows`] has one [`flow`] per other node: what waits, is under way, came, is confirmed. [`publisher`]
//!   writes to the inboxes of others, [`inboxes`] reads the own one; [`message`] is what travels.
//! - [`membership`] keeps the registry of topics, and what this node knows of other nodes' members.
//! - [`RedisBus`] puts them together and decides when the node is degraded.

pub mod check;
pub mod control;
pub mod flow;
pub mod flows;
pub mod inboxes;
pub mod incarnation;
pub mod keys;
pub mod lease;
pub mod membership;
pub mod message;
pub mod metrics;
pub mod nodes;
pub mod pace;
pub mod publisher;
pub mod reach;
pub mod registry;
pub mod revocation;
pub mod roster;
pub mod settings;
pub mod volume;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use culvert_service_kit::Clock;
use culvert_service_kit::metric_set::Registry;
use culvert_wire::{Member, Members, NodeId, TopicId, Verdict};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Arrival, AttachError, Bus, Inbox, Letter, Undelivered};
use check::{Findings, check};
use flows::Flows;
use inboxes::Inboxes;
use lease::{Event, Lease};
use membership::Membership;
use message::Item;
use metrics::Metrics;
use publisher::{Publishers, Ready};
use reach::Reach;
pub use settings::Settings;

/// How often flows are looked after.
const TICK: Duration = Duration::from_millis(100);
/// How long a start waits for Redis before the node goes on without it.
const START: Duration = Duration::from_secs(3);
/// How long a node that ends waits for what it still has to say to be published.
const FAREWELL: Duration = Duration::from_secs(2);

/// One node's way to the others through Redis.
pub struct RedisBus {
    settings: Settings,
    clock: Clock,
    reach: Arc<Reach>,
    core: OnceLock<Arc<Core>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    failed: CancellationToken,
}

/// What the tasks of a bus share.
struct Core {
    inbox: Arc<dyn Inbox>,
    lease: Arc<Lease>,
    flows: Arc<Flows>,
    membership: Arc<Membership>,
    /// The number whose inbox is to be heard.
    number: watch::Sender<Option<NodeId>>,
    /// Whether it is.
    heard: watch::Sender<bool>,
    /// Whether the node was given it.
    given: Mutex<bool>,
    reachable: AtomicBool,
    degraded: AtomicBool,
}

impl RedisBus {
    /// Prepares the way; nothing is connected yet.
    ///
    /// # Errors
    /// The settings make no connection.
    pub fn new(settings: Settings, clock: Clock) -> Result<Self, reach::ReachError> {
        let reach = Arc::new(Reach::new(&settings)?);
        Ok(Self {
            settings,
            clock,
            reach,
            core: OnceLock::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            failed: CancellationToken::new(),
        })
    }

    /// Looks whether this Redis is fit; `false` if it does not answer in time.
    async fn check(&self) -> Result<bool, AttachError> {
        match tokio::time::timeout(START, check(&self.reach)).await {
            Ok(Ok(Findings { problems, warnings })) => {
                for warning in warnings {
                    tracing::warn!("{warning}");
                }
                if problems.is_empty() { Ok(true) } else { Err(AttachError::Unfit(problems)) }
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "this node serves nobody until redis answers");
                Ok(false)
            }
            Err(_) => {
                tracing::warn!("redis does not answer; this node serves nobody until it does");
                Ok(false)
            }
        }
    }

    /// Runs a part of the bus that it cannot do without.
    fn run(&self, part: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let (stop, failed) =
            (self.stop.clone(), Failing { part, stop: self.stop.clone(), failed: self.failed.clone() });
        self.tasks.spawn(async move {
            let _failing = failed;
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// Held by a part of the bus: when it ends before the bus does, the bus has failed.
struct Failing {
    part: &'static str,
    stop: CancellationToken,
    failed: CancellationToken,
}

impl Drop for Failing {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            tracing::error!(part = self.part, "a part of the bus has ended");
            self.failed.cancel();
        }
    }
}

#[async_trait]
impl Bus for RedisBus {
    async fn attach(&self, inbox: Arc<dyn Inbox>, registry: &Registry) -> Result<(), AttachError> {
        let metrics = Arc::new(Metrics::register(registry.recorder()));
        let checked = self.check().await?;
        let settings = &self.settings;
        let lease = Arc::new(Lease::new(self.reach.clone(), settings, self.clock.clone(), metrics.clone()));
        lease.first(inbox.load(), START).await?;
        let unplaced = Arc::<Ready>::default();
        let flows = Arc::new(Flows::new(
            settings,
            self.reach.clone(),
            lease.clone(),
            inbox.clone(),
            metrics.clone(),
            unplaced.clone(),
        ));
        let tell = {
            let flows = flows.clone();
            move |node, item| flows.tell(node, &item)
        };
        let membership = Arc::new(Membership::new(
            self.reach.clone(),
            lease.clone(),
            inbox.clone(),
            tell,
            settings,
            metrics.clone(),
        ));
        let core = Arc::new(Core {
            inbox,
            lease,
            flows: flows.clone(),
            membership,
            number: watch::Sender::new(None),
            heard: watch::Sender::new(false),
            given: Mutex::new(false),
            reachable: AtomicBool::new(true),
            degraded: AtomicBool::new(false),
        });
        let publishers = Publishers::new(
            self.reach.clone(),
            flows,
            metrics.clone(),
            unplaced,
            self.tasks.clone(),
            self.stop.clone(),
            self.failed.clone(),
        );
        self.run("publishers", publishers.place());
        self.run("inboxes", core.clone().hear(self.reach.clone(), settings.shards, metrics));
        self.run("lease", core.clone().hold());
        let membership = core.membership.clone();
        self.run("membership", async move { membership.run().await });
        self.run("flows", core.clone().look_after());
        if !checked {
            let reach = self.reach.clone();
            self.run("check", async move {
                check::watch(&reach).await;
                std::future::pending::<()>().await;
            });
        }
        self.core.set(core).map_err(|_| AttachError::Unfit(vec!["the bus is attached already".to_owned()]))
    }

    async fn detach(&self) {
        let Some(core) = self.core.get() else { return };
        let clean = core.membership.close().await;
        core.said_all().await;
        core.lease.release(clean).await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn failed(&self) {
        self.failed.cancelled().await;
    }

    async fn join(&self, topic: TopicId, arrival: Arrival, limit: usize) -> Members {
        match self.core.get() {
            Some(core) => core.membership.join(topic, arrival, limit).await,
            None => Members { degraded: true, ..Members::default() },
        }
    }

    fn leave(&self, topic: TopicId, member: Member) {
        if let Some(core) = self.core.get() {
            core.membership.leave(topic, member);
        }
    }

    async fn lookup(&self, topic: TopicId, limit: usize) -> Members {
        match self.core.get() {
            Some(core) => core.membership.lookup(topic, limit).await,
            None => Members { degraded: true, ..Members::default() },
        }
    }

    fn forward(&self, letter: &Letter<'_>) -> Result<(), Verdict> {
        let core = self.core.get().ok_or(Verdict::Unreachable)?;
        core.flows.letter(letter, letter.to.node())
    }

    fn broadcast(&self, letter: &Letter<'_>) -> Result<(), (u32, Verdict)> {
        let Some(core) = self.core.get() else { return Ok(()) };
        let mut refused: Option<(u32, Verdict)> = None;
        for node in core.membership.nodes_of(&letter.topic) {
            if let Err(verdict) = core.flows.letter(letter, node) {
                let (count, _) = refused.unwrap_or((0, verdict));
                refused = Some((count + 1, verdict));
            }
        }
        refused.map_or(Ok(()), Err)
    }

    fn report(&self, undelivered: Undelivered) {
        if let Some(core) = self.core.get() {
            core.flows.tell(undelivered.from.node(), &Item::Undelivered(undelivered));
        }
    }
}

impl Core {
    /// Keeps the lease and acts on what happens to it.
    async fn hold(self: Arc<Self>) {
        let inbox = self.inbox.clone();
        self.lease.run(move || inbox.load(), |event| self.event(event)).await;
    }

    fn event(&self, event: Event) {
        match &event {
            // The node gets its number once its inbox is heard; see `hear`.
            Event::Placed { node, .. } => {
                self.number.send_replace(Some(*node));
            }
            Event::Fenced => {
                let mut given = self.given.lock();
                self.number.send_replace(None);
                *given = false;
                self.inbox.placed(None);
                drop(given);
                self.flows.begin_anew();
            }
            Event::Lapsed { .. } => self.flows.begin_anew(),
            Event::Appeared { node, incarnation, versions }
            | Event::Raised { node, incarnation, versions } => {
                self.flows.open(*node, *incarnation, *versions.end());
            }
            Event::Gone { node, incarnation } => self.flows.close(*node, incarnation.instance),
            Event::Reachable(reachable) => self.reachable.store(*reachable, Ordering::Relaxed),
            Event::Revoked(revocations) => self.inbox.revoked(revocations.clone()),
        }
        self.membership.event(&event);
        self.inbox.nodes(u32::try_from(self.lease.table().live().count()).unwrap_or(u32::MAX).max(1));
        self.judge();
    }

    /// Subscribes to the inbox of whatever number the node has, and gives the node its number once the
    /// inbox is heard: from then on it can be answered.
    async fn hear(self: Arc<Self>, reach: Arc<Reach>, shards: u8, metrics: Arc<Metrics>) {
        let mut number = self.number.subscribe();
        loop {
            let Some(node) = *number.borrow_and_update() else {
                if number.changed().await.is_err() {
                    return;
                }
                continue;
            };
            self.heard.send_replace(false);
            let core = self.clone();
            let deliver = Arc::new(move |_: u8, message: Vec<u8>| core.received(&message));
            let inboxes = Inboxes::new(
                reach.clone(),
                node,
                shards,
                deliver,
                self.heard.clone(),
                Metrics::clone(&metrics),
            );
            let mut heard = self.heard.subscribe();
            let place = async {
                if heard.wait_for(|heard| *heard).await.is_ok() {
                    let mut given = self.given.lock();
                    // Not a number that was lost meanwhile.
                    if *self.number.borrow() == Some(node) {
                        *given = true;
                        self.inbox.placed(Some(node));
                    }
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = inboxes.run() => return,
                () = place => return,
                changed = number.changed() => if changed.is_err() { return },
            }
        }
    }

    fn received(&self, message: &[u8]) {
        self.flows.receive(message, &self.membership);
    }

    async fn look_after(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.flows.tick(Instant::now());
            self.judge();
        }
    }

    /// Tells the node when it loses or regains touch with the rest of the cluster.
    fn judge(&self) {
        // A node that starts misses nothing yet.
        let degraded = *self.given.lock()
            && !(self.reachable.load(Ordering::Relaxed)
                && self.lease.is_valid()
                && *self.heard.borrow()
                && self.membership.is_complete());
        if self.degraded.swap(degraded, Ordering::Relaxed) != degraded {
            self.lease.set_degraded(degraded);
            self.inbox.degraded(degraded);
        }
    }

    /// Waits until everything that was queued for other nodes is published, or it takes too long.
    async fn said_all(&self) {
        let silent = async {
            while self.flows.all().values().any(|flow| flow.outgoing.lock().held().0 > 0) {
                tokio::time::sleep(TICK / 10).await;
            }
        };
        // What could not be said is told by the end of the lease.
        let _ = tokio::time::timeout(FAREWELL, silent).await;
    }
}
