//! The inside of a data packet: frames, one after the other.
//!
//! | number | frame | fields |
//! | --- | --- | --- |
//! | 1 | ping | – |
//! | 2 | ack | largest, delay in µs, window, number of further ranges, length of the first range − 1, then (numbers missing − 1, length − 1) downwards |
//! | 3 | accept | largest message, most streams, stream window, window |
//! | 4 | stream | id, priority (1 byte), offset, length, bytes |
//! | 5 | credit | id, offset up to which the stream may be sent |
//! | 6 | resume | – |
//! | 7 | close | code (1 byte) |
//!
//! Numbers are variable-length integers (RFC 9000, section 16), except where a width is given.

use std::time::Duration;

use crate::{Priority, StreamId};

/// Most ranges in one acknowledgement.
pub(crate) const MAX_ACK_RANGES: usize = 32;
/// Longest stream frame without its bytes.
pub(crate) const STREAM_OVERHEAD: usize = 1 + 8 + 1 + 8 + 2;

/// A frame that does not parse; the packet was authentic, so the peer is at fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed;

// Lives on the stack for a moment; boxing its ranges would cost every acknowledgement an allocation.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Frame<'a> {
    /// Answer with an acknowledgement, at once.
    Ping,
    Ack(Ack),
    /// The application accepts the peer; what this end takes.
    Accept(Terms),
    Stream {
        id: StreamId,
        priority: Priority,
        offset: u64,
        data: &'a [u8],
    },
    /// The stream may be sent up to this offset.
    Credit {
        id: StreamId,
        limit: u64,
    },
    /// The sender moved to this path and lost what was under way: send it again.
    Resume,
    Close(CloseCode),
}

/// What one end takes from the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Terms {
    pub(crate) max_message: u64,
    pub(crate) max_streams: u64,
    pub(crate) stream_window: u64,
    pub(crate) window: u64,
}

/// Why the peer ends the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CloseCode {
    Done = 0,
    Rejected = 1,
    Violation = 2,
    Failed = 3,
}

/// Packet numbers that arrived: closed ranges, the highest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ack {
    pub(crate) delay: Duration,
    /// Bytes that the sender of this frame allows to be under way to it.
    pub(crate) window: u64,
    ranges: [(u64, u64); MAX_ACK_RANGES],
    len: usize,
}

impl Ack {
    /// `ranges` are closed, disjoint and descending; there is at least one, at most [`MAX_ACK_RANGES`].
    pub(crate) fn new(delay: Duration, window: u64, ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut ack = Self { delay, window, ranges: [(0, 0); MAX_ACK_RANGES], len: 0 };
        for (slot, range) in ack.ranges.iter_mut().zip(ranges) {
            *slot = range;
            ack.len += 1;
        }
        ack
    }

    pub(crate) fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges[..self.len]
    }
}

impl Frame<'_> {
    /// Appends the frame.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Ping => out.push(1),
            Frame::Ack(ack) => {
                out.push(2);
                let delay = u64::try_from(ack.delay.as_micros()).unwrap_or(MAX_INT).min(MAX_INT);
                let ((low, largest), rest) = (ack.ranges[0], &ack.ranges()[1..]);
                put(out, &[largest, delay, ack.window, rest.len() as u64, largest - low]);
                let mut above = low;
                for &(low, high) in rest {
                    put(out, &[above - high - 2, high - low]);
                    above = low;
                }
            }
            Frame::Accept(terms) => {
                out.push(3);
                put(out, &[terms.max_message, terms.max_streams, terms.stream_window, terms.window]);
            }
            Frame::Stream { id, priority, offset, data } => {
                put_stream_header(out, *id, *priority, *offset, data.len());
                out.extend_from_slice(data);
            }
            Frame::Credit { id, limit } => {
                out.push(5);
                put(out, &[id.0, *limit]);
            }
            Frame::Resume => out.push(6),
            Frame::Close(code) => out.extend_from_slice(&[7, *code as u8]),
        }
    }
}

/// Appends a stream frame up to its bytes, so that these can be copied behind it from the send buffer.
pub(crate) fn put_stream_header(
    out: &mut Vec<u8>,
    id: StreamId,
    priority: Priority,
    offset: u64,
    len: usize,
) {
    out.push(4);
    put(out, &[id.0]);
    out.push(priority.0);
    put(out, &[offset, len as u64]);
}

/// Iterates over the frames of a packet; ends after the first that does not parse.
pub(crate) struct Frames<'a>(&'a [u8]);

impl<'a> Frames<'a> {
    pub(crate) fn new(packet: &'a [u8]) -> Self {
        Self(packet)
    }

    fn frame(&mut self) -> Result<Frame<'a>, Malformed> {
        Ok(match self.byte()? {
            1 => Frame::Ping,
            2 => Frame::Ack(self.ack()?),
            3 => Frame::Accept(Terms {
                max_message: self.int()?,
                max_streams: self.int()?,
                stream_window: self.int()?,
                window: self.int()?,
            }),
            4 => {
                let (id, priority, offset) = (StreamId(self.int()?), Priority(self.byte()?), self.int()?);
                let len = usize::try_from(self.int()?).map_err(|_| Malformed)?;
                let (data, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
                self.0 = rest;
                Frame::Stream { id, priority, offset, data }
            }
            5 => Frame::Credit { id: StreamId(self.int()?), limit: self.int()? },
            6 => Frame::Resume,
            7 => Frame::Close(match self.byte()? {
                0 => CloseCode::Done,
                1 => CloseCode::Rejected,
                2 => CloseCode::Violation,
                _ => CloseCode::Failed,
            }),
            _ => return Err(Malformed),
        })
    }

    fn ack(&mut self) -> Result<Ack, Malformed> {
        let [largest, delay, window, more, first] =
            [self.int()?, self.int()?, self.int()?, self.int()?, self.int()?];
        let more = usize::try_from(more).map_err(|_| Malformed)?;
        if more >= MAX_ACK_RANGES {
            return Err(Malformed);
        }
        let mut ranges = [(0, 0); MAX_ACK_RANGES];
        let mut low = largest.checked_sub(first).ok_or(Malformed)?;
        ranges[0] = (low, largest);
        for range in &mut ranges[1..=more] {
            let high = low.checked_sub(self.int()?.saturating_add(2)).ok_or(Malformed)?;
            low = high.checked_sub(self.int()?).ok_or(Malformed)?;
            *range = (low, high);
        }
        Ok(Ack { delay: Duration::from_micros(delay), window, ranges, len: more + 1 })
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let (&byte, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(byte)
    }

    fn int(&mut self) -> Result<u64, Malformed> {
        let first = *self.0.first().ok_or(Malformed)?;
        let (bytes, rest) = self.0.split_at_checked(1 << (first >> 6)).ok_or(Malformed)?;
        self.0 = rest;
        let value = bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte));
        // The two upper bits are the length.
        Ok(value & (u64::MAX >> (64 - 8 * bytes.len() + 2)))
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let frame = self.frame();
        if frame.is_err() {
            self.0 = &[];
        }
        Some(frame)
    }
}

/// The largest number a variable-length integer holds.
pub(crate) const MAX_INT: u64 = (1 << 62) - 1;

fn put(out: &mut Vec<u8>, values: &[u64]) {
    for &value in values {
        let bytes = value.to_be_bytes();
        let (len, prefix) = match value {
            0..0x40 => (1, 0x00),
            0x40..0x4000 => (2, 0x40),
            0x4000..0x4000_0000 => (4, 0x80),
            _ => (8, 0xc0),
        };
        let start = out.len();
        out.extend_from_slice(&bytes[8 - len..]);
        out[start] |= prefix;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn int() -> impl Strategy<Value = u64> {
        prop_oneof![0u64..300, 0u64..100_000, 0..=MAX_INT]
    }

    fn ack() -> impl Strategy<Value = Ack> {
        let spans = proptest::collection::vec((0u64..1000, 0u64..1000), 0..MAX_ACK_RANGES);
        (0u64..1 << 40, int(), 0u64..1000, spans).prop_map(|(delay, window, first, spans)| {
            let mut high = 1 << 30;
            let mut ranges = vec![(high - first, high)];
            high -= first;
            for (gap, len) in spans {
                high -= gap + 2;
                ranges.push((high - len, high));
                high -= len;
            }
            Ack::new(Duration::from_micros(delay), window, ranges)
        })
    }

    proptest! {
        #[test]
        fn frames_read_back_in_order(
            ack in ack(), id in int(), offset in int(), priority: u8,
            data in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let terms = Terms { max_message: offset, max_streams: id, stream_window: 1, window: id };
            let frames = [
                Frame::Resume,
                Frame::Ack(ack),
                Frame::Accept(terms),
                Frame::Stream { id: StreamId(id), priority: Priority(priority), offset, data: &data },
                Frame::Credit { id: StreamId(id), limit: offset },
                Frame::Ping,
                Frame::Close(CloseCode::Rejected),
            ];
            let mut bytes = Vec::new();
            for frame in &frames {
                let before = bytes.len();
                frame.encode(&mut bytes);
                match frame {
                    Frame::Stream { .. } => prop_assert!(bytes.len() - before <= STREAM_OVERHEAD + data.len()),
                    // Five numbers, then two for each further range: it leaves room for data.
                    Frame::Ack(_) => prop_assert!(bytes.len() - before <= 41 + 31 * 16),
                    _ => {}
                }
            }
            let read: Vec<_> = Frames::new(&bytes).map(|frame| frame.unwrap()).collect();
            prop_assert_eq!(&read[..], &frames[..]);
            for cut in 0..bytes.len() {
                for frame in Frames::new(&bytes[..cut]) {
                    let _ = frame;
                }
            }
        }

        #[test]
        fn any_bytes_end_in_frames_or_a_fault(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let frames: Vec<_> = Frames::new(&bytes).collect();
            prop_assert!(frames.iter().rev().skip(1).all(Result::is_ok));
        }
    }

    #[test]
    fn bytes_are_as_documented() {
        let mut bytes = Vec::new();
        Frame::Ack(Ack::new(Duration::from_micros(100), 65536, [(95, 100), (90, 92), (7, 7)]))
            .encode(&mut bytes);
        assert_eq!(
            bytes,
            [
                2, 0x40, 100, 0x40, 100, 0x80, 1, 0, 0, 2, 5, /* 93, 94 */ 1, 2, /* 8..=89 */ 0x40,
                81, 0
            ]
        );
        let mut bytes = Vec::new();
        let data = b"xyz";
        Frame::Stream { id: StreamId(2), priority: Priority(64), offset: 1 << 32, data }.encode(&mut bytes);
        assert_eq!(bytes, [4, 2, 64, 0xc0, 0, 0, 1, 0, 0, 0, 0, 3, b'x', b'y', b'z']);
    }

    #[test]
    fn ranges_below_zero_and_too_many_ranges_are_malformed() {
        for bytes in [
            &[2, 5, 0, 0, 0, 6][..],
            &[2, 5, 0, 0, 1, 5, 0, 0],
            &[2, 5, 0, 0, 32, 0],
            &[0],
            &[8],
            &[4, 0, 0, 0, 5, 1],
        ] {
            assert_eq!(Frames::new(bytes).last(), Some(Err(Malformed)), "{bytes:?}");
        }
    }
}
