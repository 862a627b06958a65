//! A peer that costs as little as it can: the handshake by the wire crate, frames by hand.
//!
//! WebSocket frames are written with a mask of zero, so masking is free here; the relay cannot tell and
//! unmasks as always.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use bytes::Bytes;
use culvert_wire::{
    Admission, ConnId, Frame, Generation, Handle, Hello, PATH, PeerId, SUBPROTOCOL, TopicId, Transcript,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::relay::Relay;

/// A socket, with or without TLS.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// An admitted connection.
pub(crate) struct Peer {
    /// Its socket; everything read so far is in `inbox`.
    pub(crate) socket: Box<dyn Io>,
    /// What was read and not yet taken.
    pub(crate) inbox: Inbox,
    /// Its address.
    pub(crate) conn: ConnId,
}

/// Bytes from the relay, taken apart into WebSocket messages.
pub(crate) struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    fn new(size: usize) -> Self {
        Self { buffer: vec![0; size], start: 0, end: 0 }
    }

    /// Reads once from the socket.
    pub(crate) async fn fill(&mut self, socket: &mut (dyn Io + 'static)) -> Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        ensure!(self.end < self.buffer.len(), "a message is larger than the buffer");
        let read = socket.read(&mut self.buffer[self.end..]).await?;
        ensure!(read > 0, "the relay closed the connection");
        self.end += read;
        Ok(())
    }

    /// Takes the next whole message out, if it is there.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>> {
        let bytes = &self.buffer[self.start..self.end];
        let (head, len) = match bytes {
            [_, len @ 0..=125, ..] => (2, usize::from(*len)),
            [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
            [_, 127, ..] => bail!("the relay sent a message of more than 64 KiB"),
            _ => return Ok(None),
        };
        if bytes.len() < head + len {
            return Ok(None);
        }
        ensure!(bytes[0] == 0x82, "the relay sent {:#04x}: {:?}", bytes[0], bytes.get(head..head + len));
        let from = self.start + head;
        self.start = from + len;
        Ok(Some(&self.buffer[from..from + len]))
    }
}

/// The frame as a client's WebSocket message.
pub(crate) fn message(frame: &Frame) -> Result<Vec<u8>> {
    let body = frame.encode()?;
    let mut out = vec![0x82];
    match u8::try_from(body.len()) {
        Ok(len) if len <= 125 => out.push(0x80 | len),
        _ => {
            out.push(0x80 | 126);
            out.extend_from_slice(&u16::try_from(body.len())?.to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&body);
    Ok(out)
}

impl Peer {
    /// TCP, TLS, upgrade and hello, with a key of its own; `buffer` bytes are kept for reading.
    pub(crate) async fn connect(relay: &Relay, buffer: usize) -> Result<Self> {
        let tcp = TcpStream::connect(relay.addr).await?;
        tcp.set_nodelay(true)?;
        let socket: Box<dyn Io> = match &relay.trust {
            Some(trust) => Box::new(tls(tcp, trust).await?),
            None => Box::new(tcp),
        };
        let mut peer = Self { socket, inbox: Inbox::new(buffer.max(1024)), conn: ConnId::NONE };
        peer.upgrade().await?;
        let Frame::Challenge(challenge) = peer.recv().await? else { bail!("no challenge") };
        let key = Ed25519KeyPair::generate()?;
        let mut hello = Hello {
            peer: PeerId(key.public_key().as_ref().try_into()?),
            // Its freshness protects the client; nobody is in danger here.
            nonce: challenge.nonce,
            version: culvert_wire::VERSION,
            generation: Generation(1),
            replaces: ConnId::NONE,
            host: relay.host.to_owned(),
            admission: Admission::None,
            signature: [0; 64],
        };
        let signed = Transcript::of(&challenge, &hello).signed(&hello.admission);
        hello.signature = key.sign(&signed).as_ref().try_into()?;
        peer.send(&Frame::Hello(Box::new(hello))).await?;
        let Frame::Welcome(welcome) = peer.recv().await? else { bail!("no welcome") };
        peer.conn = welcome.conn;
        Ok(peer)
    }

    async fn upgrade(&mut self) -> Result<()> {
        let request = format!(
            "GET {PATH} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        self.socket.write_all(request.as_bytes()).await?;
        self.socket.flush().await?;
        loop {
            self.inbox.fill(&mut *self.socket).await.context("the answer to the upgrade")?;
            let answer = &self.inbox.buffer[..self.inbox.end];
            if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
                ensure!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(answer));
                self.inbox.start = end + 4;
                return Ok(());
            }
        }
    }

    /// Writes one frame.
    pub(crate) async fn send(&mut self, frame: &Frame) -> Result<()> {
        self.socket.write_all(&message(frame)?).await?;
        Ok(self.socket.flush().await?)
    }

    /// Reads the next frame.
    pub(crate) async fn recv(&mut self) -> Result<Frame> {
        loop {
            if let Some(message) = self.inbox.next()? {
                return Ok(Frame::decode(Bytes::copy_from_slice(message))?);
            }
            self.inbox.fill(&mut *self.socket).await?;
        }
    }

    /// Enters a topic.
    pub(crate) async fn join(&mut self, topic: TopicId) -> Result<Handle> {
        self.send(&Frame::Join { topic }).await?;
        loop {
            match self.recv().await? {
                Frame::Joined { handle, .. } => return Ok(handle),
                Frame::JoinRefused { refusal, .. } => bail!("join refused: {}", refusal.name()),
                _ => {}
            }
        }
    }
}

async fn tls(tcp: TcpStream, trust: &Arc<ClientConfig>) -> Result<impl Io + 'static> {
    let name = ServerName::try_from("localhost")?;
    Ok(TlsConnector::from(trust.clone()).connect(name, tcp).await?)
}
