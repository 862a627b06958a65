//! Who may come in: checks a hello and says what it grants.
//!
//! Nothing here asks anybody: a ticket is verified with configured public keys, an invitation with the
//! key in the ticket that comes with it. Whatever is not configured is refused.

pub mod revocations;
pub mod tickets;

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::{hmac, signature};
use culvert_service_kit::Clock;
use culvert_wire::ticket::{TicketClaims, TicketLimits, Topics};
use culvert_wire::{Admission, Challenge, Close, Hello, PeerId, TopicId, Transcript, VERSIONS};

pub use revocations::{Credentials, Revocations, Revoked};
pub use tickets::{KeyError, KeySet, KeySetError, TicketKeys};

use crate::config::AdmissionPolicy;

/// The tenant of everybody who comes in without a ticket.
pub const DEFAULT_TENANT: &str = "default";

/// What an admitted connection may do.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Whose limits it shares.
    pub tenant: String,
    /// The topics it may join.
    pub topics: Topics,
    /// Limits narrower than the relay's.
    pub limits: TicketLimits,
    /// When it ends, seconds since 1970.
    pub expires_at: Option<u64>,
    /// The id of the ticket; a guest's is the one that it was invited under.
    pub ticket: Option<Arc<str>>,
    /// For a guest: who invited it.
    pub invited: Option<Invited>,
}

/// How a guest came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invited {
    /// The inviting peer, whose ticket it is.
    pub by: PeerId,
    /// How many guests may be connected to this node at once under the ticket.
    pub guests: u32,
}

impl Grant {
    fn unrestricted() -> Self {
        Self {
            tenant: DEFAULT_TENANT.to_owned(),
            topics: Topics::All,
            limits: TicketLimits::default(),
            expires_at: None,
            ticket: None,
            invited: None,
        }
    }

    fn by_ticket(claims: TicketClaims) -> Self {
        Self {
            tenant: claims.tenant,
            topics: claims.topics,
            limits: claims.limits,
            expires_at: Some(claims.exp),
            ticket: Some(claims.jti.into()),
            invited: None,
        }
    }

    /// What can be revoked of it, once it is the peer's.
    pub fn credentials(&self, peer: PeerId) -> Credentials {
        let inviter = self.invited.as_ref().map(|invited| invited.by);
        Credentials { peer, ticket: self.ticket.clone(), inviter }
    }

    /// Whether it opens the topic.
    pub fn opens(&self, topic: &TopicId) -> bool {
        self.topics.contains(topic)
    }
}

/// The node's door.
pub struct Gate {
    open: bool,
    token: Option<hmac::Key>,
    tickets: Option<TicketKeys>,
    names: Box<dyn Fn(&str) -> bool + Send + Sync>,
    clock: Clock,
    revocations: Arc<ArcSwap<Revocations>>,
}

impl Gate {
    /// A door with this policy. `knows_name` says whether a host name is one of this relay's;
    /// `revocations` is what the bus says at any moment.
    ///
    /// # Errors
    /// A key file that cannot be read or holds no Ed25519 public key.
    pub fn new(
        policy: &AdmissionPolicy,
        knows_name: impl Fn(&str) -> bool + Send + Sync + 'static,
        clock: Clock,
        revocations: Arc<ArcSwap<Revocations>>,
    ) -> Result<Self, KeyError> {
        let token = policy.access_token.as_ref();
        Ok(Self {
            open: policy.open && token.is_none(),
            token: token.map(|token| hmac::Key::new(hmac::HMAC_SHA256, token.expose().as_bytes())),
            tickets: policy.tickets.as_ref().map(TicketKeys::load).transpose()?,
            names: Box::new(knows_name),
            clock,
            revocations,
        })
    }

    /// The ticket keys, to be read again when their files change.
    pub fn tickets(&self) -> Option<&TicketKeys> {
        self.tickets.as_ref()
    }

    /// Checks a hello against the challenge it answers.
    ///
    /// # Errors
    /// The reason with which the connection is closed; the first that applies.
    pub fn admit(&self, challenge: &Challenge, hello: &Hello) -> Result<Grant, Close> {
        if !VERSIONS.contains(&hello.version) {
            return Err(Close::Version);
        }
        if !(self.names)(&hello.host) {
            return Err(Close::WrongHost);
        }
        let transcript = Transcript::of(challenge, hello);
        signature::UnparsedPublicKey::new(&signature::ED25519, &hello.peer.0)
            .verify(&transcript.signed(&hello.admission), &hello.signature)
            .map_err(|_| Close::BadSignature)?;
        let grant = self.grant(hello, &transcript)?;
        self.still_valid(&hello.peer, grant)
    }

    fn grant(&self, hello: &Hello, transcript: &Transcript) -> Result<Grant, Close> {
        match &hello.admission {
            Admission::None if self.open => Ok(Grant::unrestricted()),
            Admission::None => Err(Close::NotAdmitted),
            Admission::AccessToken(mac) => {
                let key = self.token.as_ref().ok_or(Close::NotAdmitted)?;
                // Constant time, by the library's promise.
                hmac::verify(key, &transcript.bytes(), mac).map_err(|_| Close::NotAdmitted)?;
                Ok(Grant::unrestricted())
            }
            Admission::Ticket(ticket) => {
                let claims = self.ticket(ticket)?;
                if claims.sub != hello.peer {
                    return Err(Close::TicketForeign);
                }
                Ok(Grant::by_ticket(claims))
            }
            Admission::Invitation { ticket, invitation } => {
                let claims = self.ticket(ticket)?;
                self.invitation(claims, invitation, &hello.peer)
            }
        }
    }

    /// Checks a fresh ticket for a connection that is in already.
    ///
    /// # Errors
    /// The reason with which a hello with this ticket would have been closed.
    pub fn renew(&self, peer: &PeerId, grant: &Grant, ticket: &str) -> Result<Grant, Close> {
        let claims = self.ticket(ticket)?;
        match &grant.invited {
            None if claims.sub == *peer => self.still_valid(peer, Grant::by_ticket(claims)),
            None => Err(Close::TicketForeign),
            // A guest's invitation has its own end, which only a new link moves.
            Some(_) => Err(Close::InvitationInvalid),
        }
    }

    fn still_valid(&self, peer: &PeerId, grant: Grant) -> Result<Grant, Close> {
        let revoked = self.revocations.load().cover(&grant.credentials(*peer), self.clock.unix_seconds());
        if revoked { Err(Close::Revoked) } else { Ok(grant) }
    }

    fn ticket(&self, ticket: &str) -> Result<TicketClaims, Close> {
        self.tickets.as_ref().ok_or(Close::NotAdmitted)?.verify(ticket, self.clock.unix_seconds())
    }

    fn invitation(&self, ticket: TicketClaims, invitation: &str, guest: &PeerId) -> Result<Grant, Close> {
        let claims = tickets::verify_invitation(invitation, &ticket.sub)?;
        let valid = claims.iss == ticket.sub
            && claims.sub == *guest
            && claims.exp > self.clock.unix_seconds()
            && ticket.topics.contains(&claims.topic)
            && ticket.invites > 0;
        if !valid {
            return Err(Close::InvitationInvalid);
        }
        Ok(Grant {
            topics: Topics::Only(vec![claims.topic]),
            limits: ticket.limits.narrowed_by(&claims.limits),
            expires_at: Some(claims.exp.min(ticket.exp)),
            ticket: Some(ticket.jti.into()),
            invited: Some(Invited { by: ticket.sub, guests: ticket.invites }),
            tenant: ticket.tenant,
        })
    }
}

/// Whether a host name matches one of a relay's names: the same, or under a wildcard of one label.
pub fn name_matches(name: &str, host: &str) -> bool {
    let (name, host) = (name.trim_end_matches('.'), host.trim_end_matches('.'));
    match name.strip_prefix("*.") {
        Some(parent) => host
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
        None => name.eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_one_label() {
        assert!(name_matches("relay.example", "Relay.Example."));
        assert!(name_matches("*.relay.example", "eu.relay.example"));
        assert!(!name_matches("*.relay.example", "relay.example"));
        assert!(!name_matches("*.relay.example", "a.eu.relay.example"));
        assert!(!name_matches("relay.example", "rogue.example"));
    }
}
