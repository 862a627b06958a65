//! The sending half of a stream.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use crate::range_set::RangeSet;
use crate::stream::PREFIX;
use crate::{MessageNumber, SendError, StreamId, Unacknowledged};

/// What a queued message costs besides its bytes, so that empty ones fill the buffer too.
const OVERHEAD: usize = 64;

struct Queued {
    /// Offset of the prefix.
    start: u64,
    prefix: [u8; PREFIX],
    body: Bytes,
}

impl Queued {
    fn end(&self) -> u64 {
        self.start + (PREFIX + self.body.len()) as u64
    }

    fn cost(&self) -> usize {
        self.body.len() + OVERHEAD
    }
}

/// Messages that are not acknowledged yet. Bounded by the send buffer, or by one message if that is
/// larger.
pub(crate) struct SendHalf {
    messages: VecDeque<Queued>,
    /// Number of the oldest message in `messages`.
    first: u64,
    buffered: usize,
    /// Offset after the last queued byte.
    end: u64,
    /// Offset of the first byte that was never sent.
    fresh: u64,
    /// The peer's credit: offset up to which may be sent.
    limit: u64,
    /// Everything below is acknowledged.
    edge: u64,
    /// Acknowledged above the edge.
    acked: RangeSet,
    lost: RangeSet,
    blocked: bool,
}

impl SendHalf {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            messages: VecDeque::new(),
            first: 0,
            buffered: 0,
            end: 0,
            fresh: 0,
            limit,
            edge: 0,
            acked: RangeSet::default(),
            lost: RangeSet::default(),
            blocked: false,
        }
    }

    /// Queues a message if the buffer takes it.
    pub(crate) fn push(&mut self, body: Bytes, buffer: usize) -> Result<MessageNumber, SendError> {
        let len = u32::try_from(body.len()).map_err(|_| SendError::TooLarge { limit: u32::MAX as usize })?;
        let message = Queued { start: self.end, prefix: len.to_be_bytes(), body };
        if !self.messages.is_empty() && self.buffered + message.cost() > buffer {
            self.blocked = true;
            return Err(SendError::Blocked);
        }
        self.buffered += message.cost();
        self.end = message.end();
        self.messages.push_back(message);
        Ok(MessageNumber(self.first + self.messages.len() as u64 - 1))
    }

    /// Whether a sender that was refused may try again; says so once.
    pub(crate) fn unblocked(&mut self, buffer: usize) -> bool {
        let writable = self.blocked && self.buffered <= buffer / 2;
        self.blocked &= !writable;
        writable
    }

    /// The peer's credit grew.
    pub(crate) fn set_limit(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    /// Whether there is something to send that the credit allows.
    pub(crate) fn is_ready(&self) -> bool {
        !self.lost.is_empty() || self.fresh < self.end.min(self.limit)
    }

    /// Whether everything queued was acknowledged.
    pub(crate) fn is_done(&self) -> bool {
        self.messages.is_empty()
    }

    /// The next bytes to send, at most `most` of them, and whether they were sent before.
    pub(crate) fn next(&mut self, most: u64) -> Option<(Range<u64>, bool)> {
        if most == 0 {
            return None;
        }
        if let Some(lost) = self.lost.take_first(most) {
            return Some((lost, true));
        }
        let end = self.end.min(self.limit).min(self.fresh + most);
        if self.fresh >= end {
            return None;
        }
        let range = self.fresh..end;
        self.fresh = end;
        Some((range, false))
    }

    /// Appends the bytes of `range`, which [`SendHalf::next`] returned and nobody acknowledged since.
    pub(crate) fn copy(&self, range: Range<u64>, out: &mut Vec<u8>) {
        let mut at = range.start;
        let first = self.messages.partition_point(|message| message.end() <= at);
        for message in self.messages.range(first..) {
            if at >= range.end {
                break;
            }
            let body = message.start + PREFIX as u64;
            if at < body {
                out.extend_from_slice(part(&message.prefix, message.start, at..range.end));
                at = body.min(range.end);
            }
            out.extend_from_slice(part(&message.body, body, at..range.end));
            at = message.end().min(range.end);
        }
    }

    /// The peer has `range`. Says whether a message became fully acknowledged.
    pub(crate) fn acknowledge(&mut self, range: Range<u64>) -> bool {
        if range.end <= self.edge {
            return false;
        }
        self.lost.remove(range.clone());
        if range.start > self.edge {
            self.acked.insert(range);
            return false;
        }
        self.edge = range.end;
        while let Some(end) = self.acked.absorb(self.edge) {
            self.edge = end;
        }
        let before = self.first;
        while self.messages.front().is_some_and(|message| message.end() <= self.edge) {
            if let Some(message) = self.messages.pop_front() {
                self.buffered -= message.cost();
                self.first += 1;
            }
        }
        self.first > before
    }

    /// A packet with `range` was lost: what nobody acknowledged meanwhile goes again.
    pub(crate) fn lose(&mut self, range: Range<u64>) {
        for gap in self.acked.gaps(range.start.max(self.edge)..range.end.max(self.edge)) {
            self.lost.insert(gap);
        }
    }

    /// The last message of the acknowledged beginning.
    pub(crate) fn acked(&self) -> Option<MessageNumber> {
        self.first.checked_sub(1).map(MessageNumber)
    }

    /// The messages from the first without a full acknowledgement on: without it, the peer's application
    /// has none of the later ones either.
    pub(crate) fn unacknowledged(&self, stream: StreamId) -> Option<Unacknowledged> {
        let last = (self.first + self.messages.len() as u64).checked_sub(1)?;
        let (first, last) = (MessageNumber(self.first), MessageNumber(last));
        (!self.is_done()).then_some(Unacknowledged { stream, first, last })
    }
}

/// The overlap of `range` with bytes that start at offset `start`.
fn part(bytes: &[u8], start: u64, range: Range<u64>) -> &[u8] {
    let index = |offset: u64| usize::try_from(offset - start).map_or(bytes.len(), |at| at.min(bytes.len()));
    &bytes[index(range.start.max(start))..index(range.end.max(start))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BUFFER: usize = 1 << 20;

    fn half(bodies: &[Vec<u8>]) -> (SendHalf, Vec<u8>) {
        let mut half = SendHalf::new(u64::MAX);
        let mut bytes = Vec::new();
        for body in bodies {
            half.push(Bytes::copy_from_slice(body), BUFFER).unwrap();
            bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(body);
        }
        (half, bytes)
    }

    proptest! {
        #[test]
        fn every_byte_is_sent_until_acknowledged_whatever_is_lost(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 1..20),
            fates in proptest::collection::vec((1u64..40, 0u8..3), 200),
        ) {
            let (mut half, bytes) = half(&bodies);
            let mut received = vec![None; bytes.len()];
            let mut under_way = Vec::new();
            let mut fates = fates.into_iter().cycle();
            while !half.is_done() {
                let (most, fate) = fates.next().unwrap();
                if let Some((range, _)) = half.next(most) {
                    let mut copy = Vec::new();
                    half.copy(range.clone(), &mut copy);
                    prop_assert_eq!(copy.len() as u64, range.end - range.start);
                    under_way.push((range, copy));
                }
                let index = usize::try_from(most).unwrap() % under_way.len().max(1);
                if fate == 0 && !under_way.is_empty() {
                    half.lose(under_way.swap_remove(index).0);
                } else if !under_way.is_empty() {
                    let (range, copy) = under_way.swap_remove(index);
                    let start = usize::try_from(range.start).unwrap();
                    for (slot, byte) in received[start..].iter_mut().zip(copy) {
                        *slot = Some(byte);
                    }
                    half.acknowledge(range);
                }
            }
            prop_assert_eq!(received.into_iter().map(Option::unwrap).collect::<Vec<_>>(), bytes);
            prop_assert_eq!(half.acked(), Some(MessageNumber(bodies.len() as u64 - 1)));
            prop_assert_eq!(half.buffered, 0);
            prop_assert!(!half.is_ready());
        }
    }

    #[test]
    fn a_full_buffer_blocks_until_half_of_it_is_acknowledged() {
        let mut half = SendHalf::new(u64::MAX);
        let body = Bytes::from(vec![0; 936]);
        for n in 0..10 {
            assert_eq!(half.push(body.clone(), 10_000), Ok(MessageNumber(n)));
        }
        assert_eq!(half.push(body.clone(), 10_000), Err(SendError::Blocked));
        half.next(u64::MAX);
        half.acknowledge(0..4 * 940);
        assert!(!half.unblocked(10_000));
        half.acknowledge(4 * 940..5 * 940);
        assert!(half.unblocked(10_000) && !half.unblocked(10_000));
        half.acknowledge(5 * 940..10 * 940);
        assert!(half.push(Bytes::from(vec![0; 100_000]), 10_000).is_ok(), "alone, a larger one goes");
        assert_eq!(half.push(Bytes::new(), 10_000), Err(SendError::Blocked));
    }

    #[test]
    fn credit_limits_fresh_bytes_only() {
        let (mut half, _) = half(&[vec![1; 96]]);
        half.limit = 40;
        assert_eq!(half.next(1000), Some((0..40, false)));
        assert!(!half.is_ready());
        half.lose(10..20);
        assert_eq!(half.next(1000), Some((10..20, true)));
        half.set_limit(30);
        assert!(!half.is_ready(), "credit never shrinks, nor does it grow by this");
        half.set_limit(100);
        assert_eq!(half.next(1000), Some((40..100, false)));
    }

    #[test]
    fn from_the_first_gap_on_everything_is_unacknowledged() {
        let bodies = vec![vec![0; 6]; 6];
        let (mut half, _) = half(&bodies);
        half.next(1000);
        half.acknowledge(0..10);
        half.acknowledge(30..40);
        half.acknowledge(50..60);
        let run = |first, last| Unacknowledged {
            stream: StreamId(4),
            first: MessageNumber(first),
            last: MessageNumber(last),
        };
        assert_eq!(half.unacknowledged(StreamId(4)), Some(run(1, 5)));
        half.acknowledge(10..30);
        assert_eq!(half.unacknowledged(StreamId(4)), Some(run(4, 5)));
        half.acknowledge(40..50);
        assert_eq!(half.unacknowledged(StreamId(4)), None);
    }
}
