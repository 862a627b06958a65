//! Who of this node's connections is in which topic.
//!
//! Sharded by topic, so that no lock is global. Senders ask once per receiver and remember the answer
//! (see [`crate::routes`]); joins, departures and broadcasts take the topic's shard for a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use culvert_wire::{ConnId, Handle, Members, TopicId};
use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::link::Link;

const SHARDS: usize = 64;

/// One of this node's connections in a topic.
#[derive(Clone)]
pub struct LocalMember {
    /// The connection.
    pub link: Arc<Link>,
    /// Its own number for the topic.
    pub handle: Handle,
}

type Roster = HashMap<ConnId, LocalMember>;

/// The memberships of one node.
pub struct Topics {
    shards: Vec<Mutex<HashMap<TopicId, Roster>>>,
    memberships: AtomicUsize,
    limit: usize,
    limit_per_topic: usize,
}

/// The node holds as many memberships as it may, or this topic does.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Topics {
    /// No memberships, and at most `limit` of them, `limit_per_topic` in one topic.
    pub fn new(limit: usize, limit_per_topic: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            memberships: AtomicUsize::new(0),
            limit,
            limit_per_topic,
        }
    }

    fn shard(&self, topic: &TopicId) -> &Mutex<HashMap<TopicId, Roster>> {
        // Topic ids are hashes, but a client chooses them: all in one shard only costs itself.
        &self.shards[usize::from(topic.0[0]) % SHARDS]
    }

    /// Enters a connection; entering twice changes nothing.
    ///
    /// # Errors
    /// [`Full`]; nothing changed.
    pub fn enter(&self, topic: TopicId, member: LocalMember) -> Result<(), Full> {
        if self.memberships.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.memberships.fetch_sub(1, Ordering::Relaxed);
            return Err(Full);
        }
        let mut shard = self.shard(&topic).lock();
        let members = shard.entry(topic).or_default();
        let full = members.len() >= self.limit_per_topic && !members.contains_key(&member.link.id);
        if full || members.insert(member.link.id, member).is_some() {
            self.memberships.fetch_sub(1, Ordering::Relaxed);
        }
        if full { Err(Full) } else { Ok(()) }
    }

    /// Takes a connection out; `false` if it was not in.
    pub fn exit(&self, topic: &TopicId, conn: ConnId) -> bool {
        let mut shard = self.shard(topic).lock();
        let Some(members) = shard.get_mut(topic) else { return false };
        let Some(member) = members.remove(&conn) else { return false };
        member.link.departed();
        if members.is_empty() {
            shard.remove(topic);
        }
        self.memberships.fetch_sub(1, Ordering::Relaxed);
        true
    }

    /// Finds one connection in a topic.
    pub fn find(&self, topic: &TopicId, conn: ConnId) -> Option<LocalMember> {
        self.shard(topic).lock().get(topic)?.get(&conn).cloned()
    }

    /// The same, with its [`Link::departures`] while it was still in the topic.
    pub fn find_route(&self, topic: &TopicId, conn: ConnId) -> Option<(LocalMember, u32)> {
        let shard = self.shard(topic).lock();
        let member = shard.get(topic)?.get(&conn)?;
        // Leaving changes the number under the same lock: a number read here is of a member.
        Some((member.clone(), member.link.departures()))
    }

    /// Calls `visit` for every member, in no particular order, while the topic's shard is locked.
    pub fn for_each(&self, topic: &TopicId, mut visit: impl FnMut(&LocalMember)) {
        if let Some(members) = self.shard(topic).lock().get(topic) {
            members.values().for_each(&mut visit);
        }
    }

    /// Calls `visit` for every membership, one shard after the other.
    pub fn visit(&self, mut visit: impl FnMut(&TopicId, &LocalMember)) {
        for shard in &self.shards {
            for (topic, members) in shard.lock().iter() {
                members.values().for_each(|member| visit(topic, member));
            }
        }
    }

    /// Lists at most `limit` members, without `except`.
    pub fn list(&self, topic: &TopicId, except: ConnId, limit: usize) -> Members {
        let mut all = Members::default();
        self.for_each(topic, |member| {
            if member.link.id != except {
                all.total += 1;
                if all.list.len() < limit {
                    all.list.push(member.link.member());
                }
            }
        });
        all
    }

    /// Memberships in all.
    pub fn memberships(&self) -> usize {
        self.memberships.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use culvert_wire::{Generation, PeerId};

    use super::*;
    use crate::admission::Credentials;
    use crate::budget::Budget;
    use crate::outbox::Outbox;

    fn member(conn: u64) -> LocalMember {
        let link = Link::new(
            ConnId(conn),
            Generation(1),
            Credentials::of(PeerId([1; 32])),
            Outbox::new(1024, &Budget::new(usize::MAX)),
        );
        LocalMember { link: Arc::new(link), handle: Handle(1) }
    }

    #[test]
    fn members_come_and_go_and_an_empty_topic_is_forgotten() {
        let topics = Topics::new(10, 10);
        let topic = TopicId([7; 32]);
        let first = member(1);
        topics.enter(topic, first.clone()).unwrap();
        topics.enter(topic, first.clone()).unwrap();
        topics.enter(topic, member(2)).unwrap();
        assert_eq!(topics.memberships(), 2);
        let others = topics.list(&topic, ConnId(1), 10);
        assert_eq!((others.total, others.list[0].conn), (1, ConnId(2)));
        let before = first.link.departures();
        assert!(topics.exit(&topic, ConnId(1)));
        assert_ne!(first.link.departures(), before, "remembered routes are void");
        assert!(!topics.exit(&topic, ConnId(1)));
        assert!(topics.exit(&topic, ConnId(2)));
        assert!(topics.shards.iter().all(|shard| shard.lock().is_empty()));
    }

    #[test]
    fn a_full_node_refuses_and_forgets_nothing() {
        let topics = Topics::new(2, 10);
        for n in 0..2 {
            topics.enter(TopicId([n; 32]), member(u64::from(n))).unwrap();
        }
        assert_eq!(topics.enter(TopicId([9; 32]), member(9)), Err(Full));
        assert_eq!(topics.memberships(), 2);
    }

    #[test]
    fn a_full_topic_refuses_newcomers_only() {
        let (topics, topic) = (Topics::new(10, 1), TopicId([7; 32]));
        let first = member(1);
        topics.enter(topic, first.clone()).unwrap();
        assert_eq!(topics.enter(topic, member(2)), Err(Full));
        topics.enter(topic, first).unwrap();
        topics.enter(TopicId([8; 32]), member(2)).unwrap();
        assert_eq!(topics.memberships(), 2);
    }

    #[test]
    fn a_large_topic_is_sampled_and_counted() {
        let topics = Topics::new(100, 100);
        let topic = TopicId([7; 32]);
        for n in 0..50 {
            topics.enter(topic, member(n)).unwrap();
        }
        let some = topics.list(&topic, ConnId(0), 10);
        assert_eq!((some.total, some.list.len()), (49, 10));
    }
}
