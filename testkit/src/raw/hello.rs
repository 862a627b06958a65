//! The hello of a raw peer: right by default, wrong in whatever a test wants wrong.

use aws_lc_rs::hmac;
use culvert_wire::{Admission, Challenge, ConnId, Generation, Hello, Transcript, VERSION};

use crate::identity::Identity;

/// What a hello says.
#[derive(Clone)]
pub struct HelloOptions {
    identity: Identity,
    generation: Generation,
    replaces: ConnId,
    version: u16,
    host: Option<String>,
    proof: Proof,
}

#[derive(Clone)]
enum Proof {
    Fixed(Admission),
    Token(Vec<u8>),
}

impl HelloOptions {
    /// A first connection of this peer to an open relay.
    pub fn new(identity: &Identity) -> Self {
        Self {
            identity: identity.clone(),
            generation: Generation(1),
            replaces: ConnId::NONE,
            version: VERSION,
            host: None,
            proof: Proof::Fixed(Admission::None),
        }
    }

    /// Shows knowledge of the relay's access token.
    #[must_use]
    pub fn access_token(self, token: &str) -> Self {
        Self { proof: Proof::Token(token.as_bytes().to_vec()), ..self }
    }

    /// Carries a ticket.
    #[must_use]
    pub fn ticket(self, ticket: impl Into<String>) -> Self {
        Self { proof: Proof::Fixed(Admission::Ticket(ticket.into())), ..self }
    }

    /// Carries an invitation and the ticket of who invites.
    #[must_use]
    pub fn invitation(self, ticket: impl Into<String>, invitation: impl Into<String>) -> Self {
        let admission = Admission::Invitation { ticket: ticket.into(), invitation: invitation.into() };
        Self { proof: Proof::Fixed(admission), ..self }
    }

    /// Orders this connection among the peer's.
    #[must_use]
    pub fn generation(self, generation: u64) -> Self {
        Self { generation: Generation(generation), ..self }
    }

    /// Takes over from an older connection.
    #[must_use]
    pub fn replaces(self, conn: ConnId) -> Self {
        Self { replaces: conn, ..self }
    }

    /// Chooses a version, offered or not.
    #[must_use]
    pub fn version(self, version: u16) -> Self {
        Self { version, ..self }
    }

    /// Names another host than the one that was dialled.
    #[must_use]
    pub fn host(self, host: &str) -> Self {
        Self { host: Some(host.to_owned()), ..self }
    }

    /// The hello for this challenge, with a fresh nonce and a good signature.
    ///
    /// # Panics
    /// The system gives no random bytes.
    pub fn sign(&self, challenge: &Challenge, dialled: &str) -> Hello {
        let mut nonce = [0; 32];
        aws_lc_rs::rand::fill(&mut nonce).expect("the system gives random bytes");
        let mut hello = Hello {
            peer: self.identity.peer(),
            nonce,
            version: self.version,
            generation: self.generation,
            replaces: self.replaces,
            host: self.host.as_deref().unwrap_or(dialled).to_ascii_lowercase(),
            admission: Admission::None,
            signature: [0; 64],
        };
        hello.admission = match &self.proof {
            Proof::Fixed(admission) => admission.clone(),
            Proof::Token(token) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, token);
                let tag = hmac::sign(&key, &Transcript::of(challenge, &hello).bytes());
                let mut mac = [0; 32];
                mac.copy_from_slice(tag.as_ref());
                Admission::AccessToken(mac)
            }
        };
        let signed = Transcript::of(challenge, &hello).signed(&hello.admission);
        hello.signature = self.identity.sign(&signed);
        hello
    }
}
