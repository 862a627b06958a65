//! The WebSocket of a connection, after the upgrade: the server's side of RFC 6455 without extensions, as
//! far as the protocol needs it: binary messages of at most one frame.
//!
//! It is written for many connections that are mostly idle and some that are busy: none of them owns a
//! buffer, a message is copied once on its way from one socket to another, and nothing is allocated for it
//! but its own size. See `docs/decisions/relay-framing.md`.

mod decoder;
mod mask;
mod message;

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use culvert_wire::Close;

use crate::socket::{Batch, Receiver, Sender, Socket};

pub use decoder::{Decoder, Event, Violation};
pub use message::{Message, Received};

/// How long a peer may take to acknowledge a close, so that it reads the reason before the connection
/// is torn down.
const LINGER: Duration = Duration::from_secs(1);
/// What is read and thrown away at most while a peer has not acknowledged a close.
const MOST_THROWN_AWAY: u64 = 4 << 20;
/// "Normal closure" in RFC 6455 section 7.4.1: the answer to a client that is done.
const NORMAL: u16 = 1000;

/// A WebSocket, server side.
pub struct WebSocket {
    socket: Socket,
    decoder: Decoder,
    batch: Batch,
    read_size: usize,
    /// Whether the client has said that it is done.
    closing: bool,
    /// Whether what comes makes no sense any more.
    broken: bool,
}

/// Where messages come from.
pub struct Incoming<'a> {
    receiver: Receiver<'a>,
    decoder: &'a mut Decoder,
    read_size: usize,
    closing: &'a mut bool,
    broken: &'a mut bool,
}

/// Where messages go.
pub struct Outgoing<'a> {
    sender: Sender<'a>,
    batch: &'a mut Batch,
}

impl WebSocket {
    /// A WebSocket on an upgraded socket, of which at most `read_size` bytes are read at once: half as many
    /// with TLS, where each byte takes twice as long and others wait for their turn.
    pub fn new(socket: Socket, read_size: usize) -> Self {
        let (decoder, batch) = Default::default();
        let read_size = if socket.is_secure() { read_size / 2 } else { read_size };
        Self { socket, decoder, batch, read_size, closing: false, broken: false }
    }

    /// Both directions, for use at the same time.
    pub fn split(&mut self) -> (Incoming<'_>, Outgoing<'_>) {
        let (receiver, sender) = self.socket.split();
        let Self { decoder, batch, read_size, closing, broken, .. } = self;
        (Incoming { receiver, decoder, read_size: *read_size, closing, broken }, Outgoing { sender, batch })
    }

    /// The next thing that comes. Cancel safe.
    ///
    /// # Errors
    /// As [`Incoming::poll_events`].
    pub async fn receive(&mut self) -> Result<Event, Close> {
        let (mut incoming, _) = self.split();
        let mut next = None;
        loop {
            let mut take = |event| {
                next = Some(event);
                false
            };
            std::future::poll_fn(|cx| incoming.poll_events(cx, &mut take)).await?;
            if let Some(event) = next.take() {
                return Ok(event);
            }
        }
    }

    /// Writes one message.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn send(&mut self, message: Message) -> io::Result<()> {
        let (_, mut outgoing) = self.split();
        outgoing.batch().push(message);
        std::future::poll_fn(|cx| outgoing.poll_flush(cx)).await
    }

    /// Ends the connection. Behind what is half written it says why, unless the client has said that it is
    /// done, which is only acknowledged; then it waits a moment for the peer to read it: closing with
    /// unread bytes would reset the connection and lose the reason.
    pub async fn close(&mut self, close: Close) {
        let answered = self.closing;
        let last = if answered {
            Message::close(NORMAL, "")
        } else {
            Message::close(close.code(), close.sentence())
        };
        let _ = tokio::time::timeout(LINGER, async {
            self.send(last).await?;
            let (mut incoming, mut outgoing) = self.split();
            std::future::poll_fn(|cx| outgoing.sender.poll_close(cx)).await?;
            if !answered {
                incoming.throw_away().await;
            }
            Ok::<_, io::Error>(())
        })
        .await;
    }

    /// Whether the client has said that it is done and waits for an answer.
    pub fn is_closing(&self) -> bool {
        self.closing
    }
}

impl Incoming<'_> {
    /// Gives what has come to `take`, until that wants no more, and reads from the kernel at most once.
    /// What is not taken comes the next time. Nothing at all may be taken, if no message is complete.
    /// Gives the bytes that were looked at.
    ///
    /// # Errors
    /// The connection is over: [`Close::Done`] without a word, or for the violation.
    pub fn poll_events(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(Event) -> bool,
    ) -> Poll<Result<usize, Close>> {
        let (mut more, mut looked_at, mut violation) = (true, 0, None);
        let Self { receiver, decoder, read_size, closing, .. } = self;
        let received = receiver.poll_receive(cx, *read_size, |bytes| {
            let mut input = bytes;
            while more {
                match decoder.next(&mut input) {
                    Ok(Some(event)) => {
                        **closing |= matches!(event, Event::Close);
                        more = take(event);
                    }
                    Ok(None) => break,
                    Err(found) => {
                        violation = Some(found);
                        more = false;
                    }
                }
            }
            looked_at += bytes.len() - input.len();
            bytes.len() - input.len()
        });
        let received = ready!(received);
        if let Some(violation) = violation {
            *self.broken = true;
            return Poll::Ready(Err(violation.into()));
        }
        Poll::Ready(match received {
            Ok(true) => Ok(looked_at),
            Ok(false) | Err(_) => Err(Close::Done),
        })
    }

    /// Reads until the peer has acknowledged a close, or is gone, or has sent too much.
    async fn throw_away(&mut self) {
        let mut thrown_away = 0;
        while thrown_away < MOST_THROWN_AWAY && !*self.closing {
            let read = std::future::poll_fn(|cx| {
                if *self.broken {
                    // Where its messages begin and end nobody knows.
                    let all = |bytes: &[u8]| {
                        thrown_away += bytes.len() as u64;
                        bytes.len()
                    };
                    return self.receiver.poll_receive(cx, self.read_size, all).map_err(|_| Close::Done);
                }
                let looked_at = ready!(self.poll_events(cx, |_| true));
                Poll::Ready(looked_at.map(|bytes| {
                    thrown_away += bytes as u64;
                    true
                }))
            });
            if !matches!(read.await, Ok(true)) {
                return;
            }
        }
    }
}

impl Outgoing<'_> {
    /// The messages that are not written yet; more are added at the end.
    pub fn batch(&mut self) -> &mut Vec<Message> {
        self.batch.room()
    }

    /// Bytes that the kernel took so far.
    pub fn total(&self) -> u64 {
        self.sender.total()
    }

    /// Writes until nothing is left.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(self.sender.poll_send(cx, self.batch));
        self.batch.give_back();
        Poll::Ready(flushed)
    }

    /// Lets go of memory that is not needed while there is nothing to write.
    pub fn rest(&mut self) {
        self.batch.give_back();
    }
}
