//! The node's number: a lease that one round trip every half second renews.
//!
//! Each tick runs one script, which refreshes the own lease and brings everybody's and the revision of
//! what is revoked. What a node may conclude from it:
//!
//! - **confirmed**: the lease is good for six sevenths of the lease time from when the question was
//!   *sent*. After that [`Lease::is_valid`] is false, and the node neither publishes nor accepts bus
//!   traffic, a seventh before anybody may hold it to be dead.
//! - **raised**: the lease had lapsed or was missing, or Redis lost writes. The node keeps its number and
//!   with it all addresses, under a higher term ([`Event::Lapsed`]); everything is registered anew.
//! - **held** by another process: the node is fenced ([`Event::Fenced`]) and draws another number.
//! - **no answer**: the node keeps everything and asks again ([`Event::Reachable`]).
//!
//! What is revoked is read before the lease counts as confirmed: after an outage nobody who was revoked
//! meanwhile gets a frame through.

mod event;
mod holder;
mod silence;
pub mod tick;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use culvert_service_kit::Clock;
use culvert_wire::NodeId;
use parking_lot::Mutex;
use redis::RedisError;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep_until, timeout};
use tracing::{error, info, warn};

use super::incarnation::Incarnation;
use super::message::VERSIONS;
use super::metrics::{LeaseLoss, Metrics};
use super::nodes::{About, Table};
use super::reach::{Asking, Reach, ReachError, run_id};
use super::revocation::RevocationList;
use super::settings::Settings;
use crate::admission::Revocations;
use crate::bus::{AttachError, Load};
use holder::Holder;
use silence::Silence;
use tick::Answer;

pub use event::Event;

/// Ticks in one lease time: with one lost now and then, a lease does not come near its end.
const TICKS: u32 = 14;
/// Ticks without an answer until Redis counts as out of reach.
const MISSED: u32 = 3;
/// However often somebody asks for a tick, there are at most this many in the time of one.
const HASTE: u32 = 10;

/// Waiting does not help this node to a number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("all 65536 node numbers are taken")]
    Full,
    #[error("a node of the cluster speaks bus versions {} to {}", theirs.start(), theirs.end())]
    Incompatible { theirs: RangeInclusive<u8> },
}

/// Why a tick came to nothing.
#[derive(Debug, thiserror::Error)]
enum TickError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Reach(#[from] ReachError),
    #[error("redis refuses")]
    Redis(#[from] RedisError),
    #[error("redis does not answer within {0:?}")]
    Late(Duration),
}

/// One node's lease. See the module.
pub struct Lease {
    reach: Arc<Reach>,
    time: Duration,
    timeout: Duration,
    versions: RangeInclusive<u8>,
    clock: Clock,
    metrics: Arc<Metrics>,
    revocations: RevocationList,
    inner: Mutex<Inner>,
    /// Held during a tick, so that there is one at a time. Kept from tick to tick: a lease does not wait
    /// for a pool that is busy with registrations.
    connection: tokio::sync::Mutex<Connection>,
    table: ArcSwap<Table>,
    /// Nanoseconds since `epoch` at which the lease stops being valid.
    valid_until: AtomicU64,
    epoch: Instant,
    released: AtomicBool,
    started: AtomicU64,
    finished: watch::Sender<Finished>,
    poke: Notify,
    /// Seconds since 1970; 0 for never.
    placed_at: AtomicU64,
    degraded_at: AtomicU64,
}

/// Which ticks are over.
#[derive(Clone, Copy, Default)]
struct Finished {
    last: u64,
    /// The last that brought an answer.
    answered: u64,
}

struct Inner {
    holder: Holder,
    events: Vec<Event>,
    valid_until: Option<Instant>,
}

#[derive(Default)]
struct Connection {
    asking: Option<Asking>,
    /// Which process answered last.
    server: Option<String>,
    /// How often another process had come to serve a part of the cluster.
    replaced: u64,
}

impl Lease {
    /// Without a number; nothing is asked yet.
    pub fn new(reach: Arc<Reach>, settings: &Settings, clock: Clock, metrics: Arc<Metrics>) -> Self {
        let versions = *VERSIONS.start()..=settings.newest_bus_version;
        let holder = Holder::new(settings.lease, versions.clone());
        Self {
            revocations: RevocationList::new(clock.clone()),
            reach,
            time: settings.lease,
            timeout: settings.timeout,
            versions,
            clock,
            metrics,
            inner: Mutex::new(Inner { holder, events: Vec::new(), valid_until: None }),
            connection: tokio::sync::Mutex::default(),
            table: ArcSwap::default(),
            valid_until: AtomicU64::new(0),
            epoch: Instant::now(),
            released: AtomicBool::new(false),
            started: AtomicU64::new(0),
            finished: watch::Sender::default(),
            poke: Notify::new(),
            placed_at: AtomicU64::new(0),
            degraded_at: AtomicU64::new(0),
        }
    }

    /// Claims a number, for at most `limit`. That Redis is out of reach is no error: [`Lease::run`], which
    /// tells what happened here first, goes on trying.
    ///
    /// # Errors
    /// Going on would not help.
    pub async fn first(&self, load: Load, limit: Duration) -> Result<(), AttachError> {
        let claim = async {
            loop {
                match self.round(load).await {
                    Ok(true) => {}
                    Ok(false) => return Ok(()),
                    Err(TickError::Refused(Refused::Full)) => return Err(AttachError::Full),
                    Err(TickError::Refused(Refused::Incompatible { theirs })) => {
                        let text = |versions: &RangeInclusive<u8>| {
                            format!("{}-{}", versions.start(), versions.end())
                        };
                        return Err(AttachError::Incompatible {
                            theirs: text(&theirs),
                            ours: text(&self.versions),
                        });
                    }
                    Err(error) => {
                        warn!(error = chain(&error), "redis does not give this node a number yet");
                        tokio::time::sleep(self.interval()).await;
                    }
                }
            }
        };
        timeout(limit, claim).await.unwrap_or(Ok(()))
    }

    /// Ticks until dropped, and tells `on` what happens; `on` must not wait.
    pub async fn run(&self, load: impl Fn() -> Load, on: impl Fn(Event)) {
        let mut silence = Silence::new(self.interval() * MISSED);
        let mut refusal = None;
        self.deliver(&on);
        loop {
            let began = tokio::time::Instant::now();
            let result = silence.during(self.round(load()), &on).await;
            self.deliver(&on);
            let mut again = false;
            let last = self.started.load(Ordering::Acquire);
            let answered = matches!(result, Ok(_) | Err(TickError::Refused(_)));
            match result {
                Ok(more) => {
                    silence.end(&on);
                    refusal = None;
                    again = more;
                }
                Err(TickError::Refused(refused)) => {
                    silence.end(&on);
                    if refusal.as_ref() != Some(&refused) {
                        error!(%refused, "this node gets no number and serves nobody");
                        refusal = Some(refused);
                    }
                }
                Err(error) => {
                    self.metrics.tick_failures.increment(1);
                    if !silence.is_told() {
                        warn!(error = chain(&error), "redis did not confirm the lease of this node");
                    }
                }
            }
            self.finished.send_modify(|finished| {
                finished.last = last;
                if answered {
                    finished.answered = last;
                }
            });
            if !again {
                silence.during(self.pause(began), &on).await;
            }
        }
    }

    /// Until the next tick is due, or somebody asked for one.
    async fn pause(&self, began: tokio::time::Instant) {
        tokio::select! {
            () = sleep_until(began + self.interval()) => {}
            () = self.poke.notified() => sleep_until(began + self.interval() / HASTE).await,
        }
    }

    /// Whether the node may take part in the bus now. For every frame: reads a clock and an atomic.
    pub fn is_valid(&self) -> bool {
        let now = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        now < self.valid_until.load(Ordering::Acquire)
    }

    /// All nodes, as of the last answer.
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// The own number, valid or not.
    pub fn own(&self) -> Option<(NodeId, Incarnation)> {
        self.inner.lock().holder.own()
    }

    /// Has the table read again by a tick that begins after this call; many callers share one. Says whether
    /// it was; otherwise the tick came to nothing, or took longer than an answer may. Cancel safe.
    pub async fn refresh(&self) -> bool {
        let mut finished = self.finished.subscribe();
        let wanted = self.started.load(Ordering::Acquire) + 1;
        self.poke();
        let tick = finished.wait_for(|finished| finished.last >= wanted);
        matches!(timeout(self.timeout, tick).await, Ok(Ok(finished)) if finished.answered >= wanted)
    }

    /// Has the table read again soon, without waiting for it.
    pub fn poke(&self) {
        self.poke.notify_one();
    }

    /// What was registered under this incarnation is incomplete: raises the term with the next tick.
    pub fn raise(&self, incarnation: Incarnation) {
        self.inner.lock().holder.raise(incarnation);
        self.poke();
    }

    /// Lowest term of this process that may still have registrations.
    pub fn unswept(&self) -> u32 {
        self.inner.lock().holder.unswept()
    }

    /// Nothing is registered any more under lower terms than this one.
    pub fn swept(&self, incarnation: Incarnation) {
        self.inner.lock().holder.swept(incarnation);
    }

    /// Says in the lease whether this node misses something of the bus.
    pub fn set_degraded(&self, degraded: bool) {
        let now = if degraded { self.clock.unix_seconds() } else { 0 };
        if !degraded || self.degraded_at.load(Ordering::Relaxed) == 0 {
            self.degraded_at.store(now, Ordering::Relaxed);
        }
    }

    /// Gives the number back and stops ticking. `clean` says that nothing is registered under it any more;
    /// otherwise the lease ends at once and the others sweep.
    pub async fn release(&self, clean: bool) {
        self.released.store(true, Ordering::Release);
        self.valid_until.store(0, Ordering::Release);
        let give_back = async {
            // Waits for a tick that is under way: it would take the lease again.
            let mut connection = self.connection.lock().await;
            let Some((node, life)) = self.own() else { return Ok(()) };
            let mut asking = self.connect(&mut connection).await?;
            tick::release(&mut asking, self.reach.keys(), node, life, clean).await.map_err(TickError::from)
        };
        match timeout(self.timeout * 2, give_back).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(error = chain(&error), "redis did not take the node number back; it ends by itself");
            }
            Err(_) => warn!("redis did not take the node number back in time; it ends by itself"),
        }
        self.metrics.lease.set(0.0);
    }

    fn interval(&self) -> Duration {
        self.time / TICKS
    }

    /// One tick; says whether to go on at once.
    async fn round(&self, load: Load) -> Result<bool, TickError> {
        let mut connection = self.connection.lock().await;
        if self.released.load(Ordering::Acquire) {
            return Ok(false);
        }
        self.started.fetch_add(1, Ordering::AcqRel);
        let attempt = async {
            // Taken out: if the wait ends early, nobody gets the answer to somebody else's question.
            let mut asking = self.connect(&mut connection).await?;
            let ask = self.inner.lock().holder.ask();
            let lease_ms = u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX);
            let sent = Instant::now();
            let answer = tick::tick(&mut asking, self.reach.keys(), ask, lease_ms, &self.about(load)).await?;
            self.metrics.tick_seconds.record(sent.elapsed().as_secs_f64());
            let keeper = answer.snapshot.live().next().map(|(node, _)| node);
            let chore = self.own().is_some_and(|(node, _)| Some(node) == keeper);
            let list = self
                .revocations
                .sync(&mut asking, self.reach.keys(), answer.revision.as_deref(), chore)
                .await?;
            connection.asking = Some(asking);
            Ok((answer, sent, list))
        };
        let result = match timeout(self.timeout, attempt).await {
            Ok(result) => result,
            Err(_) => Err(TickError::Late(self.timeout)),
        };
        let (answer, sent, list) = match result {
            Ok(result) => result,
            Err(error) => {
                // Another server may be in charge by now.
                self.reach.refresh().await;
                return Err(error);
            }
        };
        match self.conclude(&answer, sent, list) {
            Ok(again) => Ok(again),
            Err((refused, claimed)) => {
                if let (Some((node, life)), Some(mut asking)) = (claimed, connection.asking.take()) {
                    // If this fails, it expires.
                    let give_back = tick::release(&mut asking, self.reach.keys(), node, life, true);
                    let _ = timeout(self.timeout, give_back).await;
                }
                Err(refused.into())
            }
        }
    }

    /// Draws the conclusions from an answer; says whether to go on at once. A refusal comes with what was
    /// claimed and is to be given back.
    fn conclude(
        &self,
        answer: &Answer,
        sent: Instant,
        list: Option<Arc<Revocations>>,
    ) -> Result<bool, (Refused, Option<(NodeId, Incarnation)>)> {
        let mut inner = self.inner.lock();
        let Inner { holder, events, valid_until } = &mut *inner;
        events.extend(list.map(Event::Revoked));
        let judged = holder.answered(answer, sent, Instant::now(), events);
        if holder.own().is_none() {
            self.valid_until.store(0, Ordering::Release);
            *valid_until = None;
        }
        let judgement = judged.map_err(|refused| (refused, holder.withdraw()))?;
        if judgement.confirmed {
            *valid_until = Some(sent + Holder::validity(self.time));
        }
        if let Some(table) = judgement.table {
            self.metrics.nodes.set(f64::from(u32::try_from(table.live().count()).unwrap_or(u32::MAX)));
            self.table.store(Arc::new(table));
        }
        Ok(judgement.again)
    }

    /// The connection of the last tick, or a new one.
    async fn connect(&self, connection: &mut Connection) -> Result<Asking, TickError> {
        let replaced = self.reach.replaced();
        if std::mem::replace(&mut connection.replaced, replaced) != replaced {
            self.doubt();
        }
        if let Some(asking) = connection.asking.take() {
            return Ok(asking);
        }
        let mut asking = self.reach.ask().await?;
        if !self.reach.is_cluster() {
            let server = run_id(&mut asking).await?;
            // A replica that took over may lack what was registered last.
            if connection.server.replace(server.clone()).is_some_and(|before| before != server) {
                self.doubt();
            }
        }
        Ok(asking)
    }

    /// Redis may lack what was registered before, whatever has become of the lease.
    fn doubt(&self) {
        if let Some((_, life)) = self.own() {
            self.inner.lock().holder.raise(life);
        }
    }

    fn about(&self, load: Load) -> About {
        let seconds = |at: &AtomicU64| Some(at.load(Ordering::Relaxed)).filter(|at| *at > 0);
        About {
            bus: (*self.versions.start(), *self.versions.end()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: seconds(&self.placed_at).unwrap_or_else(|| self.clock.unix_seconds()),
            lease: u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX),
            connections: load.connections,
            memberships: load.memberships,
            degraded: seconds(&self.degraded_at),
            unswept: self.unswept(),
        }
    }

    /// Tells what has happened, and only then lets bus traffic through.
    fn deliver(&self, on: &impl Fn(Event)) {
        let (events, valid_until) = {
            let mut inner = self.inner.lock();
            (std::mem::take(&mut inner.events), inner.valid_until)
        };
        for event in events {
            self.note(&event);
            on(event);
        }
        if let Some(until) = valid_until
            && !self.released.load(Ordering::Acquire)
        {
            let nanos = until.duration_since(self.epoch).as_nanos();
            self.valid_until.store(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Release);
        }
        self.metrics.lease.set(if self.is_valid() { 1.0 } else { 0.0 });
    }

    fn note(&self, event: &Event) {
        match event {
            Event::Placed { node, incarnation } => {
                self.placed_at.store(self.clock.unix_seconds(), Ordering::Relaxed);
                info!(%node, %incarnation, "this node has its number");
            }
            Event::Lapsed { incarnation } => {
                self.metrics.lease_losses[LeaseLoss::Lapsed].increment(1);
                warn!(%incarnation, "the lease of this node had a gap; everything is registered anew");
            }
            Event::Fenced => {
                self.metrics.lease_losses[LeaseLoss::Fenced].increment(1);
                error!(
                    "another node has this node's number; all peers are closed and another number is drawn"
                );
            }
            Event::Appeared { node, incarnation, .. } => info!(%node, %incarnation, "a node appeared"),
            Event::Raised { node, incarnation, .. } => info!(%node, %incarnation, "a node registers anew"),
            Event::Gone { node, incarnation } => info!(%node, %incarnation, "a node is gone"),
            Event::Revoked(list) => info!(entries = list.len(), "what is revoked has changed"),
            Event::Reachable(_) => {}
        }
    }
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
