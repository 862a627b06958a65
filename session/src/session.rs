//! The session itself.

mod channel;
mod ending;
mod opening;
mod receive;
mod timers;
mod transmit;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use culvert_wire::PeerId;
use culvert_wire::limits::MAX_PAYLOAD;

use crate::crypto::random_u64;
use crate::frame::CloseCode;
use crate::handshake::Initiator;
use crate::packet::{Header, Step};
use crate::recovery::Findings;
use crate::route::Route;
use crate::stream::set::Streams;
use crate::{
    CloseReason, Config, Counters, Event, Failure, Hint, MAX_MESSAGE_LIMIT, MessageNumber, OpenError, PathId,
    Priority, Rng, SendError, SessionId, StreamId, Transmit,
};
use channel::Channel;
use opening::Opening;

/// One end of an end-to-end session; see the crate's front page for how to drive it.
///
/// `now` is the time since any origin the driver chose, the same in every call, never going back.
pub struct Session {
    config: Config,
    rng: Box<dyn Rng>,
    id: SessionId,
    phase: Phase,
    /// The handshake, until it is over.
    opening: Option<Opening>,
    /// Present once there are keys.
    channel: Option<Channel>,
    streams: Streams,
    route: Route,
    peer: Option<PeerId>,
    binding: Option<[u8; 32]>,
    /// The message that completed the handshake at the responder, to know its copies.
    confirmation: Vec<u8>,
    /// Whether the peer's application accepted.
    accepted_by_peer: bool,
    receive_window: usize,
    outbox: VecDeque<(PathId, Vec<u8>)>,
    events: VecDeque<Event>,
    /// The last event of all.
    closed: Option<Event>,
    counters: Counters,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Handshake,
    /// The peer is known; this end's application decides.
    Deciding,
    /// Accepted here, not yet there.
    Waiting,
    Open,
    /// What was sent is being delivered, then the peer is told.
    Closing {
        deadline: Duration,
    },
    /// Over. Until then the peer's packets are answered, with the farewell if it is this end's.
    Closed {
        until: Option<Duration>,
        farewell: Option<CloseCode>,
    },
}

impl Session {
    /// Begins a handshake on `path`: the session has an initiation to transmit.
    ///
    /// If the peer begins as well, pass its initiation to [`Session::receive`] of this session; the
    /// two settle on one.
    pub fn initiate(config: Config, path: PathId, now: Duration, rng: Box<dyn Rng>) -> Self {
        let mut session = Self::new(config, path, rng);
        let initiator = Initiator::new(&session.config, session.id, &mut *session.rng)
            .expect("message 1 depends on nothing that a caller or a peer chooses");
        session.opening = Some(Opening::new(now, session.config.handshake_timeout, Some(initiator)));
        session.resend_handshake(now);
        session
    }

    /// Answers an initiation that arrived on `path`; `None` if `datagram` is not a valid one.
    ///
    /// Costs six X25519 operations and a signature, and at most 8 KiB until the peer has proved
    /// itself or `handshake_timeout` is over, so a driver limits how many it holds. An initiation
    /// proves nothing: a replayed one leads to a session that ends unauthenticated.
    pub fn accept(
        config: Config,
        datagram: &[u8],
        path: PathId,
        now: Duration,
        rng: Box<dyn Rng>,
    ) -> Option<Self> {
        let Header::Handshake { step: Step::Initiation, receiver, sender } = Header::decode(datagram)? else {
            return None;
        };
        let mut session = Self::new(config, path, rng);
        session.opening = Some(Opening::new(now, session.config.handshake_timeout, None));
        session.handshake(now, path, Step::Initiation, receiver, sender, datagram);
        session.is_responding().then_some(session)
    }

    fn new(mut config: Config, path: PathId, mut rng: Box<dyn Rng>) -> Self {
        config.max_message = config.max_message.min(MAX_MESSAGE_LIMIT);
        config.stream_window = config.stream_window.clamp(MAX_PAYLOAD, MAX_MESSAGE_LIMIT);
        // Zero stands for nobody.
        let id = SessionId(random_u64(&mut *rng).max(1));
        Self {
            id,
            phase: Phase::Handshake,
            opening: None,
            channel: None,
            streams: Streams::new(&config),
            route: Route::new(path),
            peer: None,
            binding: None,
            confirmation: Vec::new(),
            accepted_by_peer: false,
            receive_window: config.receive_window,
            outbox: VecDeque::new(),
            events: VecDeque::new(),
            closed: None,
            counters: Counters::default(),
            config,
            rng,
        }
    }

    /// The name in datagrams for this session; unique at this end as far as random numbers are.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The authenticated peer, from [`Event::Authenticated`] on.
    pub fn peer(&self) -> Option<PeerId> {
        self.peer
    }

    /// The handshake's hash, the same at both ends and nowhere else, from [`Event::Authenticated`] on.
    pub fn channel_binding(&self) -> Option<[u8; 32]> {
        self.binding
    }

    /// Takes a datagram that arrived on `path`; it is decrypted in place.
    ///
    /// Whatever is not authentic is counted and has no other effect.
    pub fn receive(&mut self, now: Duration, path: PathId, datagram: &mut [u8]) {
        match Header::decode(datagram) {
            None => self.counters.rejected += 1,
            Some(Header::Handshake { step, receiver, sender }) => {
                self.handshake(now, path, step, receiver, sender, datagram);
            }
            Some(Header::Data { receiver, epoch, number }) => {
                if receiver == self.id {
                    self.packet(now, path, epoch, number, datagram);
                } else {
                    self.counters.rejected += 1;
                }
            }
        }
    }

    /// Writes the next datagram into `out`, which is cleared first; `None` if there is none now.
    ///
    /// Call until `None` after every other call.
    pub fn poll_transmit(&mut self, now: Duration, out: &mut Vec<u8>) -> Option<Transmit> {
        let transmit = self.transmit(now, out)?;
        self.counters.packets_sent += 1;
        self.counters.bytes_sent += out.len() as u64;
        Some(transmit)
    }

    /// The next event. At most three per stream and a handful more wait at any time.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        let established = !matches!(self.phase, Phase::Handshake | Phase::Deciding | Phase::Waiting);
        let news = established.then(|| self.streams.poll_event()).flatten();
        news.or_else(|| self.closed.take())
    }

    /// When [`Session::handle_timeout`] wants to be called, at once if that is past; `None` if nothing is
    /// awaited.
    pub fn next_timeout(&self) -> Option<Duration> {
        self.deadline()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.timeout(now);
    }

    /// Answers [`Event::Authenticated`]: whether this application talks to that peer.
    ///
    /// There is no deadline, here or there, because people may have to be asked; a driver that wants
    /// one calls [`Session::fail`].
    pub fn authorize(&mut self, now: Duration, accept: bool) {
        if self.phase != Phase::Deciding {
            return;
        }
        if !accept {
            return self.end(now, CloseReason::Rejected, Some(CloseCode::Rejected));
        }
        if let Some(channel) = &mut self.channel {
            channel.pending.accept = true;
        }
        self.phase = Phase::Waiting;
        self.establish();
    }

    fn establish(&mut self) {
        if self.phase == Phase::Waiting && self.accepted_by_peer {
            self.phase = Phase::Open;
            self.events.push_back(Event::Established);
        }
    }

    /// Opens a stream; the peer sees it with its first message.
    ///
    /// Streams last as long as the session. They are few and cheap: use one per kind of conversation,
    /// not one per message.
    pub fn open_stream(&mut self, priority: Priority) -> Result<StreamId, OpenError> {
        if self.phase != Phase::Open {
            return Err(OpenError::NotOpen);
        }
        self.streams.open(priority)
    }

    /// Queues a whole message. It is delivered once and in its stream's order, or named in
    /// [`Event::Closed`].
    pub fn send(&mut self, stream: StreamId, message: Bytes) -> Result<MessageNumber, SendError> {
        if self.phase != Phase::Open {
            return Err(SendError::NotOpen);
        }
        self.streams.send(stream, message)
    }

    /// Takes the next whole message of a stream; taking it gives the peer credit for more.
    ///
    /// After [`Event::Readable`], read until `None`. A stream that is not read holds up nothing but
    /// itself, and messages larger than `stream_window`. What was received can be read after the end.
    pub fn read(&mut self, stream: StreamId) -> Option<Bytes> {
        self.streams.read(stream)
    }

    /// The last message of a stream up to which everything is acknowledged; `None` before the first.
    pub fn acked(&self, stream: StreamId) -> Option<MessageNumber> {
        self.streams.acked(stream)
    }

    /// Moves to a path that the driver opened; everything unacknowledged goes out again on it.
    pub fn set_path(&mut self, now: Duration, path: PathId) {
        self.route.choose(now, path);
        self.counters.path_changes += 1;
        self.hurry_handshake(now);
        if self.phase != Phase::Handshake
            && let Some(channel) = &mut self.channel
        {
            channel.pending.resume = true;
            self.lose_all();
        }
    }

    /// Says that no path is left: nothing is transmitted until there is one again.
    pub fn lose_path(&mut self) {
        self.route.lose();
    }

    /// The path in use.
    pub fn path(&self) -> Option<PathId> {
        self.route.current()
    }

    /// The path of the newest authentic packet, and when the peer was last heard at all.
    pub fn heard(&self) -> Option<(PathId, Duration)> {
        Some((self.route.last_heard()?, self.channel.as_ref()?.heard))
    }

    /// Since when something that was sent waits for a sign of the peer; `None` while nothing does.
    pub fn unanswered(&self) -> Option<Duration> {
        match &self.opening {
            Some(opening) => opening.deadline.checked_sub(self.config.handshake_timeout),
            None => self.channel.as_ref()?.unanswered,
        }
    }

    /// Asks the peer for a sign, on the path in use; without effect before the handshake is over.
    pub fn ask(&mut self) {
        if let Some(channel) = &mut self.channel {
            channel.pending.ping = true;
        }
    }

    /// Passes on what the carrier said about `path`. Never ends a session.
    pub fn hint(&mut self, path: PathId, hint: Hint) {
        if self.route.current() != Some(path) || self.phase == Phase::Handshake {
            return;
        }
        if let Some(channel) = &mut self.channel {
            match hint {
                Hint::Congested => channel.recovery.congested(),
                Hint::Lost => channel.recovery.hurry(),
            }
        }
    }

    /// Changes how many bytes the peer may have under way: this end's queue at the relay, divided by
    /// the sessions that share it. The peer always may send one datagram.
    pub fn set_receive_window(&mut self, bytes: usize) {
        if bytes != self.receive_window {
            self.receive_window = bytes;
            if let Some(channel) = &mut self.channel {
                channel.received.force();
            }
        }
    }

    /// Ends the session gracefully: what was sent is delivered, then the peer is told and answers.
    /// [`Event::Closed`] follows within `close_timeout`.
    pub fn close(&mut self, now: Duration) {
        match self.phase {
            Phase::Handshake => self.end(now, CloseReason::Done, None),
            Phase::Deciding | Phase::Waiting | Phase::Open => {
                self.phase = Phase::Closing { deadline: now + self.config.close_timeout };
                self.finish_streams();
            }
            Phase::Closing { .. } | Phase::Closed { .. } => {}
        }
    }

    /// Ends the session at once, telling the peer if a path is left.
    pub fn fail(&mut self, now: Duration, failure: Failure) {
        self.end(now, CloseReason::Failed(failure), Some(CloseCode::Failed));
    }

    /// Whether the session may be dropped: it is closed and has nothing to say any more.
    ///
    /// Some time passes between [`Event::Closed`] and this, in which a lost farewell is repeated.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Closed { until: None, .. })
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters;
        if let Some(channel) = &self.channel {
            counters.rtt = channel.recovery.rtt();
            counters.congestion_window = channel.recovery.window();
        }
        counters
    }

    /// Everything under way goes again, except a resume: it spoke of a path that is no longer the last,
    /// and two ends that answer resume with resume would never stop.
    fn lose_all(&mut self) {
        if let Some(channel) = &mut self.channel {
            let mut findings = Findings::default();
            channel.recovery.lose_all(&mut findings);
            for content in &mut findings.lost {
                content.resume = false;
            }
            self.lost(findings.lost);
        }
    }
}

#[cfg(test)]
mod tests;
