//! Verifies admission tickets and invitations, offline.

use std::path::PathBuf;
use std::time::Duration;

use arc_swap::ArcSwap;
use culvert_wire::ticket::{AUDIENCE, INVITATION_TYPE, InvitationClaims, TICKET_TYPE, TicketClaims};
use culvert_wire::{Close, PeerId};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::de::DeserializeOwned;

use crate::config::TicketPolicy;

/// A key file that is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("ticket key file {path}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It holds something else.
    #[error(
        "{path} holds no Ed25519 public key: give PEM (`BEGIN PUBLIC KEY`) or a JSON Web Key Set with \
         `kty` OKP and `crv` Ed25519"
    )]
    NoKey {
        /// Which.
        path: String,
    },
}

struct TicketKey {
    id: Option<String>,
    key: DecodingKey,
}

/// The public keys whose tickets are believed.
pub struct TicketKeys {
    files: Vec<PathBuf>,
    longest_life: Duration,
    keys: ArcSwap<Vec<TicketKey>>,
}

impl TicketKeys {
    /// Reads every configured file.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn load(policy: &TicketPolicy) -> Result<Self, KeyError> {
        let keys = read_all(&policy.keys)?;
        Ok(Self {
            files: policy.keys.clone(),
            longest_life: policy.longest_life,
            keys: ArcSwap::from_pointee(keys),
        })
    }

    /// Reads every file again; on an error the old keys stay.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn reload(&self) -> Result<(), KeyError> {
        self.keys.store(std::sync::Arc::new(read_all(&self.files)?));
        Ok(())
    }

    /// The files, to watch them.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Checks a ticket's signature, type, audience and times, but not whom it is bound to.
    ///
    /// # Errors
    /// [`Close::TicketInvalid`] or [`Close::TicketExpired`].
    pub fn verify(&self, ticket: &str, now: u64) -> Result<TicketClaims, Close> {
        let id = key_id(ticket, TICKET_TYPE).ok_or(Close::TicketInvalid)?;
        let keys = self.keys.load();
        let claims: TicketClaims = keys
            .iter()
            .filter(|key| id.is_none() || key.id.is_none() || key.id == id)
            .find_map(|key| claims(ticket, &key.key))
            .ok_or(Close::TicketInvalid)?;
        if claims.exp <= now {
            return Err(Close::TicketExpired);
        }
        if claims.exp > now.saturating_add(self.longest_life.as_secs()) {
            return Err(Close::TicketInvalid);
        }
        Ok(claims)
    }
}

/// Checks an invitation's signature, type and audience.
///
/// # Errors
/// [`Close::InvitationInvalid`].
pub fn verify_invitation(invitation: &str, signer: &PeerId) -> Result<InvitationClaims, Close> {
    let verified = || {
        key_id(invitation, INVITATION_TYPE)?;
        let key = DecodingKey::from_ed_components(&BASE64URL_NOPAD.encode(&signer.0)).ok()?;
        claims(invitation, &key)
    };
    verified().ok_or(Close::InvitationInvalid)
}

/// The `kid` of a token of this type and of the one algorithm that is accepted.
fn key_id(token: &str, expected_type: &str) -> Option<Option<String>> {
    let header = jsonwebtoken::decode_header(token).ok()?;
    let pinned = header.alg == Algorithm::EdDSA && header.typ.as_deref() == Some(expected_type);
    pinned.then_some(header.kid)
}

fn claims<T: DeserializeOwned + Clone>(token: &str, key: &DecodingKey) -> Option<T> {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&[AUDIENCE]);
    validation.set_required_spec_claims(&["aud", "exp", "sub"]);
    // The caller compares the expiry with the node's own clock.
    validation.validate_exp = false;
    jsonwebtoken::decode::<T>(token, key, &validation).ok().map(|token| token.claims)
}

fn read_all(files: &[PathBuf]) -> Result<Vec<TicketKey>, KeyError> {
    let mut keys = Vec::new();
    for file in files {
        let path = || file.display().to_string();
        let text = std::fs::read(file).map_err(|source| KeyError::Read { path: path(), source })?;
        let found = read_keys(&text);
        if found.is_empty() {
            return Err(KeyError::NoKey { path: path() });
        }
        keys.extend(found);
    }
    Ok(keys)
}

fn read_keys(text: &[u8]) -> Vec<TicketKey> {
    if let Ok(set) = serde_json::from_slice::<JwkSet>(text) {
        let usable = set.keys.iter().filter_map(|jwk| {
            let key = DecodingKey::from_jwk(jwk).ok()?;
            let ed25519 = key.family() == jsonwebtoken::AlgorithmFamily::Ed;
            ed25519.then(|| TicketKey { id: jwk.common.key_id.clone(), key })
        });
        return usable.collect();
    }
    // One file may hold several PEM blocks, so that keys can be rotated by appending.
    const END: &str = "-----END PUBLIC KEY-----";
    let text = String::from_utf8_lossy(text);
    text.split_inclusive(END)
        .filter_map(|block| DecodingKey::from_ed_pem(block.trim().as_bytes()).ok())
        .map(|key| TicketKey { id: None, key })
        .collect()
}
