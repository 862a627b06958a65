//! What changes from one answer of Redis to the next, and whom this node still believes in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use culvert_wire::NodeId;

use super::{NodeLease, Snapshot, Table};
use crate::bus::redis::lease::Event;

/// The other nodes, as far as this one has told of them. Without I/O; time is what the caller says.
///
/// A node that was itself out of touch, or finds its lease gone, does not know whether the others are dead
/// or just as late as it is: it gives each one lease time to come back.
pub struct View {
    grace: Duration,
    until: Option<Instant>,
    known: BTreeMap<NodeId, NodeLease>,
}

impl View {
    /// Knows nobody; `grace` is one lease time.
    pub fn new(grace: Duration) -> Self {
        Self { grace, until: None, known: BTreeMap::new() }
    }

    /// Takes an answer of Redis over. `returned` says that this node was out of touch before it. Gives
    /// the nodes as they are to be judged now; what became of the others goes to `events`.
    pub fn apply(
        &mut self,
        own: NodeId,
        snapshot: &Snapshot,
        returned: bool,
        now: Instant,
        events: &mut Vec<Event>,
    ) -> Table {
        if returned {
            self.until = Some(now + self.grace);
        }
        self.until = self.until.filter(|until| now < *until);
        let mut table = Table::default();
        let (mut live, mut dead) = (BTreeMap::new(), BTreeMap::new());
        for (node, lease) in &snapshot.leases {
            let expired = lease.expires <= snapshot.now && *node != own;
            if expired { &mut dead } else { &mut live }.insert(*node, lease.clone());
        }
        if self.until.is_some() {
            for (node, lease) in &self.known {
                // A number that went to another process is no matter of patience.
                let same = |dead: &NodeLease| dead.incarnation.instance == lease.incarnation.instance;
                if !live.contains_key(node) && dead.get(node).is_none_or(same) {
                    live.insert(*node, lease.clone());
                    dead.remove(node);
                    table.graced.push(*node);
                }
            }
        }
        self.compare(own, &live, events);
        self.known = live.clone();
        self.known.remove(&own);
        (table.live, table.dead) = (live, dead);
        table
    }

    /// Who of the others came, changed and went.
    fn compare(&self, own: NodeId, live: &BTreeMap<NodeId, NodeLease>, events: &mut Vec<Event>) {
        for (node, before) in &self.known {
            let now = live.get(node).map(|lease| lease.incarnation);
            if now.is_none_or(|now| now.instance != before.incarnation.instance) || *node == own {
                events.push(Event::Gone { node: *node, incarnation: before.incarnation });
            }
        }
        for (node, lease) in live.iter().filter(|(node, _)| **node != own) {
            let (node, incarnation, versions) = (*node, lease.incarnation, lease.versions());
            let before = self.known.get(&node).map(|before| before.incarnation);
            match before.filter(|before| before.instance == incarnation.instance) {
                None => events.push(Event::Appeared { node, incarnation, versions }),
                Some(before) if before.term != incarnation.term => {
                    events.push(Event::Raised { node, incarnation, versions });
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::About;
    use super::*;
    use crate::bus::redis::incarnation::Incarnation;

    const GRACE: Duration = Duration::from_secs(7);
    const OWN: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    fn lease(instance: u64, term: u32, expires: u64) -> NodeLease {
        let about = About {
            bus: (1, 2),
            version: String::new(),
            since: 0,
            lease: 0,
            connections: 0,
            memberships: 0,
            degraded: None,
            unswept: 1,
        };
        NodeLease { incarnation: Incarnation { instance, term }, expires, about }
    }

    fn snapshot(now: u64, other: Option<NodeLease>) -> Snapshot {
        let leases = [Some((OWN, lease(1, 1, now + 5))), other.map(|other| (OTHER, other))];
        Snapshot { now, leases: leases.into_iter().flatten().collect(), unreadable: Vec::new() }
    }

    /// One view and its clock.
    struct Watch {
        view: View,
        now: Instant,
        table: Table,
    }

    impl Watch {
        fn new() -> Self {
            Self { view: View::new(GRACE), now: Instant::now(), table: Table::default() }
        }

        fn see(&mut self, seconds: u64, returned: bool, snapshot: &Snapshot) -> Vec<Event> {
            self.now += Duration::from_secs(seconds);
            let mut events = Vec::new();
            self.table = self.view.apply(OWN, snapshot, returned, self.now, &mut events);
            events
        }
    }

    fn gone(incarnation: Incarnation) -> Event {
        Event::Gone { node: OTHER, incarnation }
    }

    fn appeared(incarnation: Incarnation) -> Event {
        Event::Appeared { node: OTHER, incarnation, versions: 1..=2 }
    }

    #[test]
    fn a_node_comes_is_raised_expires_and_is_told_once_each() {
        let mut watch = Watch::new();
        let (first, second) = (lease(2, 1, 100), lease(2, 2, 100));
        assert_eq!(watch.see(0, false, &snapshot(10, Some(first.clone()))), [appeared(first.incarnation)]);
        assert_eq!(watch.see(1, false, &snapshot(11, Some(first))), []);
        let raised = Event::Raised { node: OTHER, incarnation: second.incarnation, versions: 1..=2 };
        assert_eq!(watch.see(1, false, &snapshot(12, Some(second.clone()))), [raised]);
        assert_eq!(watch.see(1, false, &snapshot(100, Some(second.clone()))), [gone(second.incarnation)]);
        assert_eq!((watch.table.live().count(), watch.table.dead().count()), (1, 1));
        assert_eq!(watch.see(1, false, &snapshot(101, None)), []);
        assert_eq!(watch.table.dead().count(), 0);
    }

    #[test]
    fn a_number_that_changed_hands_is_an_end_and_a_beginning() {
        let mut watch = Watch::new();
        let (first, second) = (lease(2, 4, 100), lease(3, 1, 100));
        watch.see(0, false, &snapshot(10, Some(first.clone())));
        let events = watch.see(1, true, &snapshot(11, Some(second.clone())));
        assert_eq!(events, [gone(first.incarnation), appeared(second.incarnation)]);
        assert!(watch.table.is_confirmed(OTHER, second.incarnation));
    }

    #[test]
    fn after_an_outage_of_its_own_a_node_gives_the_others_one_lease_time() {
        let mut watch = Watch::new();
        let first = lease(2, 1, 100);
        watch.see(0, false, &snapshot(10, Some(first.clone())));
        // Gone from Redis altogether, and then there but expired: both are patience.
        assert_eq!(watch.see(1, true, &snapshot(200, None)), []);
        assert_eq!(watch.table.get(OTHER), Some(&first));
        assert!(!watch.table.is_confirmed(OTHER, first.incarnation));
        assert_eq!(watch.see(6, false, &snapshot(206, Some(first.clone()))), []);
        assert_eq!(watch.table.dead().count(), 0, "not to be swept either");
        assert_eq!(watch.see(1, false, &snapshot(207, Some(first.clone()))), [gone(first.incarnation)]);
        assert_eq!((watch.table.get(OTHER), watch.table.dead().count()), (None, 1));
    }

    #[test]
    fn whoever_comes_back_within_the_grace_was_never_gone() {
        let mut watch = Watch::new();
        let (before, after) = (lease(2, 1, 100), lease(2, 2, 300));
        watch.see(0, false, &snapshot(10, Some(before)));
        watch.see(1, true, &snapshot(200, None));
        let raised = Event::Raised { node: OTHER, incarnation: after.incarnation, versions: 1..=2 };
        assert_eq!(watch.see(1, false, &snapshot(201, Some(after.clone()))), [raised]);
        assert!(watch.table.is_confirmed(OTHER, after.incarnation));
    }

    #[test]
    fn the_own_lease_is_no_news_and_never_dead() {
        let mut watch = Watch::new();
        let own = lease(1, 1, 5);
        let leases = BTreeMap::from([(OWN, own.clone())]);
        let expired = Snapshot { now: 10, leases, unreadable: Vec::new() };
        assert_eq!(watch.see(0, false, &expired), []);
        assert_eq!((watch.table.get(OWN), watch.table.dead().count()), (Some(&own), 0));
    }
}
