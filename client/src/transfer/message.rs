//! What the two sides say: small control messages in JSON, pieces of data in binary.
//!
//! The first byte tells them apart. A control message is at most [`MAX_CONTROL`] bytes, a piece at most
//! [`MAX_MESSAGE`]; every list in one has a limit that [`decode`] enforces, so a hostile peer cannot
//! make the other side hold more than a page.

use serde::{Deserialize, Serialize};

use super::tree::{GROUP, MAX_SIZE, Root};

/// Most bytes of content in one piece: eight groups, of which the proof adds about one hundredth.
pub const PIECE: u64 = 128 * 1024;
/// Longest message of this protocol in bytes; a transport must carry it.
pub const MAX_MESSAGE: usize = 160 * 1024;

/// Version of the transfer protocol.
pub(super) const VERSION: u16 = 1;
/// Longest control message in bytes.
pub(super) const MAX_CONTROL: usize = 64 * 1024;
/// Most entries on one page.
pub(super) const MAX_PAGE: usize = 256;
/// Bytes of JSON after which a page is closed; well under [`MAX_CONTROL`].
pub(super) const PAGE_BYTES: usize = 40 * 1024;
/// Most ranges in one [`Control::Want`].
pub(super) const MAX_RANGES: usize = 128;
/// Most bytes that one range asks for.
pub(super) const MAX_RANGE: u64 = 1024 * 1024;
/// Most entries of one offer; a receiver's disk should not be filled with inodes by one link.
pub(super) const MAX_ENTRIES: u64 = 10_000_000;

const CONTROL: u8 = 0;
const DATA: u8 = 1;
const DATA_HEADER: usize = 1 + 8 + 8;

// A piece, its header and the longest proof (50 levels, two hashes each) fit.
const _: () = assert!(DATA_HEADER as u64 + PIECE + (PIECE / GROUP + 50) * 64 <= MAX_MESSAGE as u64);

/// One thing on the sender's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "k", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Entry {
    /// A folder, listed so that empty ones arrive too.
    Folder {
        /// Its components, as the sender names them.
        path: Vec<String>,
    },
    /// A file.
    File {
        /// Its components, as the sender names them.
        path: Vec<String>,
        /// Bytes.
        size: u64,
        /// BLAKE3 of its content.
        root: Root,
        /// Whether its owner may execute it.
        #[serde(default, rename = "x", skip_serializing_if = "std::ops::Not::not")]
        executable: bool,
        /// When it was changed last, nanoseconds since 1970.
        #[serde(default, rename = "m", skip_serializing_if = "Option::is_none")]
        modified: Option<u64>,
    },
    /// The next part of a stream.
    Segment {
        /// Bytes.
        size: u64,
        /// BLAKE3 of this segment.
        root: Root,
    },
    /// Something that the sender could not read.
    Missing {
        /// Its components, as the sender names them.
        path: Vec<String>,
        /// Why.
        reason: GoneReason,
    },
}

/// Why the sender cannot give a file that it has listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoneReason {
    /// It is not what it was when it was hashed.
    Changed,
    /// It cannot be read.
    Unreadable,
    /// It is a segment that the receiver had confirmed and the sender has forgotten.
    Forgotten,
}

impl std::fmt::Display for GoneReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            GoneReason::Changed => "it changed while it was being sent",
            GoneReason::Unreadable => "the sender cannot read it",
            GoneReason::Forgotten => "the sender no longer has that part of the stream",
        })
    }
}

/// Why one side ends a transfer that is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Someone pressed Ctrl-C, or the process is ending.
    Cancelled,
    /// The receiver's disk takes no more.
    DiskFull,
    /// The receiver cannot write for another reason.
    CannotWrite,
    /// What arrived does not match its hash.
    BadData,
    /// A message that the protocol does not allow.
    Protocol,
    /// The two sides speak different versions of the protocol.
    Version,
    /// The sender cannot read what it offered.
    CannotRead,
}

impl std::fmt::Display for StopReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            StopReason::Cancelled => "it was cancelled there",
            StopReason::DiskFull => "the disk there is full",
            StopReason::CannotWrite => "it cannot write there",
            StopReason::BadData => "what arrived there did not match its checksum",
            StopReason::Protocol => "it did not understand what it was told",
            StopReason::Version => {
                "it speaks another version of the transfer protocol: update the older side"
            }
            StopReason::CannotRead => "it cannot read what it offered",
        })
    }
}

/// A range of one entry that the receiver asks for; `start` is on a group's edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Range {
    /// Number of the entry on the list.
    #[serde(rename = "e")]
    pub(super) entry: u64,
    #[serde(rename = "s")]
    pub(super) start: u64,
    #[serde(rename = "n")]
    pub(super) end: u64,
}

/// Everything that is said in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub(super) enum Control {
    /// Receiver: begins.
    Hello { version: u16 },
    /// Sender: what there is. For a stream, which has no size yet, both counts are 0.
    Offer { version: u16, id: Root, name: String, stream: bool, entries: u64, bytes: u64 },
    /// Receiver: send the page that begins with this entry.
    Page { from: u64 },
    /// Sender: the page is not hashed yet; bytes hashed and bytes to hash.
    Preparing { done: u64, total: u64 },
    /// Sender: a page, and whether more follow.
    Entries { first: u64, entries: Vec<Entry>, more: bool },
    /// Receiver: send these ranges, in this order; `have` bytes are on its disk already.
    Want { ranges: Vec<Range>, have: u64 },
    /// Sender: drops every range of this entry that it was asked for.
    Gone { entry: u64, reason: GoneReason },
    /// Receiver: the entries before this one are on its disk for good.
    Kept { entries: u64, have: u64 },
    /// Receiver: has all it wanted; how many entries it kept and how many it could not.
    Done { kept: u64, left: u64, have: u64 },
    /// Either: ends without being complete.
    Stop { reason: StopReason },
}

/// One message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    Control(Control),
    Piece(Piece<'a>),
}

/// Content of one entry with its proof; see [`super::tree::verify`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    pub(super) entry: u64,
    pub(super) offset: u64,
    pub(super) encoded: &'a [u8],
}

/// A message that the protocol does not allow.
#[derive(Debug, thiserror::Error)]
pub(super) enum MessageError {
    #[error("a message of {0} bytes is too long")]
    TooLong(usize),
    #[error("an unknown kind of message")]
    Kind,
    #[error("a control message does not parse")]
    Control(#[source] serde_json::Error),
    #[error("a list in a message is too long")]
    List,
    #[error("a range is empty, too long or not on a group's edge")]
    Range,
    #[error("an entry is larger than a file may be")]
    Size,
}

/// The bytes of a control message.
pub(super) fn encode(control: &Control) -> Vec<u8> {
    let mut out = vec![CONTROL];
    serde_json::to_writer(&mut out, control).expect("maps with string keys always serialise");
    out
}

/// The bytes before a piece's content and proof.
pub(super) fn piece_header(entry: u64, offset: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(MAX_MESSAGE);
    out.push(DATA);
    out.extend_from_slice(&entry.to_be_bytes());
    out.extend_from_slice(&offset.to_be_bytes());
    out
}

/// Reads what a stranger sent.
pub(super) fn decode(bytes: &[u8]) -> Result<Message<'_>, MessageError> {
    match bytes.split_first() {
        Some((&CONTROL, body)) if body.len() <= MAX_CONTROL => {
            let control = serde_json::from_slice(body).map_err(MessageError::Control)?;
            check(&control)?;
            Ok(Message::Control(control))
        }
        Some((&DATA, body)) if bytes.len() <= MAX_MESSAGE => {
            let (entry, body) = body.split_first_chunk().ok_or(MessageError::Kind)?;
            let (offset, encoded) = body.split_first_chunk().ok_or(MessageError::Kind)?;
            Ok(Message::Piece(Piece {
                entry: u64::from_be_bytes(*entry),
                offset: u64::from_be_bytes(*offset),
                encoded,
            }))
        }
        Some((&(CONTROL | DATA), _)) => Err(MessageError::TooLong(bytes.len())),
        _ => Err(MessageError::Kind),
    }
}

fn check(control: &Control) -> Result<(), MessageError> {
    match control {
        Control::Entries { entries, .. } => {
            if entries.len() > MAX_PAGE {
                return Err(MessageError::List);
            }
            let oversized = |entry: &Entry| match entry {
                Entry::File { size, .. } | Entry::Segment { size, .. } => *size > MAX_SIZE,
                Entry::Folder { .. } | Entry::Missing { .. } => false,
            };
            if entries.iter().any(oversized) { Err(MessageError::Size) } else { Ok(()) }
        }
        Control::Want { ranges, .. } => {
            if ranges.len() > MAX_RANGES {
                return Err(MessageError::List);
            }
            let wrong =
                |r: &Range| r.start >= r.end || r.end - r.start > MAX_RANGE || !r.start.is_multiple_of(GROUP);
            if ranges.iter().any(wrong) { Err(MessageError::Range) } else { Ok(()) }
        }
        Control::Offer { entries, bytes, .. } if *entries > MAX_ENTRIES || *bytes > MAX_SIZE => {
            Err(MessageError::Size)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_reads_back() {
        let control = Control::Want { ranges: vec![Range { entry: 3, start: 0, end: 9 }], have: 1 };
        assert_eq!(decode(&encode(&control)).unwrap(), Message::Control(control));
        let mut piece = piece_header(7, 16384);
        piece.extend_from_slice(b"data");
        let Message::Piece(read) = decode(&piece).unwrap() else { panic!("not a piece") };
        assert_eq!((read.entry, read.offset, read.encoded), (7, 16384, &b"data"[..]));
    }

    #[test]
    fn lists_and_numbers_beyond_the_limits_are_refused() {
        let range = Range { entry: 0, start: 0, end: 1 };
        let many = Control::Want { ranges: vec![range; MAX_RANGES + 1], have: 0 };
        assert!(matches!(decode(&encode(&many)), Err(MessageError::List)));
        for range in [
            Range { entry: 0, start: 5, end: 4 },
            Range { entry: 0, start: 1, end: 4 },
            Range { entry: 0, start: 0, end: MAX_RANGE + 1 },
        ] {
            let control = Control::Want { ranges: vec![range], have: 0 };
            assert!(matches!(decode(&encode(&control)), Err(MessageError::Range)));
        }
        let huge = Entry::Segment { size: MAX_SIZE + 1, root: Root([0; 32]) };
        let page = Control::Entries { first: 0, entries: vec![huge], more: false };
        assert!(matches!(decode(&encode(&page)), Err(MessageError::Size)));
        let folder = Entry::Folder { path: vec![] };
        let page = Control::Entries { first: 0, entries: vec![folder; MAX_PAGE + 1], more: false };
        assert!(matches!(decode(&encode(&page)), Err(MessageError::List)));
        assert!(matches!(decode(&vec![DATA; MAX_MESSAGE + 1]), Err(MessageError::TooLong(_))));
        assert!(matches!(decode(&vec![CONTROL; MAX_CONTROL + 2]), Err(MessageError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }
}
