//! Which packet numbers were already accepted.

/// Packet numbers told apart; a relay that hands over between two nodes delivers well within it.
pub(crate) const WINDOW: u64 = WORDS as u64 * 64;
const WORDS: usize = 64;

/// A sliding bitmap (RFC 6479) over the last [`WINDOW`] packet numbers.
///
/// A number is fresh once. Numbers below the window are refused: they cannot be told from replays.
#[derive(Debug)]
pub(crate) struct ReplayWindow {
    bits: [u64; WORDS],
    /// One more than the highest number accepted.
    end: u64,
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { bits: [0; WORDS], end: 0 }
    }
}

impl ReplayWindow {
    /// Whether `number` was not accepted yet and is not too old to tell.
    pub(crate) fn is_fresh(&self, number: u64) -> bool {
        if number >= self.end {
            return number < u64::MAX;
        }
        let (word, bit) = place(number);
        self.end - number <= WINDOW && self.bits[word] & bit == 0
    }

    /// Whether `number` is higher than every number accepted so far.
    pub(crate) fn is_newest(&self, number: u64) -> bool {
        number >= self.end
    }

    /// Marks a fresh number as accepted.
    pub(crate) fn accept(&mut self, number: u64) {
        debug_assert!(self.is_fresh(number));
        if number >= self.end {
            let skipped = (number - self.end).min(WINDOW);
            for n in number - skipped..number {
                let (word, bit) = place(n);
                self.bits[word] &= !bit;
            }
            self.end = number + 1;
        }
        let (word, bit) = place(number);
        self.bits[word] |= bit;
    }
}

fn place(number: u64) -> (usize, u64) {
    let index = number % WINDOW;
    // Below WORDS, so it fits every usize.
    #[allow(clippy::cast_possible_truncation)]
    let word = (index / 64) as usize;
    (word, 1 << (index % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_edges_of_the_window_are_exact() {
        let mut window = ReplayWindow::default();
        window.accept(0);
        assert!(!window.is_fresh(0));
        window.accept(WINDOW);
        assert!(window.is_fresh(1), "the oldest number inside");
        assert!(!window.is_fresh(0), "accepted, and now outside");
        window.accept(WINDOW + 1);
        assert!(!window.is_fresh(1), "never accepted, but outside");
        assert!(window.is_fresh(2));
        window.accept(10 * WINDOW + 7);
        assert!(window.is_fresh(9 * WINDOW + 8) && !window.is_fresh(9 * WINDOW + 7));
    }

    #[test]
    fn the_last_number_there_is_cannot_overflow() {
        let mut window = ReplayWindow::default();
        assert!(!window.is_fresh(u64::MAX));
        window.accept(u64::MAX - 1);
        assert!(!window.is_fresh(u64::MAX - 1) && window.is_fresh(u64::MAX - 2));
    }

    proptest! {
        #[test]
        fn every_number_is_accepted_at_most_once_and_recent_ones_always(
            numbers in proptest::collection::vec(
                prop_oneof![0u64..200, 4000u64..4300, 8000u64..8400, 0u64..30_000], 1..300),
        ) {
            let mut window = ReplayWindow::default();
            let mut seen = BTreeSet::new();
            let mut highest = 0;
            for number in numbers {
                let fresh = window.is_fresh(number);
                let recent = number + WINDOW > highest;
                prop_assert_eq!(fresh, recent && !seen.contains(&number));
                if fresh {
                    window.accept(number);
                    seen.insert(number);
                    highest = highest.max(number);
                }
            }
        }
    }
}
