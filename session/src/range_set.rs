//! Sets of numbers as disjoint half-open ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint, non-adjacent half-open ranges. Every operation is logarithmic in their number, plus the
/// ranges it swallows.
#[derive(Default, Debug)]
pub(crate) struct RangeSet(BTreeMap<u64, u64>);

impl RangeSet {
    /// Adds a range, merging it with its neighbours.
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        while let Some((&low, &high)) = self.0.range(..=end).next_back() {
            if high < start {
                break;
            }
            self.0.remove(&low);
            start = start.min(low);
            end = end.max(high);
        }
        self.0.insert(start, end);
    }

    /// Removes a range, splitting what straddles its ends.
    pub(crate) fn remove(&mut self, range: Range<u64>) {
        while let Some((&low, &high)) = self.0.range(..range.end).next_back() {
            if range.is_empty() || high <= range.start {
                break;
            }
            self.0.remove(&low);
            if high > range.end {
                self.0.insert(range.end, high);
            }
            if low < range.start {
                self.0.insert(low, range.start);
            }
        }
    }

    /// Takes up to `most` numbers from the lower end.
    pub(crate) fn take_first(&mut self, most: u64) -> Option<Range<u64>> {
        let (start, end) = self.0.pop_first()?;
        let cut = end.min(start.saturating_add(most));
        if cut < end {
            self.0.insert(cut, end);
        }
        Some(start..cut)
    }

    /// Removes the lowest range if it starts at or below `edge`, and returns where it ends.
    pub(crate) fn absorb(&mut self, edge: u64) -> Option<u64> {
        let entry = self.0.first_entry()?;
        (*entry.key() <= edge).then(|| entry.remove().max(edge))
    }

    /// The parts of `range` that are not in the set, in order.
    pub(crate) fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut start = range.start;
        let first = self.0.range(..=range.start).next_back().map_or(range.start, |(&low, _)| low);
        for (&low, &high) in self.0.range(first..range.end.max(first)) {
            if low > start {
                gaps.push(start..low);
            }
            start = start.max(high);
        }
        if start < range.end {
            gaps.push(start..range.end);
        }
        gaps
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn ranges_agree_with_a_plain_set_of_numbers(
            steps in proptest::collection::vec((any::<bool>(), 0u64..60, 0u64..20), 1..40),
        ) {
            let mut ranges = RangeSet::default();
            let mut model = BTreeSet::new();
            for (add, start, len) in steps {
                let range = start..start + len;
                if add {
                    ranges.insert(range.clone());
                    model.extend(range);
                } else {
                    ranges.remove(range.clone());
                    model.retain(|n| !range.contains(n));
                }
                let listed: BTreeSet<u64> = ranges.0.iter().flat_map(|(&a, &b)| a..b).collect();
                prop_assert_eq!(&listed, &model);
                let missing: BTreeSet<u64> = ranges.gaps(5..70).into_iter().flatten().collect();
                prop_assert_eq!(missing, (5..70).filter(|n| !model.contains(n)).collect());
                let ends: Vec<_> = ranges.0.iter().collect();
                prop_assert!(ends.windows(2).all(|pair| pair[0].1 < pair[1].0), "merged: {:?}", ends);
            }
        }
    }

    #[test]
    fn taking_from_the_lower_end_splits_and_absorbing_follows_the_edge() {
        let mut ranges = RangeSet::default();
        ranges.insert(10..20);
        ranges.insert(30..40);
        assert_eq!(ranges.take_first(4), Some(10..14));
        assert_eq!(ranges.absorb(13), None);
        assert_eq!(ranges.absorb(14), Some(20));
        assert_eq!(ranges.take_first(100), Some(30..40));
        assert!(ranges.is_empty());
        assert_eq!(ranges.take_first(1), None);
    }
}
