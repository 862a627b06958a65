//! Keys that sign relay tickets and grants, and how one follows another.
//!
//! Relays and owners verify offline with the key set at `/.well-known/jwks.json`, of which they keep a
//! copy. So a key is published at least [`lead`] before it signs, and stays published until nothing that
//! it signed can be valid any more. Keys live in the store, their private halves sealed; of several
//! replicas that find it time for the next key, the store lets one add it and all load what is there.
//! If a broker sleeps through a change, the old key goes on signing until the next one has been made.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use bytes::Bytes;
use culvert_broker_wire::Timestamp;
use culvert_broker_wire::grant::{GRANT_TYPE, GrantClaims};
use culvert_service_kit::Clock;
use culvert_wire::ticket::{TICKET_TYPE, TicketClaims};
use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use serde_json::json;

use crate::config::{Config, Timing};
use crate::core::Refusal;
use crate::seal::Sealer;
use crate::store::{SigningKey, Store, StoreError};

/// Signs tickets and grants.
pub struct SigningKeys {
    set: ArcSwap<KeySet>,
    timing: Timing,
    clock: Clock,
}

/// Keys that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The database does not give or take them.
    #[error("the signing keys are not available")]
    Store(#[from] StoreError),
    /// They are sealed with a data key that is not configured, or damaged.
    #[error(
        "signing key {kid} does not open: the data key that sealed it must stay among the configured ones"
    )]
    Sealed {
        /// Which.
        kid: String,
    },
    /// The crypto provider refused.
    #[error("a signing key cannot be made")]
    Make,
}

/// The keys at one moment, newest first.
#[derive(Default)]
struct KeySet {
    keys: Vec<Key>,
    /// What others verify with.
    jwks: Bytes,
}

struct Key {
    kid: String,
    public: [u8; 32],
    pair: Ed25519KeyPair,
    active_from: Timestamp,
    retires_at: Timestamp,
    /// The encoded headers of what it signs, with the dot.
    ticket_header: String,
    grant_header: String,
}

impl SigningKeys {
    /// Loads the keys, and makes the first one when there is none.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub async fn load(
        config: &Config,
        store: &Arc<dyn Store>,
        sealer: &Sealer,
        clock: Clock,
    ) -> Result<Self, KeysError> {
        let keys = Self { set: ArcSwap::default(), timing: config.timing.clone(), clock };
        keys.refresh(store.as_ref(), sealer).await?;
        Ok(keys)
    }

    /// Loads what other replicas added, and adds the next key when it is time; says whether it did.
    ///
    /// # Errors
    /// See [`KeysError`]; the keys loaded before stay.
    pub async fn refresh(&self, store: &dyn Store, sealer: &Sealer) -> Result<bool, KeysError> {
        let mut added = false;
        let now = self.now();
        let mut known = store.signing_keys(now).await?;
        if let Some((active_from, unless_after)) = self.next(&known, now) {
            let key = make(sealer, now, active_from, self.retirement(active_from))?;
            added = store.add_signing_key(key, unless_after).await?;
            known = store.signing_keys(now).await?;
        }
        let keys = known.iter().map(|key| open(sealer, key)).collect::<Result<Vec<_>, _>>()?;
        let jwks = Bytes::from(key_set(&keys).to_string());
        self.set.store(Arc::new(KeySet { keys, jwks }));
        Ok(added)
    }

    /// A ticket for a relay.
    ///
    /// # Errors
    /// `UNAVAILABLE` while there is no key.
    pub fn ticket(&self, claims: &TicketClaims) -> Result<String, Refusal> {
        self.sign(claims, |key| &key.ticket_header)
    }

    /// A grant for an owner's server.
    ///
    /// # Errors
    /// `UNAVAILABLE` while there is no key.
    pub fn grant(&self, claims: &GrantClaims) -> Result<String, Refusal> {
        self.sign(claims, |key| &key.grant_header)
    }

    /// The JSON Web Key Set (RFC 7517) that both are verified with.
    pub fn jwks(&self) -> Bytes {
        self.set.load().jwks.clone()
    }

    /// How long others may keep a copy of the key set: a quarter of the time for which a key is published
    /// before it signs.
    pub fn jwks_max_age(&self) -> Duration {
        lead(&self.timing) / 4
    }

    /// When a key has to follow the newest one; it is made before.
    pub fn next_due(&self) -> Option<Timestamp> {
        let newest = self.set.load().keys.iter().map(|key| key.active_from).max();
        newest.map(|from| later(from, self.timing.key_rotation))
    }

    /// Signs by hand rather than with `jsonwebtoken`, which parses the private key for every signature.
    fn sign(&self, claims: &impl Serialize, header: impl Fn(&Key) -> &String) -> Result<String, Refusal> {
        let set = self.set.load();
        let now = self.now();
        let key = set.keys.iter().find(|key| key.active_from <= now && now < key.retires_at);
        let key = key.ok_or_else(Refusal::unavailable)?;
        let claims = serde_json::to_vec(claims).map_err(|error| {
            tracing::error!(%error, "claims cannot be written");
            Refusal::internal()
        })?;
        let mut token = header(key).clone();
        BASE64URL_NOPAD.encode_append(&claims, &mut token);
        let signature = key.pair.sign(token.as_bytes());
        token.push('.');
        BASE64URL_NOPAD.encode_append(signature.as_ref(), &mut token);
        Ok(token)
    }

    /// When the next key should begin to sign, if it has to be made now, and the moment after which no
    /// other key may begin for it to be needed.
    fn next(&self, known: &[SigningKey], now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let rotation = self.timing.key_rotation;
        let Some(newest) = known.iter().max_by_key(|key| key.active_from) else {
            // Nobody has a copy of a key set that could be stale: it signs at once. Retired keys, which are
            // not given here, began before this.
            return Some((now, before(now, 2 * rotation + longest_life(&self.timing))));
        };
        let planned = later(newest.active_from, rotation);
        let lead = lead(&self.timing);
        (later(now, lead) >= planned).then(|| (planned.max(later(now, lead)), newest.active_from))
    }

    /// Long after the next key signs, so that it can go on if the next one is late.
    fn retirement(&self, active_from: Timestamp) -> Timestamp {
        later(active_from, 2 * self.timing.key_rotation + longest_life(&self.timing))
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_unix_seconds(self.clock.unix_seconds())
    }
}

/// How long a key is published before it signs: a day, or a quarter of a shorter rotation.
fn lead(timing: &Timing) -> Duration {
    (timing.key_rotation / 4).min(Duration::from_secs(86_400))
}

/// How long something signed can be valid.
fn longest_life(timing: &Timing) -> Duration {
    timing.ticket.max(timing.grant)
}

fn later(moment: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_unix_seconds(moment.unix_seconds().saturating_add(by.as_secs()))
}

fn before(moment: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_unix_seconds(moment.unix_seconds().saturating_sub(by.as_secs()))
}

fn make(
    sealer: &Sealer,
    now: Timestamp,
    active_from: Timestamp,
    retires_at: Timestamp,
) -> Result<SigningKey, KeysError> {
    let pair = Ed25519KeyPair::generate().map_err(|_| KeysError::Make)?;
    let public: [u8; 32] = pair.public_key().as_ref().try_into().map_err(|_| KeysError::Make)?;
    let private = pair.to_pkcs8v1().map_err(|_| KeysError::Make)?;
    let kid = thumbprint(&public);
    let sealed = sealer.seal(&context(&kid), private.as_ref()).map_err(|_| KeysError::Make)?;
    Ok(SigningKey { kid, public, sealed, created_at: now, active_from, retires_at })
}

fn open(sealer: &Sealer, key: &SigningKey) -> Result<Key, KeysError> {
    let wrong = || KeysError::Sealed { kid: key.kid.clone() };
    let private = sealer.open(&context(&key.kid), &key.sealed).map_err(|_| wrong())?;
    let pair = Ed25519KeyPair::from_pkcs8(&private).map_err(|_| wrong())?;
    let header = |kind| {
        let header = json!({ "typ": kind, "alg": "EdDSA", "kid": key.kid }).to_string();
        BASE64URL_NOPAD.encode(header.as_bytes()) + "."
    };
    Ok(Key {
        kid: key.kid.clone(),
        public: key.public,
        pair,
        active_from: key.active_from,
        retires_at: key.retires_at,
        ticket_header: header(TICKET_TYPE),
        grant_header: header(GRANT_TYPE),
    })
}

/// What a private key is sealed for.
fn context(kid: &str) -> String {
    format!("signing key {kid}")
}

/// The thumbprint of RFC 7638.
fn thumbprint(public: &[u8; 32]) -> String {
    let x = BASE64URL_NOPAD.encode(public);
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    BASE64URL_NOPAD.encode(digest(&SHA256, canonical.as_bytes()).as_ref())
}

fn key_set(keys: &[Key]) -> serde_json::Value {
    let keys = keys.iter().map(|key| {
        json!({
            "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA",
            "kid": key.kid, "x": BASE64URL_NOPAD.encode(&key.public),
        })
    });
    json!({ "keys": keys.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 8037, appendix A.3.
    #[test]
    fn a_key_is_named_by_the_thumbprint_of_its_standard() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let public = BASE64URL_NOPAD.decode(x.as_bytes()).unwrap().try_into().unwrap();
        assert_eq!(thumbprint(&public), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }
}
