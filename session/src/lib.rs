//! End-to-end sessions between Culvert peers, without I/O.
//!
//! A relay moves datagrams of at most 16 KiB, at most once, in order per pair of connections and class.
//! It may drop them with or without a verdict, and when a peer moves to another node they may be
//! doubled, late or in another order. A [`Session`] makes of that: whole messages, exactly once and in
//! order per stream, between two peers that know each other's identity, readable by nobody else, across
//! any number of connections. What it cannot deliver it names.
//!
//! There is no socket, clock, thread or randomness in here. A driver passes in what arrived, on which
//! path, and what time it is, and takes out datagrams, [`Event`]s and the time of the next timer. That
//! is why the same code runs under tokio, in a browser, and in a simulation that replays a thousand bad
//! networks from their seeds (`tests/session/simulation.rs`).
//!
//! # The life of a message
//!
//! 1. The peers meet. One calls [`Session::initiate`]; the other's driver finds with [`peek`] that an
//!    initiation came and calls [`Session::accept`]. Three messages of Noise XX, with the topic's secret
//!    mixed in where there is one, prove both identities (`handshake.rs`); each application hears
//!    [`Event::Authenticated`] and answers with [`Session::authorize`]. Nothing else flows before both
//!    said yes: [`Event::Established`].
//! 2. [`Session::send`] queues the message on a stream and returns its number, or says
//!    [`SendError::Blocked`] until [`Event::Writable`]. On the wire a stream is bytes with offsets, a
//!    message its length and its bytes (`stream/send.rs`).
//! 3. [`Session::poll_transmit`] fills a packet from the most urgent stream that has the peer's credit,
//!    within the smaller of congestion window and the peer's grant (`stream/set.rs`, `recovery.rs`). The
//!    packet takes a number that was never used and is sealed in place; the number is the nonce, never a
//!    position, so a retransmission is simply another packet (`keys.rs`, `packet.rs`).
//! 4. The relay carries it. A verdict becomes a [`Session::hint`], which speeds up a probe or halves the
//!    window and is otherwise not believed.
//! 5. [`Session::receive`] opens it in place, drops copies (`replay.rs`), and puts the bytes where they
//!    belong (`stream/receive.rs`). An authentic packet with the highest number so far, on another path,
//!    moves the route there (`route.rs`). [`Event::Readable`] tells that a message is whole;
//!    [`Session::read`] takes it, and only that gives the peer credit for more.
//! 6. The acknowledgement goes back (`received.rs`); the sender forgets the bytes and tells
//!    [`Event::Acked`]. What was lost is found by what arrived after it in its class, by a probe, or at
//!    once when the path changed, and goes again in new packets.
//! 7. A connection dies: the driver calls [`Session::set_path`] with the next one, and a resume under
//!    the same keys makes both ends repeat what the dead one swallowed. In the end [`Session::close`]
//!    delivers what was sent and says farewell, or [`Event::Closed`] lists what was not acknowledged.
//!
//! # Driving a session
//!
//! After every call that takes `now`: transmit until `None`, take events until `None`, and sleep until
//! [`Session::next_timeout`]. To find the session of a datagram, [`peek`] at it:
//!
//! - [`Peek::Data`] and [`Peek::Handshake`] name the receiver's [`Session::id`];
//! - [`Peek::Initiation`] belongs to the session that a copy of it created, or to one with the same peer
//!   that is not authenticated yet (both may begin at once, see [`Session::initiate`]); otherwise it may
//!   become a new session. It proves nothing, so bound how many of these wait.
//!
//! Here the driver is a loop, and the carrier a vector:
//!
//! ```
//! use std::time::Duration;
//! use culvert_session::crypto::AwsLc;
//! use culvert_session::{Config, Event, Identity, PathId, Priority, Session};
//! use culvert_wire::TopicId;
//!
//! let topic = TopicId([7; 32]);
//! let alice = Identity::generate(&mut AwsLc);
//! let bob = Identity::generate(&mut AwsLc);
//! let mut config = Config::new(alice.clone(), topic);
//! config.expected_peer = Some(bob.peer_id());
//!
//! let (path, now, mut datagram) = (PathId(1), Duration::ZERO, Vec::new());
//! let mut first = Session::initiate(config, path, now, Box::new(AwsLc));
//! first.poll_transmit(now, &mut datagram).expect("an initiation");
//! let config = Config::new(bob, topic);
//! let mut second = Session::accept(config, &datagram, path, now, Box::new(AwsLc)).expect("a valid one");
//!
//! let mut received = None;
//! while received.is_none() {
//!     while first.poll_transmit(now, &mut datagram).is_some() {
//!         second.receive(now, path, &mut datagram);
//!     }
//!     while second.poll_transmit(now, &mut datagram).is_some() {
//!         first.receive(now, path, &mut datagram);
//!     }
//!     while let Some(event) = first.poll_event() {
//!         match event {
//!             Event::Authenticated { .. } => first.authorize(now, true),
//!             Event::Established => {
//!                 let stream = first.open_stream(Priority::NORMAL)?;
//!                 first.send(stream, "hello".into())?;
//!             }
//!             _ => {}
//!         }
//!     }
//!     while let Some(event) = second.poll_event() {
//!         match event {
//!             Event::Authenticated { peer } => second.authorize(now, peer == alice.peer_id()),
//!             Event::Readable { stream } => received = second.read(stream),
//!             _ => {}
//!         }
//!     }
//! }
//! assert_eq!(received.as_deref(), Some(&b"hello"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a stranger, and a peer, can make it hold
//!
//! A stranger: nothing. What is not authentic is counted in [`Counters`] and forgotten. An initiation
//! costs the session that a driver makes of it at most 8 KiB, for `handshake_timeout` at most.
//!
//! An accepted peer: at most `max_streams` × (2 × `stream_window` + 128 KiB) + 2 × `max_message` of
//! unread bytes, 100 MiB with the defaults, and only while the application does not read; at most 6 MiB of
//! bookkeeping for packets that it never acknowledges. What waits to be sent is bounded by `send_buffer`
//! for each stream. Tests measure these under hostile traffic.

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
