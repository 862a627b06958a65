//! What all connections of one node share, and the node as its cluster sees it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::{BufMut, Bytes, BytesMut};
use culvert_service_kit::Clock;
use culvert_wire::limits::HEADER_LEN;
use culvert_wire::{
    Class, Close, ConnId, Frame, Handle, Header, Kind, Member, Members, NodeId, Notice, PeerId, TopicId,
    Verdict,
};
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::accounts::{Accounts, Allowance, NoSeat, Seat, Source};
use crate::admission::{Gate, Grant, Revocations};
use crate::budget::Budget;
use crate::bus::{Arrival, Bus, Inbox, Letter, Load, Undelivered};
use crate::config::{Config, Limits};
use crate::link::Link;
use crate::metrics::Metrics;
use crate::outbox::VerdictKey;
use crate::quota::Rate;
use crate::topics::Topics;

/// More accounts of one kind than this are not kept; a full table refuses new keys.
const MOST_ACCOUNTS: usize = 1 << 20;
/// What [`Local`] keeps while the node has no number; every number is smaller.
const NO_NUMBER: u32 = u32::MAX;

/// One relay node.
pub struct Node {
    /// What it was told to do.
    pub config: Config,
    /// What it counts.
    pub metrics: Metrics,
    /// Who may come in.
    pub gate: Gate,
    /// The date.
    pub clock: Clock,
    /// The way to the other nodes.
    pub bus: Arc<dyn Bus>,
    /// The memberships of its own connections.
    pub topics: Arc<Topics>,
    local: Arc<Local>,
    sources: Accounts<Source>,
    peers: Accounts<PeerId>,
    tenants: Accounts<String>,
    guests: Accounts<(String, PeerId)>,
    leaving: AtomicBool,
    started: Instant,
}

/// The part of a node that the bus talks to; it exists before the node has a number.
pub struct Local {
    topics: Arc<Topics>,
    links: Mutex<HashMap<ConnId, Arc<Link>>>,
    metrics: Metrics,
    /// What all queues of the node may hold together.
    pub budget: Arc<Budget>,
    /// The node's number; [`NO_NUMBER`] while it has none.
    number: AtomicU32,
    placements: watch::Sender<Option<NodeId>>,
    revocations: ArcSwap<Revocations>,
}

/// The seats of one admitted connection; dropping them gives them back.
pub struct Seats {
    /// Where its frames and bytes are charged: source, peer, tenant.
    pub charged: Vec<Seat>,
    _guest: Option<Seat>,
}

impl Local {
    /// A node's connections, none yet.
    pub fn new(limits: &Limits, metrics: Metrics) -> Arc<Self> {
        let topics = Arc::new(Topics::new(limits.memberships));
        let budget = Budget::new(limits.node_queue_bytes);
        Arc::new(Self {
            topics,
            links: Mutex::default(),
            metrics,
            budget,
            number: AtomicU32::new(NO_NUMBER),
            placements: watch::Sender::new(None),
            revocations: ArcSwap::default(),
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

    /// Whether an address is of this node.
    pub fn is_own(&self, conn: ConnId) -> bool {
        self.number.load(Ordering::Relaxed) == u32::from(conn.node().0)
    }

    /// Every connection at the moment.
    pub fn links(&self) -> Vec<Arc<Link>> {
        self.links.lock().values().cloned().collect()
    }

    /// Adds an admitted connection; `false` if its address is taken. One whose number the node has lost
    /// meanwhile is closed like all the others.
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
        true
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
            match local.link.outbox.push(from, class, compose(header, payload)) {
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

/// One frame in a buffer of its own size: a small frame in a queue must not pin the large buffer that it
/// was read into.
pub fn compose(header: Header, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER_LEN + payload.len());
    frame.put_slice(&header.to_bytes());
    frame.put_slice(payload);
    frame.freeze()
}

impl Inbox for Local {
    fn deliver(&self, letter: &Letter<'_>) -> Result<(), Verdict> {
        let member = self.topics.find(&letter.topic, letter.to).ok_or(Verdict::Gone)?;
        let header = deliver_header(letter.class, false, member.handle, letter.from);
        member.link.outbox.push(letter.from, letter.class, compose(header, letter.payload))
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
        if let Some(link) = link {
            let member = topic.and_then(|topic| self.topics.find(&topic, from));
            let handle = member.map_or(Handle::NONE, |member| member.handle);
            let broadcast = to == ConnId::NONE;
            link.outbox.report(VerdictKey { handle, to, broadcast, verdict }, count);
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

    fn memberships(&self, visit: &mut dyn FnMut(TopicId, Member)) {
        self.topics.visit(|topic, member| visit(*topic, member.link.member()));
    }

    fn load(&self) -> Load {
        Load { connections: self.connections(), memberships: self.topics.memberships() }
    }

    fn placed(&self, number: Option<NodeId>) {
        self.number.store(number.map_or(NO_NUMBER, |node| u32::from(node.0)), Ordering::Release);
        // Every connection has an address of the number before this one.
        for link in self.links() {
            link.outbox.close(Close::Fenced);
        }
        self.placements.send_replace(number);
    }

    fn revoked(&self, revocations: Arc<Revocations>) {
        self.revocations.store(revocations);
    }

    fn gap(&self, _from: NodeId, count: u32) {
        for link in self.links() {
            self.metrics.gaps.increment(1);
            link.outbox.push_own(&Frame::Gap { from: None, count });
        }
    }

    fn degraded(&self, degraded: bool) {
        self.metrics.degraded.set(f64::from(u8::from(degraded)));
        let notice = if degraded { Notice::Degraded } else { Notice::Restored };
        for link in self.links() {
            link.outbox.push_own(&Frame::Notice(notice));
        }
    }
}

impl Node {
    /// Puts a node together from its parts.
    pub fn new(config: Config, gate: Gate, clock: Clock, bus: Arc<dyn Bus>, local: Arc<Local>) -> Self {
        let limits = &config.limits;
        let allowance =
            |connections, frames, bytes| Allowance { connections, openings: Rate::UNLIMITED, frames, bytes };
        let source = Allowance {
            openings: limits.handshakes_per_source,
            ..allowance(limits.connections_per_source, limits.source_frames, limits.source_bytes)
        };
        let peer = allowance(limits.connections_per_peer, limits.peer_frames, limits.peer_bytes);
        let tenant = allowance(limits.connections_per_tenant, limits.tenant_frames, limits.tenant_bytes);
        let guest = allowance(u32::MAX, Rate::UNLIMITED, Rate::UNLIMITED);
        Self {
            sources: Accounts::new(source, MOST_ACCOUNTS),
            peers: Accounts::new(peer, MOST_ACCOUNTS),
            tenants: Accounts::new(tenant, MOST_ACCOUNTS),
            guests: Accounts::new(guest, MOST_ACCOUNTS),
            metrics: local.metrics.clone(),
            topics: local.topics.clone(),
            leaving: AtomicBool::new(false),
            started: Instant::now(),
            config,
            gate,
            clock,
            bus,
            local,
        }
    }

    /// This node's own connections.
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// Nanoseconds since the node started, for rates.
    pub fn nanos(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Takes a seat for a new TCP connection from this address.
    ///
    /// # Errors
    /// The address has or opens too many connections.
    pub fn seat_source(&self, address: IpAddr) -> Result<Seat, NoSeat> {
        self.sources.sit(Source::from(address), None, self.nanos())
    }

    /// Takes the other seats of a connection that is being admitted.
    ///
    /// # Errors
    /// [`Close::Overloaded`] if the node, the peer, the tenant or the ticket has too many.
    pub fn seat(&self, source: Seat, peer: PeerId, grant: &Grant) -> Result<Seats, Close> {
        let now = self.nanos();
        let full = |_| Close::Overloaded;
        let guest = grant
            .invited
            .as_ref()
            .map(|invited| self.guests.sit((invited.ticket.clone(), invited.by), Some(invited.guests), now))
            .transpose()
            .map_err(full)?;
        let peer = self.peers.sit(peer, grant.limits.connections, now).map_err(full)?;
        let tenant = self.tenants.sit(grant.tenant.clone(), None, now).map_err(full)?;
        Ok(Seats { charged: vec![source, peer, tenant], _guest: guest })
    }

    /// Forgets accounts that nobody uses, every few seconds, until dropped.
    pub async fn sweep(&self) {
        let mut ticks = tokio::time::interval(Duration::from_secs(10));
        loop {
            ticks.tick().await;
            let now = self.nanos();
            self.sources.sweep(now);
            self.peers.sweep(now);
            self.tenants.sweep(now);
            self.guests.sweep(now);
        }
    }

    /// Whether newcomers are sent elsewhere.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Sends newcomers elsewhere from here on.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Closes every connection.
    pub fn close_all(&self, close: Close) {
        for link in self.local.links() {
            link.outbox.close(close);
        }
    }
}
