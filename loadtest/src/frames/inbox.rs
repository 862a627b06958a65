//! Bytes from a relay, taken apart into WebSocket messages.

use anyhow::{Result, bail, ensure};
use tokio::io::AsyncReadExt;

use super::dial::Io;

/// What was read from a socket and not yet taken.
pub struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    /// Holds at most so many bytes; every message must fit.
    pub fn new(size: usize) -> Self {
        Self { buffer: vec![0; size], start: 0, end: 0 }
    }

    /// Reads once from the socket. Cancel safe.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn fill(&mut self, socket: &mut (dyn Io + 'static)) -> Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        ensure!(self.end < self.buffer.len(), "a message is larger than the buffer");
        let read = socket.read(&mut self.buffer[self.end..]).await?;
        ensure!(read > 0, "the relay closed the connection");
        self.end += read;
        Ok(())
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
    /// The relay ended the connection, or sent what no relay sends.
    pub fn next(&mut self) -> Result<Option<&[u8]>> {
        let bytes = &self.buffer[self.start..self.end];
        let (head, len) = match bytes {
            [_, len @ 0..=125, ..] => (2, usize::from(*len)),
            [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
            [_, 127, ..] => bail!("the relay sent a message of more than 64 KiB"),
            _ => return Ok(None),
        };
        if bytes.len() < head + len {
            return Ok(None);
        }
        ensure!(bytes[0] == 0x82, "the relay sent {:#04x}: {:?}", bytes[0], bytes.get(head..head + len));
        let from = self.start + head;
        self.start = from + len;
        Ok(Some(&self.buffer[from..from + len]))
    }
}
