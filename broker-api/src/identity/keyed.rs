//! By API credentials: a request keyed with HMAC-SHA256, each of which is accepted once.
//!
//! What must not happen is that a request is accepted twice, also when Redis forgets everything. Every
//! accepted request's signature is remembered in [`crate::live`] for longer than its timestamp holds. Before
//! a request is accepted, the database is told that requests up to its timestamp may have been: the horizon.
//! When the memory has begun anew, it refuses everything up to the horizon, so that what was accepted before
//! it forgot is not accepted again. The horizon is raised in steps of [`STEP`] seconds, so that it costs one
//! write in as many seconds and not one for each request; the price is that good requests are refused for up
//! to that long (and for as long as the newest accepted timestamp lies in the future) after the memory was
//! lost.
//!
//! The signature covers timestamp, user, key and body, as the first protocol has it, and neither method nor
//! path: two requests of one second with the same body are one request, and the second is refused. Whoever
//! sends several in a second gives each a timestamp of its own, within the skew that is allowed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::HeaderMap;
use culvert_broker_wire::auth::{
    API_KEY_HEADER, API_KEY_PREFIX, API_SECRET_PREFIX, EMAIL_HEADER, MAX_SKEW, SIGNATURE_HEADER,
    TIMESTAMP_HEADER, verify_signature,
};
use culvert_broker_wire::limits::MAX_USER_ID;
use culvert_broker_wire::{ErrorCode, Timestamp};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

use super::guesses::Guess;
use super::{Entrance, Presented, Provider, wrong};
use crate::core::{Caller, Core, Refusal, Visitor};
use crate::domain::shares::random_id;
use crate::live::{Horizon, LiveError};
use crate::seal::{SealError, Sealer};
use crate::store::{ApiSecret, Credential, Status, Store, User, Way};

/// How far the horizon is raised beyond the request that raises it, in seconds.
const STEP: u64 = 10;
/// Longest API key that is looked up.
const MAX_API_KEY: usize = 128;
/// Hexadecimal digits of a signature.
const SIGNATURE_CHARS: usize = 64;
/// How long a request is remembered: it may come [`MAX_SKEW`] before its timestamp and as long after it.
const REMEMBERED: Duration = Duration::from_secs(2 * MAX_SKEW + 60);

/// For what the secrets of this key are sealed.
fn secret_context(api_key: &str) -> String {
    format!("api-secret:{api_key}")
}

/// A new API key: 32 random bytes in hexadecimal.
pub fn new_api_key() -> String {
    random(API_KEY_PREFIX)
}

/// A new secret for a key: as it is shown, once, and as it is kept.
///
/// # Errors
/// See [`SealError`].
pub fn new_api_secret(
    sealer: &Sealer,
    api_key: &str,
    now: Timestamp,
) -> Result<(String, ApiSecret), SealError> {
    let secret = random(API_SECRET_PREFIX);
    let sealed = sealer.seal(&secret_context(api_key), secret.as_bytes())?;
    Ok((secret, ApiSecret { id: random_id(), sealed, created_at: now, expires_at: None }))
}

fn random(prefix: &str) -> String {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes);
    prefix.to_owned() + &HEXLOWER.encode(&bytes)
}

/// API credentials.
#[derive(Default)]
pub(super) struct Keyed {
    /// The horizon as this replica knows it: requests up to this timestamp need not raise it.
    horizon: AtomicU64,
}

/// The headers of a keyed request.
struct Headers<'a> {
    api_key: &'a str,
    email: &'a str,
    timestamp: u64,
    signature: &'a str,
}

impl<'a> Headers<'a> {
    /// `None` without an API key; refused if the others do not stand beside it, once each.
    fn of(headers: &'a HeaderMap) -> Result<Option<Self>, Refusal> {
        if !headers.contains_key(API_KEY_HEADER) {
            return Ok(None);
        }
        let text = |name: &str| {
            let mut values = headers.get_all(name).iter();
            // A user id may have more than ASCII in it.
            let first = values.next().and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
            if values.next().is_some() { None } else { first }
        };
        let timestamp = text(TIMESTAMP_HEADER).and_then(|text| text.parse().ok());
        let (Some(api_key), Some(email), Some(timestamp), Some(signature)) =
            (text(API_KEY_HEADER), text(EMAIL_HEADER), timestamp, text(SIGNATURE_HEADER))
        else {
            return Err(wrong());
        };
        let fits = api_key.starts_with(API_KEY_PREFIX)
            && api_key.len() <= MAX_API_KEY
            && email.len() <= MAX_USER_ID
            && signature.len() == SIGNATURE_CHARS;
        if fits { Ok(Some(Self { api_key, email, timestamp, signature })) } else { Err(wrong()) }
    }
}

/// The horizon as the database has it.
struct Kept<'a>(&'a dyn Store);

#[async_trait]
impl Horizon for Kept<'_> {
    async fn horizon(&self) -> Result<u64, LiveError> {
        self.0.raise_horizon(0).await.map_err(LiveError::unavailable)
    }
}

impl Keyed {
    /// Whether this request was not accepted before; it was, from now on.
    async fn first(&self, core: &Core, request: &Headers<'_>) -> Result<bool, Refusal> {
        let horizon = self.horizon.load(Ordering::Acquire);
        if horizon == 0 {
            // A memory that begins anew asks how far others went, before this request goes further: else it
            // would refuse the first ones of a broker that has just started.
            core.live.nonce("", 0, REMEMBERED, &Kept(&*core.store)).await?;
        }
        if horizon < request.timestamp {
            let raised = core.store.raise_horizon(request.timestamp + STEP).await?;
            self.horizon.fetch_max(raised, Ordering::AcqRel);
        }
        // The digits may be written in either case; what is remembered has one form.
        let signature = HEXLOWER_PERMISSIVE.decode(request.signature.as_bytes()).map_err(|_| wrong())?;
        let nonce = format!("{}:{}", request.api_key, HEXLOWER.encode(&signature));
        Ok(core.live.nonce(&nonce, request.timestamp, REMEMBERED, &Kept(&*core.store)).await?)
    }
}

#[async_trait]
impl Provider for Keyed {
    fn entrance(&self) -> Entrance {
        Entrance::Credential
    }

    async fn identify(
        &self,
        core: &Core,
        visitor: Visitor,
        presented: &Presented<'_>,
    ) -> Result<Option<Caller>, Refusal> {
        let Presented::Request { headers, body } = presented else { return Ok(None) };
        let Some(request) = Headers::of(headers)? else { return Ok(None) };
        if core.clock.unix_seconds().abs_diff(request.timestamp) > MAX_SKEW {
            let text = format!("the request's timestamp is more than {MAX_SKEW} s from the broker's clock");
            return Err(Refusal::new(ErrorCode::AuthFailed, text));
        }
        let proof = Guess::with_proof(core, visitor);
        proof.charge(core).await?;
        let credential = core.store.credential(request.api_key, core.now()).await?.ok_or_else(wrong)?;
        if credential.user != request.email || !is_signed(core, &credential, &request, body)? {
            return Err(wrong());
        }
        let user = core.store.user(&credential.user).await?;
        let user = user.filter(|user| user.status == Status::Active).ok_or_else(wrong)?;
        if !self.first(core, &request).await? {
            return Err(wrong());
        }
        proof.give_back(core).await;
        note_use(core, &credential).await;
        let User { id, role, .. } = user;
        let api_key = Some(credential.api_key);
        Ok(Some(Caller {
            user: id,
            role,
            way: Way::Credential,
            device: None,
            session: None,
            api_key,
            visitor,
        }))
    }
}

/// Whether one of the live secrets signed this.
fn is_signed(
    core: &Core,
    credential: &Credential,
    request: &Headers<'_>,
    body: &[u8],
) -> Result<bool, Refusal> {
    let Headers { api_key, email, timestamp, signature } = *request;
    for secret in &credential.secrets {
        let opened = core.sealer.open(&secret_context(api_key), &secret.sealed).map_err(|error| {
            tracing::error!(%error, api_key, "an API secret cannot be read; is its data key still configured?");
            Refusal::internal()
        })?;
        let Ok(secret) = std::str::from_utf8(&opened) else { continue };
        if verify_signature(secret, timestamp, email, api_key, body, signature) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Notes when it was used, to the minute. Not worth refusing a request for.
async fn note_use(core: &Core, credential: &Credential) {
    let now = core.now();
    let minute = now.unix_seconds() / 60;
    if credential.last_used_at.is_some_and(|at| at.unix_seconds() / 60 >= minute) {
        return;
    }
    if let Err(error) = core.store.credential_used(&credential.api_key, now).await {
        tracing::warn!(%error, "when a credential was last used could not be noted");
    }
}
