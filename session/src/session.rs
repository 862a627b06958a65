//! The session itself.

use std::time::Duration;

use bytes::Bytes;
use culvert_wire::PeerId;

use crate::{
    Config, Counters, Event, Failure, Hint, MessageNumber, OpenError, PathId, Peek, Priority, Rng, SendError,
    SessionId, StreamId, Transmit, peek,
};

/// One end of an end-to-end session; see the crate's front page for how to drive it.
///
/// `now` is the time since any origin the driver chose, the same in every call, never going back.
pub struct Session {
    config: Config,
    rng: Box<dyn Rng>,
}

impl Session {
    /// Begins a handshake on `path`: the session has an initiation to transmit.
    pub fn initiate(config: Config, path: PathId, now: Duration, rng: Box<dyn Rng>) -> Self {
        let _ = (path, now);
        Self { config, rng }
    }

    /// Answers an initiation that arrived on `path`; `None` if `datagram` is not a valid one.
    ///
    /// Costs three X25519 operations and at most 4 KiB until the peer has proved itself or
    /// `handshake_timeout` is over, so a driver limits how many it holds. An initiation proves nothing:
    /// a replayed one leads to a session that ends unauthenticated.
    pub fn accept(
        config: Config,
        datagram: &[u8],
        path: PathId,
        now: Duration,
        rng: Box<dyn Rng>,
    ) -> Option<Self> {
        let _ = (path, now);
        matches!(peek(datagram)?, Peek::Initiation { .. }).then_some(Self { config, rng })
    }

    /// The name in datagrams for this session; unique at this end as far as random numbers are.
    pub fn id(&self) -> SessionId {
        SessionId(1)
    }

    /// The authenticated peer, from [`Event::Authenticated`] on.
    pub fn peer(&self) -> Option<PeerId> {
        self.config.expected_peer
    }

    /// The handshake's hash, the same at both ends and nowhere else, from [`Event::Authenticated`] on.
    pub fn channel_binding(&self) -> Option<[u8; 32]> {
        None
    }

    /// Takes a datagram that arrived on `path`; it is decrypted in place.
    ///
    /// Whatever is not authentic is counted and has no other effect.
    pub fn receive(&mut self, now: Duration, path: PathId, datagram: &mut [u8]) {
        let _ = (now, path, datagram);
    }

    /// Writes the next datagram into `out`, which is cleared first; `None` if there is none now.
    ///
    /// Call until `None` after every other call.
    pub fn poll_transmit(&mut self, now: Duration, out: &mut Vec<u8>) -> Option<Transmit> {
        let _ = (now, out, &mut self.rng);
        None
    }

    /// The next event. At most a few per stream wait at any time.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// When [`Session::handle_timeout`] wants to be called; `None` if nothing is awaited.
    pub fn next_timeout(&self) -> Option<Duration> {
        None
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Duration) {
        let _ = now;
    }

    /// Answers [`Event::Authenticated`]: whether this application talks to that peer.
    pub fn authorize(&mut self, now: Duration, accept: bool) {
        let _ = (now, accept);
    }

    /// Opens a stream; the peer sees it with its first message.
    pub fn open_stream(&mut self, priority: Priority) -> Result<StreamId, OpenError> {
        let _ = priority;
        Err(OpenError::NotOpen)
    }

    /// Queues a whole message. It is delivered once and in its stream's order, or named in
    /// [`Event::Closed`].
    pub fn send(&mut self, stream: StreamId, message: Bytes) -> Result<MessageNumber, SendError> {
        let _ = (stream, message);
        Err(SendError::NotOpen)
    }

    /// Takes the next whole message of a stream; taking it gives the peer credit for more.
    ///
    /// A stream that is not read holds up nothing but itself, and messages larger than `stream_window`.
    pub fn read(&mut self, stream: StreamId) -> Option<Bytes> {
        let _ = stream;
        None
    }

    /// The last message of a stream up to which everything is acknowledged; `None` before the first.
    pub fn acked(&self, stream: StreamId) -> Option<MessageNumber> {
        let _ = stream;
        None
    }

    /// Moves to a path that the driver opened; everything unacknowledged goes out again on it.
    pub fn set_path(&mut self, now: Duration, path: PathId) {
        let _ = (now, path);
    }

    /// Says that no path is left: nothing is transmitted until there is one again.
    pub fn lose_path(&mut self, now: Duration) {
        let _ = now;
    }

    /// The path in use.
    pub fn path(&self) -> Option<PathId> {
        None
    }

    /// Passes on what the carrier said about `path`. Never ends a session.
    pub fn hint(&mut self, now: Duration, path: PathId, hint: Hint) {
        let _ = (now, path, hint);
    }

    /// Changes how many bytes the peer may have under way: this end's queue at the relay, divided by
    /// the sessions that share it. The peer always may send one datagram.
    pub fn set_receive_window(&mut self, bytes: usize) {
        let _ = bytes;
    }

    /// Ends the session gracefully: what was sent is delivered, then the peer is told and answers.
    /// [`Event::Closed`] follows within `close_timeout`.
    pub fn close(&mut self, now: Duration) {
        let _ = now;
    }

    /// Ends the session at once, telling the peer if a path is left.
    pub fn fail(&mut self, now: Duration, failure: Failure) {
        let _ = (now, failure);
    }

    /// Whether the session may be dropped: it is closed and has nothing to say any more.
    ///
    /// Some time passes between [`Event::Closed`] and this, in which a lost farewell is repeated.
    pub fn is_finished(&self) -> bool {
        false
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        Counters::default()
    }
}
