//! Messages as a server writes them and as it has read them: header and content in one buffer.
//!
//! A received message has room in front for the header of the message that it becomes: a `Send` is turned
//! into a `Deliver` where it is, and what was read is copied once on its way through the relay.

use bytes::Bytes;
use culvert_wire::Header;
use culvert_wire::limits::{HEADER_LEN, MAX_FRAME};

/// Room for the header of any message a server writes: two bytes, and two more for a 16-bit length.
pub(super) const HEADROOM: usize = 4;

/// Content from here on has its length in 16 bits (RFC 6455 section 5.2).
const LONG: usize = 126;

const _: () = assert!(MAX_FRAME <= u16::MAX as usize);

/// The opcodes of RFC 6455 section 5.2, with the bit for the final fragment.
#[derive(Clone, Copy)]
#[repr(u8)]
enum First {
    Binary = 0x82,
    Close = 0x88,
    Pong = 0x8a,
}

/// A message that a server writes. Messages are never fragmented.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Message(Box<[u8]>);

/// A complete binary message from a client, unmasked.
#[derive(Debug)]
pub struct Received(Vec<u8>);

impl Message {
    /// A binary message with this content, at most [`MAX_FRAME`] bytes.
    pub fn binary(frame: &[u8]) -> Self {
        Self::new(First::Binary, &[frame])
    }

    /// A binary message with a frame of these two parts.
    pub fn of_frame(header: Header, payload: &[u8]) -> Self {
        Self::new(First::Binary, &[&header.to_bytes(), payload])
    }

    /// The answer to a ping.
    pub fn pong(content: &[u8]) -> Self {
        Self::new(First::Pong, &[content])
    }

    /// The end, with a code and a reason of at most 123 bytes.
    pub fn close(code: u16, reason: &str) -> Self {
        Self::new(First::Close, &[&code.to_be_bytes(), reason.as_bytes()])
    }

    fn new(first: First, parts: &[&[u8]]) -> Self {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let mut buffer = Vec::with_capacity(HEADROOM + len);
        buffer.extend_from_slice(&[0; HEADROOM]);
        parts.iter().for_each(|part| buffer.extend_from_slice(part));
        Self::around(first, buffer)
    }

    /// Writes the header into the headroom.
    fn around(first: First, mut buffer: Vec<u8>) -> Self {
        let len = buffer.len() - HEADROOM;
        if len < LONG {
            buffer[2] = first as u8;
            buffer[3] = u8::try_from(len).unwrap_or(u8::MAX);
        } else {
            buffer[0] = first as u8;
            buffer[1] = 126;
            buffer[2..4].copy_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
        }
        Self(buffer.into_boxed_slice())
    }

    /// What is written to the socket.
    pub fn wire(&self) -> &[u8] {
        if self.0.len() < HEADROOM + LONG { self.0.get(2..).unwrap_or_default() } else { &self.0 }
    }

    /// The content.
    pub fn frame(&self) -> &[u8] {
        self.0.get(HEADROOM..).unwrap_or_default()
    }
}

impl Received {
    /// A message whose buffer begins with [`HEADROOM`].
    pub(super) fn new(buffer: Vec<u8>) -> Self {
        Self(buffer)
    }

    /// The frame in it.
    pub fn frame(&self) -> &[u8] {
        self.0.get(HEADROOM..).unwrap_or_default()
    }

    /// The frame in it, to be decoded.
    pub fn into_frame(self) -> Bytes {
        let bytes = Bytes::from(self.0);
        if bytes.is_empty() { bytes } else { bytes.slice(HEADROOM..) }
    }

    /// The same frame under another header, ready to be written; it must have one.
    pub fn into_message(mut self, header: Header) -> Message {
        if let Some(old) = self.0.get_mut(HEADROOM..HEADROOM + HEADER_LEN) {
            old.copy_from_slice(&header.to_bytes());
        }
        Message::around(First::Binary, self.0)
    }
}

#[cfg(test)]
mod tests {
    use culvert_wire::{Class, ConnId, Handle, Kind};

    use super::*;

    fn header(conn: u64) -> Header {
        let kind = Kind::Deliver.number();
        Header { kind, class: Class::Normal, broadcast: false, handle: Handle(3), conn: ConnId(conn) }
    }

    #[test]
    fn headers_are_those_of_rfc_6455() {
        assert_eq!(Message::binary(b"").wire(), b"\x82\x00");
        assert_eq!(Message::binary(&[7; 125]).wire()[..3], [0x82, 125, 7]);
        assert_eq!(Message::binary(&[7; 126]).wire()[..5], [0x82, 126, 0, 126, 7]);
        assert_eq!(Message::binary(&[7; MAX_FRAME]).wire()[..5], [0x82, 126, 0x40, 0x0c, 7]);
        assert_eq!(Message::pong(b"abc").wire(), b"\x8a\x03abc");
        assert_eq!(Message::close(4000, "bye").wire(), b"\x88\x05\x0f\xa0bye");
    }

    #[test]
    fn a_received_frame_becomes_another_where_it_is() {
        for payload in [&b""[..], &[5; 113], &[5; 114], &[5; 16_384]] {
            let mut buffer = vec![0; HEADROOM];
            buffer.extend_from_slice(&header(1).to_bytes());
            buffer.extend_from_slice(payload);
            buffer.shrink_to_fit();
            let place = buffer.as_ptr();
            let message = Received::new(buffer).into_message(header(2));
            assert_eq!(message, Message::of_frame(header(2), payload));
            assert_eq!(message.frame().as_ptr(), place.wrapping_add(HEADROOM));
        }
    }
}
