//! Who is there: every way in ends in a [`Caller`], and nothing else makes one.
//!
//! | Way | What is presented | What it proves |
//! | --- | --- | --- |
//! | session | `Authorization: Bearer cst_…` | that one of the others was proven before |
//! | account | user id and password, over TLS | who it is |
//! | institution | its password (OPAQUE, or plain over TLS) and a device's key | that the device may bind a free user id, or is bound to this one |
//! | device | a signature over a challenge | the device, and so whose it is |
//! | credential | a request keyed with an API secret | whose the credential is |
//!
//! Each way is a [`Provider`]; another one (OpenID Connect, RFC 9421) is one more in the list of
//! [`Identity::load`]. What they have in common happens once, in `authenticate`: passwords pass over TLS only and
//! guesses at them are limited, refusals look alike whether the user exists or not, failures are written
//! down at a bounded rate, and everything is counted. `docs/decisions/broker-identity.md` says why.

mod account;
mod device;
mod failures;
mod guesses;
mod institution;
mod keyed;
mod own;
pub mod password;
mod sessions;

use std::sync::Arc;

use async_trait::async_trait;
use axum::http::HeaderMap;
use culvert_broker_wire::ErrorCode;
use culvert_broker_wire::auth::DeviceProof;
use culvert_broker_wire::limits::MAX_PASSWORD;
use culvert_broker_wire::login::{
    AccountLogin, Challenge, DeviceLogin, OpaqueFinish, OpaqueStart, OpaqueStarted, SessionGiven,
};
use culvert_broker_wire::message::RegisterUser;
use serde_json::{Value, json};

use crate::config::Config;
use crate::core::{Caller, Core, Refusal, Visitor};
use crate::domain::{audit, check, check_claim};
use crate::live::Live;
use crate::seal::{OpenError, Sealer};
use crate::store::{AuditAction, Status, Store, StoreError, Way};
use failures::Failures;
use guesses::Guess;
use institution::Institution;
use password::{HashError, Hasher};

pub use keyed::{new_api_key, new_api_secret};
pub use own::{add_device, change_password, devices, log_out, revoke_device};

/// What the ways in need to know and remember.
pub struct Identity {
    providers: Vec<Arc<dyn Provider>>,
    institution: Option<Arc<Institution>>,
    hasher: Hasher,
    sessions: sessions::Memory,
    failures: Failures,
    /// The names by which clients reach this broker.
    names: Vec<String>,
}

/// The broker cannot tell who is who.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The database does not answer.
    #[error("the database does not give what checks the institution's password")]
    Store(#[from] StoreError),
    /// The data key is another one than when the broker was set up.
    #[error("what checks the institution's password was sealed with a data key that is not configured")]
    Open(#[source] OpenError),
    /// It cannot be sealed.
    #[error("what checks the institution's password cannot be sealed")]
    Seal,
    /// What the database holds is not what this program put there.
    #[error("what checks the institution's password is damaged in the database")]
    Setup,
    /// No password can be hashed.
    #[error("passwords cannot be hashed")]
    Hash(#[from] HashError),
}

impl Identity {
    /// Makes ready whatever the configured ways in need.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub async fn load(
        config: &Config,
        store: &dyn Store,
        live: &Arc<dyn Live>,
        sealer: &Sealer,
    ) -> Result<Self, LoadError> {
        let institution = match &config.institution_password {
            Some(password) => Some(Arc::new(Institution::load(password, store, sealer).await?)),
            None => None,
        };
        let mut providers: Vec<Arc<dyn Provider>> =
            vec![Arc::new(sessions::Tokens), Arc::new(keyed::Keyed::default()), Arc::new(device::Devices)];
        // Before accounts: a password that comes with a device may be either.
        providers.extend(institution.iter().map(|institution| Arc::clone(institution) as Arc<dyn Provider>));
        providers.push(Arc::new(account::Accounts));
        Ok(Self {
            providers,
            institution,
            hasher: Hasher::new(config.limits.hashes_at_once).await?,
            sessions: sessions::Memory::new(&**live),
            failures: Failures::default(),
            names: device::names(config),
        })
    }

    /// The key that proves this broker to clients in OPAQUE, base64url, which they may pin; `None` if nobody
    /// is admitted by password.
    pub fn opaque_key(&self) -> Option<String> {
        self.institution.as_ref().map(|institution| institution.public_key())
    }
}

/// What somebody presents to prove who they are.
#[derive(Clone, Copy)]
pub enum Presented<'a> {
    /// An HTTP request; its body matters where it is keyed.
    Request {
        /// Its headers.
        headers: &'a HeaderMap,
        /// Its body, as it came.
        body: &'a [u8],
    },
    /// A session's token.
    Token(&'a str),
    /// A password: the account's, or the institution's beside a device.
    Password {
        /// Whose, as they say.
        user: &'a str,
        /// The password.
        password: &'a str,
        /// Proof of a device's key over a challenge.
        device: Option<&'a DeviceProof>,
        /// What the device is called.
        device_name: Option<&'a str>,
    },
    /// The end of a login by OPAQUE.
    Opaque(&'a OpaqueFinish),
    /// A device's key.
    Device {
        /// Whose, as they say.
        user: &'a str,
        /// Proof of the key over a challenge.
        proof: &'a DeviceProof,
    },
}

impl Presented<'_> {
    /// Who it is said to be; not proven, not checked.
    fn claimed(&self) -> Option<&str> {
        match self {
            Self::Request { headers, .. } => {
                headers.get(culvert_broker_wire::auth::EMAIL_HEADER).and_then(|value| value.to_str().ok())
            }
            Self::Token(_) => None,
            Self::Password { user, .. } | Self::Device { user, .. } => Some(user),
            Self::Opaque(request) => Some(&request.user_id),
        }
    }
}

/// One way in.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Under which name it is counted.
    fn entrance(&self) -> Entrance;

    /// Who this proves to be there; `None` if it is for another provider to say.
    ///
    /// # Errors
    /// [`wrong`], whatever is wrong with it; or it cannot be checked now.
    async fn identify(
        &self,
        core: &Core,
        visitor: Visitor,
        presented: &Presented<'_>,
    ) -> Result<Option<Caller>, Refusal>;
}

/// A way in, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// A session's token.
    Session,
    /// The institution's password and a device.
    Institution,
    /// An account's password.
    Account,
    /// A device's key.
    Device,
    /// API credentials.
    Credential,
}

impl Entrance {
    /// Every way in.
    pub const ALL: &'static [Self] =
        &[Self::Session, Self::Institution, Self::Account, Self::Device, Self::Credential];

    /// Its stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Institution => "institution",
            Self::Account => "account",
            Self::Device => "device",
            Self::Credential => "credential",
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is proven who is there.
    Proven,
    /// It is not.
    Refused,
    /// It could not be checked.
    Unknown,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: &'static [Self] = &[Self::Proven, Self::Refused, Self::Unknown];

    /// Its stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }

    fn of(refusal: &Refusal) -> Self {
        match refusal.code {
            ErrorCode::Unavailable | ErrorCode::Internal => Self::Unknown,
            _ => Self::Refused,
        }
    }
}

/// What is presented does not prove it. The same for a user who does not exist, a wrong password, a key that
/// is bound to somebody else and a session that has ended.
pub fn wrong() -> Refusal {
    Refusal::new(ErrorCode::AuthFailed, "this does not prove who you are; check it, or log in again")
}

/// Refuses passwords where somebody on the way could read them.
fn passwords_pass(visitor: Visitor) -> Result<(), Refusal> {
    if visitor.secure {
        return Ok(());
    }
    let text = "passwords are taken over TLS only; connect by https or wss, or log in by OPAQUE or a device";
    Err(Refusal::new(ErrorCode::Forbidden, text))
}

/// Asks every provider who this proves to be there; `None` if nothing is presented.
async fn authenticate(
    core: &Core,
    visitor: Visitor,
    presented: &Presented<'_>,
) -> Result<Option<Caller>, Refusal> {
    if !matches!(presented, Presented::Request { .. })
        && let Some(user) = presented.claimed()
    {
        check::user_id("user_id", user)?;
    }
    let mut guess = None;
    if let Presented::Password { user, password, .. } = presented {
        passwords_pass(visitor)?;
        if password.len() > MAX_PASSWORD {
            return Err(wrong());
        }
        let charged = Guess::new(core, visitor, Some(user));
        charged.charge(core).await?;
        guess = Some(charged);
    }
    for provider in &core.identity.providers {
        let Some(found) = provider.identify(core, visitor, presented).await.transpose() else { continue };
        let entrance = provider.entrance();
        let verdict = found.as_ref().map_or_else(Verdict::of, |_| Verdict::Proven);
        core.metrics.logins[(entrance, verdict)].increment(1);
        if verdict == Verdict::Refused {
            core.identity.failures.note(core, visitor, entrance, presented.claimed()).await;
        } else if let Some(guess) = &guess {
            guess.give_back(core).await;
        }
        return found.map(Some);
    }
    Ok(None)
}

/// The same for a login: it is presented, and what is proven is written down before it counts.
async fn log_in(core: &Core, visitor: Visitor, presented: &Presented<'_>) -> Result<Caller, Refusal> {
    let caller = authenticate(core, visitor, presented).await?.ok_or_else(wrong)?;
    audit::done(core, &caller, AuditAction::Login, &caller.user, login_detail(&caller)).await?;
    Ok(caller)
}

/// What the audit log says about a login.
fn login_detail(caller: &Caller) -> Value {
    let mut detail = json!({ "way": way_name(caller.way) });
    if let Some(device) = caller.device {
        detail["device"] = device.to_string().into();
    }
    if let Some(api_key) = &caller.api_key {
        detail["api_key"] = api_key.as_str().into();
    }
    detail
}

/// How a way in is named to people.
pub const fn way_name(way: Way) -> &'static str {
    match way {
        Way::Institution => "institution",
        Way::Account => "account",
        Way::Device => "device",
        Way::Credential => "credential",
        Way::Operator => "operator",
    }
}

/// Who a request proves to be there by its headers; `None` if it presents nothing. The body matters where
/// the request is keyed; at the upgrade of a WebSocket it is empty.
///
/// # Errors
/// What is presented does not prove it, or cannot be checked now.
pub async fn from_headers(
    core: &Core,
    visitor: Visitor,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<Caller>, Refusal> {
    authenticate(core, visitor, &Presented::Request { headers, body }).await
}

/// A challenge for a device to sign, once, within a minute.
///
/// # Errors
/// It cannot be kept now.
pub async fn challenge(core: &Core) -> Result<String, Refusal> {
    device::challenge(core).await
}

/// The same, with how long it holds.
///
/// # Errors
/// As [`challenge`].
pub async fn timed_challenge(core: &Core) -> Result<Challenge, Refusal> {
    let expires_in_seconds = device::CHALLENGE_TTL.as_secs();
    Ok(Challenge { challenge: device::challenge(core).await?, expires_in_seconds })
}

/// Who registers on a WebSocket; `upgrade` is who its upgrade proved to be there, and then it must be the
/// same user, whatever else the message presents.
///
/// # Errors
/// `AUTH_REQUIRED` if nothing proves it, `AUTH_FAILED` if what is presented does not, `FORBIDDEN` if
/// somebody else is claimed than proven.
pub async fn register(
    core: &Core,
    visitor: Visitor,
    upgrade: Option<&Caller>,
    register: &RegisterUser,
) -> Result<Caller, Refusal> {
    let RegisterUser { user_id, password, session_token, device, device_name, .. } = register;
    check::user_id("user_id", user_id)?;
    let caller = if let Some(caller) = upgrade {
        check_claim(core, caller, user_id).await?;
        if !still_valid(core, caller).await? {
            return Err(wrong());
        }
        if caller.api_key.is_some() {
            audit::done(core, caller, AuditAction::Login, user_id, login_detail(caller)).await?;
        }
        caller.clone()
    } else if let Some(token) = session_token {
        authenticate(core, visitor, &Presented::Token(token)).await?.ok_or_else(wrong)?
    } else if let Some(password) = password {
        let (device, device_name) = (device.as_ref(), device_name.as_deref());
        log_in(core, visitor, &Presented::Password { user: user_id, password, device, device_name }).await?
    } else if let Some(proof) = device {
        log_in(core, visitor, &Presented::Device { user: user_id, proof }).await?
    } else {
        let text =
            "say who you are: a session_token, a device's proof, a password, or Authorization at the upgrade";
        return Err(Refusal::new(ErrorCode::AuthRequired, text));
    };
    check_claim(core, &caller, user_id).await?;
    Ok(caller)
}

/// Whether what a caller proved still holds: not logged out, suspended, removed or revoked since.
///
/// # Errors
/// It cannot be checked now.
pub async fn still_valid(core: &Core, caller: &Caller) -> Result<bool, Refusal> {
    if let Some(session) = &caller.session {
        return Ok(core.identity.sessions.find(core, session).await?.is_some());
    }
    if let Some(api_key) = &caller.api_key {
        return Ok(core.store.credential(api_key, core.now()).await?.is_some());
    }
    let user = match &caller.device {
        Some(device) => core.store.user_of_device(device).await?,
        None => core.store.user(&caller.user).await?,
    };
    Ok(user.is_some_and(|user| user.id == caller.user && user.status == Status::Active))
}

/// Something ended about a user (suspended, removed, credentials revoked): their sessions are forgotten here
/// and everywhere else. The database must know already.
pub async fn ended(core: &Core, user: &str) {
    core.identity.sessions.ended(core, user, None).await;
}

/// Logs in by the password of an account.
///
/// # Errors
/// As [`register`].
pub async fn log_in_account(
    core: &Core,
    visitor: Visitor,
    request: &AccountLogin,
) -> Result<SessionGiven, Refusal> {
    let (user, password) = (request.user_id.as_str(), request.password.0.as_str());
    let presented = Presented::Password { user, password, device: None, device_name: None };
    sessions::give(core, &log_in(core, visitor, &presented).await?).await
}

/// Logs in by the key of a device.
///
/// # Errors
/// As [`register`].
pub async fn log_in_device(
    core: &Core,
    visitor: Visitor,
    request: &DeviceLogin,
) -> Result<SessionGiven, Refusal> {
    let presented = Presented::Device { user: &request.user_id, proof: &request.device };
    sessions::give(core, &log_in(core, visitor, &presented).await?).await
}

/// Begins a login by the institution's password.
///
/// # Errors
/// `FORBIDDEN` if there is none, `RATE_LIMITED`; it cannot be kept now.
pub async fn opaque_start(
    core: &Core,
    visitor: Visitor,
    request: &OpaqueStart,
) -> Result<OpaqueStarted, Refusal> {
    institution::start(core, visitor, request).await
}

/// Ends a login by the institution's password.
///
/// # Errors
/// As [`register`].
pub async fn opaque_finish(
    core: &Core,
    visitor: Visitor,
    request: &OpaqueFinish,
) -> Result<SessionGiven, Refusal> {
    sessions::give(core, &log_in(core, visitor, &Presented::Opaque(request)).await?).await
}
