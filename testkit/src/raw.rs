//! A peer made of the wire protocol alone: every frame is sent and read by the test's own hand.
//!
//! It shares no code with the client library, so a mistake of one cannot hide in the other, and it can
//! misbehave at every step: stop half-way, sign the wrong thing, send what is no frame, never read.
//! Every wait has a deadline ([`RawOptions::deadline`]).
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use culvert_testkit::{HelloOptions, Identity, RawOptions, RawPeer};
//! use culvert_wire::{Frame, TopicId};
//!
//! let options = RawOptions::plain("localhost");
//! let mut peer = RawPeer::connect("127.0.0.1:8080".parse()?, &options).await?;
//! peer.hello(&HelloOptions::new(&Identity::random()?)).await?;
//! let (handle, members) = peer.join(TopicId([1; 32])).await?;
//! peer.send(&Frame::Leave { handle }).await?;
//! # let _ = members; Ok(())
//! # }
//! ```

mod dial;
mod error;
mod hello;

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use culvert_wire::limits::MAX_FRAME;
use culvert_wire::{Challenge, Class, Close, ConnId, Frame, Handle, Hello, Members, TopicId, Welcome};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};

pub use dial::{RawOptions, dial, upgrade};
pub use error::RawError;
pub use hello::HelloOptions;

/// What a [`RawPeer`] talks over.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A WebSocket to a relay, before or after its hello.
pub struct RawPeer {
    socket: WebSocketStream<Box<dyn Io>>,
    challenge: Option<Challenge>,
    /// Frames that came while something else was waited for, oldest first.
    early: VecDeque<Frame>,
    host: String,
    deadline: Duration,
}

impl RawPeer {
    /// TCP, TLS where the options say so, the upgrade, and the relay's challenge.
    ///
    /// # Errors
    /// The first step that fails.
    pub async fn connect(addr: std::net::SocketAddr, options: &RawOptions) -> Result<Self, RawError> {
        let mut peer = Self::open(addr, options).await?;
        peer.read_challenge().await?;
        Ok(peer)
    }

    /// As [`RawPeer::connect`], without waiting for the challenge.
    ///
    /// # Errors
    /// The first step that fails.
    pub async fn open(addr: std::net::SocketAddr, options: &RawOptions) -> Result<Self, RawError> {
        let stream = dial(addr, options).await?;
        Self::over(stream, options).await
    }

    /// The upgrade over any stream that already reaches the relay.
    ///
    /// # Errors
    /// The relay does not upgrade.
    pub async fn over(stream: Box<dyn Io>, options: &RawOptions) -> Result<Self, RawError> {
        let socket = upgrade(stream, options).await?;
        let (host, deadline) = (options.host.clone(), options.deadline);
        Ok(Self { socket, challenge: None, early: VecDeque::new(), host, deadline })
    }

    /// Waits for the challenge on a connection that was opened without it.
    ///
    /// # Errors
    /// Another frame comes, or none in time.
    pub async fn read_challenge(&mut self) -> Result<(), RawError> {
        match self.recv().await? {
            Frame::Challenge(challenge) => {
                self.challenge = Some(challenge);
                Ok(())
            }
            other => Err(RawError::Unexpected(Box::new(other))),
        }
    }

    /// The relay's challenge.
    ///
    /// # Panics
    /// On a peer of [`RawPeer::open`], which has not read it.
    pub fn challenge(&self) -> &Challenge {
        self.challenge.as_ref().expect("connect() has read the challenge")
    }

    /// The hello that [`RawPeer::hello`] would send, for tests that spoil it first.
    pub fn sign(&self, options: &HelloOptions) -> Hello {
        options.sign(self.challenge(), &self.host)
    }

    /// Answers the challenge and waits for the welcome.
    ///
    /// # Errors
    /// [`RawError::Closed`] with the relay's code when it is not let in.
    pub async fn hello(&mut self, options: &HelloOptions) -> Result<Welcome, RawError> {
        let hello = self.sign(options);
        self.hello_with(hello).await
    }

    /// Sends exactly this hello and waits for the welcome.
    ///
    /// # Errors
    /// As for [`RawPeer::hello`].
    pub async fn hello_with(&mut self, hello: Hello) -> Result<Welcome, RawError> {
        self.send(&Frame::Hello(Box::new(hello))).await?;
        match self.recv().await? {
            Frame::Welcome(welcome) => Ok(welcome),
            other => Err(RawError::Unexpected(Box::new(other))),
        }
    }

    /// Enters a topic; frames that come before the answer are kept for [`RawPeer::recv`].
    ///
    /// # Errors
    /// [`RawError::Refused`] when the relay says no.
    pub async fn join(&mut self, topic: TopicId) -> Result<(Handle, Members), RawError> {
        self.send(&Frame::Join { topic }).await?;
        let answer = self
            .recv_until(|frame| match frame {
                Frame::Joined { topic: of, .. } | Frame::JoinRefused { topic: of, .. } => *of == topic,
                _ => false,
            })
            .await?;
        match answer {
            Frame::Joined { handle, members, .. } => Ok((handle, members)),
            Frame::JoinRefused { refusal, .. } => Err(RawError::Refused(refusal)),
            other => Err(RawError::Unexpected(Box::new(other))),
        }
    }

    /// Sends a payload to one connection.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send_to(&mut self, handle: Handle, to: ConnId, payload: Bytes) -> Result<(), RawError> {
        self.send(&Frame::Send { class: Class::Normal, handle, to, payload }).await
    }

    /// Waits until the relay has read, and acted on, everything sent before.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn sync(&mut self, token: u64) -> Result<(), RawError> {
        self.send(&Frame::Ping { token, padding: Bytes::new() }).await?;
        self.recv_until(|frame| matches!(frame, Frame::Pong { token: of, .. } if *of == token)).await?;
        Ok(())
    }

    /// Writes a frame and flushes it.
    ///
    /// # Errors
    /// The frame does not encode, the connection is gone, or the relay does not read in time.
    pub async fn send(&mut self, frame: &Frame) -> Result<(), RawError> {
        self.send_bytes(frame.encode()?).await
    }

    /// Writes any bytes as one binary message and flushes it.
    ///
    /// # Errors
    /// As for [`RawPeer::send`].
    pub async fn send_bytes(&mut self, message: Bytes) -> Result<(), RawError> {
        self.send_message(Message::Binary(message)).await
    }

    /// Writes any WebSocket message and flushes it.
    ///
    /// # Errors
    /// As for [`RawPeer::send`].
    pub async fn send_message(&mut self, message: Message) -> Result<(), RawError> {
        within(self.deadline, "the relay to read", self.socket.send(message)).await?.map_err(Into::into)
    }

    /// Queues a frame without flushing it; what is queued is written when a few KiB are together.
    ///
    /// # Errors
    /// As for [`RawPeer::send`].
    pub async fn feed(&mut self, frame: &Frame) -> Result<(), RawError> {
        let message = Message::Binary(frame.encode()?);
        within(self.deadline, "the relay to read", self.socket.feed(message)).await?.map_err(Into::into)
    }

    /// Writes what [`RawPeer::feed`] queued.
    ///
    /// # Errors
    /// As for [`RawPeer::send`].
    pub async fn flush(&mut self) -> Result<(), RawError> {
        within(self.deadline, "the relay to read", self.socket.flush()).await?.map_err(Into::into)
    }

    /// Writes bytes below the WebSocket layer, where they need not be WebSocket.
    ///
    /// # Errors
    /// As for [`RawPeer::send`].
    pub async fn write_raw(&mut self, bytes: &[u8]) -> Result<(), RawError> {
        let stream = self.socket.get_mut();
        let written = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        within(self.deadline, "the relay to read", written).await?.map_err(RawError::Io)
    }

    /// The next frame.
    ///
    /// # Errors
    /// [`RawError::Closed`] with the relay's code, [`RawError::Dropped`] when the connection ended without
    /// one, [`RawError::Deadline`] when nothing came, or a message that is no frame.
    pub async fn recv(&mut self) -> Result<Frame, RawError> {
        match self.early.pop_front() {
            Some(frame) => Ok(frame),
            None => self.read_frame().await,
        }
    }

    /// The next frame for which `wanted` holds; the others are kept, in order, for [`RawPeer::recv`].
    ///
    /// # Errors
    /// As for [`RawPeer::recv`].
    pub async fn recv_until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Result<Frame, RawError> {
        if let Some(at) = self.early.iter().position(&wanted)
            && let Some(frame) = self.early.remove(at)
        {
            return Ok(frame);
        }
        loop {
            let frame = self.read_frame().await?;
            if wanted(&frame) {
                return Ok(frame);
            }
            self.early.push_back(frame);
        }
    }

    /// Everything that comes until the connection ends, and how it ended.
    pub async fn recv_to_end(&mut self) -> (Vec<Frame>, RawError) {
        let mut frames = Vec::new();
        loop {
            match self.recv().await {
                Ok(frame) => frames.push(frame),
                Err(end) => return (frames, end),
            }
        }
    }

    /// How the relay ends this connection; frames before the end are thrown away.
    ///
    /// # Errors
    /// It ends without a code of the protocol, or not in time.
    pub async fn closed(&mut self) -> Result<Close, RawError> {
        let (_, end) = self.recv_to_end().await;
        end.close().ok_or(end)
    }

    /// Says goodbye with a code and waits for the relay to end the connection.
    ///
    /// # Errors
    /// The relay does not answer in time.
    pub async fn close(mut self, close: Close) -> Result<(), RawError> {
        let frame = CloseFrame { code: CloseCode::from(close.code()), reason: close.sentence().into() };
        within(self.deadline, "the relay to read", self.socket.close(Some(frame))).await??;
        match self.recv_to_end().await.1 {
            deadline @ RawError::Deadline { .. } => Err(deadline),
            _ => Ok(()),
        }
    }

    /// Changes the deadline of every later wait.
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    async fn read_frame(&mut self) -> Result<Frame, RawError> {
        let socket = &mut self.socket;
        let message = async {
            loop {
                match socket.next().await {
                    None => return Err(RawError::Dropped(None)),
                    Some(Ok(Message::Binary(message))) => return Ok(message),
                    Some(Ok(Message::Close(frame))) => return Err(RawError::closed(frame)),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(other)) => return Err(RawError::NoFrame(format!("{other:?}"))),
                    Some(Err(error)) => return Err(error.into()),
                }
            }
        };
        let message = within(self.deadline, "a frame", message).await??;
        Frame::decode(message).map_err(|error| RawError::NoFrame(error.to_string()))
    }
}

/// Small buffers, so that one test process holds thousands of peers; nothing larger than a frame is read.
fn socket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4 * 1024)
        .write_buffer_size(16 * 1024)
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME))
}

async fn within<T>(
    deadline: Duration,
    what: &'static str,
    future: impl Future<Output = T>,
) -> Result<T, RawError> {
    tokio::time::timeout(deadline, future).await.map_err(|_| RawError::Deadline { what, deadline })
}

#[cfg(test)]
mod tests;
