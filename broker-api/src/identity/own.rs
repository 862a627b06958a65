//! What users do about their own ways in: log out, change the password, bind and revoke devices.

use culvert_broker_wire::ErrorCode;
use culvert_broker_wire::limits::MAX_PASSWORD;
use culvert_broker_wire::login::{DeviceInfo, DeviceList, NewDevice, NewPassword, SessionGiven};
use culvert_relay::admission::Revoked;
use culvert_wire::PeerId;
use serde_json::json;

use super::guesses::Guess;
use super::{device, password, passwords_pass, sessions, wrong};
use crate::core::{Caller, Core, Refusal};
use crate::domain::{audit, check, tickets};
use crate::store::{AuditAction, Device, StoreError, Way};

/// Ends the caller's session, on every replica.
///
/// # Errors
/// `INVALID_INPUT` without a session; the database is not available.
pub async fn log_out(core: &Core, caller: &Caller) -> Result<(), Refusal> {
    let Some(session) = &caller.session else {
        return Err(Refusal::new(ErrorCode::InvalidInput, "there is no session to end on this request"));
    };
    core.store.end_session(session).await?;
    core.identity.sessions.ended(core, &caller.user, Some(session)).await;
    audit::done(core, caller, AuditAction::Logout, &caller.user, json!({})).await
}

/// Sets the caller's password, ends all of their sessions and gives a new one.
///
/// # Errors
/// The old password is wrong, or the new one too short; a store is not available.
pub async fn change_password(
    core: &Core,
    caller: &Caller,
    request: &NewPassword,
) -> Result<SessionGiven, Refusal> {
    passwords_pass(caller.visitor)?;
    signed_in(caller)?;
    password::check_new(&request.new_password.0)?;
    let user = core.store.user(&caller.user).await?.ok_or_else(wrong)?;
    let old = request.old_password.as_ref().map_or("", |password| &password.0);
    if old.len() > MAX_PASSWORD {
        return Err(wrong());
    }
    if let Some(hash) = &user.password_hash {
        let guess = Guess::new(core, caller.visitor, Some(&caller.user));
        guess.charge(core).await?;
        if !core.identity.hasher.verify(old, Some(hash)).await? {
            let detail = json!({ "change": "password" });
            let action = AuditAction::UserChanged;
            audit::denied(core, Some(caller), caller.visitor, action, Some(&caller.user), detail).await;
            return Err(wrong());
        }
        guess.give_back(core).await;
    }
    let hash = core.identity.hasher.hash(request.new_password.0.clone()).await?;
    audit::done(core, caller, AuditAction::UserChanged, &caller.user, json!({ "change": "password" }))
        .await?;
    core.store.set_password(&caller.user, Some(hash)).await?;
    core.store.end_sessions(&caller.user).await?;
    core.identity.sessions.ended(core, &caller.user, None).await;
    sessions::give(core, caller).await
}

/// The caller's devices.
///
/// # Errors
/// The database is not available.
pub async fn devices(core: &Core, caller: &Caller) -> Result<DeviceList, Refusal> {
    let devices = core.store.devices(&caller.user).await?;
    Ok(DeviceList { devices: devices.into_iter().map(info).collect() })
}

/// Binds one more device to the caller.
///
/// # Errors
/// The proof does not hold; `CONFLICT` if the key is or was bound already, or there are too many.
pub async fn add_device(core: &Core, caller: &Caller, request: &NewDevice) -> Result<DeviceInfo, Refusal> {
    signed_in(caller)?;
    if !request.name.is_empty() {
        check::title("name", &request.name)?;
    }
    device::check(core, &caller.user, &request.device).await?;
    let key = request.device.key;
    let added = Device { key, name: request.name.clone(), added_at: core.now(), last_used_at: None };
    let detail = json!({ "device": key.to_string() });
    match core.store.add_device(&caller.user, added.clone()).await {
        Ok(()) => {}
        Err(StoreError::Conflict(_)) => {
            let action = AuditAction::DeviceAdded;
            audit::denied(core, Some(caller), caller.visitor, action, Some(&caller.user), detail).await;
            let text = "this key is bound already, was revoked, or the user has as many devices as they may";
            return Err(Refusal::new(ErrorCode::Conflict, text));
        }
        Err(error) => return Err(error.into()),
    }
    audit::done(core, caller, AuditAction::DeviceAdded, &caller.user, detail).await?;
    Ok(info(added))
}

/// Revokes one of the caller's devices for good, with its sessions and its place at the relays.
///
/// # Errors
/// `NOT_FOUND`; a store is not available.
pub async fn revoke_device(core: &Core, caller: &Caller, key: &PeerId) -> Result<(), Refusal> {
    signed_in(caller)?;
    if !core.store.revoke_device(&caller.user, key, core.now()).await? {
        return Err(Refusal::new(
            ErrorCode::NotFound,
            "there is no such device; list yours to see their keys",
        ));
    }
    core.identity.sessions.ended(core, &caller.user, None).await;
    let told = tickets::revoke_now(core, caller, &[Revoked::Peer(*key)]).await;
    if let Err(refusal) = &told {
        // What is written down is told again; and it gets no new tickets.
        tracing::warn!(%refusal, "the relays did not hear of a revoked device");
    }
    let detail = json!({ "device": key.to_string(), "relays_know": told.is_ok() });
    audit::done(core, caller, AuditAction::DeviceRevoked, &caller.user, detail).await
}

/// Ways in are changed by somebody with a session only: who holds nothing but API credentials, which may be
/// in a script, cannot make themselves another way in that outlives them.
fn signed_in(caller: &Caller) -> Result<(), Refusal> {
    if caller.session.is_some() && caller.way != Way::Credential {
        return Ok(());
    }
    Err(Refusal::new(ErrorCode::Forbidden, "log in with a password or a device to change this"))
}

fn info(device: Device) -> DeviceInfo {
    let Device { key, name, added_at, last_used_at } = device;
    DeviceInfo { key, name, added_at, last_used_at }
}
