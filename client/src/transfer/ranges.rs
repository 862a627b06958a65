//! Which bytes of a file are there: sorted ranges that never touch.

use serde::{Deserialize, Serialize};

/// A set of bytes. Written in order, as a transfer does, it stays one range.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds `start..end`.
    pub(super) fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let first = self.0.partition_point(|(_, e)| *e < start);
        let last = self.0.partition_point(|(s, _)| *s <= end);
        let touched = &self.0[first..last];
        let start = touched.first().map_or(start, |(s, _)| start.min(*s));
        let end = touched.last().map_or(end, |(_, e)| end.max(*e));
        self.0.splice(first..last, [(start, end)]);
    }

    /// What lies in `0..size` and is not in the set.
    pub(super) fn missing(&self, size: u64) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut at = 0;
        for (start, end) in self.0.iter().copied().chain([(size, size)]) {
            if at < start.min(size) {
                missing.push((at, start.min(size)));
            }
            at = at.max(end);
        }
        missing
    }

    /// How many bytes are in it.
    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// For what was read back: keeps whole groups within the first `len` bytes of `size`.
    pub(super) fn normalised(&self, size: u64, len: u64, group: u64) -> Self {
        let mut clean = Self::default();
        for (start, end) in &self.0 {
            let end = (*end).min(size).min(len);
            let end = if end == size { end } else { end - end % group };
            clean.insert(start.checked_next_multiple_of(group).unwrap_or(size), end);
        }
        clean
    }

    /// The first `most` ranges.
    pub(super) fn first(&self, most: usize) -> Self {
        Self(self.0.iter().copied().take(most).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_says_the_same_as_a_list_of_bytes(
            inserts in proptest::collection::vec((0u64..64, 0u64..64), 0..12),
            size in 0u64..64,
        ) {
            let mut ranges = Ranges::default();
            let mut bytes = [false; 64];
            for (start, end) in inserts {
                ranges.insert(start, end);
                (start..end).for_each(|i| bytes[usize::try_from(i).unwrap()] = true);
            }
            prop_assert_eq!(ranges.len(), bytes.iter().filter(|b| **b).count() as u64);
            let missing: Vec<u64> = ranges.missing(size).into_iter().flat_map(|(s, e)| s..e).collect();
            let expected: Vec<u64> = (0..size).filter(|i| !bytes[usize::try_from(*i).unwrap()]).collect();
            prop_assert_eq!(missing, expected);
            prop_assert!(ranges.0.windows(2).all(|w| w[0].1 < w[1].0));
        }
    }

    #[test]
    fn what_was_read_back_is_cut_to_whole_groups() {
        let read = Ranges(vec![(3, 40), (50, 100)]);
        assert_eq!(read.normalised(100, 100, 10), Ranges(vec![(10, 40), (50, 100)]));
        assert_eq!(read.normalised(95, 100, 10), Ranges(vec![(10, 40), (50, 95)]));
        assert_eq!(read.normalised(100, 95, 10), Ranges(vec![(10, 40), (50, 90)]));
        assert_eq!(Ranges(vec![(9, 3), (20, 10)]).normalised(100, 100, 10), Ranges::default());
        assert_eq!(Ranges(vec![(0, u64::MAX), (u64::MAX - 1, u64::MAX)]).normalised(30, 30, 10).len(), 30);
    }
}
