//! What one node has of another's messages.

use super::FIRST_CREDIT;
use crate::bus::redis::message::{ASK, EMPTY, Header, Item};

/// The receiving half.
#[derive(Debug, Default)]
pub struct Incoming {
    epoch: u32,
    /// The sequence number that comes next.
    next: u64,
    /// Everything before this one arrived; stays behind once something is missing.
    confirmed: u64,
    missing: bool,
    /// End of what came so far, in the sender's bytes.
    offset: u64,
    letters: u64,
    /// Up to where the sender was told that it may send.
    told: u64,
    last_verdict: u64,
    last_membership: u64,
}

/// What a message is to its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Of an epoch that is over, or a repetition: nothing in it counts.
    Old,
    /// The next one; so many letters before it are missing.
    New {
        /// Letters that never arrived.
        lost: u64,
    },
}

/// What a sender is told of its own direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirm {
    /// The epoch that this is about; 0 as long as nothing came.
    pub epoch: u32,
    /// Everything before this sequence number arrived.
    pub next: u64,
    /// Offset up to which may be sent.
    pub granted: u64,
    /// Something is missing: the epoch must end.
    pub resync: bool,
}

impl Incoming {
    /// Looks at the header of a message, before its items.
    pub fn begin(&mut self, header: &Header) -> Entry {
        if header.epoch < self.epoch {
            return Entry::Old;
        }
        if header.epoch > self.epoch {
            *self = Self {
                epoch: header.epoch,
                told: FIRST_CREDIT,
                last_verdict: self.last_verdict,
                last_membership: self.last_membership,
                ..Self::default()
            };
        }
        if header.sequence < self.next {
            return Entry::Old;
        }
        let lost = header.letters.saturating_sub(self.letters);
        if header.sequence > self.next {
            self.missing = true;
            self.next = header.sequence;
            self.letters = header.letters;
            self.offset = header.offset;
        }
        Entry::New { lost }
    }

    /// Whether an item of the message counts: it was not taken before, and none before it is missing.
    pub fn admits(&mut self, number: u64, item: &Item) -> bool {
        let last = match item {
            Item::Undelivered(_) => &mut self.last_verdict,
            Item::Arrived { .. } | Item::Departed { .. } | Item::Resynced => &mut self.last_membership,
        };
        if self.missing || number <= *last {
            return false;
        }
        *last = number;
        true
    }

    /// Says that a part of the message could not be read: it is as good as missing.
    pub fn damaged(&mut self) {
        self.missing = true;
    }

    /// Counts a message after its items were handed on. `true` if the sender should hear of it now.
    pub fn end(&mut self, header: &Header, bytes: u64, letters: u64, window: u64) -> bool {
        let newly_missing = self.missing && self.told != u64::MAX;
        if !header.has(EMPTY) {
            self.next = header.sequence + 1;
            self.offset = header.offset + bytes;
            self.letters = header.letters + letters;
        }
        if !self.missing {
            self.confirmed = self.next;
        }
        header.has(ASK) || newly_missing || self.offset + window >= self.told.saturating_add(window / 4)
    }

    /// What to tell the sender; it counts as told.
    pub fn confirm(&mut self, window: u64) -> Confirm {
        let granted = self.offset + window;
        self.told = if self.missing { u64::MAX } else { granted };
        Confirm { epoch: self.epoch, next: self.confirmed, granted, resync: self.missing }
    }
}
