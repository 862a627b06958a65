//! One WebSocket, from its upgrade to its end, in one task.
//!
//! Messages are answered one after the other, so that answers come in the order of the requests and a
//! client that asks faster than it is answered waits in its own socket. What is pushed waits in a bounded
//! queue meanwhile. An idle connection holds a small buffer and its place; whatever an answer needs is
//! allocated for the answer.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use culvert_broker_wire::limits::MAX_MESSAGE;
use culvert_broker_wire::message::Envelope;
use culvert_broker_wire::{ErrorCode, ServerMessage};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::Kind;
use super::close::Close;
use super::pace::{Pace, Verdict};
use super::sockets::{Push, Seat};
use crate::core::{Caller, Core, Visitor};
use crate::identity;

/// What is read from a socket at once; every idle connection holds it.
const READ_BUFFER: usize = 4 << 10;
/// What is gathered before it is written. Everything is flushed when nothing more waits.
const WRITE_BUFFER: usize = 4 << 10;
/// How long a client may take to read why it is closed.
const LINGER: Duration = Duration::from_secs(1);
/// What is read and thrown away meanwhile: closing with unread bytes would reset the connection, and the
/// reason would be lost.
const MOST_THROWN_AWAY: u64 = 4 << 20;
/// Within this, sockets ask at random whether their session still holds after events were missed, so that
/// they do not ask all at once.
const SPREAD: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// One WebSocket.
pub(super) struct Connection {
    pub(super) core: Arc<Core>,
    pub(super) visitor: Visitor,
    /// Its id in presence: random, 128 bits in hexadecimal.
    pub(super) id: String,
    /// Who is there, once that is proven.
    pub(super) caller: Option<Caller>,
    /// Whether they are online by this connection.
    pub(super) online: bool,
    seat: Seat,
    hand: mpsc::Sender<Push>,
    queue: mpsc::Receiver<Push>,
    pace: Pace,
    opened: Instant,
    /// When something came last.
    heard: Instant,
    /// Until when nothing is read.
    paused: Option<Instant>,
    /// When to ask next whether what was proven still holds.
    recheck: Instant,
}

impl Connection {
    pub(super) fn new(core: Arc<Core>, seat: Seat, visitor: Visitor) -> Self {
        let (hand, queue) = mpsc::channel(core.config.limits.queue.max(1));
        let now = Instant::now();
        let pace = Pace::new(core.config.limits.messages, now);
        let recheck = now + core.config.timing.heartbeat_timeout;
        let id = format!("{:032x}", rand::random::<u128>());
        let (caller, online, opened, heard, paused) = (None, false, now, now, None);
        Self { core, visitor, id, caller, online, seat, hand, queue, pace, opened, heard, paused, recheck }
    }

    /// Belongs to this caller from now on; false if they have as many connections as they may.
    pub(super) fn is_from(&mut self, caller: Caller) -> bool {
        let most = self.core.config.limits.connections_per_user;
        let room = self.seat.enter(&caller, &self.hand, most);
        if room {
            self.caller = Some(caller);
        }
        room
    }

    /// Serves the connection until it ends.
    pub(super) async fn serve(mut self, upgrade: OnUpgrade) {
        let Ok(Ok(upgraded)) = timeout(self.core.config.timing.handshake, upgrade).await else { return };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let io = TokioIo::new(upgraded);
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        let close = self.go_on(&mut socket).await;
        self.core.metrics.closes[close].increment(1);
        tracing::debug!(connection = self.id, reason = close.name(), "a websocket ends");
        // Offline at once, whatever the other side does with the close.
        self.leave().await;
        let Self { core, seat, .. } = self;
        if let Some((code, _)) = close.error() {
            core.metrics.errors[code].increment(1);
        }
        drop(seat);
        let _ = timeout(LINGER, finish(socket, close)).await;
    }

    /// The user is no longer online by this connection.
    pub(super) async fn leave(&mut self) {
        if std::mem::take(&mut self.online) {
            self.core.sockets.keeper.leave(&self.core, &self.id).await;
        }
    }

    async fn go_on(&mut self, socket: &mut Socket) -> Close {
        let core = Arc::clone(&self.core);
        loop {
            let moment = self.next_moment();
            let turn = tokio::select! {
                close = self.seat.ending.ended() => Err(close),
                () = core.sockets.draining.cancelled() => Err(Close::GoingAway),
                came = socket.next(), if self.paused.is_none() => match came {
                    Some(Ok(message)) => self.take(socket, message).await,
                    Some(Err(error)) => Err(reason(&error)),
                    None => Err(Close::Done),
                },
                push = self.queue.recv() => match push {
                    Some(push) => self.push(socket, push).await,
                    None => Err(Close::Done),
                },
                () = sleep_until(moment) => self.look_at_the_time().await,
            };
            if let Err(close) = turn {
                return close;
            }
        }
    }

    /// Takes in one message, and answers it.
    async fn take(&mut self, socket: &mut Socket, message: Message) -> Result<(), Close> {
        let now = Instant::now();
        self.heard = now;
        let verdict = self.pace.take(now);
        if verdict == Verdict::Flood {
            return Err(Close::Flood);
        }
        if let Verdict::Pause(until) = verdict {
            self.paused = Some(until);
        }
        // What happened before a request is told before its answer.
        self.tell_the_rest(socket).await?;
        let answer = match message {
            Message::Close(_) => return Err(Close::Done),
            // Answered by the library when it reads on.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(()),
            Message::Text(text) if verdict != Verdict::Go => {
                self.core.metrics.messages[Kind::Refused].increment(1);
                let error =
                    ServerMessage::error(ErrorCode::RateLimited, "too many messages; send them slower");
                Envelope { request_id: super::answer::request_id(&text), message: error }
            }
            Message::Text(text) => Box::pin(self.answer(&text)).await,
            Message::Binary(_) => {
                self.core.metrics.messages[Kind::Unreadable].increment(1);
                let text = "messages are JSON in text frames; this was a binary one";
                Envelope { request_id: None, message: ServerMessage::error(ErrorCode::ParseError, text) }
            }
        };
        if let ServerMessage::Error { code, .. } = &answer.message {
            self.core.metrics.errors[*code].increment(1);
        }
        // Nothing in the messages can fail to be written as JSON.
        let text = serde_json::to_string(&answer).map_err(|_| Close::Done)?;
        self.feed(socket, Message::text(text)).await?;
        self.flush(socket).await
    }

    /// Writes what was handed to this connection, and what waits behind it.
    async fn push(&mut self, socket: &mut Socket, first: Push) -> Result<(), Close> {
        self.tell(socket, first).await?;
        self.tell_the_rest(socket).await?;
        self.flush(socket).await
    }

    async fn tell_the_rest(&mut self, socket: &mut Socket) -> Result<(), Close> {
        while let Ok(push) = self.queue.try_recv() {
            self.tell(socket, push).await?;
        }
        Ok(())
    }

    async fn tell(&mut self, socket: &mut Socket, push: Push) -> Result<(), Close> {
        match push {
            Push::Text(text) => self.feed(socket, Message::Text(text)).await,
            Push::Recheck => {
                let soon = Instant::now() + SPREAD.mul_f64(rand::random());
                self.recheck = soon.min(self.recheck);
                Ok(())
            }
        }
    }

    async fn feed(&self, socket: &mut Socket, message: Message) -> Result<(), Close> {
        self.written(socket.feed(message)).await
    }

    async fn flush(&self, socket: &mut Socket) -> Result<(), Close> {
        self.written(socket.flush()).await
    }

    /// Waits for the client to take what is written, as long as it may.
    async fn written(&self, write: impl Future<Output = Result<(), Error>>) -> Result<(), Close> {
        tokio::select! {
            close = self.seat.ending.ended() => Err(close),
            written = timeout(self.core.config.timing.write, write) => match written {
                Ok(Ok(())) => Ok(()),
                Ok(Err(Error::Io(error))) if error.kind() == ErrorKind::TimedOut => Err(Close::Slow),
                Ok(Err(_)) => Err(Close::Done),
                Err(_) => Err(Close::Slow),
            },
        }
    }

    /// When something has to be looked at, at the latest.
    fn next_moment(&self) -> Instant {
        let end = match &self.caller {
            Some(_) => self.recheck.min(self.silent_at()),
            None => self.unproven_at().min(self.silent_at()),
        };
        self.paused.map_or(end, |until| until.min(end))
    }

    /// A client that may not be heard is not silent.
    fn silent_at(&self) -> Instant {
        self.paused.unwrap_or(self.heard).max(self.heard) + self.core.config.timing.heartbeat_timeout
    }

    fn unproven_at(&self) -> Instant {
        self.opened + self.core.config.timing.request
    }

    async fn look_at_the_time(&mut self) -> Result<(), Close> {
        let now = Instant::now();
        if self.paused.is_some_and(|until| until <= now) {
            (self.paused, self.heard) = (None, now);
        }
        match &self.caller {
            None if self.unproven_at() <= now => return Err(Close::Unproven),
            Some(caller) if self.recheck <= now => {
                self.recheck = now + self.core.config.timing.heartbeat_timeout;
                // Whether it holds is not known while the database is away; it is asked again.
                let valid = Box::pin(identity::still_valid(&self.core, caller)).await;
                if valid.is_ok_and(|valid| !valid) {
                    return Err(Close::SessionOver);
                }
            }
            _ => {}
        }
        if self.silent_at() <= now { Err(Close::Silent) } else { Ok(()) }
    }
}

/// What the end of reading means.
fn reason(error: &Error) -> Close {
    match error {
        Error::Capacity(_) => Close::TooLarge,
        Error::Utf8(_) => Close::NotUtf8,
        Error::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => Close::Done,
        Error::Protocol(_) => Close::Protocol,
        _ => Close::Done,
    }
}

/// Says why, and waits for the client to have read it.
async fn finish(mut socket: Socket, close: Close) {
    let said = async {
        let sentence = match close.error() {
            Some((code, sentence)) => {
                let message = ServerMessage::error(code, sentence);
                if let Ok(text) = serde_json::to_string(&message) {
                    socket.feed(Message::text(text)).await?;
                }
                sentence
            }
            None => "",
        };
        let frame = CloseFrame { code: CloseCode::from(close.code()), reason: sentence.into() };
        socket.close(Some(frame)).await
    };
    // One that goes first has its close acknowledged by reading on; one that is gone has no use for it.
    let _ = said.await;
    while let Some(Ok(_)) = socket.next().await {}
    let mut io = socket.into_inner();
    let _ = io.shutdown().await;
    let _ = tokio::io::copy(&mut io.take(MOST_THROWN_AWAY), &mut tokio::io::sink()).await;
}
