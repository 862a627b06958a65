//! What is counted, and how often it was done.

use std::hint::black_box;

/// Runs what is to be counted.
#[derive(Default)]
pub(crate) struct Meter {
    operations: u64,
}

impl Meter {
    /// Counts the instructions of this.
    pub(crate) fn count<T>(&mut self, work: impl FnOnce() -> T) -> Option<T> {
        let (mut work, mut result) = (Some(work), None);
        callgrind_counts_this(&mut || result = work.take().map(|work| work()));
        result
    }

    /// Says that what was counted since the last time were so many operations.
    pub(crate) fn done(&mut self, operations: u64) {
        self.operations += operations;
    }

    /// Operations so far.
    pub(crate) fn operations(&self) -> u64 {
        self.operations
    }
}

/// Callgrind counts while this is entered; it is found by its name.
#[inline(never)]
fn callgrind_counts_this(work: &mut dyn FnMut()) {
    work();
    // Not the last thing that happens here: the call would become a jump.
    black_box(());
}
