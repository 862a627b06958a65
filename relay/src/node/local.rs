//! The connections of a node, as its cluster sees them: everything that comes from the bus ends here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;
use culvert_service_kit::Clock;
use culvert_wire::{
    Class, Close, ConnId, Frame, Handle, Header, Kind, Member, Members, NodeId, Notice, PeerId, TopicId,
    Verdict,
};
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::admission::Revocations;
use crate::budget::Budget;
use crate::bus::{Arrival, Inbox, Letter, Load, Undelivered};
use crate::config::Limits;
use crate::link::Link;
use crate::metrics::Metrics;
use crate::outbox::VerdictKey;
use crate::topics::Topics;
use crate::websocket::Message;

/// What [`Local`] keeps while the node has no number; every number is smaller.
const NO_NUMBER: u32 = u32::MAX;

/// The part of a node that the bus talks to; it exists before the node has a number.
pub struct Local {
    pub(super) topics: Arc<Topics>,
    links: Mutex<HashMap<ConnId, Arc<Link>>>,
    pub(super) metrics: Metrics,
    clock: Clock,
    /// What all queues of the node may hold together.
    pub budget: Arc<Budget>,
    /// The node's number; [`NO_NUMBER`] while it has none.
    number: AtomicU32,
    placements: watch::Sender<Option<NodeId>>,
    revocations: Arc<ArcSwap<Revocations>>,
    nodes: Arc<AtomicU32>,
}

impl Local {
    /// A node's connections, none yet.
    pub fn new(limits: &Limits, metrics: Metrics, clock: Clock) -> Arc<Self> {
        let topics = Arc::new(Topics::new(limits.memberships, limits.members_per_topic));
        let budget = Budget::new(limits.node_queue_bytes);
        metrics.unplaced.set(1.0);
        Arc::new(Self {
            topics,
            links: Mutex::default(),
            metrics,
            clock,
            budget,
            number: AtomicU32::new(NO_NUMBER),
            placements: watch::Sender::new(None),
            revocations: Arc::default(),
            nodes: Arc::new(AtomicU32::new(1)),
        })
    }

    /// The node's number in its cluster, while it has one.
    pub fn number(&self) -> Option<NodeId> {
        u16::try_from(self.number.load(Ordering::Acquire)).ok().map(NodeId)
    }

    /// The node's number and every change of it.
    pub fn placements(&self) -> watch::Receiver<Option<NodeId>> {
        self.placements.subscribe()
    }

    /// What is revoked at any moment.
    pub fn revocations(&self) -> Arc<ArcSwap<Revocations>> {
        self.revocations.clone()
    }

    /// How many nodes are in the cluster at any moment, this one included.
    pub fn nodes(&self) -> Arc<AtomicU32> {
        self.nodes.clone()
    }

    /// Whether an address is of this node.
    pub fn is_own(&self, conn: ConnId) -> bool {
        self.number.load(Ordering::Relaxed) == u32::from(conn.node().0)
    }

    /// Every connection at the moment.
    pub fn links(&self) -> Vec<Arc<Link>> {
        self.links.lock().values().cloned().collect()
    }

    /// Adds an admitted connection; `false` if its address is taken. One whose number the node has lost
    /// meanwhile, or that was revoked meanwhile, is closed like all the others.
    pub fn add(&self, link: &Arc<Link>) -> bool {
        let mut links = self.links.lock();
        if links.contains_key(&link.id) {
            return false;
        }
        links.insert(link.id, link.clone());
        self.metrics.connections.increment(1.0);
        if !self.is_own(link.id) {
            link.outbox.close(Close::Fenced);
        }
        self.close_if_revoked(link);
        true
    }

    /// Closes the connection if what it is admitted under is revoked. To be asked after every change of
    /// that, so that a revocation at the same moment is not missed.
    pub fn close_if_revoked(&self, link: &Link) {
        if link.is_revoked(&self.revocations.load(), self.clock.unix_seconds()) {
            link.outbox.close(Close::Revoked);
        }
    }

    /// Takes a connection that has ended out.
    pub fn remove(&self, conn: ConnId) {
        if self.links.lock().remove(&conn).is_some() {
            self.metrics.connections.decrement(1.0);
        }
    }

    /// Connections at the moment.
    pub fn connections(&self) -> usize {
        self.links.lock().len()
    }

    /// Tells the topic's members here, except the connection itself, that it entered.
    pub fn announce(&self, topic: TopicId, arrival: &Arrival) {
        let member = arrival.member;
        self.topics.for_each(&topic, |local| {
            if local.link.id == member.conn {
                return;
            }
            let joined = Frame::PeerJoined { handle: local.handle, member };
            local.link.outbox.push_news(member.conn, &joined, false);
            let older = local.link.peer == member.peer && local.link.generation < member.generation;
            if older && local.link.id != arrival.replaces {
                local.link.outbox.push_own(&Frame::Notice(Notice::Duplicate { newest: member.conn }));
            }
        });
    }

    /// Tells the topic's members here that a connection left, behind what it sent them.
    pub fn bid_farewell(&self, topic: TopicId, member: &Member) {
        self.topics.for_each(&topic, |local| {
            let left = Frame::PeerLeft { handle: local.handle, conn: member.conn, peer: member.peer };
            local.link.outbox.push_news(member.conn, &left, true);
        });
    }

    /// Hands a payload to every member here except the sender's peer; gives how many took it and how
    /// many did not.
    pub fn broadcast(
        &self,
        topic: &TopicId,
        from: ConnId,
        sender: PeerId,
        class: Class,
        payload: &[u8],
    ) -> (u32, u32) {
        let (mut taken, mut refused) = (0, 0);
        self.topics.for_each(topic, |local| {
            if local.link.peer == sender {
                return;
            }
            let header = deliver_header(class, true, local.handle, from);
            match local.link.outbox.push(from, class, Message::of_frame(header, payload)) {
                Ok(()) => taken += 1,
                Err(_) => refused += 1,
            }
        });
        (taken, refused)
    }
}

/// The header of a `Deliver`.
pub fn deliver_header(class: Class, broadcast: bool, handle: Handle, from: ConnId) -> Header {
    Header { kind: Kind::Deliver.number(), class, broadcast, handle, conn: from }
}

impl Inbox for Local {
    fn deliver(&self, letter: &Letter<'_>) -> Result<(), Verdict> {
        let member = self.topics.find(&letter.topic, letter.to).ok_or(Verdict::Gone)?;
        let header = deliver_header(letter.class, false, member.handle, letter.from);
        member.link.outbox.push(letter.from, letter.class, Message::of_frame(header, letter.payload))
    }

    fn deliver_broadcast(&self, letter: &Letter<'_>) -> Result<(), u32> {
        match self.broadcast(&letter.topic, letter.from, letter.sender, letter.class, letter.payload).1 {
            0 => Ok(()),
            refused => Err(refused),
        }
    }

    fn verdict(&self, undelivered: Undelivered) {
        let Undelivered { topic, from, to, verdict, count } = undelivered;
        self.metrics.undeliverable[verdict].increment(u64::from(count));
        let link = self.links.lock().get(&from).cloned();
        let told = link.is_some_and(|link| {
            let member = topic.and_then(|topic| self.topics.find(&topic, from));
            let handle = member.map_or(Handle::NONE, |member| member.handle);
            let broadcast = to == ConnId::NONE;
            link.outbox.report(VerdictKey { handle, to, broadcast, verdict }, count)
        });
        if !told {
            self.metrics.verdicts_orphaned.increment(u64::from(count));
        }
    }

    fn arrived(&self, topic: TopicId, arrival: Arrival) {
        self.announce(topic, &arrival);
    }

    fn departed(&self, topic: TopicId, member: Member) {
        self.bid_farewell(topic, &member);
    }

    fn members(&self, topic: TopicId, limit: usize) -> Members {
        self.topics.list(&topic, ConnId::NONE, limit)
    }

    fn load(&self) -> Load {
        Load { connections: self.connections(), memberships: self.topics.memberships() }
    }

    fn placed(&self, number: Option<NodeId>) {
        let new = number.map_or(NO_NUMBER, |node| u32::from(node.0));
        if self.number.swap(new, Ordering::AcqRel) == new {
            return;
        }
        self.metrics.unplaced.set(f64::from(u8::from(number.is_none())));
        // Every connection has an address of the number before this one.
        for link in self.links() {
            link.outbox.close(Close::Fenced);
        }
        self.placements.send_replace(number);
    }

    fn revoked(&self, revocations: Arc<Revocations>) {
        self.revocations.store(revocations);
        for link in self.links() {
            self.close_if_revoked(&link);
        }
    }

    fn nodes(&self, count: u32) {
        self.nodes.store(count.max(1), Ordering::Relaxed);
    }

    fn gap(&self, concerns: &dyn Fn(&TopicId) -> bool, count: u32) {
        let mut told = HashSet::new();
        self.topics.visit(|topic, member| {
            if concerns(topic) && told.insert(member.link.id) {
                self.metrics.gaps.increment(1);
                member.link.outbox.push_own(&Frame::Gap { from: None, count });
            }
        });
    }

    fn degraded(&self, degraded: bool) {
        self.metrics.degraded.set(f64::from(u8::from(degraded)));
        let notice = if degraded { Notice::Degraded } else { Notice::Restored };
        for link in self.links() {
            link.outbox.push_own(&Frame::Notice(notice));
        }
    }
}
