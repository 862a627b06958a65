//! Bytes of a client to messages, however the bytes are cut.
//!
//! It holds at most one message that is incomplete, of at most [`MAX_FRAME`] bytes, in memory that grows
//! with what has really come.

use culvert_wire::Close;
use culvert_wire::limits::MAX_FRAME;

use super::mask;
use super::message::{HEADROOM, Received};

/// The longest header of a client: two bytes, a 64-bit length, a mask.
const MOST_HEADER: usize = 14;
/// The longest content of a ping, pong or close (RFC 6455 section 5.5).
const MOST_CONTROL: u64 = 125;

/// What came from a client.
#[derive(Debug)]
pub enum Event {
    /// A complete binary message.
    Message(Received),
    /// A part of a binary message, with more to come.
    Part,
    /// To be answered with the same content.
    Ping(Vec<u8>),
    /// The answer to a ping, or an unasked one.
    Pong,
    /// The client is done.
    Close,
}

/// Why bytes of a client are no messages that this relay takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A message of more than [`MAX_FRAME`] bytes.
    TooLarge,
    /// Anything but masked binary messages and control frames by RFC 6455 without extensions.
    Protocol,
}

impl From<Violation> for Close {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::TooLarge => Close::TooLarge,
            Violation::Protocol => Close::Protocol,
        }
    }
}

/// What is known of one client's bytes so far.
#[derive(Default)]
pub struct Decoder {
    /// The beginning of a header.
    head: [u8; MOST_HEADER],
    head_len: usize,
    /// The frame whose content is coming.
    frame: Option<Frame>,
    /// The content of the message so far, behind its headroom.
    message: Vec<u8>,
    /// Whether `message` has parts that are complete, so that only its continuation may follow.
    parts: bool,
    /// The content of a control frame so far.
    control: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Frame {
    kind: Kind,
    /// The mask of the next byte first.
    mask: [u8; 4],
    left: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data { last: bool },
    Ping,
    Pong,
    Close,
}

impl Decoder {
    /// Takes bytes from the front of `input` up to the end of the next event. `None` takes all of them.
    ///
    /// # Errors
    /// See [`Violation`]; nothing may be asked after that.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Event>, Violation> {
        let mut frame = match self.frame.take() {
            Some(frame) => frame,
            None => match self.header(input)? {
                Some(frame) => frame,
                None => return Ok(None),
            },
        };
        let (now, rest) = input.split_at(frame.left.min(input.len()));
        *input = rest;
        let content = match frame.kind {
            Kind::Data { .. } => {
                make_room(&mut self.message, self.parts, now.len(), frame.left);
                &mut self.message
            }
            Kind::Ping | Kind::Pong | Kind::Close => &mut self.control,
        };
        let start = content.len();
        content.extend_from_slice(now);
        mask::apply(&mut content[start..], frame.mask);
        frame.left -= now.len();
        if frame.left > 0 {
            frame.mask.rotate_left(now.len() % 4);
            self.frame = Some(frame);
            return Ok(None);
        }
        Ok(Some(match frame.kind {
            Kind::Data { last: false } => {
                self.parts = true;
                Event::Part
            }
            Kind::Data { last: true } => {
                self.parts = false;
                Event::Message(Received::new(std::mem::take(&mut self.message)))
            }
            Kind::Ping => Event::Ping(std::mem::take(&mut self.control)),
            Kind::Pong => {
                self.control = Vec::new();
                Event::Pong
            }
            // The code and reason are the client's own business; a single byte is neither.
            Kind::Close if self.control.len() == 1 => return Err(Violation::Protocol),
            Kind::Close => Event::Close,
        }))
    }

    /// Reads a header, over as many inputs as it takes.
    fn header(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, Violation> {
        if self.head_len == 0
            && let Some((frame, len)) = self.parse(input)?
        {
            *input = &input[len..];
            return Ok(Some(frame));
        }
        let before = self.head_len;
        let more = input.len().min(MOST_HEADER - before);
        self.head[before..before + more].copy_from_slice(&input[..more]);
        self.head_len += more;
        let head = self.head;
        let parsed = self.parse(&head[..self.head_len])?;
        let used = match &parsed {
            Some((_, len)) => {
                self.head_len = 0;
                len - before
            }
            None => more,
        };
        *input = &input[used..];
        Ok(parsed.map(|(frame, _)| frame))
    }

    /// A header at the front of `bytes`, and its length; `None` if they end before it does.
    fn parse(&self, bytes: &[u8]) -> Result<Option<(Frame, usize)>, Violation> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        // The client must mask, and there are no extensions that would use the reserved bits.
        if first & 0x70 != 0 || second & 0x80 == 0 {
            return Err(Violation::Protocol);
        }
        let (len, rest) = match second & 0x7f {
            126 => match rest.split_first_chunk() {
                Some((len, rest)) => (u64::from(u16::from_be_bytes(*len)), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk() {
                Some((len, rest)) => (u64::from_be_bytes(*len), rest),
                None => return Ok(None),
            },
            len => (u64::from(len), rest),
        };
        let Some((mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
        let last = first & 0x80 != 0;
        let kind = match first & 0x0f {
            0 if self.parts => Kind::Data { last },
            2 if !self.parts => Kind::Data { last },
            8 if last && len <= MOST_CONTROL => Kind::Close,
            9 if last && len <= MOST_CONTROL => Kind::Ping,
            10 if last && len <= MOST_CONTROL => Kind::Pong,
            // Text, continuations of nothing, messages within messages, opcodes that do not exist.
            _ => return Err(Violation::Protocol),
        };
        let left = usize::try_from(len).unwrap_or(usize::MAX);
        if matches!(kind, Kind::Data { .. })
            && left > (HEADROOM + MAX_FRAME).saturating_sub(self.message.len().max(HEADROOM))
        {
            return Err(Violation::TooLarge);
        }
        Ok(Some((Frame { kind, mask: *mask, left }, bytes.len() - rest.len())))
    }
}

/// Makes room for `now` bytes, of `left` that the frame still has. Exactly as much as the message needs if
/// a good part of it is there, and less than that if not: a mere header allocates nothing.
fn make_room(message: &mut Vec<u8>, parts: bool, now: usize, left: usize) {
    if message.is_empty() && !parts {
        let there = HEADROOM + now;
        let whole = HEADROOM + left;
        message.reserve_exact(if 4 * there >= whole { whole } else { there });
        message.extend_from_slice(&[0; HEADROOM]);
    } else if message.capacity() - message.len() < now {
        let whole = message.len() + left;
        let twice = 2 * message.capacity().max(message.len() + now);
        // The parts of a message may be tiny and many: there, memory grows by half at least.
        let room = if parts { twice } else { twice.min(whole) };
        message.reserve_exact(room - message.len());
    }
}

#[cfg(test)]
mod tests;
