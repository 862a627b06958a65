//! Who is in which topic, for all nodes: what stands in Redis and how it is read and written.
//!
//! Per topic one hash, connection -> peer, incarnation of its node, generation; per incarnation one set of
//! all it has registered, which whoever sweeps it walks. There is no TTL to refresh: an entry counts as
//! long as its node's lease names the very incarnation in it.
//!
//! The set knows of a registration before the hash does, and forgets it after: nothing is ever registered
//! that a sweep would not find. Within a batch everything happens in the order it was asked for, topic by
//! topic; a join is written before the topic is read, so of two that join at once one sees the other. All
//! who ask for one topic in a batch share one read, behind all that they write: a thousand peers that come
//! back to their topic at once do not each have it read.

mod batch;
pub mod entry;
pub mod sweep;

use std::sync::Arc;

use culvert_wire::{ConnId, Member, NodeId, TopicId};
use redis::RedisError;
use tokio::sync::oneshot;

use super::metrics;
use super::reach::ReachError;
use entry::Entry;

pub use batch::execute;

/// Members that one read brings. A larger topic is sampled: its members are too many to tell everybody of
/// each, and one read stays below a tenth of a millisecond of Redis.
pub const SAMPLE: usize = 512;

/// What is asked of the registry.
#[derive(Debug)]
pub enum Operation {
    /// Registers members of this node in a topic, all at once, and reads it.
    Join {
        /// The topic.
        topic: TopicId,
        /// Of this node, and at least one.
        members: Vec<Member>,
        /// Whether all nodes are to be named even if the topic is larger than [`SAMPLE`].
        nodes: bool,
        /// Whether this is a repetition, because the registry may have lost them.
        renewal: bool,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Arc<Read>, Failed>>,
    },
    /// Removes a member of this node.
    Leave {
        /// The topic.
        topic: TopicId,
        /// Which.
        conn: ConnId,
    },
    /// Reads a topic.
    Lookup {
        /// The topic.
        topic: TopicId,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Arc<Read>, Failed>>,
    },
    /// Removes an entry of a dead incarnation that somebody came across.
    Forget {
        /// The topic.
        topic: TopicId,
        /// What was read.
        entry: Entry,
    },
    /// Answers when everything before it has been done.
    Flush(oneshot::Sender<()>),
}

impl Operation {
    /// How it is counted.
    pub fn kind(&self) -> Option<metrics::Operation> {
        match self {
            Self::Join { renewal: false, .. } => Some(metrics::Operation::Join),
            Self::Join { renewal: true, .. } => Some(metrics::Operation::Renewal),
            Self::Leave { .. } => Some(metrics::Operation::Leave),
            Self::Lookup { .. } => Some(metrics::Operation::Lookup),
            Self::Forget { .. } | Self::Flush(_) => None,
        }
    }

    /// Whether it is answered with what is read.
    pub fn reads(&self) -> bool {
        matches!(self, Self::Join { .. } | Self::Lookup { .. })
    }

    /// How many commands' worth of work it is.
    pub fn weight(&self) -> usize {
        if let Self::Join { members, .. } = self { members.len() } else { 1 }
    }

    /// Gives it up.
    pub fn fail(self) {
        match self {
            // Whoever asked may have stopped waiting.
            Self::Join { reply, .. } | Self::Lookup { reply, .. } => drop(reply.send(Err(Failed))),
            Self::Flush(done) => drop(done.send(())),
            Self::Leave { .. } | Self::Forget { .. } => {}
        }
    }
}

/// The registry did not answer; the cause has been logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the registry of topics does not answer")]
pub struct Failed;

/// A topic as it was at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Entries in all, those of dead incarnations included.
    pub total: usize,
    /// All of them, or a sample of [`SAMPLE`].
    pub entries: Vec<Entry>,
    /// Every node that has entries, if the topic is larger than that and it was asked for.
    pub nodes: Option<Vec<NodeId>>,
}

impl Read {
    /// Whether all entries are there.
    pub fn is_complete(&self) -> bool {
        self.entries.len() >= self.total
    }
}

/// Why a batch came to nothing; parts of it may have been done.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// The connection broke, or Redis refused.
    #[error("redis refuses")]
    Redis(#[from] RedisError),
    /// An answer is not what was asked for.
    #[error("the answer of redis makes no sense")]
    Answer,
}
