//! A frame from a relay, read without a copy where there are many of its kind.

use bytes::Bytes;
use culvert_wire::{ConnId, Frame, Handle, Header, Kind, Verdict};

use super::error::Ended;

/// A frame from a relay.
#[derive(Debug)]
pub enum Event<'a> {
    /// A payload from another connection.
    Deliver {
        /// The receiver's own number of the topic.
        handle: Handle,
        /// From whom.
        from: ConnId,
        /// What was sent.
        payload: &'a [u8],
    },
    /// Frames that were not delivered.
    Undeliverable {
        /// To whom they were.
        to: ConnId,
        /// Why not.
        verdict: Verdict,
        /// How many; for a broadcast, how many receivers were missed.
        count: u64,
    },
    /// Any other.
    Other(Frame),
}

impl<'a> Event<'a> {
    #[inline]
    pub(super) fn of(message: &'a [u8]) -> Result<Self, Ended> {
        let (header, body) = Header::split(message).map_err(|error| Ended::Nonsense(error.to_string()))?;
        if header.kind == Kind::Deliver.number() {
            return Ok(Event::Deliver { handle: header.handle, from: header.conn, payload: body });
        }
        let frame = Frame::decode(Bytes::copy_from_slice(message));
        Ok(match frame.map_err(|error| Ended::Nonsense(error.to_string()))? {
            Frame::Undeliverable { to, verdict, count, .. } => {
                Event::Undeliverable { to, verdict, count: count.into() }
            }
            other => Event::Other(other),
        })
    }
}
