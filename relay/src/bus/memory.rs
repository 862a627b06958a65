//! The bus within one process: for a single node, and for clusters in tests.
//!
//! There is no registry: a join asks every other attached node for its members, which is the same
//! answer, always fresh. Letters are handed over in the caller's thread, so order is the caller's.
//! [`Hub::cut`] takes the way between two nodes away, which is how the verdict `unreachable`, gaps and
//! the degraded mode are tried without a network.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use culvert_service_kit::metric_set::Registry;
use culvert_wire::{ConnId, Member, Members, NodeId, TopicId, Verdict};
use hashbrown::{HashMap, HashSet};
use parking_lot::{Mutex, RwLock};

use crate::admission::Revocations;

use super::{Arrival, AttachError, Bus, Inbox, Letter, Undelivered};

/// Connects the nodes of one process.
#[derive(Default)]
pub struct Hub {
    nodes: RwLock<BTreeMap<NodeId, Attached>>,
    cuts: RwLock<HashSet<(NodeId, NodeId)>>,
    lost: Mutex<HashMap<(NodeId, NodeId), u32>>,
    revocations: Mutex<Arc<Revocations>>,
}

/// One node of a hub.
struct Attached {
    inbox: Arc<dyn Inbox>,
    /// Its number, as its bus knows it.
    number: Number,
}

type Number = Arc<RwLock<Option<NodeId>>>;

impl Hub {
    /// A hub without nodes.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The way of one node to the others.
    pub fn bus(self: &Arc<Self>) -> MemoryBus {
        MemoryBus { hub: self.clone(), node: Number::default() }
    }

    /// Takes the way between two nodes away: letters are `unreachable`, joins say `degraded`.
    pub fn cut(&self, a: NodeId, b: NodeId) {
        self.cuts.write().extend([(a, b), (b, a)]);
        self.tell(a, |inbox| inbox.degraded(true));
        self.tell(b, |inbox| inbox.degraded(true));
    }

    /// Gives the way back, announcing what was lost meanwhile.
    pub fn heal(&self, a: NodeId, b: NodeId) {
        for (from, to) in [(a, b), (b, a)] {
            self.cuts.write().remove(&(from, to));
            if let Some(count) = self.lost.lock().remove(&(from, to)) {
                self.tell(to, |inbox| inbox.gap(&|_| true, count));
            }
        }
        for node in [a, b] {
            let still = self.cuts.read().iter().any(|(from, _)| *from == node);
            self.tell(node, |inbox| inbox.degraded(still));
        }
    }

    /// Takes a node's number away and gives it another one, unless all are taken.
    pub fn fence(&self, node: NodeId) {
        let Some(attached) = self.nodes.write().remove(&node) else { return };
        attached.inbox.placed(None);
        *attached.number.write() = None;
        let mut nodes = self.nodes.write();
        let free = (0..=u16::MAX).map(NodeId).find(|free| *free != node && !nodes.contains_key(free));
        let Some(free) = free else { return };
        *attached.number.write() = Some(free);
        let inbox = attached.inbox.clone();
        nodes.insert(free, attached);
        drop(nodes);
        inbox.placed(Some(free));
    }

    /// Replaces what is revoked, on every node.
    pub fn revoke(&self, revocations: Revocations) {
        let revocations = Arc::new(revocations);
        *self.revocations.lock() = revocations.clone();
        for inbox in self.inboxes() {
            inbox.revoked(revocations.clone());
        }
    }

    /// Tells every node how many there are.
    fn count(&self) {
        let inboxes = self.inboxes();
        let count = u32::try_from(inboxes.len()).unwrap_or(u32::MAX);
        for inbox in inboxes {
            inbox.nodes(count);
        }
    }

    fn inboxes(&self) -> Vec<Arc<dyn Inbox>> {
        self.nodes.read().values().map(|attached| attached.inbox.clone()).collect()
    }

    fn inbox(&self, node: NodeId) -> Option<Arc<dyn Inbox>> {
        self.nodes.read().get(&node).map(|attached| attached.inbox.clone())
    }

    fn tell(&self, node: NodeId, what: impl FnOnce(&dyn Inbox)) {
        if let Some(inbox) = self.inbox(node) {
            what(&*inbox);
        }
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        let cuts = self.cuts.read();
        !cuts.is_empty() && cuts.contains(&(from, to))
    }
}

/// One node's end of a [`Hub`].
pub struct MemoryBus {
    hub: Arc<Hub>,
    node: Number,
}

impl MemoryBus {
    /// A bus for a node that is alone.
    pub fn alone() -> Self {
        Hub::new().bus()
    }

    /// The other nodes, and whether some are out of reach.
    fn others(&self) -> (Vec<Arc<dyn Inbox>>, bool) {
        let me = *self.node.read();
        let nodes = self.hub.nodes.read();
        let mut cut = false;
        let others = nodes
            .iter()
            .filter(|(node, _)| Some(**node) != me)
            .filter(|(node, _)| {
                let out = me.is_some_and(|me| self.hub.is_cut(me, **node));
                cut |= out;
                !out
            })
            .map(|(_, attached)| attached.inbox.clone())
            .collect();
        (others, cut)
    }

    fn gather(&self, limit: usize, ask: impl Fn(&dyn Inbox) -> Members) -> Members {
        let (others, degraded) = self.others();
        let mut all = Members { degraded, ..Members::default() };
        for inbox in others {
            let members = ask(&*inbox);
            all.total += members.total;
            let room = limit - all.list.len();
            all.list.extend(members.list.into_iter().take(room));
        }
        all
    }

    fn lose(&self, from: NodeId, to: NodeId) {
        *self.hub.lost.lock().entry((from, to)).or_default() += 1;
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn attach(&self, inbox: Arc<dyn Inbox>, _: &Registry) -> Result<(), AttachError> {
        let mut nodes = self.hub.nodes.write();
        let node = (0..=u16::MAX).map(NodeId).find(|node| !nodes.contains_key(node));
        let node = node.ok_or(AttachError::Full)?;
        nodes.insert(node, Attached { inbox: inbox.clone(), number: self.node.clone() });
        drop(nodes);
        *self.node.write() = Some(node);
        inbox.placed(Some(node));
        inbox.revoked(self.hub.revocations.lock().clone());
        self.hub.count();
        Ok(())
    }

    async fn detach(&self) {
        if let Some(node) = self.node.write().take() {
            self.hub.nodes.write().remove(&node);
            self.hub.cuts.write().retain(|(a, b)| *a != node && *b != node);
            self.hub.lost.lock().retain(|(a, b), _| *a != node && *b != node);
            self.hub.count();
        }
    }

    async fn join(&self, topic: TopicId, arrival: Arrival, limit: usize) -> Members {
        self.gather(limit, |inbox| {
            inbox.arrived(topic, arrival);
            inbox.members(topic, limit)
        })
    }

    fn leave(&self, topic: TopicId, member: Member) {
        for inbox in self.others().0 {
            inbox.departed(topic, member);
        }
    }

    async fn lookup(&self, topic: TopicId, limit: usize) -> Members {
        self.gather(limit, |inbox| inbox.members(topic, limit))
    }

    fn forward(&self, letter: &Letter<'_>) -> Result<(), Verdict> {
        let (from, to) = (letter.from.node(), letter.to.node());
        let inbox = self.hub.inbox(to).ok_or(Verdict::Gone)?;
        if self.hub.is_cut(from, to) {
            self.lose(from, to);
            return Err(Verdict::Unreachable);
        }
        inbox.deliver(letter)
    }

    fn broadcast(&self, letter: &Letter<'_>) -> Result<(), (u32, Verdict)> {
        let from = letter.from.node();
        for inbox in self.others().0 {
            if let Err(count) = inbox.deliver_broadcast(letter) {
                self.hub.tell(from, |sender| {
                    sender.verdict(Undelivered {
                        topic: Some(letter.topic),
                        from: letter.from,
                        to: ConnId::NONE,
                        verdict: Verdict::Full,
                        count,
                    });
                });
            }
        }
        let cut: Vec<NodeId> =
            self.hub.cuts.read().iter().filter(|(a, _)| *a == from).map(|(_, b)| *b).collect();
        for to in &cut {
            self.lose(from, *to);
        }
        match u32::try_from(cut.len()) {
            Ok(0) | Err(_) => Ok(()),
            Ok(count) => Err((count, Verdict::Unreachable)),
        }
    }

    fn report(&self, undelivered: Undelivered) {
        self.hub.tell(undelivered.from.node(), |sender| sender.verdict(undelivered));
    }
}
