//! The one who writes to the registry: in order, many operations at a time, and everything anew when the
//! term was raised.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use culvert_wire::{ConnId, Member, NodeId, TopicId};
use hashbrown::HashSet;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::{Membership, Reading};
use crate::bus::Arrival;
use crate::bus::redis::incarnation::Incarnation;
use crate::bus::redis::lease::chain;
use crate::bus::redis::message::Item;
use crate::bus::redis::metrics;
use crate::bus::redis::nodes::Table;
use crate::bus::redis::registry::{Failed, Operation, Read, RegistryError, execute};

/// Operations of one batch: enough that the round trip does not count, few enough for Redis to breathe.
const BATCH: usize = 256;

/// Everything is registered anew, under one incarnation.
struct Renewal {
    topics: Vec<TopicId>,
    /// Members of the topic in work that are not registered yet.
    rest: Option<(TopicId, Vec<Member>)>,
    due: Instant,
}

/// A part of it that is on its way.
struct Step<'a> {
    reading: Reading<'a>,
    members: Vec<Member>,
    /// The nodes as they were before the registry was read.
    table: Arc<Table>,
    answer: oneshot::Receiver<Result<Arc<Read>, Failed>>,
}

impl Membership {
    /// Writes until dropped.
    pub(super) async fn write(&self) {
        let mut queue = self.queued.lock().await;
        let mut changes = self.own.subscribe();
        let mut own = *changes.borrow_and_update();
        let mut renewal: Option<Renewal> = None;
        loop {
            let mut batch = Vec::new();
            let due = renewal.as_ref().map(|renewal| renewal.due);
            tokio::select! {
                biased;
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                n = queue.recv_many(&mut batch, BATCH) => if n == 0 { return },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            if !batch.is_empty() && !self.lease.is_valid() && !self.is_broken() {
                // A process that slept may have lost its lease: the next tick says so.
                self.lease.refresh().await;
            }
            if changes.has_changed().unwrap_or(false) || *changes.borrow() != own {
                let now = *changes.borrow_and_update();
                renewal = self.begin(own, now);
                own = now;
            }
            let Some(own) = own else {
                batch.into_iter().for_each(Operation::fail);
                continue;
            };
            let steps = match &mut renewal {
                Some(renewal) if !self.is_broken() && renewal.due <= Instant::now() => {
                    self.next(renewal, &mut batch)
                }
                _ => Vec::new(),
            };
            if self.write_batch(own, batch).await {
                for step in steps {
                    self.renewed(step).await;
                }
                if renewal.as_ref().is_some_and(Renewal::is_over) && !self.is_broken() {
                    renewal = None;
                    self.finish(own);
                }
            } else {
                renewal = None;
            }
        }
    }

    /// What there is to renew after the own place changed.
    fn begin(
        &self,
        before: Option<(NodeId, Incarnation)>,
        now: Option<(NodeId, Incarnation)>,
    ) -> Option<Renewal> {
        let ((_, life), (_, before)) = (now?, before?);
        if life.instance != before.instance {
            return None;
        }
        self.complete.store(false, Ordering::Release);
        let topics = self.roster.topics();
        info!(topics = topics.len(), "everything is registered anew");
        self.metrics.renewals_pending.set(super::count(topics.len()));
        Some(Renewal { topics, rest: None, due: Instant::now() })
    }

    /// Adds what is registered anew next to a batch.
    fn next(&self, renewal: &mut Renewal, batch: &mut Vec<Operation>) -> Vec<Step<'_>> {
        let (mut steps, mut room) = (Vec::new(), BATCH);
        let table = self.lease.table();
        while room > 0 {
            let rest = renewal.rest.take().map(|(topic, rest)| (topic, Some(rest)));
            let Some((topic, rest)) = rest.or_else(|| Some((renewal.topics.pop()?, None))) else { break };
            // Who left meanwhile is not registered again; whoever leaves from here on is behind this.
            let Some((reading, mut members)) = self.reading(topic, rest.as_deref()) else { continue };
            let later = members.split_off(members.len().min(room));
            room -= members.len();
            renewal.rest = Some((topic, later)).filter(|(_, later)| !later.is_empty());
            let (reply, answer) = oneshot::channel();
            batch.push(Operation::Join {
                topic,
                members: members.clone(),
                nodes: true,
                renewal: true,
                reply,
            });
            steps.push(Step { reading, members, table: Arc::clone(&table), answer });
        }
        let sent = u32::try_from(BATCH - room).unwrap_or(u32::MAX);
        renewal.due = Instant::now() + Duration::from_secs(1) * sent / self.registrations.max(1);
        self.metrics.renewals_pending.set(super::count(renewal.topics.len()));
        steps
    }

    /// Begins to read a topic; with its members here, of those that are `wanted`.
    fn reading(&self, topic: TopicId, wanted: Option<&[Member]>) -> Option<(Reading<'_>, Vec<Member>)> {
        let mut members = self.roster.read_begins(&topic)?;
        let reading = Reading(&self.roster, topic);
        if let Some(wanted) = wanted {
            let wanted: HashSet<ConnId> = wanted.iter().map(|member| member.conn).collect();
            members.retain(|member| wanted.contains(&member.conn));
        }
        (!members.is_empty()).then_some((reading, members))
    }

    /// Takes over what the registry said about a topic that was registered anew.
    async fn renewed(&self, step: Step<'_>) {
        let Step { reading, members, table, answer } = step;
        let topic = reading.1;
        let Ok(Ok(read)) = answer.await else { return };
        let judged = self.judge(&topic, &read).await;
        if !judged.certain {
            self.fail();
        }
        let confirmed = |node, life| table.is_confirmed(node, life);
        let difference = self.roster.learn(&topic, &judged.sight, judged.certain, confirmed);
        for member in difference.arrived {
            self.inbox.arrived(topic, Arrival { member, replaces: ConnId::NONE });
        }
        for member in difference.departed {
            self.inbox.departed(topic, member);
        }
        for node in self.roster.nodes_of(&topic) {
            for member in &members {
                let arrival = Arrival { member: *member, replaces: ConnId::NONE };
                (self.tell)(node, Item::Arrived { topic, arrival });
            }
        }
    }

    /// Everything is registered under this incarnation.
    fn finish(&self, own: (NodeId, Incarnation)) {
        if *self.own.borrow() != Some(own) {
            return;
        }
        for (node, _) in self.lease.table().live().filter(|(node, _)| *node != own.0) {
            (self.tell)(node, Item::Resynced);
        }
        self.complete.store(true, Ordering::Release);
        // What earlier terms left is swept.
        self.chore.notify_one();
        info!("everything is registered");
    }

    /// Does a batch; `false` if it is not done, and everybody has been told so.
    async fn write_batch(&self, own: (NodeId, Incarnation), mut batch: Vec<Operation>) -> bool {
        // Addresses of a number that is not ours any more, and an incarnation that is incomplete anyway.
        let foreign = |operation: &Operation| match operation {
            Operation::Join { members, .. } => members.iter().any(|member| member.conn.node() != own.0),
            Operation::Leave { conn, .. } => conn.node() != own.0,
            Operation::Lookup { .. } | Operation::Forget { .. } | Operation::Flush(_) => false,
        };
        batch.extract_if(.., |operation| foreign(operation)).for_each(Operation::fail);
        if batch.is_empty() {
            return true;
        }
        if self.is_broken() || !self.lease.is_valid() {
            return self.give_up(batch, None);
        }
        match timeout(self.timeout, execute(&self.reach, own, &batch)).await {
            Ok(Ok(reads)) => {
                for (operation, read) in batch.into_iter().zip(reads) {
                    self.done(operation, read);
                }
                true
            }
            Ok(Err(error)) => self.give_up(batch, Some(error)),
            Err(_) => self.give_up(batch, None),
        }
    }

    fn done(&self, operation: Operation, read: Option<Arc<Read>>) {
        if let Some(kind) = operation.kind() {
            self.metrics.operations[kind].increment(u64::try_from(operation.weight()).unwrap_or(1));
        }
        match operation {
            Operation::Join { reply, .. } | Operation::Lookup { reply, .. } => {
                // Whoever asked may have stopped waiting.
                drop(reply.send(Ok(read.unwrap_or_default())));
            }
            Operation::Leave { topic, conn } => self.roster.unregistered(&topic, conn),
            Operation::Flush(done) => drop(done.send(())),
            Operation::Forget { .. } => {}
        }
    }

    /// Nobody knows what of a batch was done.
    fn give_up(&self, batch: Vec<Operation>, error: Option<RegistryError>) -> bool {
        if !self.is_broken() {
            match error {
                Some(error) => {
                    warn!(error = chain(&error), "the registry was not written");
                }
                None => warn!("the registry was not written in time"),
            }
        }
        for operation in batch {
            // Joins and lookups are counted where they are waited for.
            if let Some(kind @ (metrics::Operation::Leave | metrics::Operation::Renewal)) = operation.kind() {
                let weight = u64::try_from(operation.weight()).unwrap_or(1);
                self.metrics.operation_failures[kind].increment(weight);
            }
            operation.fail();
        }
        self.fail();
        false
    }
}

impl Renewal {
    fn is_over(&self) -> bool {
        self.topics.is_empty() && self.rest.is_none()
    }
}
