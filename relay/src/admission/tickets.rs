//! Verifies admission tickets and invitations, offline.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use culvert_service_kit::fetch::{FetchError, Fetcher};
use culvert_wire::ticket::{AUDIENCE, INVITATION_TYPE, InvitationClaims, TICKET_TYPE, TicketClaims};
use culvert_wire::{Close, PeerId};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::de::DeserializeOwned;
use url::Url;

use crate::config::{KeySource, TicketPolicy};

/// Longest wait for a key set.
const FETCH: Duration = Duration::from_secs(10);
/// A key set has a few hundred bytes for each key.
const MAX_KEY_SET: usize = 256 << 10;

/// Keys that are of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("cannot read {path}")]
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
    /// What is trusted when key sets are fetched cannot be used.
    #[error("no key set can be fetched; check ticket-keys-ca and the system's certificates")]
    Trust(#[from] FetchError),
}

/// A key set that could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// It did not come.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Something else came.
    #[error("what {0} answers is no JSON Web Key Set with an Ed25519 key (`kty` OKP, `crv` Ed25519)")]
    NoKey(Url),
}

struct TicketKey {
    id: Option<String>,
    key: DecodingKey,
}

/// The public keys whose tickets are believed.
pub struct TicketKeys {
    files: Vec<PathBuf>,
    longest_life: Duration,
    in_files: ArcSwap<Vec<TicketKey>>,
    sets: Vec<KeySet>,
    refresh: Duration,
}

/// Keys of a service that issues tickets; none before they were fetched for the first time.
pub struct KeySet {
    url: Url,
    fetcher: Fetcher,
    keys: ArcSwap<Vec<TicketKey>>,
}

impl KeySet {
    /// Where it comes from.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Fetches it; on an error the old keys stay. Gives how many keys there are now.
    ///
    /// # Errors
    /// See [`KeySetError`].
    pub async fn fetch(&self) -> Result<usize, KeySetError> {
        let text = self.fetcher.get(&self.url).await?;
        let keys = serde_json::from_slice(&text).map(of_set).unwrap_or_default();
        if keys.is_empty() {
            return Err(KeySetError::NoKey(self.url.clone()));
        }
        let count = keys.len();
        self.keys.store(Arc::new(keys));
        Ok(count)
    }

    /// Whether it was never fetched: no fetch leaves it empty.
    fn is_missing(&self) -> bool {
        self.keys.load().is_empty()
    }
}

impl TicketKeys {
    /// Reads every configured file, and prepares to fetch every URL.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn load(policy: &TicketPolicy) -> Result<Self, KeyError> {
        let mut files = Vec::new();
        let mut urls = Vec::new();
        for source in &policy.keys {
            match source {
                KeySource::File(path) => files.push(path.clone()),
                KeySource::Url(url) => urls.push(url.clone()),
            }
        }
        let sets = match urls.is_empty() {
            true => Vec::new(),
            false => {
                let fetcher = fetcher(policy)?;
                let keys = |url| KeySet { url, fetcher: fetcher.clone(), keys: ArcSwap::default() };
                urls.into_iter().map(keys).collect()
            }
        };
        let in_files = ArcSwap::from_pointee(read_all(&files)?);
        Ok(Self { files, longest_life: policy.longest_life, in_files, sets, refresh: policy.refresh })
    }

    /// Reads every file again; on an error the old keys stay.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn reload(&self) -> Result<(), KeyError> {
        self.in_files.store(Arc::new(read_all(&self.files)?));
        Ok(())
    }

    /// The files, to watch them.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The key sets, to fetch them.
    pub fn sets(&self) -> &[KeySet] {
        &self.sets
    }

    /// How often they are to be fetched.
    pub fn refresh(&self) -> Duration {
        self.refresh
    }

    /// Checks a ticket's signature, type, audience and times, but not whom it is bound to.
    ///
    /// # Errors
    /// [`Close::TicketInvalid`] or [`Close::TicketExpired`]; [`Close::NoKeys`] where a key that was never fetched
    /// may have signed it.
    pub fn verify(&self, ticket: &str, now: u64) -> Result<TicketClaims, Close> {
        let id = key_id(ticket, TICKET_TYPE).ok_or(Close::TicketInvalid)?;
        let signed = |keys: &[TicketKey]| {
            let mut fitting = keys.iter().filter(|key| id.is_none() || key.id.is_none() || key.id == id);
            fitting.find_map(|key| claims(ticket, &key.key))
        };
        let claims: TicketClaims = signed(&self.in_files.load())
            .or_else(|| self.sets.iter().find_map(|set| signed(&set.keys.load())))
            .ok_or_else(|| match self.sets.iter().any(KeySet::is_missing) {
                true => Close::NoKeys,
                false => Close::TicketInvalid,
            })?;
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
        let found = read_keys(&read(file)?);
        if found.is_empty() {
            return Err(KeyError::NoKey { path: file.display().to_string() });
        }
        keys.extend(found);
    }
    Ok(keys)
}

/// The way to key sets: the system's authorities and those of the policy.
fn fetcher(policy: &TicketPolicy) -> Result<Fetcher, KeyError> {
    let pem = policy.authorities.as_deref().map(read).transpose()?;
    Ok(Fetcher::new(pem.as_deref(), FETCH, MAX_KEY_SET)?)
}

fn read(file: &Path) -> Result<Vec<u8>, KeyError> {
    std::fs::read(file).map_err(|source| KeyError::Read { path: file.display().to_string(), source })
}

fn of_set(set: JwkSet) -> Vec<TicketKey> {
    let usable = set.keys.iter().filter_map(|jwk| {
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let ed25519 = key.family() == jsonwebtoken::AlgorithmFamily::Ed;
        ed25519.then(|| TicketKey { id: jwk.common.key_id.clone(), key })
    });
    usable.collect()
}

fn read_keys(text: &[u8]) -> Vec<TicketKey> {
    if let Ok(set) = serde_json::from_slice::<JwkSet>(text) {
        return of_set(set);
    }
    // One file may hold several PEM blocks, so that keys can be rotated by appending.
    const END: &str = "-----END PUBLIC KEY-----";
    let text = String::from_utf8_lossy(text);
    text.split_inclusive(END)
        .filter_map(|block| DecodingKey::from_ed_pem(block.trim().as_bytes()).ok())
        .map(|key| TicketKey { id: None, key })
        .collect()
}
