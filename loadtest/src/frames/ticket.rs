//! Tickets for peers, signed by the load test itself with the operator's key.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use culvert_wire::PeerId;
use culvert_wire::ticket::{AUDIENCE, TICKET_TYPE, TicketClaims, TicketLimits, Topics};
use jsonwebtoken::{Algorithm, EncodingKey, Header};

/// Seconds for which a peer's ticket is valid: longer than any run, and no longer than relays allow.
const LIFE: u64 = 24 * 3600 - 60;

/// Signs tickets, with a key that was read once.
pub(super) struct Signer {
    key: EncodingKey,
    header: Header,
    tenant: String,
}

impl Signer {
    /// `key` is a PKCS#8 PEM.
    ///
    /// # Errors
    /// It is no Ed25519 key.
    pub(super) fn new(key: &str, key_id: Option<&str>, tenant: &str) -> Result<Self> {
        let key = EncodingKey::from_ed_pem(key.as_bytes());
        let key = key.context("the ticket key is no PKCS#8 PEM of an Ed25519 key")?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TICKET_TYPE.into());
        header.kid = key_id.map(str::to_owned);
        Ok(Self { key, header, tenant: tenant.to_owned() })
    }

    /// A ticket for this peer and all topics.
    ///
    /// # Errors
    /// The clock is before 1970.
    pub(super) fn sign(&self, peer: PeerId) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = TicketClaims {
            aud: AUDIENCE.into(),
            sub: peer,
            tenant: self.tenant.clone(),
            topics: Topics::All,
            limits: TicketLimits::default(),
            invites: 0,
            iat: now,
            exp: now + LIFE,
            jti: format!("loadtest-{peer}"),
        };
        Ok(jsonwebtoken::encode(&self.header, &claims, &self.key)?)
    }
}

/// A single ticket, as every raw peer gets one.
///
/// # Errors
/// The key does not read, or cannot sign.
pub fn ticket(key: &str, key_id: Option<&str>, tenant: &str, peer: PeerId) -> Result<String> {
    Signer::new(key, key_id, tenant)?.sign(peer)
}
