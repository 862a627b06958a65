//! What a session is told when it begins.

use std::time::Duration;

use culvert_wire::{PeerId, TopicId};
use zeroize::Zeroizing;

use crate::Identity;

/// Largest message that the length prefix and 32-bit targets allow a configuration to ask for: 1 GiB.
pub const MAX_MESSAGE_LIMIT: usize = 1 << 30;

/// Everything that is fixed for a session's life. Start from [`Config::new`] and change fields.
#[derive(Clone)]
pub struct Config {
    /// Who this end is.
    pub identity: Identity,
    /// The topic both ends met in; a session never forms between two topics.
    pub topic: TopicId,
    /// The topic's secret, where there is one: without it the handshake cannot be completed.
    pub psk: Option<Zeroizing<[u8; 32]>>,
    /// The only peer this session may be with, or `None` if the application decides in
    /// [`Session::authorize`](crate::Session::authorize).
    pub expected_peer: Option<PeerId>,
    /// Time for the whole handshake, retransmissions included. Default 20 s.
    pub handshake_timeout: Duration,
    /// Silence of the peer after which the session ends. Default 5 minutes.
    pub peer_timeout: Duration,
    /// Silence after which a ping is sent. Default 15 s, below the idle timeouts of balancers.
    pub keepalive: Duration,
    /// Time a graceful close may take. Default 10 s.
    pub close_timeout: Duration,
    /// Largest message that this end accepts, in bytes, at most [`MAX_MESSAGE_LIMIT`]; the peer learns
    /// it. Default 16 MiB.
    pub max_message: usize,
    /// Most streams that the peer may open. Default 32.
    pub max_streams: u16,
    /// Bytes of one stream that may wait here unread; at least one datagram. Default 1 MiB.
    pub stream_window: usize,
    /// Bytes of one stream that [`Session::send`](crate::Session::send) takes before it says
    /// `Blocked`; a larger message is taken when nothing else waits. Default 1 MiB.
    pub send_buffer: usize,
    /// Bytes that may be under way to this end at first: its share of its queue at the relay. Changed
    /// later by [`Session::set_receive_window`](crate::Session::set_receive_window). Default 512 KiB.
    pub receive_window: usize,
    /// When keys are replaced.
    pub rekey: Rekey,
}

impl Config {
    /// The defaults for one topic, without a secret and for any peer.
    pub fn new(identity: Identity, topic: TopicId) -> Self {
        Self {
            identity,
            topic,
            psk: None,
            expected_peer: None,
            handshake_timeout: Duration::from_secs(20),
            peer_timeout: Duration::from_secs(300),
            keepalive: Duration::from_secs(15),
            close_timeout: Duration::from_secs(10),
            max_message: 16 << 20,
            max_streams: 32,
            stream_window: 1 << 20,
            send_buffer: 1 << 20,
            receive_window: 512 << 10,
            rekey: Rekey::default(),
        }
    }
}

/// Each end replaces the key it seals with as soon as one of these is reached.
#[derive(Clone, Copy, Debug)]
pub struct Rekey {
    /// Packets sealed. Default 2^20.
    pub packets: u64,
    /// Bytes sealed. Default 64 GiB.
    pub bytes: u64,
    /// Age of the key. Default 15 minutes.
    pub age: Duration,
}

impl Default for Rekey {
    fn default() -> Self {
        Self { packets: 1 << 20, bytes: 64 << 30, age: Duration::from_secs(15 * 60) }
    }
}
