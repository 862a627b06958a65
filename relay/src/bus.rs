//! How nodes reach each other: the contract that one node holds with the rest of its cluster.
//!
//! A node keeps its own connections and their topics; the bus adds the other nodes. Two rules make the
//! whole ordered: everything between two nodes travels in one order, and [`Bus::join`] returns only
//! after every other member's node has been told, so the news of a member comes before its frames.
//!
//! What an implementation promises:
//!
//! - **Delivery**: at most once. [`Bus::forward`] never waits; what it refuses, it refuses with a
//!   [`Verdict`]; what it accepts and cannot deliver comes back through [`Inbox::verdict`].
//! - **Order**: between two nodes, everything arrives in the order it was given.
//! - **Full**: bounded in bytes; over the bound `forward` answers [`Verdict::Full`].
//! - **Loss**: where frames may have been lost without a verdict, [`Inbox::gap`] says so.
//! - **Out of reach**: [`Bus::join`] and [`Bus::lookup`] answer with `degraded` instead of failing.

pub mod memory;
pub mod redis;

use std::sync::Arc;

use async_trait::async_trait;
use culvert_service_kit::metric_set::Registry;
use culvert_wire::{Class, ConnId, Member, Members, NodeId, PeerId, TopicId, Verdict};

use crate::admission::Revocations;

/// A payload on its way from one node to another.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// The topic that both connections must be in.
    pub topic: TopicId,
    /// The sender's connection, set by its node.
    pub from: ConnId,
    /// The receiver; [`ConnId::NONE`] for a broadcast.
    pub to: ConnId,
    /// The sender's peer, which gets no broadcast of its own.
    pub sender: PeerId,
    /// How urgent.
    pub class: Class,
    /// What the sender sent, untouched.
    pub payload: &'a [u8],
}

/// Letters that were not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// The topic they were sent in, where it is still known.
    pub topic: Option<TopicId>,
    /// Whose they were.
    pub from: ConnId,
    /// To whom; [`ConnId::NONE`] for broadcasts.
    pub to: ConnId,
    /// Why.
    pub verdict: Verdict,
    /// How many.
    pub count: u32,
}

/// A connection that entered a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Who and where.
    pub member: Member,
    /// The connection it takes over from, or [`ConnId::NONE`].
    pub replaces: ConnId,
}

/// How much a node carries, for whoever looks at the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Connections of admitted peers.
    pub connections: usize,
    /// Their topic memberships.
    pub memberships: usize,
}

/// A node cannot be part of the cluster, and waiting would not help.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Every node number is taken.
    #[error("all 65536 node numbers are taken; stop unused nodes")]
    Full,
    /// What connects the nodes is not fit for it; all that is wrong, a sentence each.
    #[error("this Redis cannot connect the nodes: {}", .0.join("; "))]
    Unfit(Vec<String>),
    /// The nodes that are there speak another version of the bus.
    #[error(
        "the cluster speaks bus versions {theirs} and this program speaks {ours}; update the older of the \
         two, one version at a time"
    )]
    Incompatible {
        /// What a node of the cluster speaks.
        theirs: String,
        /// What this program speaks.
        ours: String,
    },
}

/// One node's way to the others. See the module for what it promises.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Begins to take part; what concerns this node goes to `inbox` from here on, its number first
    /// ([`Inbox::placed`]), which may take as long as the others are out of reach.
    ///
    /// # Errors
    /// Trying again would not help; see [`AttachError`].
    async fn attach(&self, inbox: Arc<dyn Inbox>, registry: &Registry) -> Result<(), AttachError>;

    /// Gives the number back. Letters that are under way to this node become `gone`.
    async fn detach(&self);

    /// Completes when a part of the bus has ended that it cannot do without. Cancel safe.
    async fn failed(&self) {
        std::future::pending::<()>().await;
    }

    /// Tells every other node that has members of the topic, and gives those members.
    ///
    /// The caller has entered the connection into its own topics before, so of two simultaneous
    /// joins at least one sees the other.
    async fn join(&self, topic: TopicId, arrival: Arrival, limit: usize) -> Members;

    /// Tells the same nodes that the member is gone; behind the letters it sent. Never waits.
    fn leave(&self, topic: TopicId, member: Member);

    /// Gives the topic's members on other nodes.
    async fn lookup(&self, topic: TopicId, limit: usize) -> Members;

    /// Queues a letter for the node in its address. Never waits.
    ///
    /// # Errors
    /// Why it was not taken.
    fn forward(&self, letter: &Letter<'_>) -> Result<(), Verdict>;

    /// Queues a letter once for every other node that has members of the topic. Never waits.
    ///
    /// # Errors
    /// For how many nodes it was not taken, and why.
    fn broadcast(&self, letter: &Letter<'_>) -> Result<(), (u32, Verdict)>;

    /// Tells the sender's node that letters it was rid of were not delivered after all. Never waits.
    fn report(&self, undelivered: Undelivered);
}

/// One node, as the bus sees it. Nothing here waits.
pub trait Inbox: Send + Sync + 'static {
    /// Hands a letter to the connection it names.
    ///
    /// # Errors
    /// Why that connection did not take it; the bus reports it to the sender's node.
    fn deliver(&self, letter: &Letter<'_>) -> Result<(), Verdict>;

    /// Hands a letter to every member of its topic here, except the sender's own peer.
    ///
    /// # Errors
    /// How many did not take it.
    fn deliver_broadcast(&self, letter: &Letter<'_>) -> Result<(), u32>;

    /// Tells a connection here that letters of its were not delivered.
    fn verdict(&self, undelivered: Undelivered);

    /// Tells the topic's members here that a connection on another node entered it.
    fn arrived(&self, topic: TopicId, arrival: Arrival);

    /// Tells the topic's members here that a connection on another node left it.
    fn departed(&self, topic: TopicId, member: Member);

    /// The topic's members here.
    fn members(&self, topic: TopicId, limit: usize) -> Members;

    /// How much this node carries.
    fn load(&self) -> Load;

    /// Gives the node its number, or takes it away: without one it has no addresses, so every connection
    /// is closed as `fenced` and newcomers are refused until there is a number again.
    fn placed(&self, number: Option<NodeId>);

    /// Replaces what is revoked; live connections under it are closed.
    fn revoked(&self, revocations: Arc<Revocations>);

    /// How many nodes the cluster has, this one included; 1 until it is said.
    fn nodes(&self, count: u32);

    /// Tells the connections here that letters from another node were lost: those in topics that
    /// `concerns` names. It may tell more than had any coming.
    fn gap(&self, concerns: &dyn Fn(&TopicId) -> bool, count: u32);

    /// Says whether the rest of the cluster is out of reach.
    fn degraded(&self, degraded: bool);
}
