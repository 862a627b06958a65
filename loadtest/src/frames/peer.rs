//! One connection to a relay.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use bytes::Bytes;
use culvert_wire::ticket::{AUDIENCE, TICKET_TYPE, TicketClaims, TicketLimits, Topics};
use culvert_wire::{
    ConnId, Frame, Generation, Handle, Hello, Members, PATH, PeerId, SUBPROTOCOL, TopicId, Transcript,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use tokio::io::AsyncWriteExt;

use super::dial::{Dialer, Io};
use super::inbox::Inbox;
use crate::plan::Admission;

/// Seconds for which a peer's ticket is valid: longer than any run.
const TICKET_LIFE: u64 = 24 * 3600 - 60;
/// What a peer that sends and receives little keeps for reading.
pub const SMALL_BUFFER: usize = 2 << 10;
/// More than a whole window of small frames, so that one read takes all that waits.
pub const LARGE_BUFFER: usize = 64 << 10;

/// An admitted connection.
pub struct Peer {
    /// Its socket; everything read so far is in `inbox`.
    pub socket: Box<dyn Io>,
    /// What was read and not yet taken.
    pub inbox: Inbox,
    /// Its address.
    pub conn: ConnId,
    /// Whose it is.
    pub id: PeerId,
}

/// The frame as a client's WebSocket message.
///
/// # Errors
/// The frame is larger than a frame may be.
pub fn message(frame: &Frame) -> Result<Vec<u8>> {
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
    /// TCP, TLS, upgrade and hello, with a key of its own, to the relay of this number; `buffer` bytes are
    /// kept for reading.
    ///
    /// # Errors
    /// A sentence about the step that failed.
    pub async fn connect(dialer: &Dialer, number: usize, buffer: usize) -> Result<Self> {
        let way = dialer.way(number);
        let socket = dialer.open(way).await?;
        let key = Ed25519KeyPair::generate()?;
        let id = PeerId(key.public_key().as_ref().try_into()?);
        let mut peer = Self { socket, inbox: Inbox::new(buffer.max(SMALL_BUFFER)), conn: ConnId::NONE, id };
        peer.upgrade(&way.host).await?;
        let Frame::Challenge(challenge) = peer.recv().await? else { bail!("the relay sent no challenge") };
        let mut hello = Hello {
            peer: id,
            // Its freshness protects the client; nobody is in danger here.
            nonce: challenge.nonce,
            version: culvert_wire::VERSION,
            generation: Generation(1),
            replaces: ConnId::NONE,
            host: way.host.clone(),
            admission: culvert_wire::Admission::None,
            signature: [0; 64],
        };
        hello.admission = admission(&dialer.admission, id, &Transcript::of(&challenge, &hello))?;
        let signed = Transcript::of(&challenge, &hello).signed(&hello.admission);
        hello.signature = key.sign(&signed).as_ref().try_into()?;
        peer.send(&Frame::Hello(Box::new(hello))).await?;
        let Frame::Welcome(welcome) = peer.recv().await? else { bail!("the relay sent no welcome") };
        peer.conn = welcome.conn;
        Ok(peer)
    }

    async fn upgrade(&mut self, host: &str) -> Result<()> {
        let request = format!(
            "GET {PATH} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        self.socket.write_all(request.as_bytes()).await?;
        self.socket.flush().await?;
        loop {
            self.inbox.fill(&mut *self.socket).await.context("no answer to the upgrade")?;
            let answer = self.inbox.bytes();
            if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
                ensure!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(answer));
                self.inbox.skip(end + 4);
                return Ok(());
            }
        }
    }

    /// Writes one frame.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn send(&mut self, frame: &Frame) -> Result<()> {
        self.socket.write_all(&message(frame)?).await?;
        Ok(self.socket.flush().await?)
    }

    /// Reads the next frame.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn recv(&mut self) -> Result<Frame> {
        loop {
            if let Some(message) = self.inbox.next()? {
                return Ok(Frame::decode(Bytes::copy_from_slice(message))?);
            }
            self.inbox.fill(&mut *self.socket).await?;
        }
    }

    /// Enters a topic; frames that come before the answer are thrown away.
    ///
    /// # Errors
    /// The relay refuses, or the connection ended.
    pub async fn join(&mut self, topic: TopicId) -> Result<(Handle, Members)> {
        self.send(&Frame::Join { topic }).await?;
        loop {
            match self.recv().await? {
                Frame::Joined { handle, members, .. } => return Ok((handle, members)),
                Frame::JoinRefused { refusal, .. } => bail!("the relay refused a join: {}", refusal.name()),
                _ => {}
            }
        }
    }
}

fn admission(admission: &Admission, peer: PeerId, seen: &Transcript) -> Result<culvert_wire::Admission> {
    Ok(match admission {
        Admission::Open => culvert_wire::Admission::None,
        Admission::AccessToken(token) => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
            culvert_wire::Admission::AccessToken(hmac::sign(&key, &seen.bytes()).as_ref().try_into()?)
        }
        Admission::Tickets { key, key_id, tenant } => {
            culvert_wire::Admission::Ticket(ticket(key, key_id.as_deref(), tenant, peer)?)
        }
    })
}

/// A ticket for this peer and all topics.
///
/// # Errors
/// The key is no Ed25519 PEM.
pub fn ticket(key: &str, key_id: Option<&str>, tenant: &str, peer: PeerId) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims = TicketClaims {
        aud: AUDIENCE.into(),
        sub: peer,
        tenant: tenant.to_owned(),
        topics: Topics::All,
        limits: TicketLimits::default(),
        invites: 0,
        iat: now,
        exp: now + TICKET_LIFE,
        jti: format!("loadtest-{peer}"),
    };
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some(TICKET_TYPE.into());
    header.kid = key_id.map(str::to_owned);
    let key = EncodingKey::from_ed_pem(key.as_bytes()).context("the ticket key is no Ed25519 PEM")?;
    Ok(jsonwebtoken::encode(&header, &claims, &key)?)
}
