//! Ways to peers, numbered for the sessions: a path is one of our connections and one of theirs.

use std::collections::{BTreeMap, HashMap};

use culvert_session::PathId;
use culvert_wire::ConnId;

/// One of our connections to a relay, numbered in the order of opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LegId(pub(crate) u64);

/// Most paths that are remembered. A relay can name as many senders as it likes; the oldest gives way.
const MAX_PATHS: usize = 4096;

/// From a path's number to what it is, and back.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    next: u64,
    by_id: BTreeMap<PathId, (LegId, ConnId)>,
    by_ends: HashMap<(LegId, ConnId), PathId>,
}

impl Paths {
    /// The path's number; a fresh one, never used before, where it is new.
    pub(crate) fn number(&mut self, leg: LegId, conn: ConnId) -> PathId {
        if let Some(id) = self.find(leg, conn) {
            return id;
        }
        if self.by_id.len() >= MAX_PATHS
            && let Some((_, oldest)) = self.by_id.pop_first()
        {
            self.by_ends.remove(&oldest);
        }
        let id = PathId(self.next);
        self.next += 1;
        self.by_id.insert(id, (leg, conn));
        self.by_ends.insert((leg, conn), id);
        id
    }

    /// The path's number, if it has one.
    pub(crate) fn find(&self, leg: LegId, conn: ConnId) -> Option<PathId> {
        self.by_ends.get(&(leg, conn)).copied()
    }

    /// What the path is, unless it was forgotten.
    pub(crate) fn ends(&self, path: PathId) -> Option<(LegId, ConnId)> {
        self.by_id.get(&path).copied()
    }

    /// Forgets a connection of a peer.
    pub(crate) fn forget(&mut self, leg: LegId, conn: ConnId) {
        if let Some(id) = self.by_ends.remove(&(leg, conn)) {
            self.by_id.remove(&id);
        }
    }

    /// Forgets a connection of ours.
    pub(crate) fn forget_leg(&mut self, leg: LegId) {
        self.by_ends.retain(|(of, _), _| *of != leg);
        self.by_id.retain(|_, (of, _)| *of != leg);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_never_used_for_another_path() {
        let mut paths = Paths::default();
        let first = paths.number(LegId(0), ConnId(1));
        assert_eq!(paths.number(LegId(0), ConnId(1)), first);
        paths.forget(LegId(0), ConnId(1));
        assert_eq!((paths.ends(first), paths.find(LegId(0), ConnId(1))), (None, None));
        let second = paths.number(LegId(0), ConnId(1));
        assert_ne!(second, first);
        paths.forget_leg(LegId(0));
        assert_eq!(paths.ends(second), None);
    }

    #[test]
    fn endless_senders_fill_a_bounded_table() {
        let mut paths = Paths::default();
        for conn in 0..10_000 {
            paths.number(LegId(0), ConnId(conn));
        }
        assert_eq!((paths.by_id.len(), paths.by_ends.len()), (MAX_PATHS, MAX_PATHS));
        assert_eq!(paths.find(LegId(0), ConnId(0)), None);
        assert!(paths.find(LegId(0), ConnId(9999)).is_some());
    }
}
