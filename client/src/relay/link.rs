//! One connection to a relay: the handshake, then frames in both directions.
//!
//! A relay is a stranger: whatever it sends is checked here, and what does not belong ends the
//! connection, never the process. Whoever owns a [`Link`] drives it by [`Link::poll`]; writing is
//! feeding frames and polling, so many frames share one flush and no writer waits for a reader.

mod error;

pub use error::LinkError;

use std::future::Future;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use culvert_wire::limits::{HEADER_LEN, MAX_PAYLOAD};
use culvert_wire::{
    Admission, Challenge, Class, Close, ConnId, Frame, Generation, Handle, Header, Hello, Kind, Transcript,
    VERSION, Welcome,
};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as WsError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

use crate::dial::{Dialer, Socket, WRITE_BUFFER};
use crate::identity::{Identity, SystemRng};
use crate::options::AdmissionSource;

/// Bounds of a relay's keepalive that are believed: less would be a flood, more would let half-open
/// connections go unnoticed.
const KEEPALIVE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);

/// What a link has for its owner.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// A frame, already checked for being one that a relay sends after the handshake.
    Frame(Frame),
    /// Everything that was fed is on its way; there is room again.
    Flushed,
    /// A `Pong`; see [`Link::echoed`].
    Pong,
    /// The end.
    Ended(LinkError),
}

/// Who connects, and as which of its connections.
pub(crate) struct Introduction<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) admission: &'a AdmissionSource,
    pub(crate) generation: Generation,
    pub(crate) replaces: ConnId,
}

struct Ping {
    token: u64,
    padding: Bytes,
    sent: Instant,
    is_back: bool,
}

/// An open connection.
pub(crate) struct Link {
    socket: Socket,
    welcome: Welcome,
    /// Bytes fed since the last complete flush.
    unflushed: usize,
    ended: bool,
    last_sent: Instant,
    last_received: Instant,
    /// The last `Ping`: token, padding, when, and whether it came back whole.
    ping: Option<Ping>,
    next_ping: Instant,
    /// The connection is doubted: by then anything must have come.
    doubted: Option<Doubt>,
}

/// A question to the relay whether it still hears and is heard.
struct Doubt {
    asked: Instant,
    answer_by: Instant,
}

impl Link {
    /// Dials the relay and introduces this peer to it, all within `limit`.
    pub(crate) async fn open(
        dialer: &Dialer,
        introduction: Introduction<'_>,
        limit: Duration,
    ) -> Result<Link, LinkError> {
        let deadline = Instant::now() + limit;
        let socket = dialer.dial(limit).await?;
        Self::introduce(socket, dialer.relay().host(), introduction, deadline).await
    }

    /// The relay protocol's handshake over an open WebSocket.
    pub(crate) async fn introduce(
        mut socket: Socket,
        host: &str,
        introduction: Introduction<'_>,
        deadline: Instant,
    ) -> Result<Link, LinkError> {
        let challenge = match within(deadline, "send its challenge", next_frame(&mut socket)).await? {
            Frame::Challenge(challenge) => challenge,
            other => return Err(unexpected(&other, "a challenge")),
        };
        if !challenge.versions.contains(&VERSION) {
            return Err(LinkError::Version(challenge.versions));
        }
        let hello = within(deadline, "admit this peer", hello(&challenge, host, &introduction)).await?;
        let hello = Frame::Hello(Box::new(hello)).encode().map_err(|e| LinkError::Protocol(e.to_string()))?;
        let answered = async {
            socket.send(Message::Binary(hello)).await.map_err(|error| broke(&error))?;
            next_frame(&mut socket).await
        };
        let welcome = match within(deadline, "answer the hello", answered).await? {
            Frame::Welcome(welcome) => checked(welcome)?,
            other => return Err(unexpected(&other, "a welcome")),
        };
        let now = Instant::now();
        let mut link = Self {
            socket,
            welcome,
            unflushed: 0,
            ended: false,
            last_sent: now,
            last_received: now,
            ping: None,
            next_ping: now,
            doubted: None,
        };
        link.schedule_ping(now);
        Ok(link)
    }

    /// What the relay granted.
    pub(crate) fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Sends a `Ping` of its owner's; one at a time.
    pub(crate) fn ping(&mut self, token: u64, padding: Bytes) {
        self.send(&Frame::Ping { token, padding: padding.clone() });
        self.ping = Some(Ping { token, padding, sent: Instant::now(), is_back: false });
    }

    /// Whether the last `Ping` came back, padding and all.
    pub(crate) fn echoed(&self) -> bool {
        self.ping.as_ref().is_some_and(|ping| ping.is_back)
    }

    /// Whether payloads may be fed; false until what was fed before is on its way.
    pub(crate) fn has_room(&self) -> bool {
        !self.ended && self.unflushed < WRITE_BUFFER
    }

    /// Queues a payload for another connection.
    pub(crate) fn send_payload(&mut self, class: Class, handle: Handle, to: ConnId, payload: &[u8]) {
        let header = Header { class, handle, conn: to, ..Header::plain(Kind::Send) };
        let mut message = BytesMut::with_capacity(HEADER_LEN + payload.len());
        message.put_slice(&header.to_bytes());
        message.put_slice(payload);
        self.feed(message.freeze());
    }

    /// Queues any other frame. These are few and small, so they need no room.
    pub(crate) fn send(&mut self, frame: &Frame) {
        match frame.encode() {
            Ok(message) => self.feed(message),
            Err(error) => tracing::error!(%error, "a frame could not be encoded"),
        }
    }

    fn feed(&mut self, message: Bytes) {
        if self.ended {
            return;
        }
        self.unflushed += message.len();
        // An error shows itself again at the flush that follows.
        if let Err(error) = std::pin::Pin::new(&mut self.socket).start_send(Message::Binary(message)) {
            tracing::debug!(%error, "a frame could not be queued on the connection to the relay");
        }
    }

    /// The next event: writes what was fed, reads what came. After `Ended` it stays pending.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        if self.ended {
            return Poll::Pending;
        }
        if self.unflushed > 0 {
            match std::pin::Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.unflushed = 0;
                    self.last_sent = Instant::now();
                    return Poll::Ready(LinkEvent::Flushed);
                }
                // A relay that closes says why: that is worth more than the broken pipe.
                Poll::Ready(Err(error)) => match self.poll_frame(cx) {
                    Poll::Ready(event) => return Poll::Ready(event),
                    Poll::Pending => return Poll::Ready(self.end(broke(&error))),
                },
                Poll::Pending => {}
            }
        }
        self.poll_frame(cx)
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        loop {
            let message = match std::pin::Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(message) => message,
            };
            self.last_received = Instant::now();
            match received(message) {
                Ok(None) => {}
                Ok(Some(Frame::Pong { token, padding })) => {
                    self.pong(token, &padding);
                    return Poll::Ready(LinkEvent::Pong);
                }
                Ok(Some(Frame::Unknown { .. })) => {}
                Ok(Some(frame)) if is_from_a_relay(&frame) => return Poll::Ready(LinkEvent::Frame(frame)),
                Ok(Some(frame)) => return Poll::Ready(self.end(unexpected(&frame, "a frame of a relay"))),
                Err(error) => return Poll::Ready(self.end(error)),
            }
        }
    }

    fn end(&mut self, error: LinkError) -> LinkEvent {
        self.ended = true;
        LinkEvent::Ended(error)
    }

    /// When [`Link::tick`] wants to be called.
    pub(crate) fn next_tick(&self) -> Instant {
        self.doubted.as_ref().map_or(self.next_ping, |doubt| self.next_ping.min(doubt.answer_by))
    }

    /// Asks the relay for a sign, if there was none for `after`. Unless one comes within `answer`, the
    /// connection is given up.
    pub(crate) fn doubt(&mut self, after: Duration, answer: Duration) {
        let now = Instant::now();
        if self.ended || self.doubted.is_some() || now.saturating_duration_since(self.last_received) < after {
            return;
        }
        self.doubted = Some(Doubt { asked: now, answer_by: now + answer });
        self.ping_again();
    }

    /// Sends what keeps the connection open and notices when it is dead.
    pub(crate) fn tick(&mut self, now: Instant) -> Option<LinkEvent> {
        if self.ended {
            return None;
        }
        if let Some(doubt) = self.doubted.take_if(|doubt| doubt.answer_by <= now)
            && self.last_received <= doubt.asked
        {
            let silence = now.saturating_duration_since(self.last_received).as_secs();
            return Some(self.end(LinkError::Broke(format!("nothing came for {silence} s, asked or not"))));
        }
        if now < self.next_ping {
            return None;
        }
        let keepalive = self.keepalive();
        let silence = now.saturating_duration_since(self.last_received);
        if silence >= keepalive.mul_f32(2.5) {
            return Some(self.end(LinkError::Broke(format!("nothing came for {} s", silence.as_secs()))));
        }
        if self.unflushed == 0 {
            self.ping_again();
        }
        self.schedule_ping(now);
        None
    }

    fn ping_again(&mut self) {
        let token = self.ping.as_ref().map_or(1, |ping| ping.token.wrapping_add(1));
        self.ping(token, Bytes::new());
    }

    fn pong(&mut self, token: u64, padding: &Bytes) {
        if let Some(ping) = &mut self.ping
            && (ping.token, &ping.padding) == (token, padding)
        {
            ping.is_back = true;
            tracing::trace!(round_trip = ?ping.sent.elapsed(), "the relay answered");
        }
    }

    /// Three quarters to the whole of the interval, so that a thousand clients do not ping in step.
    fn schedule_ping(&mut self, now: Instant) {
        let jitter = f32::from(crate::identity::random_u64().to_be_bytes()[0]) / 255.0;
        self.next_ping = now + self.keepalive().mul_f32(0.75 + 0.25 * jitter);
    }

    fn keepalive(&self) -> Duration {
        Duration::from_millis(self.welcome.keepalive_ms.into()).clamp(*KEEPALIVE.start(), *KEEPALIVE.end())
    }

    /// Says goodbye; what was fed before is written first. Gives up after `limit`.
    pub(crate) async fn close(mut self, limit: Duration) {
        if self.ended {
            return;
        }
        let frame =
            CloseFrame { code: CloseCode::from(Close::Done.code()), reason: Close::Done.sentence().into() };
        let deadline = Instant::now() + limit;
        let goodbye = async {
            self.socket.close(Some(frame)).await?;
            while self.socket.next().await.transpose()?.is_some() {}
            Ok::<(), WsError>(())
        };
        // Nobody is left to tell: the connection is dropped either way.
        if let Ok(Err(error)) = timeout_at(deadline, goodbye).await {
            tracing::trace!(%error, "the connection to the relay ended before its goodbye did");
        }
    }
}

/// Signs what was agreed; the host that was dialled is in it, so a rogue relay cannot pass it on.
async fn hello(
    challenge: &Challenge,
    host: &str,
    introduction: &Introduction<'_>,
) -> Result<Hello, LinkError> {
    let mut nonce = [0; 32];
    culvert_session::Rng::fill(&mut SystemRng, &mut nonce);
    let peer = introduction.identity.peer_id();
    let transcript = Transcript {
        host,
        challenge,
        nonce: &nonce,
        version: VERSION,
        peer: &peer,
        generation: introduction.generation,
        replaces: introduction.replaces,
    };
    let admission = match introduction.admission {
        AdmissionSource::None => Admission::None,
        AdmissionSource::AccessToken(token) => {
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, token.reveal().as_bytes());
            let mac = aws_lc_rs::hmac::sign(&key, &transcript.bytes());
            Admission::AccessToken(
                mac.as_ref().try_into().map_err(|_| LinkError::Admission("no HMAC".to_owned()))?,
            )
        }
        AdmissionSource::Ticket(ticket) => Admission::Ticket(ticket.clone()),
        AdmissionSource::TicketSource(source) => {
            Admission::Ticket(source().await.map_err(|error| LinkError::Admission(format!("{error:#}")))?)
        }
        AdmissionSource::Invitation { ticket, invitation } => {
            Admission::Invitation { ticket: ticket.clone(), invitation: invitation.clone() }
        }
    };
    let signature = introduction.identity.sign(&transcript.signed(&admission));
    Ok(Hello {
        peer,
        nonce,
        version: VERSION,
        generation: introduction.generation,
        replaces: introduction.replaces,
        host: host.to_owned(),
        admission,
        signature,
    })
}

fn checked(welcome: Welcome) -> Result<Welcome, LinkError> {
    let problem = if welcome.version != VERSION {
        "it welcomes with another version than was chosen"
    } else if welcome.conn == ConnId::NONE {
        "it gives no address"
    } else if welcome.max_topics == 0 {
        "it allows no topic"
    } else if (welcome.max_payload as usize) < MAX_PAYLOAD {
        "it takes smaller payloads than version 1 guarantees"
    } else {
        return Ok(welcome);
    };
    Err(LinkError::Protocol(problem.to_owned()))
}

/// Whether a relay sends such frames after the handshake.
fn is_from_a_relay(frame: &Frame) -> bool {
    matches!(
        frame,
        Frame::Joined { .. }
            | Frame::PeerJoined { .. }
            | Frame::PeerLeft { .. }
            | Frame::Peers { .. }
            | Frame::Deliver { .. }
            | Frame::Undeliverable { .. }
            | Frame::Gap { .. }
            | Frame::Notice(_)
            | Frame::Drain { .. }
            | Frame::JoinRefused { .. }
    )
}

async fn next_frame(socket: &mut Socket) -> Result<Frame, LinkError> {
    loop {
        match received(socket.next().await)? {
            None | Some(Frame::Unknown { .. }) => {}
            Some(frame) => return Ok(frame),
        }
    }
}

/// A WebSocket message as a frame; `None` for the WebSocket's own pings.
fn received(message: Option<Result<Message, WsError>>) -> Result<Option<Frame>, LinkError> {
    match message {
        Some(Ok(Message::Binary(bytes))) => {
            Frame::decode(bytes).map(Some).map_err(|error| LinkError::Protocol(error.to_string()))
        }
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
        Some(Ok(Message::Text(_))) => Err(LinkError::Protocol("it sent text".to_owned())),
        Some(Ok(Message::Close(Some(frame)))) => {
            // A stranger's words: one line, at most what RFC 6455 allows.
            let reason = frame.reason.chars().filter(|c| !c.is_control()).collect();
            Err(LinkError::Closed { code: frame.code.into(), reason })
        }
        Some(Ok(Message::Close(None))) => Err(LinkError::Broke("it was closed without a reason".to_owned())),
        Some(Err(WsError::Capacity(CapacityError::MessageTooLong { .. }))) => {
            Err(LinkError::Protocol("it sent a message longer than a frame can be".to_owned()))
        }
        Some(Err(error)) => Err(broke(&error)),
        None => Err(LinkError::Broke("it was closed without a reason".to_owned())),
    }
}

fn broke(error: &WsError) -> LinkError {
    LinkError::Broke(error.to_string())
}

fn unexpected(frame: &Frame, wanted: &str) -> LinkError {
    let kind = Kind::from_number(frame.kind()).map_or("unknown", Kind::name);
    LinkError::Protocol(format!("it sent `{kind}` where {wanted} belongs"))
}

async fn within<T>(
    deadline: Instant,
    what: &'static str,
    work: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    timeout_at(deadline, work).await.unwrap_or(Err(LinkError::Silent(what)))
}

#[cfg(test)]
mod tests;
