//! The memory that all queues of a node may hold together.
//!
//! Each queue is bounded by itself, but there may be very many of them. A queue takes its share in pieces
//! of [`PIECE`] bytes, so that frames do not contend for one counter, and gives it back as it empties.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a queue takes from the budget at a time.
pub const PIECE: usize = 32 << 10;

/// A number of bytes shared by many queues.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    taken: AtomicUsize,
}

impl Budget {
    /// A budget of `limit` bytes, none taken.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, taken: AtomicUsize::new(0) })
    }

    /// Bytes taken at the moment.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let fits = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One queue's part of a [`Budget`]; dropping it gives it back.
pub struct Share {
    budget: Arc<Budget>,
    held: usize,
}

impl Share {
    /// Nothing yet.
    pub fn of(budget: &Arc<Budget>) -> Self {
        Self { budget: budget.clone(), held: 0 }
    }

    /// Makes the share cover `bytes`; `false` if the budget does not allow it.
    pub fn cover(&mut self, bytes: usize) -> bool {
        if bytes <= self.held {
            return true;
        }
        let more = (bytes - self.held).next_multiple_of(PIECE);
        let covered = self.budget.take(more);
        if covered {
            self.held += more;
        }
        covered
    }

    /// Gives back what `bytes` do not need, except for one piece while there are any.
    pub fn shrink_to(&mut self, bytes: usize) {
        let keep = if bytes == 0 { 0 } else { bytes.next_multiple_of(PIECE) + PIECE };
        if keep < self.held {
            self.budget.give_back(self.held - keep);
            self.held = keep;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_pieces_and_come_back() {
        let budget = Budget::new(3 * PIECE);
        let (mut a, mut b) = (Share::of(&budget), Share::of(&budget));
        assert!(a.cover(1) && a.cover(PIECE));
        assert_eq!(budget.taken(), PIECE);
        assert!(b.cover(PIECE + 1));
        assert!(!a.cover(PIECE + 1), "nothing is left");
        b.shrink_to(1);
        assert_eq!(budget.taken(), 3 * PIECE, "one spare piece is kept while something waits");
        b.shrink_to(0);
        assert!(a.cover(PIECE + 1));
        drop((a, b));
        assert_eq!(budget.taken(), 0);
    }
}
