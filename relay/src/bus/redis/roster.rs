//! Which members the topics of this node have on other nodes. Without I/O.
//!
//! Only topics that this node's connections are in are followed: their members were read when the first of
//! them joined, and the other nodes tell what changes from then on. A topic with more members elsewhere
//! than [`KNOWN`] is followed by node: who has members is known, not each of them.

mod departures;
mod topic;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use culvert_wire::{ConnId, Member, NodeId, TopicId};
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::incarnation::Incarnation;
use super::registry::entry::Entry;
use departures::Departures;
use topic::Topic;

/// Members on other nodes that are remembered one by one, for each topic.
pub const KNOWN: usize = 1024;

const SHARDS: usize = 64;

type Shard = Mutex<HashMap<TopicId, Topic>>;

/// The topics of one node. See the module.
pub struct Roster {
    shards: Vec<Shard>,
    departures: Mutex<Departures>,
    followed: AtomicUsize,
}

/// What a read of the registry says about the other nodes.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// Members whose registration counts.
    pub members: Vec<Entry>,
    /// Nodes that have more of them than those.
    pub nodes: Vec<NodeId>,
    /// Whether `members` are all there are.
    pub complete: bool,
}

/// What a read changed for a topic that was followed already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Members that were not known.
    pub arrived: Vec<Member>,
    /// Members that are there no more.
    pub departed: Vec<Member>,
}

impl Roster {
    /// Follows nothing. `memory` is for how long departures are remembered for nodes that read the
    /// registry before they heard of them.
    pub fn new(memory: Duration) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            departures: Mutex::new(Departures::new(memory)),
            followed: AtomicUsize::new(0),
        }
    }

    fn shard(&self, topic: &TopicId) -> &Shard {
        &self.shards[usize::from(topic.0[0]) % SHARDS]
    }

    /// A connection of this node enters; the registry is about to be read. Each call is followed by one of
    /// [`Roster::read_ended`].
    pub fn enter(&self, topic: TopicId, member: Member) {
        self.departures.lock().forget(&topic, member.conn);
        let mut shard = self.shard(&topic).lock();
        let entry = shard.entry(topic).or_insert_with(|| {
            self.followed.fetch_add(1, Ordering::Relaxed);
            Topic::default()
        });
        entry.local.insert(member.conn, member);
        entry.reading += 1;
    }

    /// The read that [`Roster::enter`] or [`Roster::read_begins`] announced is over.
    pub fn read_ended(&self, topic: &TopicId) {
        if let Some(entry) = self.shard(topic).lock().get_mut(topic) {
            entry.reading = entry.reading.saturating_sub(1);
            if entry.reading == 0 {
                entry.departed = Vec::new();
            }
        }
    }

    /// The registry is about to be read for a topic that is followed, by one reader at a time; gives its
    /// members here, or `None` if it is not followed any more.
    pub fn read_begins(&self, topic: &TopicId) -> Option<Vec<Member>> {
        let mut shard = self.shard(topic).lock();
        let entry = shard.get_mut(topic)?;
        entry.read_begins();
        Some(entry.local.values().copied().collect())
    }

    /// A connection of this node leaves: the nodes to tell, or `None` if it was not in.
    pub fn exit(&self, topic: &TopicId, member: Member, now: Instant) -> Option<Vec<NodeId>> {
        let mut shard = self.shard(topic).lock();
        let entry = shard.get_mut(topic)?;
        entry.local.remove(&member.conn)?;
        let nodes = entry.nodes();
        if entry.local.is_empty() {
            shard.remove(topic);
            self.followed.fetch_sub(1, Ordering::Relaxed);
        }
        drop(shard);
        self.departures.lock().add(*topic, member, now);
        Some(nodes)
    }

    /// The registration of a connection that left is gone from the registry.
    pub fn unregistered(&self, topic: &TopicId, conn: ConnId) {
        self.departures.lock().unregistered(topic, conn);
    }

    /// The departures that a node which has just announced a member may have missed.
    pub fn missed_by(&self, node: NodeId, topic: &TopicId, now: Instant) -> Vec<Member> {
        self.departures.lock().missed_by(node, topic, now)
    }

    /// Takes a read over. Members of nodes that `confirmed` vouches for and that a complete read does not
    /// show are gone, if `replace`, unless their node announced them since [`Roster::read_begins`]: it
    /// registers first, and the read was before that. Members that departed while it was read do not come
    /// back.
    pub fn learn(
        &self,
        topic: &TopicId,
        sight: &Sight,
        replace: bool,
        confirmed: impl Fn(NodeId, Incarnation) -> bool,
    ) -> Difference {
        match self.shard(topic).lock().get_mut(topic) {
            Some(entry) => entry.learn(sight, replace, confirmed),
            None => Difference::default(),
        }
    }

    /// Another node announced a member; `true` if the connections here are to be told.
    pub fn arrived(&self, topic: &TopicId, member: Member, life: Incarnation) -> bool {
        let mut shard = self.shard(topic).lock();
        shard.get_mut(topic).is_some_and(|entry| entry.arrived(member, life))
    }

    /// Another node said that a member left; `true` if the connections here are to be told.
    pub fn departed(&self, topic: &TopicId, conn: ConnId) -> bool {
        self.shard(topic).lock().get_mut(topic).is_some_and(|entry| entry.departed(conn))
    }

    /// The nodes that have members of a topic, as far as is known.
    pub fn nodes_of(&self, topic: &TopicId) -> Vec<NodeId> {
        self.shard(topic).lock().get(topic).map(Topic::nodes).unwrap_or_default()
    }

    /// Members on other nodes that are known, at most `limit`, and how many are.
    pub fn members(&self, topic: &TopicId, limit: usize) -> (Vec<Member>, usize) {
        let shard = self.shard(topic).lock();
        let Some(entry) = shard.get(topic) else { return (Vec::new(), 0) };
        (entry.known().map(|known| known.member).take(limit).collect(), entry.known().len())
    }

    /// How many of this node's connections are in a topic.
    pub fn local(&self, topic: &TopicId) -> usize {
        self.shard(topic).lock().get(topic).map_or(0, |entry| entry.local.len())
    }

    /// Whether it is still unknown which nodes have members of a topic that is too large for one read.
    pub fn wants_nodes(&self, topic: &TopicId) -> bool {
        self.shard(topic).lock().get(topic).is_some_and(|entry| !entry.wide)
    }

    /// Every topic that is followed.
    pub fn topics(&self) -> Vec<TopicId> {
        self.shards.iter().flat_map(|shard| shard.lock().keys().copied().collect::<Vec<_>>()).collect()
    }

    /// How many topics are followed.
    pub fn len(&self) -> usize {
        self.followed.load(Ordering::Relaxed)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything: this node's addresses are gone.
    pub fn clear(&self) {
        for shard in &self.shards {
            let topics = std::mem::take(&mut *shard.lock());
            self.followed.fetch_sub(topics.len(), Ordering::Relaxed);
        }
        self.departures.lock().clear();
    }

    /// Takes out members of a node, in one part of the topics of [`Roster::PARTS`]: those that `stale`
    /// names, and, if `all`, that the node has others that are not known one by one.
    pub fn remove(
        &self,
        part: usize,
        node: NodeId,
        all: bool,
        stale: impl Fn(&Known) -> bool,
    ) -> Vec<(TopicId, Member)> {
        let mut gone = Vec::new();
        for (topic, entry) in self.shards[part].lock().iter_mut() {
            gone.extend(entry.remove(node, all, &stale).into_iter().map(|member| (*topic, member)));
        }
        gone
    }

    /// In how many parts [`Roster::remove`] goes through the topics, so that nobody waits long for it.
    pub const PARTS: usize = SHARDS;
}

/// A member on another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Who and where.
    pub member: Member,
    /// Under which incarnation of its node it was registered or announced.
    pub life: Incarnation,
    /// Whether its node announced it. Otherwise it was read, and may be a left-over of a node that could
    /// not remove it.
    pub announced: bool,
    /// Whether its node did so since the topic was last begun to be read anew.
    pub fresh: bool,
    /// Whether all connections here that are in the topic were told, or read it when they joined.
    pub told: bool,
}

#[cfg(test)]
mod tests;
