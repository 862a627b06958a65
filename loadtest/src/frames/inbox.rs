//! Bytes from a relay, taken apart into WebSocket messages.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use culvert_wire::Close;
use culvert_wire::limits::MAX_FRAME;
use tokio::io::{AsyncRead, ReadBuf};

use super::error::Ended;
use super::event::Event;
use super::socket::Socket;

/// A WebSocket header of a message of this size.
const HEAD: usize = 4;
/// Opcodes of RFC 6455 with the final bit.
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// What was read from a socket and not yet taken.
pub struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    /// Reads at most so many bytes at once; it grows if a message is larger.
    pub fn new(size: usize) -> Self {
        Self { buffer: vec![0; size], start: 0, end: 0 }
    }

    /// Reads once from the socket.
    pub(super) fn poll_fill(&mut self, socket: &mut Socket, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end == self.buffer.len() && self.end < MAX_FRAME + HEAD {
                self.buffer.resize(MAX_FRAME + HEAD, 0);
            }
        }
        let mut room = ReadBuf::new(&mut self.buffer[self.end..]);
        if room.capacity() == 0 {
            return Poll::Ready(Err(Ended::Nonsense("a message larger than a frame".to_owned())));
        }
        ready!(Pin::new(socket).poll_read(cx, &mut room))?;
        let read = room.filled().len();
        if read == 0 {
            return Poll::Ready(Err(Ended::Cut("the other side ended it".to_owned())));
        }
        self.end += read;
        Poll::Ready(Ok(()))
    }

    /// Everything that was read and not taken.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Takes so many bytes out.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.start += bytes;
    }

    /// Takes the next whole message out, if it is there.
    ///
    /// # Errors
    /// The relay closed the connection, or sent what no relay sends.
    #[inline]
    pub fn message(&mut self) -> Result<Option<&[u8]>, Ended> {
        loop {
            let bytes = &self.buffer[self.start..self.end];
            let (head, len) = match bytes {
                [_, len @ 0..=125, ..] => (2, usize::from(*len)),
                [_, 126, high, low, ..] => (HEAD, usize::from(u16::from_be_bytes([*high, *low]))),
                [_, 127, ..] => return Err(Ended::Nonsense("a message of more than 64 KiB".to_owned())),
                [_, 128..=255, ..] => return Err(Ended::Nonsense("a masked message".to_owned())),
                _ => return Ok(None),
            };
            if bytes.len() < head + len {
                return Ok(None);
            }
            let opcode = bytes[0];
            let from = self.start + head;
            self.start = from + len;
            match opcode {
                BINARY => return Ok(Some(&self.buffer[from..from + len])),
                PING | PONG => {}
                CLOSE => return Err(closed(&self.buffer[from..from + len])),
                other => return Err(Ended::Nonsense(format!("a message that begins with {other:#04x}"))),
            }
        }
    }

    /// Takes the next frame out, if it is there.
    ///
    /// # Errors
    /// As for [`Inbox::message`], or bytes that are no frame.
    #[inline]
    pub fn event(&mut self) -> Result<Option<Event<'_>>, Ended> {
        self.message()?.map(Event::of).transpose()
    }
}

fn closed(body: &[u8]) -> Ended {
    let (code, reason) = match body {
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        // "No status received", RFC 6455 section 7.4.1.
        _ => (1005, &[][..]),
    };
    let reason = String::from_utf8_lossy(reason).into_owned();
    match Close::from_code(code) {
        Some(close) => Ended::Closed { close, reason },
        None => Ended::ClosedOther { code, reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox(bytes: &[u8]) -> Inbox {
        Inbox { buffer: bytes.to_vec(), start: 0, end: bytes.len() }
    }

    #[test]
    fn messages_come_out_one_by_one_and_half_a_message_waits() {
        let mut inbox = inbox(&[0x82, 2, 7, 8, 0x89, 0, 0x82, 126, 0, 1, 9, 0x82, 3, 1]);
        assert_eq!(inbox.message().unwrap(), Some(&[7, 8][..]));
        assert_eq!(inbox.message().unwrap(), Some(&[9][..]), "a ping between is skipped");
        assert_eq!(inbox.message().unwrap(), None);
        assert_eq!(inbox.bytes(), [0x82, 3, 1]);
    }

    #[test]
    fn a_close_says_its_code_and_its_sentence() {
        let mut body = Close::Slow.code().to_be_bytes().to_vec();
        body.extend_from_slice(b"too slow");
        let mut bytes = vec![0x88, u8::try_from(body.len()).unwrap()];
        bytes.extend(body);
        let ended = inbox(&bytes).message().unwrap_err();
        assert_eq!(ended, Ended::Closed { close: Close::Slow, reason: "too slow".into() });
        assert!(ended.to_string().contains("slow (4003): too slow"), "{ended}");
        let other = inbox(&[0x88, 2, 0x03, 0xe9]).message().unwrap_err();
        assert_eq!(other, Ended::ClosedOther { code: 1001, reason: String::new() });
        assert_eq!(
            inbox(&[0x88, 0]).message().unwrap_err(),
            Ended::ClosedOther { code: 1005, reason: String::new() }
        );
    }

    #[test]
    fn what_no_relay_sends_is_an_error() {
        for bytes in [&[0x81, 1, b'a'][..], &[0x82, 127, 0, 0], &[0x82, 0x81, 0, 0, 0, 0, 0]] {
            assert!(matches!(inbox(bytes).message(), Err(Ended::Nonsense(_))), "{bytes:?}");
        }
    }
}
