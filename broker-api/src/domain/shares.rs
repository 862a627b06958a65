//! Shares: publishing, asking for, changing and revoking them.
//!
//! A look-up costs one question to the database (share and policy together), one to presence, and one line
//! of the audit log, all of which it shares with whoever asks at about the same time.
//!
//! Somebody who may not use a share learns as little as possible. Over REST unknown and forbidden look the
//! same. Over the WebSocket the first protocol knows `ACCESS_DENIED`; it is said only to a user who holds a
//! token that cannot be guessed, who therefore got it from somebody and knows that the share exists.

mod desk;
mod lists;
mod look_up;

pub use desk::Desk;
pub(crate) use lists::summary_for_others;
pub use lists::{Listed, accesses, list_mine, list_shared_with_me, summary};
pub use look_up::{Found, Wanted, look_up, request};

use culvert_broker_wire::message::ShareChange;
use culvert_broker_wire::{AccessPolicy, Audience, ErrorCode, ShareMetadata, ShareToken};
use serde_json::json;

use super::{audit, check};
use crate::core::{Caller, Core, Refusal};
use crate::live::{Event, ShareNews};
use crate::store::{AuditAction, Cursor, NewShare, Published, Share, ShareChanges, StoreError};

/// What is said about a share that does not exist, or that one may not know of.
pub fn not_found() -> Refusal {
    Refusal::new(ErrorCode::ShareNotFound, "there is no such share, or it is not for you; check the link")
}

/// Publishes a share, or changes the caller's own that has this token.
///
/// # Errors
/// `FORBIDDEN` if the metadata names another owner; `INVALID_INPUT`; `PUBLISH_ERROR` if the token belongs to
/// somebody else or was revoked, or the policy names a team that the caller is not in.
pub async fn publish(
    core: &Core,
    caller: &Caller,
    token: &str,
    metadata: ShareMetadata,
) -> Result<Share, Refusal> {
    super::check_claim(core, caller, &metadata.owner_user_id).await?;
    let token: ShareToken = token.parse().map_err(|error: culvert_broker_wire::token::ParseTokenError| {
        Refusal::new(ErrorCode::InvalidInput, format!("`token`: {error}"))
    })?;
    let ShareMetadata { result_id, title, description, created_at, mut access_policy, .. } = metadata;
    check::result_id(&result_id)?;
    check::title("title", &title)?;
    check::description(description.as_deref())?;
    check_policy(core, &token, &mut access_policy)?;
    let id = random_id();
    let share = NewShare {
        token_hash: token.hash(),
        token_sealed: seal(core, &token)?,
        owner: caller.user.clone(),
        result_id,
        title,
        description,
        created_at,
        policy: access_policy,
        id,
    };
    let published = match core.store.publish(share, core.now()).await {
        Err(StoreError::Conflict(why)) => {
            let detail = json!({ "reason": why, "token_sha256": hash_text(&token) });
            let action = AuditAction::SharePublished;
            audit::denied(core, Some(caller), caller.visitor, action, None, detail).await;
            return Err(Refusal::new(ErrorCode::PublishError, why));
        }
        published => published?,
    };
    let (change, share, before) = match published {
        Published::New(share) => (ShareChange::Published, share, None),
        Published::Changed { before, after } => (ShareChange::Updated, *after, Some(before.policy)),
        Published::Same(share) => return Ok(share),
    };
    let action = match change {
        ShareChange::Published => AuditAction::SharePublished,
        _ => AuditAction::ShareChanged,
    };
    let detail = json!({ "result_id": share.result_id, "policy": share.policy });
    audit::done(core, caller, action, &share.id, detail).await?;
    tell(core, change, &share, before).await;
    Ok(share)
}

/// Changes the caller's own share, if it still has the version when one is given.
///
/// # Errors
/// `INVALID_INPUT`; `SHARE_NOT_FOUND`; `PRECONDITION_FAILED`; `PUBLISH_ERROR` as in [`publish`].
pub async fn change(
    core: &Core,
    caller: &Caller,
    token: &str,
    mut changes: ShareChanges,
    version: Option<i64>,
) -> Result<Share, Refusal> {
    let token = check::known_token(token)?;
    if let Some(title) = &changes.title {
        check::title("title", title)?;
    }
    check::description(changes.description.as_ref().and_then(Option::as_deref))?;
    if let Some(policy) = &mut changes.policy {
        check_policy(core, &token, policy)?;
        if let Audience::Team { team_id } = &policy.audience
            && core.store.role_in(team_id, &caller.user).await?.is_none()
        {
            return Err(Refusal::new(ErrorCode::PublishError, "you are in no team with this id"));
        }
    }
    let changed = core.store.change_share(&caller.user, &token.hash(), changes, version, core.now()).await;
    let (before, after) = match changed {
        Err(StoreError::Conflict(_)) => return Err(stale()),
        changed => changed?.ok_or_else(not_found)?,
    };
    if before.version != after.version {
        let detail = json!({ "policy": after.policy, "version": after.version });
        audit::done(core, caller, AuditAction::ShareChanged, &after.id, detail).await?;
        tell(core, ShareChange::Updated, &after, Some(before.policy)).await;
    }
    Ok(after)
}

/// Ends the caller's own share for good.
///
/// # Errors
/// As [`revoke_if`].
pub async fn revoke(core: &Core, caller: &Caller, token: &str) -> Result<Share, Refusal> {
    revoke_if(core, caller, token, None).await
}

/// Ends the caller's own share for good, if it still has the version when one is given.
///
/// # Errors
/// `REVOKE_ERROR` if the caller has no such share, whether or not somebody else does;
/// `PRECONDITION_FAILED`.
pub async fn revoke_if(
    core: &Core,
    caller: &Caller,
    token: &str,
    version: Option<i64>,
) -> Result<Share, Refusal> {
    let none = || Refusal::new(ErrorCode::RevokeError, "you have no share with this token that still holds");
    let token: ShareToken = token.parse().map_err(|_| none())?;
    let share = match core.store.revoke(&caller.user, &token.hash(), version, core.now()).await {
        Err(StoreError::Conflict(_)) => return Err(stale()),
        share => share?,
    };
    let Some(share) = share else {
        let detail = json!({ "token_sha256": hash_text(&token) });
        let action = AuditAction::ShareRevoked;
        audit::denied(core, Some(caller), caller.visitor, action, None, detail).await;
        return Err(none());
    };
    audit::done(core, caller, AuditAction::ShareRevoked, &share.id, json!({})).await?;
    tell(core, ShareChange::Revoked, &share, None).await;
    Ok(share)
}

/// Brings a policy into its one form and refuses what the token is too short for.
fn check_policy(core: &Core, token: &ShareToken, policy: &mut AccessPolicy) -> Result<(), Refusal> {
    check::policy(&core.config.institution, policy)?;
    if policy.audience != Audience::Public && !token.is_private() {
        let min = culvert_broker_wire::limits::MIN_PRIVATE_TOKEN;
        let text = format!("a token of a share that is not public must have at least {min} characters");
        return Err(Refusal::new(ErrorCode::InvalidInput, text));
    }
    Ok(())
}

/// Tells every replica. The change is durable already, so a failure costs an event and not the change;
/// sockets that missed one are told when the connection to Redis is back.
async fn tell(core: &Core, change: ShareChange, share: &Share, before: Option<AccessPolicy>) {
    let share = summary_for_others(share);
    let event = Event::Share(Box::new(ShareNews { change, share, before }));
    if let Err(error) = core.live.publish(&event).await {
        tracing::warn!(%error, "a change of a share was not told to the other replicas");
    }
}

fn stale() -> Refusal {
    Refusal::new(ErrorCode::PreconditionFailed, "the share was changed meanwhile; read it and try again")
}

/// What a token is sealed for: bound to its share by its hash, under which the row is found.
fn token_context(hash: &[u8; 32]) -> String {
    format!("share token {}", data_encoding::HEXLOWER.encode(hash))
}

fn seal(core: &Core, token: &ShareToken) -> Result<Vec<u8>, Refusal> {
    core.sealer.seal(&token_context(&token.hash()), token.as_str().as_bytes()).map_err(|error| {
        tracing::error!(%error, "a share token cannot be sealed");
        Refusal::internal()
    })
}

/// SHA-256 of a token, as it may be written down.
fn hash_text(token: &ShareToken) -> String {
    data_encoding::HEXLOWER.encode(&token.hash())
}

/// 16 random bytes, hexadecimal.
pub(crate) fn random_id() -> String {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes);
    data_encoding::HEXLOWER.encode(&bytes)
}

/// Where a list goes on, as clients get it.
fn cursor(next: Option<Cursor>) -> Option<String> {
    next.map(|cursor| cursor.encode())
}
