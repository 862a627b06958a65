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

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use culvert_wire::{Class, ConnId, Member, Members, NodeId, TopicId, Verdict};

/// A payload on its way from one node to another.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The topic that both connections must be in.
    pub topic: TopicId,
    /// The sender's connection, set by its node.
    pub from: ConnId,
    /// The receiver; [`ConnId::NONE`] for a broadcast.
    pub to: ConnId,
    /// The sender's peer, which gets no broadcast of its own.
    pub sender: culvert_wire::PeerId,
    /// How urgent.
    pub class: Class,
    /// What the sender sent, untouched.
    pub payload: Bytes,
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

/// A node could not take its place in the cluster.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Every node number is taken.
    #[error("all 65536 node numbers are taken; stop unused nodes")]
    Full,
}

/// One node's way to the others. See the module for what it promises.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Takes a node number; what concerns this node goes to `inbox` from here on.
    async fn attach(&self, inbox: Arc<dyn Inbox>) -> Result<NodeId, AttachError>;

    /// Gives the number back. Letters that are under way to this node become `gone`.
    async fn detach(&self);

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
    fn forward(&self, letter: Letter) -> Result<(), Verdict>;

    /// Queues a letter once for every other node that has members of the topic. Never waits.
    ///
    /// # Errors
    /// For how many nodes it was not taken, and why.
    fn broadcast(&self, letter: Letter) -> Result<(), (u32, Verdict)>;

    /// Tells the sender's node that letters it was rid of were not delivered after all. Never waits.
    fn report(&self, undelivered: Undelivered);
}

/// One node, as the bus sees it. Nothing here waits.
pub trait Inbox: Send + Sync + 'static {
    /// Hands a letter to the connection it names.
    ///
    /// # Errors
    /// Why that connection did not take it; the bus reports it to the sender's node.
    fn deliver(&self, letter: &Letter) -> Result<(), Verdict>;

    /// Hands a letter to every member of its topic here, except the sender's own peer.
    ///
    /// # Errors
    /// How many did not take it.
    fn deliver_broadcast(&self, letter: &Letter) -> Result<(), u32>;

    /// Tells a connection here that letters of its were not delivered.
    fn verdict(&self, undelivered: Undelivered);

    /// Tells the topic's members here that a connection on another node entered it.
    fn arrived(&self, topic: TopicId, arrival: Arrival);

    /// Tells the topic's members here that a connection on another node left it.
    fn departed(&self, topic: TopicId, member: Member);

    /// The topic's members here.
    fn members(&self, topic: TopicId, limit: usize) -> Members;

    /// Tells the connections here that letters from this node may have been lost.
    fn gap(&self, from: NodeId, count: u32);

    /// Says whether the rest of the cluster is out of reach.
    fn degraded(&self, degraded: bool);
}
