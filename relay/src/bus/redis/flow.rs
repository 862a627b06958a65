//! What one node knows of its traffic with another: a state machine per direction, without I/O.
//!
//! Redis delivers a published message at most once, in order, and does not say when it did not. So the
//! receiving node confirms: how far everything arrived, and how far it may be sent. [`Outgoing`] keeps what
//! is not confirmed. When something went missing, or may have, its *epoch* ends: every letter in it that
//! is not confirmed is reported `unknown` to its sender and never sent again, while items (membership,
//! verdicts) are sent again in the next epoch and told apart by their numbers. [`Incoming`] is the other
//! end: it discards what is old, notices what is missing and grants credit.

mod incoming;
mod outgoing;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub use incoming::{Confirm, Entry, Incoming};
pub use outgoing::{Outgoing, Taken};

/// Bytes that may be sent in an epoch before the other side has granted any.
pub const FIRST_CREDIT: u64 = 64 << 10;

/// Where epochs and item numbers come from: one source for all flows of a process, so that what a flow
/// uses is above everything that an earlier flow to the same node used.
#[derive(Debug)]
pub struct Numbers {
    epoch: AtomicU32,
    item: AtomicU64,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { epoch: AtomicU32::new(1), item: AtomicU64::new(1) }
    }
}

impl Numbers {
    fn epoch(&self) -> u32 {
        self.epoch.fetch_add(1, Ordering::Relaxed)
    }

    fn item(&self) -> u64 {
        self.item.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
