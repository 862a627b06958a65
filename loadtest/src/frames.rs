//! Peers that speak the wire protocol frame by frame and cost as little as they can.
//!
//! The handshake is the real one, by the wire crate; frames are put together by hand, many to a write.
//! WebSocket messages are masked with zeros, so that masking costs the load nothing; a relay cannot tell and
//! unmasks as always.
//!
//! A [`Dialer`] opens connections, a [`Crew`] counts them and keeps them alive, and a [`Peer`] is one of
//! them: its [`Link`] writes, its [`Inbox`] takes apart what comes. A [`Ring`] holds messages that are
//! stamped in place; [`Books`] say what became of every one of them.

mod books;
mod crew;
mod dial;
mod error;
mod event;
mod inbox;
mod link;
mod message;
mod peer;
mod ring;
mod socket;
mod ticket;
mod timer;

pub use books::{Accounts, Arrival, Books, Track};
pub use crew::Crew;
pub(crate) use crew::{nanos, topic};
pub use dial::Dialer;
pub use error::{ConnectError, Ended};
pub use event::Event;
pub use inbox::Inbox;
pub use link::Link;
pub use message::{OVERHEAD, message, send_message};
pub use peer::{LARGE_BUFFER, Peer, SMALL_BUFFER};
pub use ring::{Ring, STAMP_LEN, Slot, Stamp};
pub use socket::Socket;
pub use ticket::ticket;
pub use timer::{Timer, backoff};
