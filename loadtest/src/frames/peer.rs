//! One connection to a relay.

use std::time::Duration;

use anyhow::{Context, Result};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use bytes::Bytes;
use culvert_wire::{
    Challenge, ConnId, Frame, Generation, Handle, Hello, Members, NodeId, PATH, PeerId, SUBPROTOCOL, TopicId,
    Transcript, Welcome,
};

use super::dial::Dialer;
use super::error::{ConnectError, Ended};
use super::inbox::Inbox;
use super::link::Link;
use super::message::message;
use crate::plan::Admission;

/// TCP, TLS, upgrade and hello together. A relay's own limit is 10 s.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// What a peer that sends and receives little keeps for reading.
pub const SMALL_BUFFER: usize = 2 << 10;
/// More than a whole window of small frames, so that one read takes all that waits.
pub const LARGE_BUFFER: usize = 64 << 10;

/// An admitted connection.
pub struct Peer {
    /// What it writes through.
    pub link: Link,
    /// What was read and not yet taken.
    pub inbox: Inbox,
    /// Its address.
    pub conn: ConnId,
    /// Whose it is.
    pub id: PeerId,
    /// What the relay said about itself.
    pub welcome: Welcome,
    /// Says that the connection is open, for as long as it is.
    pub(super) held: Option<super::crew::Held>,
}

impl Peer {
    /// TCP, TLS, upgrade and hello, with a key of its own, to the relay of this number; `buffer` bytes are
    /// kept for reading.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(dialer: &Dialer, number: usize, buffer: usize) -> Result<Self, ConnectError> {
        let connected = tokio::time::timeout(HANDSHAKE, Self::handshake(dialer, number, buffer)).await;
        connected.unwrap_or(Err(ConnectError::Slow(HANDSHAKE)))
    }

    async fn handshake(dialer: &Dialer, number: usize, buffer: usize) -> Result<Self, ConnectError> {
        let way = dialer.way(number);
        let link = Link::new(dialer.open(way).await?);
        let mut inbox = Inbox::new(buffer.max(SMALL_BUFFER));
        upgrade(&link, &mut inbox, &way.host).await?;
        let refused = |ended| match ended {
            Ended::Closed { close, reason } => ConnectError::Refused { close, reason },
            ended => ConnectError::Cut(ended),
        };
        let Frame::Challenge(challenge) = receive(&link, &mut inbox).await.map_err(refused)? else {
            return Err(ConnectError::Cut(Ended::Nonsense("it begins without a challenge".to_owned())));
        };
        let (id, hello) = hello(dialer, &way.host, &challenge)
            .map_err(|error| ConnectError::Own(format!("no hello could be made: {error:#}")))?;
        link.write_all(&hello).await.map_err(refused)?;
        let Frame::Welcome(welcome) = receive(&link, &mut inbox).await.map_err(refused)? else {
            return Err(ConnectError::Cut(Ended::Nonsense(
                "it answers a hello without a welcome".to_owned(),
            )));
        };
        Ok(Self { link, inbox, conn: welcome.conn, id, welcome, held: None })
    }

    /// The node on which it is connected.
    pub fn node(&self) -> NodeId {
        self.conn.node()
    }

    /// Writes one frame.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn send(&self, frame: &Frame) -> Result<(), Ended> {
        let message = message(frame).map_err(|error| Ended::Nonsense(error.to_string()))?;
        self.link.write_all(&message).await
    }

    /// Reads the next frame.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn receive(&mut self) -> Result<Frame, Ended> {
        receive(&self.link, &mut self.inbox).await
    }

    /// Reads what there is, at least something. Cancel safe.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn fill(&mut self) -> Result<(), Ended> {
        self.link.fill(&mut self.inbox).await
    }

    /// Enters a topic; frames that come before the answer are thrown away.
    ///
    /// # Errors
    /// The relay refuses, or the connection ended.
    pub async fn join(&mut self, topic: TopicId) -> Result<(Handle, Members), Ended> {
        self.send(&Frame::Join { topic }).await?;
        loop {
            match self.receive().await? {
                Frame::Joined { handle, topic: joined, members } if joined == topic => {
                    return Ok((handle, members));
                }
                Frame::JoinRefused { topic: refused, refusal } if refused == topic => {
                    return Err(Ended::JoinRefused(refusal));
                }
                _ => {}
            }
        }
    }
}

async fn receive(link: &Link, inbox: &mut Inbox) -> Result<Frame, Ended> {
    loop {
        if let Some(message) = inbox.message()? {
            let frame = Frame::decode(Bytes::copy_from_slice(message));
            return frame.map_err(|error| Ended::Nonsense(error.to_string()));
        }
        link.fill(inbox).await?;
    }
}

async fn upgrade(link: &Link, inbox: &mut Inbox, host: &str) -> Result<(), ConnectError> {
    // The key only has to be there; the answer's hash protects against caches, of which there are none.
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    link.write_all(request.as_bytes()).await.map_err(ConnectError::Cut)?;
    loop {
        link.fill(inbox).await.map_err(ConnectError::Cut)?;
        let bytes = inbox.bytes();
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let answer = String::from_utf8_lossy(&bytes[..end]);
        let answer = answer.lines().next().unwrap_or_default().to_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        if status != 101 {
            return Err(ConnectError::Upgrade { host: host.to_owned(), status, answer });
        }
        inbox.skip(end + 4);
        return Ok(());
    }
}

/// A fresh peer, and its hello as a message.
fn hello(dialer: &Dialer, host: &str, challenge: &Challenge) -> Result<(PeerId, Vec<u8>)> {
    let key = Ed25519KeyPair::generate()?;
    let id = PeerId(key.public_key().as_ref().try_into()?);
    let mut hello = Hello {
        peer: id,
        // Its freshness protects the client; nobody is in danger here.
        nonce: challenge.nonce,
        version: culvert_wire::VERSION,
        generation: Generation(1),
        replaces: ConnId::NONE,
        host: host.to_owned(),
        admission: culvert_wire::Admission::None,
        signature: [0; 64],
    };
    hello.admission = admission(dialer, id, &Transcript::of(challenge, &hello))?;
    let signed = Transcript::of(challenge, &hello).signed(&hello.admission);
    hello.signature = key.sign(&signed).as_ref().try_into()?;
    Ok((id, message(&Frame::Hello(Box::new(hello)))?))
}

fn admission(dialer: &Dialer, peer: PeerId, seen: &Transcript) -> Result<culvert_wire::Admission> {
    Ok(match &dialer.admission {
        Admission::Open => culvert_wire::Admission::None,
        Admission::AccessToken(token) => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
            culvert_wire::Admission::AccessToken(hmac::sign(&key, &seen.bytes()).as_ref().try_into()?)
        }
        Admission::Tickets { .. } => {
            let signer = dialer.signer.as_ref().context("no key to sign tickets with")?;
            culvert_wire::Admission::Ticket(signer.sign(peer)?)
        }
    })
}
