//! Streams: ordered channels of whole messages, in both directions.
//!
//! On the wire a stream is bytes with offsets; a message is its length (4 bytes, big-endian) and its
//! bytes. [`send`] and [`receive`] are the two halves, [`set`] keeps all streams of a session and
//! decides whose turn it is.

pub(crate) mod receive;
pub(crate) mod send;
pub(crate) mod set;

/// Bytes of a message's length prefix.
pub(crate) const PREFIX: usize = 4;
