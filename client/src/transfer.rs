//! Files, folders and streams over one [`Connection`](crate::Connection).
//!
//! The receiver pulls: it asks for pages of the sender's list and for ranges of the files on them, and
//! the sender answers in the order it was asked. So what is in flight is bounded by what was asked for,
//! whoever is slow, and a transfer that broke goes on by asking for what is missing.
//!
//! The life of a file, link by link:
//!
//! 1. [`Offer`] walks the paths and hashes each file once, in the background (`catalogue`); the root
//!    and the tree of hashes under it are BLAKE3's own, in groups of 16 KiB (`tree`).
//! 2. [`Offer::serve`] speaks with one receiver (`serve`); [`receive`] is the other side.
//! 3. A page names paths, sizes and roots. The receiver makes the paths safe (`path`) and opens
//!    `NAME.part` and its journal (`part`, `journal`).
//! 4. A piece (`message`) is at most 128 KiB with its own proof up to the root. It is verified by
//!    itself before it is written, so one wrong group is noticed at once, whatever came before.
//! 5. The complete file is synced and renamed into place, never over another without being told.
//!
//! Standard input has neither size nor root beforehand. It goes as segments, each spooled, hashed and
//! listed like a file; the sender forgets a segment when the receiver has it on its disk.
//!
//! Memory does not grow with files, folders or what the peer says: lists are kept in temporary files
//! page by page, and every count and length in a message has a limit.

mod catalogue;
mod journal;
mod line;
mod message;
mod offer;
mod part;
mod path;
mod progress;
mod ranges;
mod receive;
mod serve;
mod tree;
mod walk;

#[cfg(test)]
mod tests;

pub use message::{GoneReason, MAX_MESSAGE, PIECE, StopReason};
pub use offer::{Offer, OfferError, OfferOptions};
pub use progress::{Event, Progress, ignore};
pub use receive::{Problem, ReceiveError, ReceiveOptions, Received, receive};
pub use serve::{SendError, Served};
