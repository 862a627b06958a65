//! Every fixed limit of the wire, with its unit and its reason.
//!
//! Limits that an operator may set (queues, rates, topics a connection) are settings of the relay and
//! are announced in [`crate::Welcome`]; the numbers here are part of the protocol and never change
//! within a version.

/// Bytes in front of every frame's body.
pub const HEADER_LEN: usize = 12;

/// Most payload bytes in one `Send`, `Broadcast` or `Deliver`, and most padding in a `Ping`.
///
/// 16 KiB is one TLS record, is copied faster than it is reference-counted, and is the largest frame
/// that proxies which re-frame WebSocket are known to pass whole.
pub const MAX_PAYLOAD: usize = 16 * 1024;

/// Largest frame, header included: the limit given to the WebSocket codec on both sides.
pub const MAX_FRAME: usize = HEADER_LEN + MAX_PAYLOAD;

/// Bytes of one member entry in `Joined` and `Peers`: connection, peer, generation.
pub const MEMBER_LEN: usize = 8 + 32 + 8;

/// Most members in one `Joined` or `Peers`. A larger topic is sampled and its total size stated.
pub const MAX_MEMBERS: usize = 256;

/// Longest admission ticket in bytes; a JWT with 32 topics is about 3 KiB.
pub const MAX_TICKET: usize = 4096;

/// Longest invitation in bytes; it names one topic.
pub const MAX_INVITATION: usize = 1024;

/// Longest host name in a `Hello` in bytes: 253 for a DNS name, one for a final dot, one spare.
pub const MAX_HOST: usize = 255;

/// Most versions in a `Challenge`.
pub const MAX_VERSIONS: usize = 16;

/// Longest UTF-8 reason in a WebSocket close frame, by RFC 6455 section 5.5.
pub const MAX_CLOSE_REASON: usize = 123;

// A full member list, a hello with the longest admission and the longest host all fit one frame.
const _: () = assert!(HEADER_LEN + 32 + 8 + MAX_MEMBERS * MEMBER_LEN <= MAX_FRAME);
const _: () = assert!(HEADER_LEN + 160 + MAX_HOST + MAX_TICKET + MAX_INVITATION <= MAX_FRAME);
