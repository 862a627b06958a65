//! From the upgrade to the welcome: challenge, hello, admission.

use std::sync::Arc;

use culvert_service_kit::proxy_protocol;
use culvert_wire::limits::MAX_PAYLOAD;
use culvert_wire::{Challenge, Close, ConnId, Frame, Hello, VERSION, VERSIONS, Welcome};

use crate::accounts::Seat;
use crate::admission::Grant;
use crate::link::Link;
use crate::metrics::Refusal;
use crate::node::{Node, Seats};
use crate::outbox::Outbox;
use crate::reader::{max_topics, rates};
use crate::websocket::{Event, Message, WebSocket};

/// A peer that was let in.
pub struct Admitted {
    /// Its connection, entered in the node.
    pub link: Arc<Link>,
    /// The connection it takes over from.
    pub replaces: ConnId,
    /// What it may do.
    pub grant: Grant,
    /// Its seats.
    pub seats: Seats,
}

/// Why a peer was not let in.
#[derive(Debug)]
pub enum Rejected {
    /// It is told so.
    Close(Close),
    /// It is not there any more.
    Gone,
}

impl From<Close> for Rejected {
    fn from(close: Close) -> Self {
        Rejected::Close(close)
    }
}

/// A refusal before the protocol began.
impl From<proxy_protocol::ProxyError> for Refusal {
    fn from(_: proxy_protocol::ProxyError) -> Self {
        Refusal::ProxyProtocol
    }
}

/// Lets a peer in, or says why not. The caller sets the deadline.
///
/// # Errors
/// See [`Rejected`].
pub async fn admit(node: &Node, socket: &mut WebSocket, source: Seat) -> Result<Admitted, Rejected> {
    let number = node.local().number().ok_or(Close::Fenced)?;
    let challenge = Challenge { nonce: rand::random(), node: number, versions: VERSIONS.to_vec() };
    send(socket, &Frame::Challenge(challenge.clone())).await?;
    let hello = receive_hello(socket).await?;
    let grant = node.gate.admit(&challenge, &hello)?;
    let seats = node.seat(source, hello.peer, &grant)?;
    let link = loop {
        let id = ConnId::new(number, rand::random());
        let outbox = Outbox::new(node.config.limits.queue_bytes, &node.local().budget);
        let link = Link::new(id, hello.generation, grant.credentials(hello.peer), outbox);
        let link = Arc::new(link);
        if node.local().add(&link) {
            break link;
        }
    };
    // From here on the link is in the node: nothing below may fail before a reader owns it.
    link.outbox.push_own(&Frame::Welcome(welcome(node, link.id, &grant)));
    Ok(Admitted { link, replaces: hello.replaces, grant, seats })
}

fn welcome(node: &Node, conn: ConnId, grant: &Grant) -> Welcome {
    let limits = &node.config.limits;
    let timing = &node.config.timing;
    let (frames, bytes) = rates(node, grant);
    let millis = |time: std::time::Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    let u32_or_most = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Welcome {
        conn,
        version: VERSION,
        max_payload: u32_or_most(MAX_PAYLOAD as u64),
        queue_bytes: u32_or_most(limits.queue_bytes as u64),
        max_topics: max_topics(limits.topics_per_connection, grant),
        frames_per_second: u32_or_most(frames.per_second),
        bytes_per_second: bytes.per_second,
        keepalive_ms: millis(timing.keepalive),
        idle_timeout_ms: millis(timing.idle),
        expires_at: grant.expires_at.unwrap_or(0),
    }
}

async fn send(socket: &mut WebSocket, frame: &Frame) -> Result<(), Rejected> {
    let bytes = frame.encode().map_err(|_| Rejected::Close(Close::Internal))?;
    socket.send(Message::binary(&bytes)).await.map_err(|_| Rejected::Gone)
}

async fn receive_hello(socket: &mut WebSocket) -> Result<Box<Hello>, Rejected> {
    loop {
        match socket.receive().await {
            Ok(Event::Message(message)) => match Frame::decode(message.into_frame()) {
                Ok(Frame::Hello(hello)) => return Ok(hello),
                Ok(Frame::Unknown { .. }) => {}
                Ok(_) | Err(_) => return Err(Close::Protocol.into()),
            },
            Ok(Event::Ping(content)) => {
                socket.send(Message::pong(&content)).await.map_err(|_| Rejected::Gone)?;
            }
            Ok(Event::Part | Event::Pong) => {}
            Ok(Event::Close) | Err(Close::Done) => return Err(Rejected::Gone),
            Err(close) => return Err(close.into()),
        }
    }
}
