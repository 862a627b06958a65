//! Which life of a node something belongs to.

use std::fmt;

/// One uninterrupted life of a node in the cluster.
///
/// Whatever is registered or under way belongs to one, and counts only as long as the node's lease names
/// the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation {
    /// The process, at random: two processes that hold the same number one after the other differ here.
    pub instance: u64,
    /// Raised by a process each time its lease lapsed or its registrations may be incomplete.
    pub term: u32,
}

impl Incarnation {
    /// The first of a process.
    pub fn fresh() -> Self {
        Self { instance: rand::random(), term: 1 }
    }

    /// The next of the same process.
    #[must_use]
    pub fn raised(self) -> Self {
        Self { term: self.term + 1, ..self }
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.instance, self.term)
    }
}
