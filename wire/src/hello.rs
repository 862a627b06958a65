//! The handshake: what the relay asks, what the peer signs, what it is granted.

use crate::id::{ConnId, Generation, NodeId, PeerId};

/// Separates the signature of a hello from every other use of the same key.
pub const HELLO_LABEL: &[u8] = b"culvert relay hello v1\0";

/// The relay's first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Fresh random bytes, so that no hello can be replayed.
    pub nonce: [u8; 32],
    /// The node that answers.
    pub node: NodeId,
    /// Protocol versions it accepts, newest first.
    pub versions: Vec<u16>,
}

/// The peer's answer to a [`Challenge`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Who connects.
    pub peer: PeerId,
    /// The peer's own random bytes.
    pub nonce: [u8; 32],
    /// The version it chose from the relay's.
    pub version: u16,
    /// Orders this peer's connections.
    pub generation: Generation,
    /// The connection that this one takes over from, or [`ConnId::NONE`].
    pub replaces: ConnId,
    /// The host that was dialled, lower case, without port.
    pub host: String,
    /// Why it may come in.
    pub admission: Admission,
    /// Ed25519 over [`Transcript::signed`].
    pub signature: [u8; 64],
}

/// Why a peer may come in.
#[derive(Clone, PartialEq, Eq)]
pub enum Admission {
    /// No reason given: for open relays.
    None,
    /// HMAC-SHA256 under the relay's access token over [`Transcript::bytes`]; the token never travels.
    AccessToken([u8; 32]),
    /// A ticket bound to the peer's key.
    Ticket(String),
    /// An invitation to the peer's key by the holder of the ticket.
    Invitation {
        /// The inviting peer's ticket.
        ticket: String,
        /// Signed by the inviting peer.
        invitation: String,
    },
}

impl Admission {
    /// The number of this kind on the wire.
    pub const fn number(&self) -> u8 {
        match self {
            Admission::None => 0,
            Admission::AccessToken(_) => 1,
            Admission::Ticket(_) => 2,
            Admission::Invitation { .. } => 3,
        }
    }

    /// Stable name: log field and metric label.
    pub const fn name(&self) -> &'static str {
        match self {
            Admission::None => "none",
            Admission::AccessToken(_) => "access_token",
            Admission::Ticket(_) => "ticket",
            Admission::Invitation { .. } => "invitation",
        }
    }
}

/// Names the kind only: what is inside lets its reader in.
impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Admission({})", self.name())
    }
}

/// What both sides saw of one handshake; the peer signs it.
///
/// The host that was dialled is in it, so a relay that passes another relay's challenge on gets a hello
/// that the other relay refuses.
#[derive(Debug, Clone, Copy)]
pub struct Transcript<'a> {
    /// As in [`Hello::host`].
    pub host: &'a str,
    /// The relay's challenge.
    pub challenge: &'a Challenge,
    /// As in [`Hello::nonce`].
    pub nonce: &'a [u8; 32],
    /// As in [`Hello::version`].
    pub version: u16,
    /// As in [`Hello::peer`].
    pub peer: &'a PeerId,
    /// As in [`Hello::generation`].
    pub generation: Generation,
    /// As in [`Hello::replaces`].
    pub replaces: ConnId,
}

impl<'a> Transcript<'a> {
    /// What the relay takes from the hello it got and the challenge it sent.
    pub fn of(challenge: &'a Challenge, hello: &'a Hello) -> Self {
        Self {
            host: &hello.host,
            challenge,
            nonce: &hello.nonce,
            version: hello.version,
            peer: &hello.peer,
            generation: hello.generation,
            replaces: hello.replaces,
        }
    }

    /// The transcript before the admission: what an access token's HMAC covers.
    ///
    /// Every variable part has its length in front, so no two handshakes have the same bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HELLO_LABEL.len() + 256);
        out.extend_from_slice(HELLO_LABEL);
        put_counted(&mut out, self.host.as_bytes());
        out.extend_from_slice(&self.challenge.nonce);
        out.extend_from_slice(&self.challenge.node.0.to_be_bytes());
        let versions: Vec<u8> = self.challenge.versions.iter().flat_map(|v| v.to_be_bytes()).collect();
        put_counted(&mut out, &versions);
        out.extend_from_slice(self.nonce);
        out.extend_from_slice(&self.version.to_be_bytes());
        out.extend_from_slice(&self.peer.0);
        out.extend_from_slice(&self.generation.0.to_be_bytes());
        out.extend_from_slice(&self.replaces.0.to_be_bytes());
        out
    }

    /// What the peer signs: the transcript and its admission.
    pub fn signed(&self, admission: &Admission) -> Vec<u8> {
        let mut out = self.bytes();
        out.push(admission.number());
        match admission {
            Admission::None => {}
            Admission::AccessToken(mac) => put_counted(&mut out, mac),
            Admission::Ticket(ticket) => put_counted(&mut out, ticket.as_bytes()),
            Admission::Invitation { ticket, invitation } => {
                put_counted(&mut out, ticket.as_bytes());
                put_counted(&mut out, invitation.as_bytes());
            }
        }
        out
    }
}

fn put_counted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// The relay's answer to a [`Hello`] that it accepts. The connection's address is in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// The new connection's address.
    pub conn: ConnId,
    /// Version that both sides speak from here on.
    pub version: u16,
    /// Most payload bytes in one frame.
    pub max_payload: u32,
    /// Bytes the relay queues for this connection before it refuses frames as `full`.
    pub queue_bytes: u32,
    /// Topics the connection may be in at once.
    pub max_topics: u16,
    /// Frames a second it may send; 0 is no limit.
    pub frames_per_second: u32,
    /// Payload bytes a second it may send; 0 is no limit.
    pub bytes_per_second: u64,
    /// Milliseconds after which a peer with nothing to say sends a `Ping`.
    pub keepalive_ms: u32,
    /// Milliseconds of silence after which the relay closes as `idle`.
    pub idle_timeout_ms: u32,
    /// When the admission ends, seconds since 1970; 0 is never.
    pub expires_at: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge() -> Challenge {
        Challenge { nonce: [1; 32], node: NodeId(7), versions: vec![1] }
    }

    #[test]
    fn every_part_of_the_handshake_changes_what_is_signed() {
        let challenge = challenge();
        let other = Challenge { nonce: [9; 32], ..challenge.clone() };
        let newer = Challenge { versions: vec![2, 1], ..challenge.clone() };
        let base = Transcript {
            host: "relay.example",
            challenge: &challenge,
            nonce: &[2; 32],
            version: 1,
            peer: &PeerId([3; 32]),
            generation: Generation(4),
            replaces: ConnId(5),
        };
        let variants = [
            base,
            Transcript { host: "relay.example.", ..base },
            Transcript { challenge: &other, ..base },
            Transcript { challenge: &newer, ..base },
            Transcript { nonce: &[8; 32], ..base },
            Transcript { version: 2, ..base },
            Transcript { peer: &PeerId([8; 32]), ..base },
            Transcript { generation: Generation(8), ..base },
            Transcript { replaces: ConnId(8), ..base },
        ];
        let mut seen: Vec<Vec<u8>> = variants.iter().map(|t| t.signed(&Admission::None)).collect();
        seen.push(base.signed(&Admission::AccessToken([0; 32])));
        seen.push(base.signed(&Admission::Ticket("ab".into())));
        seen.push(base.signed(&Admission::Invitation { ticket: "a".into(), invitation: "b".into() }));
        let total = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), total);
    }

    #[test]
    fn an_admission_never_prints_what_is_inside() {
        let text = format!("{:?}", Admission::Ticket("secret".into()));
        assert_eq!(text, "Admission(ticket)");
    }
}
