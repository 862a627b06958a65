//! Protocol v1 between a peer and a Culvert relay.
//!
//! One WebSocket binary message carries one [`Frame`]: a 12-byte [`Header`] and a body. The path is
//! [`PATH`], the subprotocol [`SUBPROTOCOL`]. The specification in prose is `docs/protocol.md`; its
//! tables are checked against this crate.
//!
//! This crate does no I/O and holds no state. It answers four questions:
//!
//! - what bytes a frame is: [`frame`], [`codec`], with the numbers in [`Kind`] and [`limits`];
//! - who is meant: the newtypes in [`id`];
//! - who may come in: [`hello`] (what is signed) and [`ticket`] (what a ticket claims);
//! - why a connection ended: [`Close`].

pub mod close;
pub mod codec;
pub mod frame;
pub mod hello;
pub mod id;
pub mod limits;
pub mod ticket;

pub use close::Close;
pub use codec::DecodeError;
pub use frame::{Class, Frame, Header, JoinRefusal, Kind, Member, Members, Notice, Verdict};
pub use hello::{Admission, Challenge, Hello, Transcript, Welcome};
pub use id::{ConnId, Generation, Handle, NodeId, PeerId, TopicId};

/// Version of the protocol this crate speaks.
pub const VERSION: u16 = 1;
/// Versions that a relay of this build accepts, newest first.
pub const VERSIONS: &[u16] = &[VERSION];
/// Request path of the WebSocket upgrade.
pub const PATH: &str = "/v1/relay";
/// `Sec-WebSocket-Protocol` that both sides must agree on.
pub const SUBPROTOCOL: &str = "culvert.relay.v1";
