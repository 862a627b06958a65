//! API credentials: a key that is not secret, and one or two secrets that are shown once.

use std::time::Duration;

use culvert_broker_wire::{ErrorCode, Timestamp};
use serde_json::json;

use super::{audit, check};
use crate::core::{Caller, Core, Refusal};
use crate::identity;
use crate::store::{ApiSecret, AuditAction, Credential, Page, PageRequest, StoreError};

/// How long the old secret holds beside the new one unless asked for otherwise.
pub const USUAL_OVERLAP: Duration = Duration::from_secs(86_400);
/// How long it may hold at most.
pub const LONGEST_OVERLAP: Duration = Duration::from_secs(30 * 86_400);

/// A credential and its newest secret, which nobody sees again.
pub struct WithSecret {
    /// The credential.
    pub credential: Credential,
    /// `rps_…`.
    pub secret: String,
}

/// Makes a credential of the caller's.
///
/// # Errors
/// `INVALID_INPUT`.
pub async fn create(core: &Core, caller: &Caller, name: &str) -> Result<WithSecret, Refusal> {
    check::title("name", name)?;
    let api_key = identity::new_api_key();
    let (secret, sealed) = new_secret(core, &api_key)?;
    let credential = Credential {
        api_key,
        user: caller.user.clone(),
        name: name.to_owned(),
        created_at: core.now(),
        last_used_at: None,
        secrets: vec![sealed],
    };
    core.store.create_credential(credential.clone()).await?;
    written(core, caller, &credential.api_key, "created").await?;
    Ok(WithSecret { credential, secret })
}

/// The caller's credentials that are not revoked.
///
/// # Errors
/// The database is not available.
pub async fn list(core: &Core, caller: &Caller, page: PageRequest) -> Result<Page<Credential>, Refusal> {
    Ok(core.store.credentials_of(&caller.user, page, core.now()).await?)
}

/// Gives a credential a second secret; the first one holds for `overlap` beside it.
///
/// # Errors
/// `NOT_FOUND`; `CONFLICT` while two secrets live; `INVALID_INPUT`.
pub async fn rotate(
    core: &Core,
    caller: &Caller,
    api_key: &str,
    overlap: Duration,
) -> Result<WithSecret, Refusal> {
    if overlap > LONGEST_OVERLAP {
        let text = format!("`overlap_seconds` must be at most {}", LONGEST_OVERLAP.as_secs());
        return Err(Refusal::new(ErrorCode::InvalidInput, text));
    }
    check::id("api_key", api_key, 128).map_err(|_| not_found())?;
    let (secret, sealed) = new_secret(core, api_key)?;
    let end = core.now().unix_seconds().saturating_add(overlap.as_secs());
    let rotated = core.store.rotate(&caller.user, api_key, sealed, Timestamp::from_unix_seconds(end)).await;
    let credential = match rotated {
        Err(StoreError::Conflict(_)) => {
            let text =
                "two secrets live already; wait until the older one has ended, or revoke the credential";
            return Err(Refusal::new(ErrorCode::Conflict, text));
        }
        credential => credential?.ok_or_else(not_found)?,
    };
    written(core, caller, api_key, "rotated").await?;
    Ok(WithSecret { credential, secret })
}

/// Ends a credential for good.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn revoke(core: &Core, caller: &Caller, api_key: &str) -> Result<(), Refusal> {
    check::id("api_key", api_key, 128).map_err(|_| not_found())?;
    if !core.store.revoke_credential(&caller.user, api_key, core.now()).await? {
        return Err(not_found());
    }
    // WebSockets that this credential opened are closed.
    identity::ended(core, &caller.user).await;
    written(core, caller, api_key, "revoked").await
}

async fn written(core: &Core, caller: &Caller, api_key: &str, did: &str) -> Result<(), Refusal> {
    audit::done(core, caller, AuditAction::CredentialChanged, api_key, json!({ "did": did })).await
}

fn new_secret(core: &Core, api_key: &str) -> Result<(String, ApiSecret), Refusal> {
    identity::new_api_secret(&core.sealer, api_key, core.now()).map_err(|error| {
        tracing::error!(%error, "an API secret cannot be sealed");
        Refusal::internal()
    })
}

fn not_found() -> Refusal {
    Refusal::new(ErrorCode::NotFound, "you have no credential with this key")
}
