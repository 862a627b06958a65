//! Users, as administrators keep them, and who of them is online.

use culvert_broker_wire::{ErrorCode, Timestamp};
use culvert_relay::admission::Revoked;
use serde_json::json;

use super::{admins_only, audit, check, tickets};
use crate::core::{Caller, Core, Refusal};
use crate::identity;
use crate::live::Presence;
use crate::store::{AuditAction, Page, PageRequest, Role, Status, User};

/// Users that a presence look-up compares with at most.
const RELATED: u32 = 10_000;

/// Whether somebody is online.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whereabouts {
    /// Any of their devices.
    pub online: bool,
    /// When they were last seen; now, while they are online.
    pub last_seen: Option<Timestamp>,
}

/// The caller.
///
/// # Errors
/// The database is not available.
pub async fn me(core: &Core, caller: &Caller) -> Result<User, Refusal> {
    core.store.user(&caller.user).await?.ok_or_else(not_found)
}

/// All users; for administrators.
///
/// # Errors
/// `FORBIDDEN`.
pub async fn list(core: &Core, caller: &Caller, page: PageRequest) -> Result<Page<User>, Refusal> {
    admins_only(core, caller, AuditAction::UserChanged).await?;
    Ok(core.store.users(page).await?)
}

/// A user; for administrators.
///
/// # Errors
/// `FORBIDDEN`, `USER_NOT_FOUND`.
pub async fn get(core: &Core, caller: &Caller, id: &str) -> Result<User, Refusal> {
    admins_only(core, caller, AuditAction::UserChanged).await?;
    check::user_id("user_id", id).map_err(|_| not_found())?;
    core.store.user(id).await?.ok_or_else(not_found)
}

/// Sets what is given of a user; for administrators. Suspending ends sessions and tickets at once.
///
/// # Errors
/// `FORBIDDEN`, `USER_NOT_FOUND`; `CONFLICT` if administrators would lock themselves out.
pub async fn change(
    core: &Core,
    caller: &Caller,
    id: &str,
    status: Option<Status>,
    role: Option<Role>,
) -> Result<User, Refusal> {
    get(core, caller, id).await?;
    if id == caller.user && (status == Some(Status::Suspended) || role == Some(Role::User)) {
        let text = "another administrator has to do this, so that one is left";
        return Err(Refusal::new(ErrorCode::Conflict, text));
    }
    if let Some(role) = role {
        let detail = json!({ "role": role_name(role) });
        audit::done(core, caller, AuditAction::UserChanged, id, detail).await?;
        core.store.set_role(id, role).await?;
    }
    if let Some(status) = status {
        let detail = json!({ "status": status_name(status) });
        audit::done(core, caller, AuditAction::UserChanged, id, detail).await?;
        core.store.set_status(id, status).await?;
        if status == Status::Suspended {
            shut_out(core, caller, id).await?;
        }
    }
    // What replicas remember of the user's sessions says another role or status.
    identity::ended(core, id).await;
    core.store.user(id).await?.ok_or_else(not_found)
}

/// Removes a user and what is theirs; for administrators.
///
/// # Errors
/// `FORBIDDEN`, `USER_NOT_FOUND`, `CONFLICT` for oneself.
pub async fn delete(core: &Core, caller: &Caller, id: &str) -> Result<(), Refusal> {
    get(core, caller, id).await?;
    if id == caller.user {
        let text = "another administrator has to do this, so that one is left";
        return Err(Refusal::new(ErrorCode::Conflict, text));
    }
    audit::done(core, caller, AuditAction::UserChanged, id, json!({ "did": "deleted" })).await?;
    // While the devices are still known.
    shut_out(core, caller, id).await?;
    core.store.delete_user(id, core.now()).await?;
    identity::ended(core, id).await;
    Ok(())
}

/// Whether somebody is online, for those who share a team or a share with them.
///
/// # Errors
/// `USER_NOT_FOUND`, whether there is no such user or the caller may not know.
pub async fn whereabouts(core: &Core, caller: &Caller, id: &str) -> Result<Whereabouts, Refusal> {
    check::user_id("user_id", id).map_err(|_| not_found())?;
    if id != caller.user {
        let related = core.store.related(&caller.user, core.now(), RELATED).await?;
        if !related.iter().any(|user| user == id) {
            return Err(not_found());
        }
    }
    let online = core.live.online(&[id.to_owned()]).await?.first().copied().unwrap_or_default();
    let last_seen = match online {
        true => Some(core.now()),
        false => core.store.user(id).await?.and_then(|user| user.last_seen),
    };
    Ok(Whereabouts { online, last_seen })
}

/// The caller's devices that are online.
///
/// # Errors
/// Presence is not available.
pub async fn online(core: &Core, caller: &Caller) -> Result<Vec<Presence>, Refusal> {
    Ok(core.live.presences(&caller.user).await?)
}

/// A role's stable name.
pub const fn role_name(role: Role) -> &'static str {
    match role {
        Role::User => "user",
        Role::Admin => "admin",
    }
}

/// A status's stable name.
pub const fn status_name(status: Status) -> &'static str {
    match status {
        Status::Active => "active",
        Status::Suspended => "suspended",
    }
}

/// Ends a user's sessions, and their devices' tickets at the relays.
async fn shut_out(core: &Core, caller: &Caller, id: &str) -> Result<(), Refusal> {
    core.store.end_sessions(id).await?;
    let devices = core.store.devices(id).await?;
    let revoked: Vec<_> = devices.into_iter().map(|device| Revoked::Peer(device.key)).collect();
    if !revoked.is_empty()
        && let Err(error) = tickets::revoke_now(core, caller, &revoked).await
    {
        // What they could do at the broker has ended; the relays are told again once they can be.
        tracing::warn!(%error, "the relays were not told that a user is shut out");
    }
    Ok(())
}

fn not_found() -> Refusal {
    Refusal::new(ErrorCode::UserNotFound, "there is no such user, or you may not know of them")
}
