//! Messages that are put together once and stamped in place every time they are sent.

use anyhow::{Result, ensure};
use culvert_wire::{Class, ConnId, Handle, Header, Kind};

use super::message::{OVERHEAD, send_message};

/// What every payload begins with, in bytes: see [`Stamp`].
pub const STAMP_LEN: usize = 16;
/// Bits of the number in a stamp; the sender has the rest of 64.
const NUMBER_BITS: u32 = 48;

/// By what a frame is recognised: who sent it, as which of its flow, and when it was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Its sender's place in the topic.
    pub sender: u16,
    /// From 0, without a hole, in each flow.
    pub number: u64,
    /// Nanoseconds on the stage's clock.
    pub at: u64,
}

impl Stamp {
    /// Reads the stamp of a payload, if it has one.
    #[inline]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let (number, rest) = payload.split_first_chunk()?;
        let (at, _) = rest.split_first_chunk()?;
        let number = u64::from_be_bytes(*number);
        let sender = u16::try_from(number >> NUMBER_BITS).ok()?;
        let number = number & ((1 << NUMBER_BITS) - 1);
        Some(Self { sender, number, at: u64::from_be_bytes(*at) })
    }

    fn write(self, payload: &mut [u8]) {
        let number = u64::from(self.sender) << NUMBER_BITS | self.number;
        payload[..8].copy_from_slice(&number.to_be_bytes());
        payload[8..STAMP_LEN].copy_from_slice(&self.at.to_be_bytes());
    }
}

/// A message to be put into a ring.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// To whom; `None` is everybody in the topic.
    pub to: Option<ConnId>,
    /// The sender's number of the topic.
    pub handle: Handle,
    /// How urgent.
    pub class: Class,
    /// Payload bytes, [`STAMP_LEN`] at least.
    pub size: usize,
    /// Frames of one flow are numbered together; flows count from 0.
    pub flow: usize,
}

/// Messages in the order in which they are sent, again and again.
pub struct Ring {
    sender: u16,
    bytes: Vec<u8>,
    places: Vec<Place>,
    next: usize,
    /// The next number of each flow.
    numbers: Vec<u64>,
}

#[derive(Clone, Copy)]
struct Place {
    end: usize,
    size: usize,
    flow: usize,
}

/// Stamped messages, ready to be written.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The messages.
    pub bytes: &'a [u8],
    /// How many they are.
    pub count: usize,
    /// Their payloads' bytes.
    pub payload: u64,
}

impl Ring {
    /// Puts the messages together; `sender` is the sender's place in the topic.
    ///
    /// # Errors
    /// There are none, or a size is none that a frame can have.
    pub fn new(sender: u16, slots: &[Slot]) -> Result<Self> {
        ensure!(!slots.is_empty(), "a ring without messages");
        let flows = slots.iter().map(|slot| slot.flow).max().unwrap_or_default() + 1;
        let largest = slots.iter().map(|slot| slot.size).max().unwrap_or_default();
        let payload = vec![0x5a; largest];
        let mut bytes = Vec::with_capacity(slots.iter().map(|slot| slot.size + OVERHEAD).sum());
        let mut places = Vec::with_capacity(slots.len());
        for slot in slots {
            ensure!(slot.size >= STAMP_LEN, "a payload needs {STAMP_LEN} bytes for its stamp");
            let kind = if slot.to.is_some() { Kind::Send } else { Kind::Broadcast };
            let header = Header {
                kind: kind.number(),
                class: slot.class,
                broadcast: false,
                handle: slot.handle,
                conn: slot.to.unwrap_or(ConnId::NONE),
            };
            send_message(header, &payload[..slot.size], &mut bytes)?;
            places.push(Place { end: bytes.len(), size: slot.size, flow: slot.flow });
        }
        Ok(Self { sender, bytes, places, next: 0, numbers: vec![0; flows] })
    }

    /// Stamps the next messages: so many, or fewer where the ring starts over.
    #[inline]
    pub fn stamp(&mut self, count: usize, at: u64) -> Batch<'_> {
        let first = self.next;
        let last = self.places.len().min(first + count);
        let mut payload = 0;
        for place in &self.places[first..last] {
            let number = &mut self.numbers[place.flow];
            let stamp = Stamp { sender: self.sender, number: *number, at };
            stamp.write(&mut self.bytes[place.end - place.size..place.end]);
            *number += 1;
            payload += place.size as u64;
        }
        self.next = if last == self.places.len() { 0 } else { last };
        let start = if first == 0 { 0 } else { self.places[first - 1].end };
        let end = if last == 0 { 0 } else { self.places[last - 1].end };
        Batch { bytes: &self.bytes[start..end], count: last - first, payload }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use culvert_wire::Frame;

    use super::*;

    fn slot(flow: usize, size: usize) -> Slot {
        let to = Some(ConnId(100 + flow as u64));
        Slot { to, handle: Handle(3), class: Class::Bulk, size, flow }
    }

    /// The stamps of whole messages with payloads below 110 bytes.
    fn stamps(mut bytes: &[u8]) -> Vec<(ConnId, Stamp)> {
        let mut seen = Vec::new();
        while let [0x82, len, 0, 0, 0, 0, rest @ ..] = bytes {
            let (frame, rest) = rest.split_at(usize::from(len & 0x7f));
            let Frame::Send { to, payload, handle: Handle(3), class: Class::Bulk } =
                Frame::decode(Bytes::copy_from_slice(frame)).unwrap()
            else {
                panic!("{frame:?}")
            };
            seen.push((to, Stamp::read(&payload).unwrap()));
            bytes = rest;
        }
        assert_eq!(bytes, [0; 0]);
        seen
    }

    #[test]
    fn every_flow_is_numbered_without_a_hole_and_the_ring_starts_over() {
        let mut ring = Ring::new(7, &[slot(0, 16), slot(1, 64), slot(0, 20)]).unwrap();
        let batch = ring.stamp(2, 5);
        assert_eq!((batch.count, batch.payload), (2, 80));
        let stamp = |number, at| Stamp { sender: 7, number, at };
        assert_eq!(stamps(batch.bytes), [(ConnId(100), stamp(0, 5)), (ConnId(101), stamp(0, 5))]);
        let batch = ring.stamp(9, 6);
        assert_eq!((batch.count, batch.payload), (1, 20), "up to the end of the ring");
        assert_eq!(stamps(batch.bytes), [(ConnId(100), stamp(1, 6))]);
        let batch = ring.stamp(1, 7);
        assert_eq!(stamps(batch.bytes), [(ConnId(100), stamp(2, 7))]);
    }

    #[test]
    fn a_payload_that_cannot_carry_a_stamp_is_refused() {
        assert!(Ring::new(0, &[slot(0, 15)]).is_err());
        assert_eq!(Stamp::read(&[0; 15]), None);
    }
}
