//! Which server serves what.

use std::collections::BTreeMap;

use crc16::{State, XMODEM};

use super::Place;
use crate::bus::redis::settings::Server;

/// Slots of a Redis Cluster (cluster specification, "Key distribution model").
pub(super) const SLOTS: u16 = 16_384;

/// What is known of the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Topology {
    /// One serves everything.
    One(Place),
    /// Each serves some slots.
    Slots(SlotMap),
}

/// Masters by the slots they serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SlotMap {
    /// First slot to last slot and master; no two overlap.
    ranges: BTreeMap<u16, (u16, Place)>,
}

/// The slot of a key or channel: of what stands in the first braces, if anything does.
pub(super) fn slot(name: &str) -> u16 {
    let tag = name.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(name);
    State::<XMODEM>::calculate(hashed.as_bytes()) % SLOTS
}

impl Topology {
    /// Who serves a channel.
    pub(super) fn place(&self, channel: &str) -> Option<Place> {
        match self {
            Self::One(place) => Some(place.clone()),
            Self::Slots(map) => map.get(slot(channel)),
        }
    }

    /// Everybody who serves something.
    pub(super) fn places(&self) -> Vec<Place> {
        match self {
            Self::One(place) => vec![place.clone()],
            Self::Slots(map) => {
                let mut places: Vec<Place> = Vec::new();
                for (_, place) in map.ranges.values() {
                    if !places.contains(place) {
                        places.push(place.clone());
                    }
                }
                places
            }
        }
    }

    /// With one slot at another address, `host:port`; `None` if that is nothing new, or no address.
    pub(super) fn redirected(&self, slot: u16, address: &str) -> Option<Self> {
        let Self::Slots(map) = self else { return None };
        let (host, port) = address.rsplit_once(':')?;
        let tls = map.ranges.values().next().is_some_and(|(_, place)| place.0.tls);
        let server = Server { host: host.to_owned(), port: port.parse().ok()?, tls };
        // A server that does not know its own name leaves it out.
        if server.host.is_empty() || map.get(slot).is_some_and(|place| *place.0 == server) {
            return None;
        }
        let mut map = map.clone();
        map.insert(slot, slot, server.into());
        Some(Self::Slots(map))
    }
}

impl SlotMap {
    /// Who serves a slot.
    pub(super) fn get(&self, slot: u16) -> Option<Place> {
        let (_, (last, place)) = self.ranges.range(..=slot).next_back()?;
        (slot <= *last).then(|| place.clone())
    }

    /// Gives slots to a master, whoever had them before.
    pub(super) fn insert(&mut self, first: u16, last: u16, place: Place) {
        let touched: Vec<u16> = self
            .ranges
            .range(..=last)
            .rev()
            .take_while(|(_, (end, _))| *end >= first)
            .map(|(&start, _)| start)
            .collect();
        for start in touched {
            if let Some((end, owner)) = self.ranges.remove(&start) {
                if start < first {
                    self.ranges.insert(start, (first - 1, owner.clone()));
                }
                if end > last {
                    self.ranges.insert(last + 1, (end, owner));
                }
            }
        }
        self.ranges.insert(first, (last, place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(port: u16) -> Place {
        Place::from(Server { host: "h".to_owned(), port, tls: true })
    }

    fn thirds() -> SlotMap {
        let mut map = SlotMap::default();
        map.insert(0, 5000, place(1));
        map.insert(5001, 10_000, place(2));
        map.insert(10_001, 16_383, place(3));
        map
    }

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        assert_eq!(slot("123456789"), 0x31c3);
        assert_eq!(slot("foo{hash_tag}"), slot("hash_tag"));
        assert_eq!(slot("{user1000}.following"), slot("user1000"));
        // Empty braces are part of the name.
        assert_eq!(slot("foo{}{bar}"), State::<XMODEM>::calculate(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot("foo{{bar}}zap"), slot("{bar"));
    }

    #[test]
    fn a_slot_belongs_to_the_range_it_is_in() {
        let map = thirds();
        for (slot, port) in [(0, 1), (5000, 1), (5001, 2), (10_000, 2), (10_001, 3), (16_383, 3)] {
            assert_eq!(map.get(slot), Some(place(port)), "{slot}");
        }
        let mut gap = SlotMap::default();
        gap.insert(10, 20, place(1));
        assert_eq!((gap.get(9), gap.get(21)), (None, None));
    }

    #[test]
    fn a_slot_that_moves_leaves_its_neighbours_where_they_were() {
        let moved = Topology::Slots(thirds()).redirected(7000, "h:9").unwrap();
        let Topology::Slots(map) = &moved else { panic!("{moved:?}") };
        for (slot, port) in [(6999, 2), (7000, 9), (7001, 2), (10_000, 2), (10_001, 3)] {
            assert_eq!(map.get(slot), Some(place(port)), "{slot}");
        }
        assert_eq!(moved.redirected(7000, "h:9"), None, "nothing new");
        assert_eq!(moved.redirected(7000, ":9"), None, "no host");
        assert_eq!(moved.places().len(), 4);
    }

    #[test]
    fn ranges_given_to_another_master_replace_what_they_cover() {
        let mut map = thirds();
        map.insert(4000, 12_000, place(4));
        for (slot, port) in [(3999, 1), (4000, 4), (7000, 4), (12_000, 4), (12_001, 3)] {
            assert_eq!(map.get(slot), Some(place(port)), "{slot}");
        }
        map.insert(0, 16_383, place(5));
        assert_eq!(Topology::Slots(map).places(), [place(5)]);
    }
}
