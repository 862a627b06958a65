//! The receiving half of a stream.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes, BytesMut};

use crate::Violation;
use crate::stream::PREFIX;

/// Most pieces that wait for what is missing before them; each costs about 100 bytes of bookkeeping.
pub(crate) const MAX_SEGMENTS: usize = 1024;
/// Up to this size a message is copied out, so that it does not keep a large buffer alive.
const COPY_LIMIT: usize = 16 << 10;

/// Bytes that arrived and were not read: at most the stream window, or one granted message.
pub(crate) struct ReceiveHalf {
    /// Everything from the read edge on without a gap.
    buffer: BytesMut,
    /// Offset after `buffer`.
    next: u64,
    /// Pieces beyond `next`, disjoint.
    segments: BTreeMap<u64, Vec<u8>>,
    /// Credit announced: offset up to which the peer may send.
    limit: u64,
    window: u64,
    /// Size of a message larger than the window for which room was granted, with its prefix.
    grant: Option<u64>,
}

impl ReceiveHalf {
    pub(crate) fn new(window: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            next: 0,
            segments: BTreeMap::new(),
            limit: window as u64,
            window: window as u64,
            grant: None,
        }
    }

    /// Whether bytes of this place can be taken now. `false` means that they are too scattered: what is
    /// missing has to come first.
    pub(crate) fn check(&self, offset: u64, len: usize) -> Result<bool, Violation> {
        if offset + len as u64 > self.limit {
            return Err(Violation::FlowControl);
        }
        Ok(offset <= self.next || self.segments.len() < MAX_SEGMENTS)
    }

    /// Takes bytes that were checked. What is there already is kept.
    pub(crate) fn insert(&mut self, offset: u64, data: &[u8]) {
        if offset > self.next {
            self.keep(offset, data);
            return;
        }
        self.append(offset, data);
        while let Some(entry) = self.segments.first_entry()
            && *entry.key() <= self.next
        {
            let (offset, piece) = entry.remove_entry();
            self.append(offset, &piece);
        }
    }

    /// Appends what is new of `data`, which starts at or below `next`.
    fn append(&mut self, offset: u64, data: &[u8]) {
        let known = usize::try_from(self.next - offset).unwrap_or(usize::MAX);
        let Some(new) = data.get(known..) else { return };
        if self.buffer.capacity() - self.buffer.len() < new.len() {
            // Room for the whole message at once, as far as the peer has credit for it.
            let wanted = self.message_len().unwrap_or(0).min(self.limit - self.read_edge());
            let wanted = usize::try_from(wanted).unwrap_or(0).max(self.buffer.len() + new.len());
            self.buffer.reserve(wanted - self.buffer.len());
        }
        self.buffer.extend_from_slice(new);
        self.next += new.len() as u64;
    }

    /// Keeps what is new of `data`, which starts beyond `next`.
    fn keep(&mut self, offset: u64, data: &[u8]) {
        let mut at = offset;
        let end = offset + data.len() as u64;
        let below = self.segments.range(..=offset).next_back();
        if let Some((&start, piece)) = below {
            at = at.max(start + piece.len() as u64);
        }
        while at < end {
            let stop = self.segments.range(at..end).next().map(|(&s, p)| (s, s + p.len() as u64));
            let (until, resume) = stop.unwrap_or((end, end));
            self.join(at, &data[span(offset, at)..span(offset, until)]);
            at = resume;
        }
    }

    /// Adds a piece that overlaps nothing, to the one before it if they touch.
    fn join(&mut self, at: u64, piece: &[u8]) {
        if piece.is_empty() {
            return;
        }
        if let Some((&start, before)) = self.segments.range_mut(..at).next_back()
            && start + before.len() as u64 == at
        {
            before.extend_from_slice(piece);
        } else {
            self.segments.insert(at, piece.to_vec());
        }
    }

    /// Offset of the first byte that was not read.
    fn read_edge(&self) -> u64 {
        self.next - self.buffer.len() as u64
    }

    /// Size of the first unread message with its prefix, if its prefix is there.
    pub(crate) fn message_len(&self) -> Option<u64> {
        let prefix = self.buffer.first_chunk::<PREFIX>()?;
        Some(PREFIX as u64 + u64::from(u32::from_be_bytes(*prefix)))
    }

    /// Whether a whole message can be read.
    pub(crate) fn is_readable(&self) -> bool {
        self.message_len().is_some_and(|len| len <= self.buffer.len() as u64)
    }

    /// The size of the first message if it needs a grant and has none.
    pub(crate) fn wants_grant(&self) -> Option<u64> {
        self.message_len().filter(|&len| len > self.window && self.grant.is_none())
    }

    /// Gives room for the first message, whatever the window.
    pub(crate) fn grant(&mut self, size: u64) {
        self.grant = Some(size);
    }

    /// Takes the next message, and gives back its grant if it had one.
    pub(crate) fn read(&mut self) -> Option<(Bytes, Option<u64>)> {
        if !self.is_readable() {
            return None;
        }
        let len = usize::try_from(self.message_len()?).ok()?;
        self.buffer.advance(PREFIX);
        let body = len - PREFIX;
        let message = if body <= COPY_LIMIT {
            let message = Bytes::copy_from_slice(&self.buffer[..body]);
            self.buffer.advance(body);
            message
        } else {
            self.buffer.split_to(body).freeze()
        };
        if self.buffer.is_empty() && self.buffer.capacity() > COPY_LIMIT {
            self.buffer = BytesMut::new();
        }
        Some((message, self.grant.take()))
    }

    /// New credit that is worth announcing, which counts as announced from now on: a quarter of the
    /// window, or whatever the first message still needs.
    pub(crate) fn credit(&mut self) -> Option<u64> {
        let edge = self.read_edge();
        let wanted = self.grant.map_or(edge + self.window, |size| edge + size.max(self.window));
        let needed = self.message_len().is_some_and(|len| edge + len > self.limit);
        if wanted <= self.limit || (wanted - self.limit < self.window / 4 && !needed) {
            return None;
        }
        self.limit = wanted;
        Some(wanted)
    }

    /// Bytes held, with an estimate of what keeping them in order costs.
    #[cfg(test)]
    pub(crate) fn footprint(&self) -> usize {
        let pieces = self.segments.values().map(|piece| piece.capacity() + 64).sum::<usize>();
        self.buffer.capacity() + pieces
    }

    /// The credit that was announced last.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }
}

/// Index of `offset` in bytes that start at `start`.
fn span(start: u64, offset: u64) -> usize {
    usize::try_from(offset - start).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(bodies: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for body in bodies {
            bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(body);
        }
        bytes
    }

    proptest! {
        #[test]
        fn messages_come_out_once_and_in_order_however_the_bytes_arrive(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..12),
            pieces in proptest::collection::vec((any::<u16>(), 1usize..50), 0..80),
        ) {
            let bytes = framed(&bodies);
            let mut half = ReceiveHalf::new(1 << 20);
            let mut read = Vec::new();
            // Any pieces first, overlapping as they like; then everything, in pieces of ten.
            let pieces = pieces.iter().map(|&(at, len)| (usize::from(at) % bytes.len(), len));
            for (at, len) in pieces.chain((0..bytes.len()).step_by(10).map(|at| (at, 10))) {
                let data = &bytes[at..bytes.len().min(at + len)];
                prop_assert_eq!(half.check(at as u64, data.len()), Ok(true));
                half.insert(at as u64, data);
                let ends: Vec<_> = half.segments.iter().map(|(&s, p)| (s, s + p.len() as u64)).collect();
                prop_assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0));
                prop_assert!(ends.first().is_none_or(|&(start, _)| start > half.next));
                while let Some((message, _)) = half.read() {
                    read.push(message.to_vec());
                }
            }
            prop_assert_eq!(read, bodies);
            prop_assert!(half.segments.is_empty());
        }
    }

    #[test]
    fn credit_follows_what_was_read() {
        let mut half = ReceiveHalf::new(1000);
        assert_eq!(half.check(0, 1000), Ok(true));
        assert_eq!(half.check(0, 1001), Err(Violation::FlowControl));
        assert_eq!(half.check(1001, 0), Err(Violation::FlowControl));
        half.insert(0, &framed(&[vec![1; 496], vec![2; 496]]));
        assert_eq!(half.credit(), None, "nothing was read");
        assert_eq!(half.read().unwrap().0.len(), 496);
        assert_eq!(half.credit(), Some(1500));
        assert_eq!(half.credit(), None, "announced");
        assert_eq!(half.check(1500, 1), Err(Violation::FlowControl));
    }

    #[test]
    fn a_message_that_needs_more_than_was_announced_gets_it() {
        let mut half = ReceiveHalf::new(1000);
        half.insert(0, &framed(&[vec![1; 96]]));
        half.read();
        assert_eq!(half.credit(), None, "a tenth is not worth a frame");
        half.insert(100, &framed(&[vec![2; 950]])[..900]);
        assert_eq!(half.credit(), Some(1100), "or the message would never be complete");
    }

    #[test]
    fn a_message_larger_than_the_window_waits_for_its_grant() {
        let mut half = ReceiveHalf::new(1000);
        let bytes = framed(&[vec![7; 5000], vec![8; 10]]);
        half.insert(0, &bytes[..1000]);
        assert_eq!((half.wants_grant(), half.credit()), (Some(5004), None));
        half.grant(5004);
        assert_eq!((half.wants_grant(), half.credit()), (None, Some(5004)));
        half.insert(1000, &bytes[1000..5004]);
        let (message, grant) = half.read().unwrap();
        assert_eq!((message.len(), grant), (5000, Some(5004)));
        assert_eq!(half.credit(), Some(6004));
    }

    #[test]
    fn scattered_pieces_are_bounded_and_what_is_missing_always_fits() {
        let mut half = ReceiveHalf::new(1 << 20);
        for n in (1..).map(|n| n * 2) {
            if half.check(n, 1) != Ok(true) {
                break;
            }
            half.insert(n, &[0]);
        }
        assert_eq!(half.segments.len(), MAX_SEGMENTS);
        assert_eq!(half.check(0, 1), Ok(true));
        half.insert(0, &[0; 100]);
        assert!(half.segments.len() < MAX_SEGMENTS);
    }
}
