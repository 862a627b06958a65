//! Peers that speak the wire protocol frame by frame and cost as little as they can.
//!
//! The handshake is the real one, by the wire crate; frames are put together by hand, many to a write.
//! WebSocket messages are masked with zeros, so that masking costs the load nothing; a relay cannot tell and
//! unmasks as always.

mod dial;
mod inbox;
mod peer;

pub use dial::Dialer;
pub use inbox::Inbox;
pub use peer::{LARGE_BUFFER, Peer, SMALL_BUFFER, message};
