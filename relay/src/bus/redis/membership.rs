//! Joins, departures and lookups across the cluster.
//!
//! The registry in Redis says where to begin: a join is written there, and what it finds there is told of
//! it. From then on nodes tell each other, in order with the letters, and the [`Roster`] keeps what they
//! said; broadcasts ask only it.
//!
//! When Redis does not answer, joins answer with what the roster knows and say `degraded`. Whatever could
//! not be written makes the registrations of this node incomplete: it has its term raised, which voids all
//! of them, and registers everything anew, paced; meanwhile [`Membership::is_complete`] is false. Each
//! topic is read on that occasion, the members here are told what changed, and at the end every node hears
//! [`Item::Resynced`].
//!
//! What the dead have left is filtered when it is read, removed by whoever comes across it, and swept
//! ([`super::registry::sweep`]) before their numbers are free again.

mod housekeeping;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use culvert_wire::{Member, Members, NodeId, TopicId};
use hashbrown::HashSet;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::incarnation::Incarnation;
use super::lease::{Event, Lease};
use super::message::Item;
use super::metrics::Metrics;
use super::nodes::{Standing, Table};
use super::reach::Reach;
use super::registry::entry::Entry;
use super::registry::{Failed, Operation, Read};
use super::roster::{Roster, Sight};
use super::settings::Settings;
use crate::bus::{Arrival, Inbox};

/// Operations that wait to be written. A node at the default limit of memberships that loses a quarter of
/// its peers at once fills it; what does not fit makes the registrations incomplete.
const QUEUE: usize = 1 << 18;
/// Dead entries that one read has removed; a sweep does the rest.
const FORGOTTEN: usize = 32;
/// Incarnations that are remembered to have ended; each costs one look at the leases to find out.
const ENDED: usize = 1024;

/// The memberships of one node's connections, towards the other nodes. See the module.
pub struct Membership {
    reach: Arc<Reach>,
    lease: Arc<Lease>,
    inbox: Arc<dyn Inbox>,
    tell: Box<dyn Fn(NodeId, Item) + Send + Sync>,
    metrics: Arc<Metrics>,
    timeout: Duration,
    lease_time: Duration,
    registrations: u32,
    roster: Roster,
    queue: mpsc::Sender<Operation>,
    queued: tokio::sync::Mutex<mpsc::Receiver<Operation>>,
    /// Under what to register; follows the lease's events.
    own: watch::Sender<Option<(NodeId, Incarnation)>>,
    /// The incarnation whose registrations are incomplete: nothing more is written under it.
    broken: watch::Sender<Option<Incarnation>>,
    reachable: AtomicBool,
    complete: AtomicBool,
    /// Incarnations that were found in the registry after their lease was gone.
    ended: Mutex<HashSet<(NodeId, Incarnation)>>,
    chores: Mutex<Vec<Chore>>,
    chore: Notify,
    /// Incarnations of this process that lost their number, with registrations that nobody else may find.
    former: Mutex<Vec<(NodeId, Incarnation)>>,
}

/// A read of the registry, in the light of the leases.
struct Judged {
    sight: Sight,
    /// How many members it stands for.
    total: usize,
    /// Whether it is known of each entry if it counts.
    certain: bool,
}

/// What is done beside, because it takes longer than an event may.
enum Chore {
    /// A node ended: its members go.
    Gone(NodeId, Incarnation),
    /// A node has announced everything: what it did not announce and was registered before goes.
    Resynced(NodeId),
}

/// Counts a read of the registry in the roster until it is over, also for a caller that went away.
struct Reading<'a>(&'a Roster, TopicId);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.read_ended(&self.1);
    }
}

impl Membership {
    /// Nobody is in any topic. `tell` queues an item for a node, behind the letters that it was given
    /// before, and must not wait.
    pub fn new(
        reach: Arc<Reach>,
        lease: Arc<Lease>,
        inbox: Arc<dyn Inbox>,
        tell: impl Fn(NodeId, Item) + Send + Sync + 'static,
        settings: &Settings,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (queue, queued) = mpsc::channel(QUEUE);
        Self {
            reach,
            lease,
            inbox,
            tell: Box::new(tell),
            metrics,
            timeout: settings.timeout,
            lease_time: settings.lease,
            registrations: settings.registrations,
            // Whoever reads the registry announces itself within the time for an answer.
            roster: Roster::new(settings.lease * 2),
            queue,
            queued: tokio::sync::Mutex::new(queued),
            own: watch::Sender::new(None),
            broken: watch::Sender::new(None),
            reachable: AtomicBool::new(true),
            complete: AtomicBool::new(true),
            ended: Mutex::default(),
            chores: Mutex::default(),
            chore: Notify::new(),
            former: Mutex::default(),
        }
    }

    /// Registers a connection, tells every node with members of the topic, and gives those members. Cancel
    /// safe if [`Membership::leave`] follows.
    pub async fn join(&self, topic: TopicId, arrival: Arrival, limit: usize) -> Members {
        let own = self.own.borrow().map(|(node, _)| node);
        if own != Some(arrival.member.conn.node()) {
            // Its address is gone, and it is about to be closed.
            return Members { degraded: true, ..Members::default() };
        }
        self.roster.enter(topic, arrival.member);
        let reading = Reading(&self.roster, topic);
        self.metrics.roster_topics.set(count(self.roster.len()));
        let nodes = self.roster.wants_nodes(&topic);
        let operation =
            |reply| Operation::Join { topic, members: vec![arrival.member], nodes, renewal: false, reply };
        let read = self.ask(operation).await;
        let mut members = Members { degraded: !self.is_complete(), ..Members::default() };
        let mut total = 0;
        match read {
            Ok(read) => {
                let judged = self.judge(&topic, &read).await;
                (total, members.degraded) = (judged.total, members.degraded || !judged.certain);
                if !judged.certain {
                    // Somebody may be there who does not know of this node either.
                    self.fail();
                }
                // Nothing is lost by a read that another change overtook: those nodes tell of it.
                self.roster.learn(&topic, &judged.sight, false, |_, _| false);
            }
            Err(Failed) => members.degraded = true,
        }
        drop(reading);
        for node in self.roster.nodes_of(&topic) {
            (self.tell)(node, Item::Arrived { topic, arrival });
        }
        let (list, known) = self.roster.members(&topic, limit);
        members.list = list;
        members.total = u32::try_from(total.max(known)).unwrap_or(u32::MAX);
        members
    }

    /// Removes a connection and tells the other nodes. Does nothing if it is not in. Never waits.
    pub fn leave(&self, topic: TopicId, member: Member) {
        let Some(nodes) = self.roster.exit(&topic, member, Instant::now()) else { return };
        self.metrics.roster_topics.set(count(self.roster.len()));
        for node in nodes {
            (self.tell)(node, Item::Departed { topic, member });
        }
        if self.queue.try_send(Operation::Leave { topic, conn: member.conn }).is_err() {
            self.metrics.operation_failures[super::metrics::Operation::Leave].increment(1);
            self.fail();
        }
    }

    /// Gives the members of a topic on other nodes. Cancel safe.
    pub async fn lookup(&self, topic: TopicId, limit: usize) -> Members {
        match self.ask(|reply| Operation::Lookup { topic, reply }).await {
            Ok(read) => {
                let Judged { sight, total, certain } = self.judge(&topic, &read).await;
                let list = sight.members.iter().map(|entry| entry.member).take(limit).collect();
                let total = u32::try_from(total).unwrap_or(u32::MAX);
                Members { total, list, degraded: !certain || !self.is_complete() }
            }
            Err(Failed) => {
                let (list, total) = self.roster.members(&topic, limit);
                Members { total: u32::try_from(total).unwrap_or(u32::MAX), list, degraded: true }
            }
        }
    }

    /// The nodes that have members of a topic that connections of this node are in. Asks nobody.
    pub fn nodes_of(&self, topic: &TopicId) -> Vec<NodeId> {
        self.roster.nodes_of(topic)
    }

    /// Takes over what another node says. Never waits.
    pub fn received(&self, from: NodeId, item: Item) {
        match item {
            Item::Arrived { topic, arrival } => {
                // A process that the table does not show yet; its end takes whatever has no incarnation.
                let life = self.lease.table().get(from).map(|lease| lease.incarnation);
                let life = life.unwrap_or(Incarnation { instance: 0, term: 0 });
                if self.roster.arrived(&topic, arrival.member, life) {
                    self.inbox.arrived(topic, arrival);
                }
                for member in self.roster.missed_by(from, &topic, Instant::now()) {
                    (self.tell)(from, Item::Departed { topic, member });
                }
            }
            Item::Departed { topic, member } => {
                if self.roster.departed(&topic, member.conn) {
                    self.inbox.departed(topic, member);
                }
            }
            Item::Resynced => self.put(Chore::Resynced(from)),
            Item::Undelivered(undelivered) => self.inbox.verdict(undelivered),
        }
    }

    /// Takes over what the lease says. Never waits.
    pub fn event(&self, event: &Event) {
        match event {
            Event::Placed { node, incarnation } => {
                self.complete.store(true, Ordering::Release);
                self.own.send_replace(Some((*node, *incarnation)));
            }
            Event::Lapsed { incarnation } => {
                self.complete.store(false, Ordering::Release);
                self.own.send_modify(|own| {
                    if let Some((_, life)) = own {
                        *life = *incarnation;
                    }
                });
            }
            Event::Fenced => {
                self.former.lock().extend(self.own.send_replace(None));
                self.roster.clear();
                self.chore.notify_one();
            }
            Event::Gone { node, incarnation } => self.put(Chore::Gone(*node, *incarnation)),
            Event::Reachable(reachable) => self.reachable.store(*reachable, Ordering::Release),
            Event::Appeared { .. } | Event::Raised { .. } | Event::Revoked(_) => {}
        }
    }

    /// Whether all memberships of this node are registered.
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Writes to the registry, registers anew and sweeps, until dropped.
    pub async fn run(&self) {
        tokio::join!(self.write(), self.keep(), self.sweep());
    }

    /// Waits until what was asked for is written; says whether nothing is registered any more. For a node
    /// whose connections have left, while [`Membership::run`] still runs.
    pub async fn close(&self) -> bool {
        let (done, flushed) = oneshot::channel();
        let flush = async {
            self.queue.send(Operation::Flush(done)).await.ok()?;
            flushed.await.ok()?;
            let (node, life) = (*self.own.borrow())?;
            let index = self.reach.keys().memberships(node, life);
            let mut asking = self.reach.ask().await.ok()?;
            redis::cmd("EXISTS").arg(index).query_async::<bool>(&mut asking).await.ok()
        };
        let left = timeout(self.timeout * 2, flush).await.ok().flatten();
        left == Some(false) && self.is_complete()
    }

    /// Asks the registry, for at most the time for an answer.
    async fn ask(
        &self,
        operation: impl FnOnce(oneshot::Sender<Result<Arc<Read>, Failed>>) -> Operation,
    ) -> Result<Arc<Read>, Failed> {
        let (reply, answer) = oneshot::channel();
        let operation = operation(reply);
        let kind = operation.kind();
        // What cannot be answered is not waited for. It is registered all the same, once everything is.
        if !self.reachable.load(Ordering::Acquire) || self.is_broken() {
            operation.fail();
        } else if let Err(full) = self.queue.try_send(operation) {
            full.into_inner().fail();
        }
        match timeout(self.timeout, answer).await {
            Ok(Ok(Ok(read))) => Ok(read),
            // A join must be registered some time, and even if it is by now, nobody took the answer over.
            _ => {
                if let Some(kind) = kind {
                    self.metrics.operation_failures[kind].increment(1);
                }
                if kind == Some(super::metrics::Operation::Join) {
                    self.fail();
                }
                Err(Failed)
            }
        }
    }

    /// What a read says of the other nodes. Entries of incarnations that are dead are left out, and removed.
    async fn judge(&self, topic: &TopicId, read: &Read) -> Judged {
        let mut table = self.lease.table();
        let life = |entry: &Entry| (entry.member.conn.node(), entry.life);
        let strange = |table: &Table| {
            let unknown =
                |(node, life): &(NodeId, Incarnation)| table.standing(*node, *life) == Standing::Unknown;
            let mut strange: Vec<_> = read.entries.iter().map(life).filter(unknown).collect();
            strange.sort_unstable();
            strange.dedup();
            let ended = self.ended.lock();
            strange.retain(|life| !ended.contains(life));
            strange
        };
        let mut certain = true;
        if !strange(&table).is_empty() {
            // A node that has just come is in Redis before it is in the table.
            certain = self.lease.refresh().await;
            table = self.lease.table();
            if certain {
                // Whoever registers has a lease: one that is not there now will not be there again.
                let strange = strange(&table);
                let mut ended = self.ended.lock();
                if ended.len() + strange.len() > ENDED {
                    ended.clear();
                }
                ended.extend(strange);
            }
        }
        let own = self.own.borrow().map(|(node, _)| node);
        let mut sight = Sight { complete: read.is_complete(), ..Sight::default() };
        let mut dead = Vec::new();
        for entry in read.entries.iter().filter(|entry| Some(entry.member.conn.node()) != own) {
            let (node, life) = life(entry);
            match table.standing(node, life) {
                Standing::Live => sight.members.push(*entry),
                Standing::Unknown if !self.ended.lock().contains(&(node, life)) => {}
                Standing::Dead | Standing::Unknown => dead.push(*entry),
            }
        }
        let live = |node: &NodeId| Some(*node) != own && table.get(*node).is_some();
        sight.nodes = read.nodes.iter().flatten().copied().filter(live).collect();
        let total = match sight.complete {
            true => sight.members.len(),
            // An estimate: which of those that were not read are here or dead is not known.
            false => read.total.saturating_sub(self.roster.local(topic) + dead.len()),
        };
        for entry in dead.into_iter().take(FORGOTTEN) {
            // A full queue has other worries.
            let _ = self.queue.try_send(Operation::Forget { topic: *topic, entry });
        }
        Judged { sight, total, certain }
    }

    /// The registrations of this node are incomplete from here on, until its term is raised.
    fn fail(&self) {
        let Some((_, life)) = *self.own.borrow() else { return };
        self.complete.store(false, Ordering::Release);
        let news = self.broken.send_if_modified(|broken| broken.replace(life) != Some(life));
        if news {
            tracing::warn!(%life, "the registry of topics missed something; everything is registered anew");
            self.lease.raise(life);
        }
    }

    /// Whether nothing is written under the own incarnation any more.
    fn is_broken(&self) -> bool {
        let own = *self.own.borrow();
        own.is_none_or(|(_, life)| *self.broken.borrow() == Some(life))
    }

    fn put(&self, chore: Chore) {
        self.chores.lock().push(chore);
        self.chore.notify_one();
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts below 2^52 are exact")]
fn count(n: usize) -> f64 {
    n as f64
}
