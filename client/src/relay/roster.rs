//! Who is in the topic, as one relay connection tells it. Nothing in it is proven.
//!
//! A peer may have several connections; the one with the highest generation is the one to talk to. The
//! upper bits of a generation name the process run behind it, so that a connection of a new run is not
//! mistaken for the old run on another node. A relay that lies here can cost a handshake, never a
//! conversation.

use std::collections::HashMap;

use culvert_wire::{ConnId, Generation, Member, PeerId};

/// Most connections that are remembered. A relay lists at most 256 at once; the rest is for those that
/// come while others are leaving.
const MAX_ENTRIES: usize = 1024;

/// Most connections of one peer that are tried. A peer has one, two for a moment while it moves, and a
/// few while its relay node is cut off from others.
pub(crate) const MAX_WAYS: usize = 4;

/// Bits of a generation that count the connections of one run.
const RUN_BITS: u32 = 16;

/// One run of a peer: a process, or one stay of a process in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Run(pub(crate) u64);

impl Run {
    /// The run behind a generation.
    pub(crate) fn of(generation: Generation) -> Self {
        Self(generation.0 >> RUN_BITS)
    }

    /// The generation of this run's connection number `count`.
    pub(crate) fn generation(self, count: u64) -> Generation {
        Generation((self.0 << RUN_BITS) | count.min((1 << RUN_BITS) - 1))
    }
}

/// The other members' connections.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    entries: HashMap<ConnId, (PeerId, Generation)>,
}

impl Roster {
    /// Remembers a member; notices are idempotent.
    pub(crate) fn add(&mut self, member: Member) {
        if member.conn != ConnId::NONE
            && (self.entries.len() < MAX_ENTRIES || self.entries.contains_key(&member.conn))
        {
            self.entries.insert(member.conn, (member.peer, member.generation));
        }
    }

    /// Forgets a connection and gives whose it was.
    pub(crate) fn remove(&mut self, conn: ConnId) -> Option<PeerId> {
        self.entries.remove(&conn).map(|(peer, _)| peer)
    }

    /// Whose connection it is, as the relay says.
    pub(crate) fn owner(&self, conn: ConnId) -> Option<(PeerId, Run)> {
        self.entries.get(&conn).map(|(peer, generation)| (*peer, Run::of(*generation)))
    }

    /// The peer's connections, the newest first, at most [`MAX_WAYS`].
    pub(crate) fn newest(&self, peer: &PeerId) -> Vec<(ConnId, Generation)> {
        let own = self.entries.iter().filter(|(_, (owner, _))| owner == peer);
        let mut own: Vec<_> = own.map(|(conn, (_, generation))| (*conn, *generation)).collect();
        // The address breaks a tie, so that both of two equal connections are not picked in turn.
        own.sort_unstable_by_key(|(conn, generation)| std::cmp::Reverse((*generation, *conn)));
        own.truncate(MAX_WAYS);
        own
    }

    /// Whether the peer has a connection here.
    pub(crate) fn has(&self, peer: &PeerId) -> bool {
        self.entries.values().any(|(owner, _)| owner == peer)
    }

    /// Every peer, each once.
    pub(crate) fn peers(&self) -> Vec<PeerId> {
        let mut peers: Vec<_> = self.entries.values().map(|(peer, _)| *peer).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(conn: u64, peer: u8, generation: u64) -> Member {
        Member { conn: ConnId(conn), peer: PeerId([peer; 32]), generation: Generation(generation) }
    }

    #[test]
    fn the_highest_generation_is_the_newest_whatever_arrives_when() {
        let mut roster = Roster::default();
        let run = Run(7);
        for (conn, count) in [(1, 1), (3, 3), (2, 2)] {
            roster.add(Member { generation: run.generation(count), ..member(conn, 5, 0) });
        }
        let peer = PeerId([5; 32]);
        assert_eq!(roster.newest(&peer)[0], (ConnId(3), run.generation(3)));
        assert_eq!(roster.remove(ConnId(3)), Some(peer));
        assert_eq!(roster.newest(&peer).iter().map(|(conn, _)| conn.0).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(roster.newest(&PeerId([6; 32])), []);
    }

    #[test]
    fn a_later_run_is_newer_than_any_connection_of_an_earlier_one() {
        let (old, new) = (Run(7).generation(u64::MAX), Run(8).generation(0));
        assert!(new > old);
        assert_eq!((Run::of(old), Run::of(new)), (Run(7), Run(8)));
    }

    /// A node whose lease lapsed comes back under the same number: its members left and are there again.
    #[test]
    fn a_connection_that_is_announced_again_is_there_once() {
        let (mut roster, peer) = (Roster::default(), PeerId([5; 32]));
        assert_eq!(roster.remove(ConnId(1)), None, "it was never announced");
        for _ in 0..2 {
            roster.add(member(1, 5, 9));
            roster.add(member(1, 5, 9));
            assert_eq!(roster.newest(&peer), [(ConnId(1), Generation(9))]);
            assert_eq!(roster.remove(ConnId(1)), Some(peer));
            assert!(!roster.has(&peer));
        }
    }

    #[test]
    fn a_relay_that_announces_endless_members_fills_a_bounded_list() {
        let mut roster = Roster::default();
        for conn in 0..5000 {
            roster.add(member(conn, 1, 0));
        }
        assert_eq!(roster.entries.len(), MAX_ENTRIES);
        assert_eq!(roster.owner(ConnId::NONE), None);
        assert_eq!(roster.newest(&PeerId([1; 32])).len(), MAX_WAYS);
    }
}
