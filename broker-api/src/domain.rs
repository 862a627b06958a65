//! What users do: publish, ask for and revoke shares, keep teams and backups, get tickets for the relays.
//!
//! Every function takes a [`Caller`] that [`crate::identity`] made, checks what that caller may do, asks
//! [`crate::store`] and [`crate::live`], writes the audit log and tells the other replicas. The WebSocket
//! and REST are two thin shells around the same functions, so neither can be more generous than the other.

pub mod audit;
pub mod backups;
pub mod check;
pub mod credentials;
pub mod keys;
pub mod shares;
pub mod teams;
pub mod tickets;
pub mod upkeep;
pub mod users;

use culvert_broker_wire::ErrorCode;

use crate::core::{Caller, Core, Refusal};
use crate::store::{AuditAction, Cursor, PageRequest};

/// Entries of one page of a list at most.
pub const MAX_PAGE: u32 = 1000;
/// Entries of one page of a list unless asked for otherwise.
pub const USUAL_PAGE: u32 = 100;

/// Refuses a message that claims to be from somebody else than the connection's user, and writes that down.
///
/// # Errors
/// `FORBIDDEN`.
pub async fn check_claim(core: &Core, caller: &Caller, claimed: &str) -> Result<(), Refusal> {
    if caller.user == claimed {
        return Ok(());
    }
    let claimed: String = claimed.chars().take(culvert_broker_wire::limits::MAX_USER_ID).collect();
    let detail = serde_json::json!({ "claimed": claimed });
    let refusal = Refusal::new(
        ErrorCode::Forbidden,
        "the message names another user than the one who is signed in here; leave it out or name yourself",
    );
    let action = AuditAction::IdentityMismatch;
    audit::denied(core, Some(caller), caller.visitor, action, None, detail).await;
    Err(refusal)
}

/// The part of a list that a client asked for.
///
/// # Errors
/// `INVALID_INPUT` if the cursor was not made by this broker, or the limit is not from 1 to [`MAX_PAGE`].
pub fn page(cursor: Option<&str>, limit: u32) -> Result<PageRequest, Refusal> {
    if !(1..=MAX_PAGE).contains(&limit) {
        let text = format!("`limit` must be from 1 to {MAX_PAGE}");
        return Err(Refusal::new(ErrorCode::InvalidInput, text));
    }
    let after = cursor.map(|text| {
        let wrong = "`cursor` must come from the answer before; leave it out to begin again";
        Cursor::decode(text).ok_or_else(|| Refusal::new(ErrorCode::InvalidInput, wrong))
    });
    Ok(PageRequest { after: after.transpose()?, limit })
}

/// Refuses whoever is not an administrator.
///
/// # Errors
/// `FORBIDDEN`.
pub async fn admins_only(core: &Core, caller: &Caller, action: AuditAction) -> Result<(), Refusal> {
    if caller.role == crate::store::Role::Admin {
        return Ok(());
    }
    audit::denied(core, Some(caller), caller.visitor, action, None, serde_json::json!({})).await;
    Err(Refusal::new(ErrorCode::Forbidden, "only administrators of the broker may do this"))
}
