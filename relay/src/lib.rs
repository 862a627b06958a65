//! The Culvert relay node: passes end-to-end-encrypted frames between peers and reads none of them.
//!
//! # A connection, from the socket on
//!
//! 1. [`listener::Listener::accept`] takes a TCP connection and never waits for anything else: the rest
//!    happens in the connection's own task, under one deadline.
//! 2. The balancer's PROXY header says who it really is ([`culvert_service_kit::proxy_protocol`]), its
//!    source address takes a seat ([`accounts::Accounts`]), TLS wraps it ([`socket::Socket`]).
//! 3. [`http::upgrade`] lets hyper read the request and then takes the raw stream back: from here on there
//!    is only a [`websocket::WebSocket`] on it.
//! 4. [`handshake::admit`] sends a challenge, reads the hello and asks the [`admission::Gate`], which
//!    verifies signature and ticket without asking anybody. The peer becomes a [`link::Link`] of the
//!    [`node::Node`].
//! 5. [`peer::run`] owns it until it ends: a [`reader::Reader`], a writer, and a watch over silence and
//!    expiry, in one task.
//!
//! # A frame, from socket to socket
//!
//! 1. [`reader::Reader::run`] takes what one read of the socket brought into the thread's buffer, at most 32
//!    frames, each unmasked into a buffer of its own size ([`websocket::Decoder`]), and settles counts
//!    ([`ledger::Ledger`]) and limits ([`quota::Bucket`]) once for all of them.
//! 2. A `Send` is forwarded by the 12 bytes of its [`culvert_wire::Header`] alone. The sender must be in
//!    the topic behind the handle: that and the receiver's queue are remembered by this connection
//!    ([`routes::Routes`]), found once in [`topics::Topics`], which is sharded and locked for moments.
//! 3. **Receiver on this node**: the header is replaced where it is ([`websocket::Received::into_message`])
//!    and the message pushed into the receiver's [`outbox::Outbox`]; full or over the sender's share means
//!    refused.
//!    **On another node**: [`bus::Bus::forward`] queues it; the other node's [`bus::Inbox::deliver`] finds
//!    the receiver and pushes it there.
//! 4. Whatever is not taken is a [`culvert_wire::Verdict`], merged with others of its kind in the
//!    sender's own outbox and never dropped.
//! 5. The receiver's writer in [`peer::run`] takes all that is ready from the outbox, urgent classes
//!    first, and writes it at once ([`socket::Sender::poll_send`]).
//!
//! # Around it
//!
//! [`relay::Relay`] opens the ports, serves and drains. Settings become a [`Config`] in [`args`];
//! [`metrics::Metrics`] are all the series. [`bus::redis`] connects the nodes of a cluster, [`bus::memory`]
//! those of one process. [`turns`] lets small frames pass between the turns of bulk.

pub mod accounts;
pub mod admission;
pub mod args;
pub mod budget;
pub mod bus;
pub mod command;
pub mod config;
pub mod handshake;
pub mod http;
pub mod ledger;
pub mod link;
pub mod listener;
pub mod metrics;
pub mod node;
pub mod outbox;
pub mod peer;
pub mod quota;
pub mod reader;
pub mod relay;
pub mod routes;
pub mod socket;
pub mod topics;
pub mod turns;
pub mod websocket;

pub use config::Config;
pub use relay::{Relay, StartError};
