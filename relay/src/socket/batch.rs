//! Messages on their way to one socket: taken from its outbox, not written completely yet.

use std::cell::RefCell;
use std::io::IoSlice;

use crate::websocket::Message;

/// Messages up to this size are copied together; larger ones are written from where they are.
const SMALL: usize = 2048;
/// More slices than this are not given to one system call.
pub(super) const MOST_SLICES: usize = 64;
/// A list longer than this is not lent to the next batch.
const MOST_SPARE: usize = 4096;

thread_local! {
    /// The list of the last batch on this thread that was written completely.
    static SPARE: RefCell<Vec<Message>> = const { RefCell::new(Vec::new()) };
}

/// Messages in the order in which they are written. Holds no memory while empty, after
/// [`Batch::give_back`].
#[derive(Default)]
pub struct Batch {
    messages: Vec<Message>,
    /// Messages that are written completely.
    done: usize,
    /// Bytes of the next one that are written.
    sent: usize,
}

impl Batch {
    /// Whether everything is written.
    pub fn is_empty(&self) -> bool {
        self.done == self.messages.len()
    }

    /// The list to add to.
    pub fn room(&mut self) -> &mut Vec<Message> {
        if self.messages.capacity() == 0 {
            self.messages = SPARE.take();
        }
        &mut self.messages
    }

    /// Gives the memory of an empty batch to the next one on this thread.
    pub fn give_back(&mut self) {
        if self.is_empty() {
            let mut messages = std::mem::take(self).messages;
            if (1..=MOST_SPARE).contains(&messages.capacity()) {
                messages.clear();
                SPARE.set(messages);
            }
        }
    }

    /// Counts `len` bytes as written; messages that are done are freed.
    pub fn advance(&mut self, mut len: usize) {
        while let Some(message) = self.messages.get_mut(self.done) {
            let left = message.wire().len() - self.sent;
            if len < left {
                self.sent += len;
                return;
            }
            len -= left;
            self.sent = 0;
            *message = Message::default();
            self.done += 1;
        }
        self.messages.clear();
        self.done = 0;
    }

    fn waiting(&self) -> impl Iterator<Item = &[u8]> {
        let (done, sent) = (self.done, self.sent);
        let first = self.messages.get(done).map(move |message| &message.wire()[sent..]);
        let others = self.messages.get(done + 1..).unwrap_or_default().iter().map(Message::wire);
        first.into_iter().chain(others)
    }

    /// What waits, as slices: runs of small messages are copied into `scratch`, large ones stay where
    /// they are. Gives the number of slices, which is 0 only if nothing waits.
    pub fn gather<'a>(&'a self, mut scratch: &'a mut [u8], slices: &mut [IoSlice<'a>; MOST_SLICES]) -> usize {
        if self.done + 1 == self.messages.len() {
            // A single message need not be copied, however small.
            slices[0] = IoSlice::new(&self.messages[self.done].wire()[self.sent..]);
            return 1;
        }
        let (mut count, mut run) = (0, 0);
        for message in self.waiting() {
            let small = message.len() <= SMALL;
            if small && run + message.len() <= scratch.len() {
                scratch[run..run + message.len()].copy_from_slice(message);
                run += message.len();
                continue;
            }
            if run > 0 {
                let (copied, rest) = std::mem::take(&mut scratch).split_at_mut(run);
                (slices[count], scratch, run) = (IoSlice::new(copied), rest, 0);
                count += 1;
            }
            // Two more: this message, and a run behind it.
            if small || count + 2 > MOST_SLICES {
                return count;
            }
            slices[count] = IoSlice::new(message);
            count += 1;
        }
        if run > 0 {
            slices[count] = IoSlice::new(&scratch[..run]);
            count += 1;
        }
        count
    }

    /// What waits, in one piece: as much as fits `scratch`, or a single message where it is.
    pub fn contiguous<'a>(&'a self, scratch: &'a mut [u8]) -> &'a [u8] {
        if self.done + 1 == self.messages.len() {
            let message = &self.messages[self.done].wire()[self.sent..];
            return &message[..message.len().min(scratch.len())];
        }
        let mut filled = 0;
        for message in self.waiting() {
            let fits = message.len().min(scratch.len() - filled);
            scratch[filled..filled + fits].copy_from_slice(&message[..fits]);
            filled += fits;
            if fits < message.len() {
                break;
            }
        }
        &scratch[..filled]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(sizes: &[usize]) -> (Batch, Vec<u8>) {
        let mut batch = Batch::default();
        let messages = sizes.iter().zip(0..).map(|(len, n)| Message::binary(&vec![n; *len]));
        batch.room().extend(messages);
        let bytes = batch.messages.iter().flat_map(|message| message.wire().to_vec()).collect();
        (batch, bytes)
    }

    proptest! {
        /// However much each write takes, the bytes come out once and in order.
        #[test]
        fn a_batch_is_written_once_and_in_order(
            sizes in prop::collection::vec(prop_oneof![0_usize..200, 1500_usize..2100, 16_000_usize..16_396], 0..90),
            takes in prop::collection::vec(1_usize..70_000, 1..20),
            sealed in any::<bool>(),
        ) {
            let (mut batch, expected) = batch(&sizes);
            let (mut written, mut takes) = (Vec::new(), takes.iter().cycle());
            let mut scratch = vec![0; 8192];
            while !batch.is_empty() {
                let mut slices = [IoSlice::new(&[]); MOST_SLICES];
                let ready: Vec<u8> = if sealed {
                    batch.contiguous(&mut scratch).to_vec()
                } else {
                    let count = batch.gather(&mut scratch, &mut slices);
                    slices[..count].iter().flat_map(|slice| slice.to_vec()).collect()
                };
                prop_assert!(!ready.is_empty());
                let taken = ready.len().min(*takes.next().unwrap());
                written.extend_from_slice(&ready[..taken]);
                batch.advance(taken);
            }
            prop_assert_eq!(written, expected);
            batch.give_back();
            prop_assert_eq!(batch.messages.capacity(), 0);
        }
    }

    #[test]
    fn small_messages_are_one_slice_and_large_ones_stay_where_they_are() {
        let (batch, bytes) = batch(&[64, 64, 16_396, 64, 64]);
        let mut scratch = vec![0; 8192];
        let mut slices = [IoSlice::new(&[]); MOST_SLICES];
        assert_eq!(batch.gather(&mut scratch, &mut slices), 3);
        assert_eq!(slices[1].as_ptr(), batch.messages[2].wire().as_ptr());
        assert_eq!(slices.iter().map(|slice| slice.len()).sum::<usize>(), bytes.len());
    }
}
