//! End-to-end sessions between Culvert peers, without I/O.

pub mod crypto;

mod config;
mod counters;
mod event;
mod frame;
mod handshake;
mod id;
mod identity;
mod keys;
mod packet;
mod range_set;
mod received;
mod recovery;
mod replay;
mod route;
mod session;
mod stream;

pub use config::{Config, MAX_MESSAGE_LIMIT, Rekey};
pub use counters::Counters;
pub use crypto::Rng;
pub use event::{
    CloseReason, Event, Failure, HandshakeFault, Hint, OpenError, SendError, Transmit, Unacknowledged,
    Violation,
};
pub use id::{MessageNumber, PathId, Priority, SessionId, StreamId};
pub use identity::Identity;
pub use packet::{Peek, VERSION, peek};
pub use session::Session;
