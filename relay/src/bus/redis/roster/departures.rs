//! Who left lately: for nodes that read the registry while somebody was leaving.
//!
//! A node that joins a topic reads the registry, and then announces itself to the nodes it found. One
//! that found a member which was just leaving, and that its node did not know of yet, would keep it for
//! ever: the farewell went to the nodes of before. So when a node announces a member, it is told who left
//! a moment ago.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use culvert_wire::{ConnId, Member, NodeId, TopicId};
use hashbrown::HashMap;

/// Departures that are remembered; beyond, the oldest are forgotten. 64 Ki of them take 10 MiB.
const MOST: usize = 1 << 16;

/// See the module.
pub(super) struct Departures {
    memory: Duration,
    topics: HashMap<TopicId, Vec<Departure>>,
    order: VecDeque<(Instant, TopicId, ConnId)>,
}

struct Departure {
    member: Member,
    at: Instant,
    /// Whether the registry has it no more: whoever was told after that cannot find it again.
    unregistered: bool,
    told: Vec<NodeId>,
}

impl Departures {
    pub(super) fn new(memory: Duration) -> Self {
        Self { memory, topics: HashMap::new(), order: VecDeque::new() }
    }

    pub(super) fn add(&mut self, topic: TopicId, member: Member, now: Instant) {
        while let Some((at, old, conn)) = self.order.front().copied() {
            if self.order.len() < MOST && now.duration_since(at) < self.memory {
                break;
            }
            self.order.pop_front();
            self.drop(&old, |departure| departure.member.conn == conn && departure.at == at);
        }
        self.order.push_back((now, topic, member.conn));
        let departure = Departure { member, at: now, unregistered: false, told: Vec::new() };
        self.topics.entry(topic).or_default().push(departure);
    }

    /// It is back.
    pub(super) fn forget(&mut self, topic: &TopicId, conn: ConnId) {
        self.drop(topic, |departure| departure.member.conn == conn);
    }

    pub(super) fn unregistered(&mut self, topic: &TopicId, conn: ConnId) {
        let departures = self.topics.get_mut(topic).into_iter().flatten();
        for departure in departures.filter(|departure| departure.member.conn == conn) {
            departure.unregistered = true;
        }
    }

    pub(super) fn missed_by(&mut self, node: NodeId, topic: &TopicId, now: Instant) -> Vec<Member> {
        let mut missed = Vec::new();
        for departure in self.topics.get_mut(topic).into_iter().flatten() {
            if now.duration_since(departure.at) >= self.memory || departure.told.contains(&node) {
                continue;
            }
            missed.push(departure.member);
            if departure.unregistered {
                departure.told.push(node);
            }
        }
        missed
    }

    pub(super) fn clear(&mut self) {
        self.topics.clear();
        self.order.clear();
    }

    fn drop(&mut self, topic: &TopicId, gone: impl Fn(&Departure) -> bool) {
        if let Some(departures) = self.topics.get_mut(topic) {
            departures.retain(|departure| !gone(departure));
            if departures.is_empty() {
                self.topics.remove(topic);
            }
        }
    }
}
