//! Whether a grant lets somebody download, found out without asking the broker.

use std::time::{Duration, Instant};

use culvert_broker_wire::grant::{AUDIENCE, GRANT_TYPE, GrantClaims};
use culvert_wire::PeerId;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation};
use parking_lot::Mutex;

use crate::broker::client::{SyncClient, now};
use crate::broker::error::SyncError;

/// How long a grant is taken after its end, for clocks that go apart.
const SKEW: u64 = 30;
/// Least time between two questions for the broker's keys, however many strange grants come.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Longest grant that is looked at, in bytes.
const MAX_GRANT: usize = 8 * 1024;

/// Checks grants of one broker for one owner.
///
/// The broker's keys are fetched once, and again when a grant names one that is not known: whoever has them
/// can check while the broker is away.
pub struct GrantCheck {
    owner: String,
    keys: Mutex<Keys>,
    /// One question at a time.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Keys {
    known: Vec<(Option<String>, DecodingKey)>,
    asked: Option<Instant>,
}

/// Why a grant lets nobody download.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantRefusal {
    /// There is none, or it is not one.
    #[error("this is not a grant of the broker; ask the broker for the share")]
    Invalid,
    /// No key of the broker signed it.
    #[error("the grant is not signed by this owner's broker")]
    Signature,
    /// Its time is over.
    #[error("the grant has expired; ask the broker for the share again")]
    Expired,
    /// It is for a share of somebody else.
    #[error("the grant is for a share of another owner")]
    Owner,
    /// It is bound to another key than the one that presents it.
    #[error("the grant was given to another device; ask the broker for the share from this one")]
    Holder,
    /// The result is not, or no longer, served here.
    #[error("this owner does not serve that result, or not any more")]
    Gone,
    /// The broker's keys are not known yet, and it cannot be asked.
    #[error("the owner cannot check grants now; try again soon")]
    Unavailable,
}

impl GrantRefusal {
    /// What the requester's program goes by; never changes.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid => "GRANT_INVALID",
            Self::Signature => "GRANT_SIGNATURE",
            Self::Expired => "GRANT_EXPIRED",
            Self::Owner => "GRANT_OTHER_OWNER",
            Self::Holder => "GRANT_OTHER_HOLDER",
            Self::Gone => "RESULT_GONE",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

impl GrantCheck {
    /// For this owner, without any keys yet.
    pub fn new(owner: impl Into<String>) -> Self {
        Self { owner: owner.into(), keys: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    /// Fetches the broker's keys.
    ///
    /// # Errors
    /// The broker cannot be asked; the keys known before stay.
    pub async fn refresh(&self, client: &SyncClient) -> Result<(), SyncError> {
        let set: JwkSet = client.http().get("/.well-known/jwks.json", None).await?;
        self.learn(&set);
        Ok(())
    }

    /// Takes a key set as it was fetched.
    pub fn learn(&self, set: &JwkSet) {
        let usable = set.keys.iter().filter_map(|jwk| {
            let key = DecodingKey::from_jwk(jwk).ok()?;
            (key.family() == AlgorithmFamily::Ed).then(|| (jwk.common.key_id.clone(), key))
        });
        let known: Vec<_> = usable.collect();
        self.keys.lock().known = known;
    }

    /// Checks what a requester presents: signature, owner, time, and that whoever proved `holder` is whom
    /// it was given to. Whether the result is there is up to whoever serves it.
    ///
    /// # Errors
    /// See [`GrantRefusal`].
    pub async fn check(
        &self,
        client: &SyncClient,
        grant: &str,
        holder: Option<&PeerId>,
    ) -> Result<GrantClaims, GrantRefusal> {
        match self.verify(grant, holder, now().unix_seconds()) {
            // Perhaps by a key that is newer than those known here.
            Err(GrantRefusal::Signature | GrantRefusal::Unavailable) => {
                self.ask_again(client).await;
                self.verify(grant, holder, now().unix_seconds())
            }
            verdict => verdict,
        }
    }

    /// As [`GrantCheck::check`], with the keys that are known, at `now` in seconds since 1970.
    ///
    /// # Errors
    /// See [`GrantRefusal`].
    pub fn verify(
        &self,
        grant: &str,
        holder: Option<&PeerId>,
        now: u64,
    ) -> Result<GrantClaims, GrantRefusal> {
        if grant.len() > MAX_GRANT {
            return Err(GrantRefusal::Invalid);
        }
        let header = jsonwebtoken::decode_header(grant).map_err(|_| GrantRefusal::Invalid)?;
        if header.alg != Algorithm::EdDSA || header.typ.as_deref() != Some(GRANT_TYPE) {
            return Err(GrantRefusal::Invalid);
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["aud", "exp"]);
        // Compared below, with this clock.
        validation.validate_exp = false;
        let claims = {
            let keys = self.keys.lock();
            if keys.known.is_empty() {
                return Err(GrantRefusal::Unavailable);
            }
            let named = |id: &Option<String>| header.kid.is_none() || id.is_none() || *id == header.kid;
            let mut fitting = keys.known.iter().filter(|(id, _)| named(id));
            fitting.find_map(|(_, key)| jsonwebtoken::decode::<GrantClaims>(grant, key, &validation).ok())
        };
        let claims = claims.ok_or(GrantRefusal::Signature)?.claims;
        if claims.owner != self.owner {
            return Err(GrantRefusal::Owner);
        }
        if claims.exp.saturating_add(SKEW) <= now {
            return Err(GrantRefusal::Expired);
        }
        if claims.cnf.is_some() && claims.cnf.as_ref() != holder {
            return Err(GrantRefusal::Holder);
        }
        Ok(claims)
    }

    async fn ask_again(&self, client: &SyncClient) {
        let _one = self.asking.lock().await;
        {
            let mut keys = self.keys.lock();
            if keys.asked.is_some_and(|asked| asked.elapsed() < ASK_AGAIN) {
                return;
            }
            keys.asked = Some(Instant::now());
        }
        if let Err(error) = self.refresh(client).await {
            tracing::warn!(%error, "the broker's keys cannot be fetched");
        }
    }
}

impl std::fmt::Debug for GrantCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrantCheck").field("owner", &self.owner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use data_encoding::BASE64URL_NOPAD;
    use serde_json::json;

    use super::*;

    const NOW: u64 = 2_000_000_000;

    struct Broker(Ed25519KeyPair);

    impl Broker {
        fn new() -> Self {
            Self(Ed25519KeyPair::generate().unwrap())
        }

        fn known_to(&self, check: &GrantCheck) {
            let x = BASE64URL_NOPAD.encode(self.0.public_key().as_ref());
            let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "alg": "EdDSA", "x": x}]});
            check.learn(&serde_json::from_value(set).unwrap());
        }

        fn sign(&self, header: serde_json::Value, claims: &GrantClaims) -> String {
            let part = |value: Vec<u8>| BASE64URL_NOPAD.encode(&value);
            let (header, claims) =
                (serde_json::to_vec(&header).unwrap(), serde_json::to_vec(claims).unwrap());
            let signed = format!("{}.{}", part(header), part(claims));
            let signature = part(self.0.sign(signed.as_bytes()).as_ref().to_vec());
            format!("{signed}.{signature}")
        }
    }

    fn header() -> serde_json::Value {
        json!({"typ": GRANT_TYPE, "alg": "EdDSA", "kid": "k"})
    }

    fn claims() -> GrantClaims {
        GrantClaims {
            iss: "https://broker.example".into(),
            aud: AUDIENCE.into(),
            sub: Some("bob".into()),
            cnf: Some(PeerId([2; 32])),
            owner: "alice".into(),
            result_id: "r".into(),
            share: "00".into(),
            iat: NOW,
            exp: NOW + 300,
            jti: "j".into(),
        }
    }

    #[test]
    fn a_grant_opens_for_its_owner_holder_and_time_only() {
        let (broker, check) = (Broker::new(), GrantCheck::new("alice"));
        let bob = PeerId([2; 32]);
        let grant = broker.sign(header(), &claims());
        assert_eq!(check.verify(&grant, Some(&bob), NOW), Err(GrantRefusal::Unavailable));
        broker.known_to(&check);
        assert_eq!(check.verify(&grant, Some(&bob), NOW), Ok(claims()));
        assert_eq!(check.verify(&grant, Some(&bob), NOW + 329), Ok(claims()));
        assert_eq!(check.verify(&grant, Some(&bob), NOW + 330), Err(GrantRefusal::Expired));
        assert_eq!(check.verify(&grant, Some(&PeerId([3; 32])), NOW), Err(GrantRefusal::Holder));
        assert_eq!(check.verify(&grant, None, NOW), Err(GrantRefusal::Holder));
        let of_carol = broker.sign(header(), &GrantClaims { owner: "carol".into(), ..claims() });
        assert_eq!(check.verify(&of_carol, Some(&bob), NOW), Err(GrantRefusal::Owner));
        let for_all = broker.sign(header(), &GrantClaims { cnf: None, ..claims() });
        assert!(check.verify(&for_all, None, NOW).is_ok());
    }

    #[test]
    fn what_the_broker_did_not_sign_as_a_grant_is_none() {
        let (broker, check) = (Broker::new(), GrantCheck::new("alice"));
        broker.known_to(&check);
        let bob = PeerId([2; 32]);
        let forged = Broker::new().sign(header(), &claims());
        assert_eq!(check.verify(&forged, Some(&bob), NOW), Err(GrantRefusal::Signature));
        let ticket = broker.sign(json!({"typ": "culvert-ticket+jwt", "alg": "EdDSA", "kid": "k"}), &claims());
        assert_eq!(check.verify(&ticket, Some(&bob), NOW), Err(GrantRefusal::Invalid));
        let none = broker.sign(json!({"typ": GRANT_TYPE, "alg": "none"}), &claims());
        assert_eq!(check.verify(&none, Some(&bob), NOW), Err(GrantRefusal::Invalid));
        let relay = broker.sign(header(), &GrantClaims { aud: "culvert-relay".into(), ..claims() });
        assert_eq!(check.verify(&relay, Some(&bob), NOW), Err(GrantRefusal::Signature));
        let grant = broker.sign(header(), &claims());
        for bad in ["", "a.b.c", &grant[..grant.len() - 2], &"x".repeat(MAX_GRANT + 1)] {
            assert!(check.verify(bad, Some(&bob), NOW).is_err(), "{bad}");
        }
    }
}
