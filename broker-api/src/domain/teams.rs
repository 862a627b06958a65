//! Teams: who is in them, and who may say so.
//!
//! Members see the team; its admins, and administrators of the broker, change it. To everybody else a team
//! that exists looks like one that does not.

use culvert_broker_wire::limits::MAX_USER_ID;
use culvert_broker_wire::message::ShareChange;
use culvert_broker_wire::{AccessPolicy, Audience, ErrorCode};
use serde_json::json;

use super::{audit, check};
use crate::core::{Caller, Core, Refusal};
use crate::live::{Event, Live, LiveError, ShareNews};
use crate::store::{
    AuditAction, DeletedTeam, Member, NewTeam, Page, PageRequest, Role, StoreError, Team, TeamRole,
};

/// Makes a team with the caller as its first admin; without an id it gets a random one.
///
/// # Errors
/// `INVALID_INPUT`; `CONFLICT` if the id is taken.
pub async fn create(core: &Core, caller: &Caller, id: Option<String>, name: String) -> Result<Team, Refusal> {
    let id = id.unwrap_or_else(super::shares::random_id);
    check::id("id", &id, MAX_USER_ID)?;
    check::title("name", &name)?;
    let team = NewTeam { id, name, created_by: caller.user.clone() };
    let team = core.store.create_team(team, core.now()).await?;
    audit::done(core, caller, AuditAction::TeamChanged, &team.id, json!({ "did": "created" })).await?;
    tell(core, vec![caller.user.clone()]).await;
    Ok(team)
}

/// A team and what the caller may do in it, if they may know of it.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn get(core: &Core, caller: &Caller, id: &str) -> Result<(Team, Option<TeamRole>), Refusal> {
    let role = visible(core, caller, id).await?;
    let team = core.store.team(id).await?.ok_or_else(not_found)?;
    Ok((team, role))
}

/// The teams that the caller is in, with their role.
///
/// # Errors
/// The database is not available.
pub async fn list_mine(
    core: &Core,
    caller: &Caller,
    page: PageRequest,
) -> Result<Page<(Team, TeamRole)>, Refusal> {
    Ok(core.store.teams_of(&caller.user, page).await?)
}

/// All teams, for administrators.
///
/// # Errors
/// `FORBIDDEN`.
pub async fn list_all(core: &Core, caller: &Caller, page: PageRequest) -> Result<Page<Team>, Refusal> {
    super::admins_only(core, caller, AuditAction::TeamChanged).await?;
    Ok(core.store.teams(page).await?)
}

/// Renames a team, if it still has the version when one is given.
///
/// # Errors
/// `NOT_FOUND`, `FORBIDDEN`, `INVALID_INPUT`, `PRECONDITION_FAILED`.
pub async fn rename(
    core: &Core,
    caller: &Caller,
    id: &str,
    name: &str,
    version: Option<i64>,
) -> Result<Team, Refusal> {
    administers(core, caller, id, AuditAction::TeamChanged).await?;
    check::title("name", name)?;
    let team = match core.store.rename_team(id, name, version).await {
        Err(StoreError::Conflict(_)) => return Err(stale()),
        team => team?.ok_or_else(not_found)?,
    };
    audit::done(core, caller, AuditAction::TeamChanged, id, json!({ "did": "renamed" })).await?;
    Ok(team)
}

/// Deletes a team, and revokes the shares whose audience it is.
///
/// # Errors
/// `NOT_FOUND`, `FORBIDDEN`, `PRECONDITION_FAILED`.
pub async fn delete(core: &Core, caller: &Caller, id: &str, version: Option<i64>) -> Result<(), Refusal> {
    administers(core, caller, id, AuditAction::TeamChanged).await?;
    let deleted = match core.store.delete_team(id, version, core.now()).await {
        Err(StoreError::Conflict(_)) => return Err(stale()),
        deleted => deleted?.ok_or_else(not_found)?,
    };
    audit::done(core, caller, AuditAction::TeamChanged, id, json!({ "did": "deleted" })).await?;
    if let Err(error) = tell_of_end(core.live.as_ref(), deleted).await {
        tracing::warn!(%error, "the end of a team was not told to the other replicas");
    }
    Ok(())
}

/// Tells every replica that a team and its shares have ended. Nobody knows any more who was in it, so the
/// shares' news name those members who are online, and who hear of a revocation by that.
///
/// # Errors
/// Not all of it could be told.
pub(crate) async fn tell_of_end(live: &dyn Live, deleted: DeletedTeam) -> Result<(), LiveError> {
    let DeletedTeam { members, shares } = deleted;
    live.publish(&Event::Teams { users: members.clone() }).await?;
    if shares.is_empty() {
        return Ok(());
    }
    let online = live.online(&members).await?;
    let user_ids: Vec<_> =
        members.into_iter().zip(online).filter(|(_, online)| *online).map(|(user, _)| user).collect();
    for share in &shares {
        let before =
            AccessPolicy { audience: Audience::Users { user_ids: user_ids.clone() }, ..share.policy.clone() };
        let share = super::shares::summary_for_others(share);
        let news = ShareNews { change: ShareChange::Revoked, share, before: Some(before) };
        live.publish(&Event::Share(Box::new(news))).await?;
    }
    Ok(())
}

/// The members of a team.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn members(
    core: &Core,
    caller: &Caller,
    id: &str,
    page: PageRequest,
) -> Result<Page<Member>, Refusal> {
    visible(core, caller, id).await?;
    Ok(core.store.members(id, page).await?)
}

/// Adds a member, or changes their role.
///
/// # Errors
/// `NOT_FOUND`, `FORBIDDEN`, `USER_NOT_FOUND`, `INVALID_INPUT`; `CONFLICT` if no admin would be left.
pub async fn put_member(
    core: &Core,
    caller: &Caller,
    id: &str,
    user: &str,
    role: TeamRole,
) -> Result<Member, Refusal> {
    administers(core, caller, id, AuditAction::MemberChanged).await?;
    check::user_id("user_id", user)?;
    let member = core.store.put_member(id, user, role, core.now()).await?;
    let none = || Refusal::new(ErrorCode::UserNotFound, "the broker knows no user with this id");
    let member = member.ok_or_else(none)?;
    let detail = json!({ "user": user, "role": role_name(role) });
    audit::done(core, caller, AuditAction::MemberChanged, id, detail).await?;
    tell(core, vec![user.to_owned()]).await;
    Ok(member)
}

/// Removes a member; everybody may remove themselves.
///
/// # Errors
/// `NOT_FOUND`, `FORBIDDEN`, `USER_NOT_FOUND`; `CONFLICT` if no admin would be left.
pub async fn remove_member(core: &Core, caller: &Caller, id: &str, user: &str) -> Result<(), Refusal> {
    if user == caller.user {
        visible(core, caller, id).await?;
    } else {
        administers(core, caller, id, AuditAction::MemberChanged).await?;
    }
    if !core.store.remove_member(id, user).await? {
        return Err(Refusal::new(ErrorCode::UserNotFound, "the team has no such member"));
    }
    let detail = json!({ "user": user, "did": "removed" });
    audit::done(core, caller, AuditAction::MemberChanged, id, detail).await?;
    tell(core, vec![user.to_owned()]).await;
    Ok(())
}

/// A role's stable name.
pub const fn role_name(role: TeamRole) -> &'static str {
    match role {
        TeamRole::Member => "member",
        TeamRole::Admin => "admin",
    }
}

/// The caller's role in a team that they may know of.
async fn visible(core: &Core, caller: &Caller, id: &str) -> Result<Option<TeamRole>, Refusal> {
    // What cannot be an id names no team, and is nothing to ask a database for.
    check::id("id", id, MAX_USER_ID).map_err(|_| not_found())?;
    let role = core.store.role_in(id, &caller.user).await?;
    if role.is_some() {
        return Ok(role);
    }
    let exists = caller.role == Role::Admin && core.store.team(id).await?.is_some();
    if exists { Ok(None) } else { Err(not_found()) }
}

async fn administers(core: &Core, caller: &Caller, id: &str, action: AuditAction) -> Result<(), Refusal> {
    let role = visible(core, caller, id).await?;
    if role == Some(TeamRole::Admin) || caller.role == Role::Admin {
        return Ok(());
    }
    audit::denied(core, Some(caller), caller.visitor, action, Some(id), json!({})).await;
    Err(Refusal::new(ErrorCode::Forbidden, "only admins of the team may do this"))
}

async fn tell(core: &Core, users: Vec<String>) {
    if let Err(error) = core.live.publish(&Event::Teams { users }).await {
        tracing::warn!(%error, "a change of a team was not told to the other replicas");
    }
}

fn not_found() -> Refusal {
    Refusal::new(ErrorCode::NotFound, "there is no such team, or you are not in it")
}

fn stale() -> Refusal {
    Refusal::new(ErrorCode::PreconditionFailed, "the team was changed meanwhile; read it and try again")
}
