//! By the institution's password, which admits and nothing more.
//!
//! Everybody of an institution knows it, so it proves membership and never who somebody is. The first who
//! comes with it and a free user id binds the id to the device whose key they prove; from then on the id
//! belongs to whoever proves a bound device, with the password or without it. Nobody comes in as an existing
//! user with the password alone.
//!
//! Our clients prove that they know it by OPAQUE (RFC 9807), in which it never leaves the client. Others may
//! send it in `register_user`, over TLS, with the same binding.

use async_trait::async_trait;
use culvert_broker_wire::ErrorCode;
use culvert_broker_wire::auth::DeviceProof;
use culvert_broker_wire::limits::MAX_TITLE;
use culvert_broker_wire::login::{OpaqueFinish, OpaqueStart, OpaqueStarted};
use culvert_broker_wire::opaque::{CONTEXT, INSTITUTION, Random, Suite, device_challenge, stretching};
use culvert_service_kit::Secret;
use data_encoding::BASE64URL_NOPAD;
use opaque_ke::errors::ProtocolError;
use opaque_ke::{
    ClientRegistration, ClientRegistrationFinishParameters, CredentialFinalization, CredentialRequest,
    ServerLogin, ServerLoginParameters, ServerRegistration, ServerSetup,
};

use super::device::{self, CHALLENGE_TTL};
use super::guesses::Guess;
use super::{Entrance, LoadError, Presented, Provider, wrong};
use crate::core::{Caller, Core, Refusal, Visitor};
use crate::domain::audit;
use crate::seal::Sealer;
use crate::store::{Admitted, AuditAction, Device, NewUser, Role, Status, Store, StoreError, User, Way};

/// Name of the OPAQUE setup among the broker's secrets, and what it is sealed for.
const SETUP: &str = "opaque-setup";
/// Longest login id that is looked for.
const MAX_LOGIN_ID: usize = 64;

/// What checks the institution's password.
pub(super) struct Institution {
    /// The same on all replicas, so that a login begun on one is finished on another.
    setup: ServerSetup<Suite>,
    /// What OPAQUE keeps of the password.
    file: ServerRegistration<Suite>,
    /// Argon2id of the password, for those who send it.
    hash: String,
}

impl Institution {
    /// Makes ready for a password. The setup is made by whichever replica comes first.
    pub(super) async fn load(
        password: &Secret<String>,
        store: &dyn Store,
        sealer: &Sealer,
    ) -> Result<Self, LoadError> {
        let kept = match store.secret(SETUP).await? {
            Some(kept) => kept,
            None => {
                let fresh = ServerSetup::<Suite>::new(&mut Random).serialize();
                let sealed = sealer.seal(SETUP, &fresh).map_err(|_| LoadError::Seal)?;
                store.keep_secret(SETUP, sealed).await?
            }
        };
        let opened = sealer.open(SETUP, &kept).map_err(LoadError::Open)?;
        let setup = ServerSetup::<Suite>::deserialize(&opened).map_err(|_| LoadError::Setup)?;
        let password = password.clone();
        let made = tokio::task::spawn_blocking(move || {
            let file = enrol(&setup, password.expose().as_bytes()).map_err(|_| LoadError::Setup)?;
            let hash = super::password::hash_now(&password)?;
            Ok::<_, LoadError>(Self { setup, file, hash })
        });
        made.await.map_err(|_| LoadError::Setup)?
    }

    /// The broker's static key, which clients may pin.
    pub(super) fn public_key(&self) -> String {
        BASE64URL_NOPAD.encode(&self.setup.keypair().public().serialize())
    }

    /// Answers the first message of a login.
    async fn start(&self, core: &Core, request: &OpaqueStart) -> Result<OpaqueStarted, Refusal> {
        let bytes = decoded("credential_request", &request.credential_request)?;
        let malformed = |_| malformed("credential_request");
        let request = CredentialRequest::<Suite>::deserialize(&bytes).map_err(malformed)?;
        let file = Some(self.file.clone());
        let started = ServerLogin::start(&mut Random, &self.setup, file, request, INSTITUTION, parameters())
            .map_err(malformed)?;
        let mut id = [0; 16];
        rand::fill(&mut id);
        let login_id = BASE64URL_NOPAD.encode(&id);
        let key = key(&login_id);
        let sealed = core.sealer.seal(&key, &started.state.serialize()).map_err(|error| {
            tracing::error!(%error, "a login cannot be kept");
            Refusal::internal()
        })?;
        core.live.keep(&key, &sealed, CHALLENGE_TTL).await?;
        let credential_response = BASE64URL_NOPAD.encode(&started.message.serialize());
        Ok(OpaqueStarted { login_id, credential_response })
    }

    /// Checks the last message of a login, and that the proof belongs to it; the login is used up by that.
    async fn finish(&self, core: &Core, request: &OpaqueFinish) -> Result<(), Refusal> {
        let bytes = decoded("credential_finalization", &request.credential_finalization)?;
        let message = CredentialFinalization::<Suite>::deserialize(&bytes)
            .map_err(|_| malformed("credential_finalization"))?;
        if request.login_id.len() > MAX_LOGIN_ID {
            return Err(wrong());
        }
        let key = key(&request.login_id);
        let sealed = core.live.take(&key).await?.ok_or_else(wrong)?;
        let state = core.sealer.open(&key, &sealed).map_err(|_| wrong())?;
        let login = ServerLogin::<Suite>::deserialize(&state).map_err(|_| wrong())?;
        let finished = login.finish(message, parameters()).map_err(|_| wrong())?;
        let challenge = device_challenge(&finished.session_key, &request.login_id, &request.user_id);
        let proven =
            request.device.challenge == challenge && device::is_for(core, &request.user_id, &request.device);
        if proven { Ok(()) } else { Err(wrong()) }
    }
}

#[async_trait]
impl Provider for Institution {
    fn entrance(&self) -> Entrance {
        Entrance::Institution
    }

    async fn identify(
        &self,
        core: &Core,
        visitor: Visitor,
        presented: &Presented<'_>,
    ) -> Result<Option<Caller>, Refusal> {
        match *presented {
            Presented::Opaque(request) => {
                self.finish(core, request).await?;
                // Charged for when it began.
                Guess::new(core, visitor, None).give_back(core).await;
                let name = request.device_name.as_deref();
                admit(core, visitor, &request.user_id, &request.device, name).await.map(Some)
            }
            Presented::Password { user, password, device: Some(proof), device_name } => {
                device::check(core, user, proof).await?;
                // Another password may be that of the user's account.
                if !core.identity.hasher.verify(password, Some(&self.hash)).await? {
                    return Ok(None);
                }
                admit(core, visitor, user, proof, device_name).await.map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// Begins a login by OPAQUE, which is one guess whether it is finished or not: the client learns from the
/// answer whether it was right.
pub(super) async fn start(
    core: &Core,
    visitor: Visitor,
    request: &OpaqueStart,
) -> Result<OpaqueStarted, Refusal> {
    let Some(institution) = &core.identity.institution else {
        let text = "this broker admits nobody by password; use an account or a device that it knows";
        return Err(Refusal::new(ErrorCode::Forbidden, text));
    };
    Guess::new(core, visitor, None).charge(core).await?;
    institution.start(core, request).await
}

/// Binds a free user id to a proven device, or lets in the user whose device it is.
async fn admit(
    core: &Core,
    visitor: Visitor,
    user: &str,
    proof: &DeviceProof,
    device_name: Option<&str>,
) -> Result<Caller, Refusal> {
    let name = device_name.unwrap_or_default();
    if name.len() > MAX_TITLE || name.chars().any(char::is_control) {
        return Err(malformed("device_name"));
    }
    let caller = |role| Caller {
        user: user.to_owned(),
        role,
        way: Way::Institution,
        device: Some(proof.key),
        session: None,
        api_key: None,
        visitor,
    };
    if core.store.user(user).await?.is_some() {
        let User { role, .. } = device::owner(core, user, proof).await?;
        return Ok(caller(role));
    }
    if core.store.user_of_device(&proof.key).await?.is_some() {
        return Err(wrong());
    }
    let caller = caller(Role::User);
    let detail = serde_json::json!({ "device": proof.key.to_string() });
    // Written first: a binding that nobody can read about is worse than a line about one that was lost to
    // somebody else who came at the same moment.
    audit::done(core, &caller, AuditAction::UserAdmitted, user, detail.clone()).await?;
    let now = core.now();
    let device = Device { key: proof.key, name: name.to_owned(), added_at: now, last_used_at: Some(now) };
    let new = NewUser { id: user.to_owned(), role: Role::User, password_hash: None, device: Some(device) };
    match core.store.admit(new, now).await {
        Ok(Admitted::New) => Ok(caller),
        Ok(Admitted::Exists(_)) | Err(StoreError::Conflict(_)) => {
            // The same device may have come twice.
            let owner = core.store.user_of_device(&proof.key).await?;
            if owner.is_some_and(|owner| owner.id == user && owner.status == Status::Active) {
                return Ok(caller);
            }
            audit::denied(core, None, visitor, AuditAction::UserAdmitted, Some(user), detail).await;
            Err(wrong())
        }
        Err(error) => Err(error.into()),
    }
}

/// What OPAQUE keeps of a password: a registration in which the broker plays both sides.
fn enrol(setup: &ServerSetup<Suite>, password: &[u8]) -> Result<ServerRegistration<Suite>, ProtocolError> {
    let started = ClientRegistration::<Suite>::start(&mut Random, password)?;
    let answer = ServerRegistration::<Suite>::start(setup, started.message, INSTITUTION)?;
    let stretching = stretching();
    let parameters = ClientRegistrationFinishParameters { ksf: Some(&stretching), ..Default::default() };
    let upload = started.state.finish(&mut Random, password, answer.message, parameters)?;
    Ok(ServerRegistration::finish(upload.message))
}

fn parameters() -> ServerLoginParameters<'static, 'static> {
    ServerLoginParameters { context: Some(CONTEXT), ..Default::default() }
}

/// Where a login that was begun is kept, and what it is sealed for.
fn key(login_id: &str) -> String {
    format!("opaque:{login_id}")
}

fn decoded(field: &str, text: &str) -> Result<Vec<u8>, Refusal> {
    BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| malformed(field))
}

fn malformed(field: &str) -> Refusal {
    Refusal::new(ErrorCode::InvalidInput, format!("`{field}` is malformed"))
}
