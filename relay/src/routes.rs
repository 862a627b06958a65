//! Where one connection's frames go: its topics, and the receivers it has found in them.
//!
//! A receiver is looked up once; after that a frame costs one look into a table of this connection's
//! own, no lock. What is remembered about a receiver is void as soon as it leaves any topic
//! ([`Link::departures`]). The table is bounded and forgets everything when it is full, so a flood of
//! addresses costs its sender look-ups and nobody memory.

use std::sync::Arc;

use culvert_wire::{ConnId, Handle, TopicId};
use hashbrown::HashMap;

use crate::link::Link;
use crate::topics::Topics;

/// Receivers that one connection remembers.
const REMEMBERED: usize = 256;

/// One connection's view of its topics.
#[derive(Default)]
pub struct Routes {
    topics: HashMap<Handle, TopicId>,
    last_handle: u16,
    remembered: HashMap<(Handle, ConnId), Route>,
}

/// A receiver on this node.
pub struct Route {
    /// Its connection.
    pub link: Arc<Link>,
    /// Its own number for the topic.
    pub handle: Handle,
    departures: u32,
}

impl Routes {
    /// The topic behind a handle.
    pub fn topic(&self, handle: Handle) -> Option<TopicId> {
        self.topics.get(&handle).copied()
    }

    /// The handle of a topic that was joined.
    pub fn handle_of(&self, topic: &TopicId) -> Option<Handle> {
        self.topics.iter().find(|(_, known)| *known == topic).map(|(handle, _)| *handle)
    }

    /// Topics that are joined.
    pub fn joined(&self) -> usize {
        self.topics.len()
    }

    /// Every joined topic.
    pub fn topics(&self) -> impl Iterator<Item = (Handle, TopicId)> {
        self.topics.iter().map(|(handle, topic)| (*handle, *topic))
    }

    /// Gives a topic the handle that was unused for longest.
    pub fn enter(&mut self, topic: TopicId) -> Handle {
        // The caller bounds the number of topics far below the number of handles.
        loop {
            self.last_handle = self.last_handle.wrapping_add(1).max(1);
            let handle = Handle(self.last_handle);
            if let hashbrown::hash_map::Entry::Vacant(slot) = self.topics.entry(handle) {
                slot.insert(topic);
                return handle;
            }
        }
    }

    /// Forgets a topic.
    pub fn exit(&mut self, handle: Handle) -> Option<TopicId> {
        let topic = self.topics.remove(&handle)?;
        self.remembered.retain(|(known, _), _| *known != handle);
        Some(topic)
    }

    /// The receiver of frames to `to` in the topic behind `handle`, which must be joined.
    pub fn find(&mut self, topics: &Topics, handle: Handle, to: ConnId) -> Option<&Route> {
        let key = (handle, to);
        let fresh =
            self.remembered.get(&key).is_some_and(|route| route.departures == route.link.departures());
        if !fresh {
            self.remembered.remove(&key);
            let (member, departures) = topics.find_route(self.topics.get(&handle)?, to)?;
            if self.remembered.len() >= REMEMBERED {
                self.remembered.clear();
            }
            let route = Route { link: member.link, handle: member.handle, departures };
            self.remembered.insert(key, route);
        }
        self.remembered.get(&key)
    }
}

#[cfg(test)]
mod tests {
    use culvert_wire::{Generation, PeerId};

    use super::*;
    use crate::admission::Credentials;
    use crate::budget::Budget;
    use crate::outbox::Outbox;
    use crate::topics::LocalMember;

    const TOPIC: TopicId = TopicId([7; 32]);

    fn receiver(topics: &Topics, conn: u64) -> ConnId {
        let link = Link::new(
            ConnId(conn),
            Generation(1),
            Credentials::of(PeerId([1; 32])),
            Outbox::new(1024, &Budget::new(usize::MAX)),
        );
        topics.enter(TOPIC, LocalMember { link: Arc::new(link), handle: Handle(9) }).unwrap();
        ConnId(conn)
    }

    #[test]
    fn a_receiver_that_left_is_not_found_although_it_was_remembered() {
        let topics = Topics::new(1000, 1000);
        let mut routes = Routes::default();
        let handle = routes.enter(TOPIC);
        let to = receiver(&topics, 1);
        assert_eq!(routes.find(&topics, handle, to).unwrap().handle, Handle(9));
        assert!(routes.find(&topics, handle, to).is_some(), "remembered");
        topics.exit(&TOPIC, to);
        assert!(routes.find(&topics, handle, to).is_none());
        assert!(routes.remembered.is_empty());
    }

    #[test]
    fn nothing_is_found_without_the_topic_or_after_leaving_it() {
        let topics = Topics::new(1000, 1000);
        let mut routes = Routes::default();
        let to = receiver(&topics, 1);
        assert!(routes.find(&topics, Handle(1), to).is_none());
        let handle = routes.enter(TOPIC);
        assert!(routes.find(&topics, handle, to).is_some());
        assert_eq!(routes.exit(handle), Some(TOPIC));
        assert!(routes.find(&topics, handle, to).is_none());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let topics = Topics::new(1000, 1000);
        let mut routes = Routes::default();
        let handle = routes.enter(TOPIC);
        for conn in 0..1000 {
            let to = receiver(&topics, conn);
            assert!(routes.find(&topics, handle, to).is_some());
            assert!(routes.remembered.len() <= REMEMBERED);
        }
    }

    #[test]
    fn handles_are_not_given_again_at_once() {
        let mut routes = Routes::default();
        let first = routes.enter(TOPIC);
        routes.exit(first);
        assert_ne!(routes.enter(TOPIC), first);
        for n in 0..100_000u32 {
            let handle = routes.enter(TopicId([8; 32]));
            assert_ne!(handle, Handle::NONE, "at {n}");
            routes.exit(handle);
        }
    }
}
