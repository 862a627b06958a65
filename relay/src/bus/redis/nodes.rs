//! Which nodes there are: the leases, as Redis holds them and as this node judges them.
//!
//! A lease is one field of one hash: `<instance> <term> <expires> <json>`. What decides about it stands in
//! front, where a script in Redis compares it without parsing; the rest is for people and for sweeping. It
//! has no TTL: a lease that expired stays until what was registered under it is swept, so that nobody
//! inherits a dead node's number together with its registrations.

mod view;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use culvert_wire::NodeId;
use serde::{Deserialize, Serialize};

use super::incarnation::Incarnation;

pub use view::View;

/// A node's place in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLease {
    /// Whose it is.
    pub incarnation: Incarnation,
    /// When it ends unless it is renewed, in milliseconds since 1970 by the clock of Redis.
    pub expires: u64,
    /// What the node says about itself.
    pub about: About,
}

/// What a node says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Oldest and newest version of the bus that it speaks.
    pub bus: (u8, u8),
    /// Version of the program.
    pub version: String,
    /// When it got its number, in seconds since 1970 by its own clock.
    pub since: u64,
    /// How long its lease is when it was just renewed, in milliseconds.
    #[serde(default)]
    pub lease: u64,
    /// Connections of admitted peers.
    pub connections: usize,
    /// Their topic memberships.
    pub memberships: usize,
    /// Since when it misses something of the bus, in seconds since 1970 by its own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<u64>,
    /// Lowest term of this instance whose registrations may still be there.
    pub unswept: u32,
}

impl NodeLease {
    /// Reads a field of the hash; `None` if this program cannot.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(4, ' ');
        let instance = u64::from_str_radix(words.next()?, 16).ok()?;
        let term = words.next()?.parse().ok()?;
        let expires = words.next()?.parse().ok()?;
        let about = serde_json::from_str(words.next()?).ok()?;
        Some(Self { incarnation: Incarnation { instance, term }, expires, about })
    }

    /// The versions of the bus that it speaks.
    pub fn versions(&self) -> RangeInclusive<u8> {
        self.about.bus.0..=self.about.bus.1
    }

    /// Whether it and a node with these versions have one in common.
    pub fn speaks(&self, versions: &RangeInclusive<u8>) -> bool {
        self.about.bus.0 <= *versions.end() && *versions.start() <= self.about.bus.1
    }
}

/// Everything Redis said about leases in one answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// When, in milliseconds since 1970 by the clock of Redis.
    pub now: u64,
    /// Every lease, expired ones included.
    pub leases: BTreeMap<NodeId, NodeLease>,
    /// Numbers whose lease this program cannot read.
    pub unreadable: Vec<NodeId>,
}

impl Snapshot {
    /// Reads the hash. A field that is no node number is nobody's and left out.
    pub fn parse<'a>(now: u64, fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut snapshot = Self { now, ..Self::default() };
        for (number, lease) in fields {
            let Ok(node) = number.parse().map(NodeId) else { continue };
            match NodeLease::parse(lease) {
                Some(lease) => drop(snapshot.leases.insert(node, lease)),
                None => snapshot.unreadable.push(node),
            }
        }
        snapshot
    }

    /// How many numbers are taken.
    pub fn taken(&self) -> usize {
        self.leases.len() + self.unreadable.len()
    }

    /// Whether a number is taken.
    pub fn is_taken(&self, node: NodeId) -> bool {
        self.leases.contains_key(&node) || self.unreadable.contains(&node)
    }

    /// The leases that have not expired.
    pub fn live(&self) -> impl Iterator<Item = (NodeId, &NodeLease)> {
        self.leases.iter().filter(|(_, lease)| lease.expires > self.now).map(|(node, lease)| (*node, lease))
    }
}

/// What a registration is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It counts.
    Live,
    /// Its incarnation has ended.
    Dead,
    /// This table does not know its incarnation; a newer one may.
    Unknown,
}

/// The nodes as this one judges them at one moment, itself included. Never changes; a newer one replaces it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    live: BTreeMap<NodeId, NodeLease>,
    /// Kept although Redis does not name them, because this node was itself out of touch.
    graced: Vec<NodeId>,
    /// Expired, not swept.
    dead: BTreeMap<NodeId, NodeLease>,
}

impl Table {
    /// A live node.
    pub fn get(&self, node: NodeId) -> Option<&NodeLease> {
        self.live.get(&node)
    }

    /// All live nodes.
    pub fn live(&self) -> impl Iterator<Item = (NodeId, &NodeLease)> {
        self.live.iter().map(|(node, lease)| (*node, lease))
    }

    /// Expired leases whose registrations may still be there.
    pub fn dead(&self) -> impl Iterator<Item = (NodeId, &NodeLease)> {
        self.dead.iter().map(|(node, lease)| (*node, lease))
    }

    /// Whether Redis itself confirmed that this node lives under this incarnation.
    pub fn is_confirmed(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.get(node).is_some_and(|lease| lease.incarnation == incarnation) && !self.graced.contains(&node)
    }

    /// What a registration under this number and incarnation is worth.
    pub fn standing(&self, node: NodeId, incarnation: Incarnation) -> Standing {
        let of = |lease: &&NodeLease| lease.incarnation.instance == incarnation.instance;
        if let Some(lease) = self.live.get(&node).filter(of) {
            return match lease.incarnation.term.cmp(&incarnation.term) {
                std::cmp::Ordering::Equal => Standing::Live,
                std::cmp::Ordering::Greater => Standing::Dead,
                std::cmp::Ordering::Less => Standing::Unknown,
            };
        }
        match self.dead.get(&node).filter(of) {
            Some(lease) if lease.incarnation.term >= incarnation.term => Standing::Dead,
            _ => Standing::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(instance: u64, term: u32, expires: u64) -> String {
        format!(
            r#"{instance:016x} {term} {expires} {{"bus":[1,2],"version":"0.1.0","since":5,"connections":3,"memberships":4,"unswept":1,"later":true}}"#
        )
    }

    #[test]
    fn a_lease_is_read_with_whatever_a_later_version_adds() {
        let lease = NodeLease::parse(&text(0xabc, 7, 1000)).unwrap();
        assert_eq!(lease.incarnation, Incarnation { instance: 0xabc, term: 7 });
        assert_eq!((lease.expires, lease.versions(), lease.about.connections), (1000, 1..=2, 3));
        assert!(lease.speaks(&(2..=3)) && lease.speaks(&(0..=1)));
        assert!(!lease.speaks(&(3..=4)) && !lease.speaks(&(0..=0)));
    }

    #[test]
    fn what_cannot_be_read_takes_its_number_and_nothing_else() {
        let good = text(1, 1, 10);
        let fields = [("5", "rubbish"), ("70000", good.as_str()), ("six", ""), ("7", good.as_str())];
        let snapshot = Snapshot::parse(9, fields);
        assert_eq!((snapshot.taken(), snapshot.live().count()), (2, 1));
        assert!(
            snapshot.is_taken(NodeId(5)) && snapshot.is_taken(NodeId(7)) && !snapshot.is_taken(NodeId(6))
        );
        assert_eq!(Snapshot { now: 10, ..snapshot }.live().count(), 0, "expired");
    }

    #[test]
    fn a_registration_counts_only_under_the_very_incarnation_that_holds_the_lease() {
        let lease = |instance, term| NodeLease::parse(&text(instance, term, 10)).unwrap();
        let table = Table {
            live: BTreeMap::from([(NodeId(1), lease(1, 5))]),
            dead: BTreeMap::from([(NodeId(2), lease(2, 5))]),
            graced: Vec::new(),
        };
        let standing = |node, instance, term| table.standing(NodeId(node), Incarnation { instance, term });
        assert_eq!(standing(1, 1, 5), Standing::Live);
        assert_eq!(standing(1, 1, 4), Standing::Dead);
        assert_eq!(standing(1, 1, 6), Standing::Unknown, "raised since");
        assert_eq!(standing(1, 9, 1), Standing::Unknown, "the number may have changed hands since");
        assert_eq!(standing(2, 2, 5), Standing::Dead);
        assert_eq!(standing(2, 2, 6), Standing::Unknown, "it may have come back");
        assert_eq!(standing(3, 3, 1), Standing::Unknown);
    }
}
