//! Frames to bytes and back.
//!
//! Decoding is strict about what v1 defines and lenient about what comes after it: unknown kinds,
//! notices and flag bits are skipped, and bytes behind a fixed body are ignored, so that a later
//! version can append fields.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::frame::{Frame, Header, JoinRefusal, Kind, Member, Members, Notice, Verdict};
use crate::hello::{Admission, Challenge, Hello, Welcome};
use crate::id::{ConnId, Generation, NodeId, PeerId, TopicId};
use crate::limits::{
    HEADER_LEN, MAX_FRAME, MAX_HOST, MAX_INVITATION, MAX_MEMBERS, MAX_PAYLOAD, MAX_TICKET, MAX_VERSIONS,
};

/// Bytes that are no frame of this protocol. All of them end the connection as `protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message ends before the frame does.
    #[error("frame of kind {kind:#04x} is shorter than its fields")]
    Short {
        /// The first byte, 0 in an empty message.
        kind: u8,
    },
    /// The class number 3.
    #[error("class 3 does not exist")]
    Class,
    /// A field is longer than its limit.
    #[error("{field} is longer than {limit}")]
    TooLong {
        /// Which.
        field: &'static str,
        /// The most it may be, in bytes or entries.
        limit: usize,
    },
    /// A field holds a value that v1 does not define.
    #[error("{field} has no defined value")]
    Value {
        /// Which.
        field: &'static str,
    },
}

/// A frame that cannot be written, because a field is longer than the wire allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} is longer than {limit}")]
pub struct EncodeError {
    /// Which.
    pub field: &'static str,
    /// The most it may be, in bytes or entries.
    pub limit: usize,
}

impl Frame {
    /// Writes the frame as one WebSocket message.
    ///
    /// # Errors
    /// A payload, ticket, host or member list over its limit in [`crate::limits`].
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        let content = match self {
            Frame::Send { payload, .. }
            | Frame::Broadcast { payload, .. }
            | Frame::Deliver { payload, .. } => payload.len(),
            // Enough for most; the others grow.
            _ => 64,
        };
        let mut out = BytesMut::with_capacity(HEADER_LEN + content);
        self.encode_into(&mut out)?;
        Ok(out.freeze())
    }

    fn encode_into(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let mut header = Header { kind: self.kind(), ..Header::plain(Kind::Ping) };
        match self {
            Frame::Challenge(challenge) => {
                within("versions", challenge.versions.len(), MAX_VERSIONS)?;
                out.put_slice(&header.to_bytes());
                out.put_slice(&challenge.nonce);
                out.put_u16(challenge.node.0);
                put_count(out, challenge.versions.len());
                challenge.versions.iter().for_each(|version| out.put_u16(*version));
            }
            Frame::Hello(hello) => {
                out.put_slice(&header.to_bytes());
                put_hello(out, hello)?;
            }
            Frame::Welcome(welcome) => {
                header.conn = welcome.conn;
                out.put_slice(&header.to_bytes());
                out.put_u16(welcome.version);
                out.put_u32(welcome.max_payload);
                out.put_u32(welcome.queue_bytes);
                out.put_u16(welcome.max_topics);
                out.put_u32(welcome.frames_per_second);
                out.put_u64(welcome.bytes_per_second);
                out.put_u32(welcome.keepalive_ms);
                out.put_u32(welcome.idle_timeout_ms);
                out.put_u64(welcome.expires_at);
            }
            Frame::Join { topic } | Frame::Lookup { topic } => {
                out.put_slice(&header.to_bytes());
                out.put_slice(&topic.0);
            }
            Frame::Leave { handle } => {
                header.handle = *handle;
                out.put_slice(&header.to_bytes());
            }
            Frame::Send { class, handle, to, payload } => {
                header = Header { class: *class, handle: *handle, conn: *to, ..header };
                put_payload(out, header, payload)?;
            }
            Frame::Broadcast { class, handle, payload } => {
                header = Header { class: *class, handle: *handle, ..header };
                put_payload(out, header, payload)?;
            }
            Frame::Deliver { class, broadcast, handle, from, payload } => {
                header =
                    Header { class: *class, broadcast: *broadcast, handle: *handle, conn: *from, ..header };
                put_payload(out, header, payload)?;
            }
            Frame::Renew { ticket } => {
                within("ticket", ticket.len(), MAX_TICKET)?;
                out.put_slice(&header.to_bytes());
                out.put_slice(ticket.as_bytes());
            }
            Frame::Ping { token, padding } | Frame::Pong { token, padding } => {
                header.conn = ConnId(*token);
                put_payload(out, header, padding)?;
            }
            Frame::Joined { handle, topic, members } => {
                header.handle = *handle;
                put_members(out, header, topic, members)?;
            }
            Frame::Peers { topic, members } => put_members(out, header, topic, members)?,
            Frame::PeerJoined { handle, member } => {
                header = Header { handle: *handle, conn: member.conn, ..header };
                out.put_slice(&header.to_bytes());
                out.put_slice(&member.peer.0);
                out.put_u64(member.generation.0);
            }
            Frame::PeerLeft { handle, conn, peer } => {
                header = Header { handle: *handle, conn: *conn, ..header };
                out.put_slice(&header.to_bytes());
                out.put_slice(&peer.0);
            }
            Frame::Undeliverable { broadcast, handle, to, verdict, count } => {
                header = Header { broadcast: *broadcast, handle: *handle, conn: *to, ..header };
                out.put_slice(&header.to_bytes());
                out.put_u8(verdict.number());
                out.put_u32(*count);
            }
            Frame::Gap { from, count } => {
                header.conn = from.unwrap_or(ConnId::NONE);
                out.put_slice(&header.to_bytes());
                out.put_u32(*count);
            }
            Frame::Notice(notice) => put_notice(out, header, *notice),
            Frame::Drain { reconnect_in_ms, close_in_ms } => {
                out.put_slice(&header.to_bytes());
                out.put_u32(*reconnect_in_ms);
                out.put_u32(*close_in_ms);
            }
            Frame::JoinRefused { topic, refusal } => {
                out.put_slice(&header.to_bytes());
                out.put_slice(&topic.0);
                out.put_u8(refusal.number());
            }
            Frame::Unknown { .. } => out.put_slice(&header.to_bytes()),
        }
        Ok(())
    }

    /// Reads one WebSocket message. Payloads are slices of `message`, not copies.
    ///
    /// # Errors
    /// See [`DecodeError`]; never panics, whatever the bytes.
    pub fn decode(message: Bytes) -> Result<Frame, DecodeError> {
        within("frame", message.len(), MAX_FRAME).map_err(DecodeError::from)?;
        let (header, _) = Header::split(&message)?;
        let Some(kind) = Kind::from_number(header.kind) else {
            return Ok(Frame::Unknown { kind: header.kind });
        };
        let mut body = Body { kind, rest: message.slice(HEADER_LEN..) };
        Ok(match kind {
            Kind::Challenge => Frame::Challenge(body.challenge()?),
            Kind::Hello => Frame::Hello(Box::new(body.hello()?)),
            Kind::Welcome => Frame::Welcome(Welcome {
                conn: header.conn,
                version: body.u16()?,
                max_payload: body.u32()?,
                queue_bytes: body.u32()?,
                max_topics: body.u16()?,
                frames_per_second: body.u32()?,
                bytes_per_second: body.u64()?,
                keepalive_ms: body.u32()?,
                idle_timeout_ms: body.u32()?,
                expires_at: body.u64()?,
            }),
            Kind::Join => Frame::Join { topic: body.topic()? },
            Kind::Leave => Frame::Leave { handle: header.handle },
            Kind::Lookup => Frame::Lookup { topic: body.topic()? },
            Kind::Send => Frame::Send {
                class: header.class,
                handle: header.handle,
                to: header.conn,
                payload: body.rest,
            },
            Kind::Broadcast => {
                Frame::Broadcast { class: header.class, handle: header.handle, payload: body.rest }
            }
            Kind::Renew => Frame::Renew { ticket: body.text("ticket", usize::MAX, MAX_TICKET)? },
            Kind::Ping => Frame::Ping { token: header.conn.0, padding: body.rest },
            Kind::Joined => {
                Frame::Joined { handle: header.handle, topic: body.topic()?, members: body.members()? }
            }
            Kind::PeerJoined => Frame::PeerJoined {
                handle: header.handle,
                member: Member {
                    conn: header.conn,
                    peer: PeerId(body.array()?),
                    generation: Generation(body.u64()?),
                },
            },
            Kind::PeerLeft => {
                Frame::PeerLeft { handle: header.handle, conn: header.conn, peer: PeerId(body.array()?) }
            }
            Kind::Peers => Frame::Peers { topic: body.topic()?, members: body.members()? },
            Kind::Deliver => Frame::Deliver {
                class: header.class,
                broadcast: header.broadcast,
                handle: header.handle,
                from: header.conn,
                payload: body.rest,
            },
            Kind::Undeliverable => Frame::Undeliverable {
                broadcast: header.broadcast,
                handle: header.handle,
                to: header.conn,
                verdict: Verdict::from_number(body.u8()?).ok_or(DecodeError::Value { field: "verdict" })?,
                count: body.u32()?,
            },
            Kind::Gap => {
                Frame::Gap { from: (header.conn != ConnId::NONE).then_some(header.conn), count: body.u32()? }
            }
            Kind::Notice => Frame::Notice(body.notice(header.conn)?),
            Kind::Drain => Frame::Drain { reconnect_in_ms: body.u32()?, close_in_ms: body.u32()? },
            Kind::Pong => Frame::Pong { token: header.conn.0, padding: body.rest },
            Kind::JoinRefused => Frame::JoinRefused {
                topic: body.topic()?,
                refusal: JoinRefusal::from_number(body.u8()?)
                    .ok_or(DecodeError::Value { field: "refusal" })?,
            },
        })
    }
}

impl From<EncodeError> for DecodeError {
    fn from(error: EncodeError) -> Self {
        DecodeError::TooLong { field: error.field, limit: error.limit }
    }
}

fn within(field: &'static str, len: usize, limit: usize) -> Result<(), EncodeError> {
    if len <= limit { Ok(()) } else { Err(EncodeError { field, limit }) }
}

#[expect(clippy::cast_possible_truncation, reason = "MAX_VERSIONS is below 256")]
fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u8(count as u8);
}

fn put_payload(out: &mut BytesMut, header: Header, payload: &[u8]) -> Result<(), EncodeError> {
    within("payload", payload.len(), MAX_PAYLOAD)?;
    out.reserve(HEADER_LEN + payload.len());
    out.put_slice(&header.to_bytes());
    out.put_slice(payload);
    Ok(())
}

/// The lengths below are checked against limits that fit 16 bits.
#[expect(clippy::cast_possible_truncation, reason = "every limit is below 65536")]
fn put_counted(
    out: &mut BytesMut,
    field: &'static str,
    bytes: &[u8],
    limit: usize,
) -> Result<(), EncodeError> {
    within(field, bytes.len(), limit)?;
    out.put_u16(bytes.len() as u16);
    out.put_slice(bytes);
    Ok(())
}

fn put_hello(out: &mut BytesMut, hello: &Hello) -> Result<(), EncodeError> {
    out.put_slice(&hello.peer.0);
    out.put_slice(&hello.nonce);
    out.put_u16(hello.version);
    out.put_u64(hello.generation.0);
    out.put_u64(hello.replaces.0);
    put_counted(out, "host", hello.host.as_bytes(), MAX_HOST)?;
    out.put_u8(hello.admission.number());
    match &hello.admission {
        Admission::None => {}
        Admission::AccessToken(mac) => out.put_slice(mac),
        Admission::Ticket(ticket) => put_counted(out, "ticket", ticket.as_bytes(), MAX_TICKET)?,
        Admission::Invitation { ticket, invitation } => {
            put_counted(out, "ticket", ticket.as_bytes(), MAX_TICKET)?;
            put_counted(out, "invitation", invitation.as_bytes(), MAX_INVITATION)?;
        }
    }
    out.put_slice(&hello.signature);
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "MAX_MEMBERS is below 65536")]
fn put_members(
    out: &mut BytesMut,
    header: Header,
    topic: &TopicId,
    members: &Members,
) -> Result<(), EncodeError> {
    within("members", members.list.len(), MAX_MEMBERS)?;
    out.put_slice(&header.to_bytes());
    out.put_slice(&topic.0);
    out.put_u32(members.total);
    out.put_u8(u8::from(members.degraded));
    out.put_u16(members.list.len() as u16);
    for member in &members.list {
        out.put_u64(member.conn.0);
        out.put_slice(&member.peer.0);
        out.put_u64(member.generation.0);
    }
    Ok(())
}

fn put_notice(out: &mut BytesMut, mut header: Header, notice: Notice) {
    if let Notice::Duplicate { newest } = notice {
        header.conn = newest;
    }
    out.put_slice(&header.to_bytes());
    out.put_u8(notice.number());
    match notice {
        Notice::Renewed { expires_at } | Notice::Expiring { expires_at } => out.put_u64(expires_at),
        Notice::RenewRefused { code } => out.put_u16(code),
        Notice::Throttled
        | Notice::Duplicate { .. }
        | Notice::Degraded
        | Notice::Restored
        | Notice::Other(_) => {}
    }
}

/// What is left of a frame's body; every read checks the length first.
struct Body {
    kind: Kind,
    rest: Bytes,
}

impl Body {
    fn need(&self, len: usize) -> Result<(), DecodeError> {
        if self.rest.len() < len { Err(DecodeError::Short { kind: self.kind.number() }) } else { Ok(()) }
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.need(1)?;
        Ok(self.rest.get_u8())
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.need(2)?;
        Ok(self.rest.get_u16())
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.need(4)?;
        Ok(self.rest.get_u32())
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.need(8)?;
        Ok(self.rest.get_u64())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.need(N)?;
        let mut out = [0; N];
        self.rest.copy_to_slice(&mut out);
        Ok(out)
    }

    fn topic(&mut self) -> Result<TopicId, DecodeError> {
        Ok(TopicId(self.array()?))
    }

    /// Text of `len` bytes, or all that is left where `len` is more than a frame holds.
    fn text(&mut self, field: &'static str, len: usize, limit: usize) -> Result<String, DecodeError> {
        let len = if len == usize::MAX { self.rest.len() } else { len };
        within(field, len, limit)?;
        self.need(len)?;
        let bytes = self.rest.split_to(len);
        String::from_utf8(bytes.into()).map_err(|_| DecodeError::Value { field })
    }

    fn counted_text(&mut self, field: &'static str, limit: usize) -> Result<String, DecodeError> {
        let len = usize::from(self.u16()?);
        self.text(field, len, limit)
    }

    fn challenge(&mut self) -> Result<Challenge, DecodeError> {
        let nonce = self.array()?;
        let node = NodeId(self.u16()?);
        let count = usize::from(self.u8()?);
        within("versions", count, MAX_VERSIONS)?;
        let versions = (0..count).map(|_| self.u16()).collect::<Result<_, _>>()?;
        Ok(Challenge { nonce, node, versions })
    }

    fn hello(&mut self) -> Result<Hello, DecodeError> {
        let peer = PeerId(self.array()?);
        let nonce = self.array()?;
        let version = self.u16()?;
        let generation = Generation(self.u64()?);
        let replaces = ConnId(self.u64()?);
        let host = self.counted_text("host", MAX_HOST)?;
        let admission = match self.u8()? {
            0 => Admission::None,
            1 => Admission::AccessToken(self.array()?),
            2 => Admission::Ticket(self.counted_text("ticket", MAX_TICKET)?),
            3 => Admission::Invitation {
                ticket: self.counted_text("ticket", MAX_TICKET)?,
                invitation: self.counted_text("invitation", MAX_INVITATION)?,
            },
            _ => return Err(DecodeError::Value { field: "admission" }),
        };
        let signature = self.array()?;
        Ok(Hello { peer, nonce, version, generation, replaces, host, admission, signature })
    }

    fn members(&mut self) -> Result<Members, DecodeError> {
        let total = self.u32()?;
        let degraded = self.u8()? != 0;
        let count = usize::from(self.u16()?);
        within("members", count, MAX_MEMBERS)?;
        let list = (0..count)
            .map(|_| {
                Ok(Member {
                    conn: ConnId(self.u64()?),
                    peer: PeerId(self.array()?),
                    generation: Generation(self.u64()?),
                })
            })
            .collect::<Result<_, DecodeError>>()?;
        Ok(Members { total, degraded, list })
    }

    fn notice(&mut self, conn: ConnId) -> Result<Notice, DecodeError> {
        Ok(match self.u8()? {
            1 => Notice::Throttled,
            2 => Notice::Duplicate { newest: conn },
            3 => Notice::Degraded,
            4 => Notice::Restored,
            5 => Notice::Renewed { expires_at: self.u64()? },
            6 => Notice::RenewRefused { code: self.u16()? },
            7 => Notice::Expiring { expires_at: self.u64()? },
            other => Notice::Other(other),
        })
    }
}
