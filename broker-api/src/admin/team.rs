//! `culvert-broker-api team`.

use anyhow::{Result, bail};
use clap::{Subcommand, ValueEnum};
use culvert_broker_wire::limits::MAX_USER_ID;
use serde_json::json;

use super::{Office, gather, heard, listing, unknown};
use crate::domain::check;
use crate::domain::shares::random_id;
use crate::domain::teams::tell_of_end;
use crate::live::Event;
use crate::store::{AuditAction, NewTeam, StoreError, Team, TeamRole};

/// What to do about teams.
#[derive(Debug, Subcommand)]
pub enum TeamCommand {
    /// Make a team, with a user as its first admin.
    Create {
        /// For people.
        name: String,
        /// Its first admin.
        #[arg(long)]
        owner: String,
        /// What policies name it by; random when left out.
        #[arg(long)]
        id: Option<String>,
    },
    /// List teams, newest first.
    List {
        /// Teams at most.
        #[arg(long, default_value_t = 1000)]
        limit: u32,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List who is in a team.
    Members {
        /// Which.
        team: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Put a user into a team, or change their role in it.
    Add {
        /// Which.
        team: String,
        /// Whom.
        user: String,
        /// As what.
        #[arg(long, value_enum, default_value_t = MemberRole::Member)]
        role: MemberRole,
    },
    /// Take a user out of a team.
    Remove {
        /// Which.
        team: String,
        /// Whom.
        user: String,
    },
    /// Delete a team and revoke the shares that name it.
    Delete {
        /// Which.
        team: String,
    },
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MemberRole {
    /// Share with the team and see what is shared with it.
    Member,
    /// Also rename and delete it, and choose its members.
    Admin,
}

pub(super) async fn run(command: &TeamCommand, office: &Office<'_>) -> Result<String> {
    match command {
        TeamCommand::Create { name, owner, id } => create(office, name, owner, id.as_deref()).await,
        TeamCommand::List { limit, json } => {
            let teams = gather(*limit, async |page| office.store.teams(page).await).await?;
            let rows = teams.into_iter().map(|team| {
                json!({
                    "team": team.id,
                    "name": team.name,
                    "created_by": team.created_by,
                    "created_at": team.created_at.to_string(),
                })
            });
            listing(*json, &["team", "name", "created_by", "created_at"], rows.collect())
        }
        TeamCommand::Members { team, json } => {
            known(office, team).await?;
            let members = gather(u32::MAX, async |page| office.store.members(team, page).await).await?;
            let rows = members.into_iter().map(|member| {
                let role = role_name(member.role);
                json!({ "user": member.user, "role": role, "added_at": member.added_at.to_string() })
            });
            listing(*json, &["user", "role", "added_at"], rows.collect())
        }
        TeamCommand::Add { team, user, role } => add(office, team, user, *role).await,
        TeamCommand::Remove { team, user } => remove(office, team, user).await,
        TeamCommand::Delete { team } => delete(office, team).await,
    }
}

async fn create(office: &Office<'_>, name: &str, owner: &str, id: Option<&str>) -> Result<String> {
    check::title("name", name)?;
    let id = id.map_or_else(random_id, str::to_owned);
    check::id("id", &id, MAX_USER_ID)?;
    check::user_id("owner", owner)?;
    if office.store.user(owner).await?.is_none() {
        return Err(unknown("user", owner));
    }
    office.record(AuditAction::TeamChanged, &id, json!({ "did": "created", "owner": owner })).await?;
    let new = NewTeam { id: id.clone(), name: name.to_owned(), created_by: owner.to_owned() };
    match office.store.create_team(new, office.now()).await {
        Ok(_) => {}
        Err(StoreError::Conflict(_)) => bail!("there is a team {id:?} already"),
        Err(error) => return Err(error.into()),
    }
    office.tell(Event::Teams { users: vec![owner.to_owned()] }).await;
    Ok(format!("created team {id}\n"))
}

async fn add(office: &Office<'_>, team: &str, user: &str, role: MemberRole) -> Result<String> {
    let role = match role {
        MemberRole::Member => TeamRole::Member,
        MemberRole::Admin => TeamRole::Admin,
    };
    known(office, team).await?;
    check::user_id("user", user)?;
    if office.store.user(user).await?.is_none() {
        return Err(unknown("user", user));
    }
    let detail = json!({ "user": user, "role": role_name(role) });
    office.record(AuditAction::MemberChanged, team, detail).await?;
    match office.store.put_member(team, user, role, office.now()).await {
        Ok(Some(_)) => {}
        Ok(None) => bail!("the team or the user was removed at this moment"),
        Err(StoreError::Conflict(why)) => bail!("{why}"),
        Err(error) => return Err(error.into()),
    }
    office.tell(Event::Teams { users: vec![user.to_owned()] }).await;
    Ok(format!("{user} is {} of {team}\n", role_name(role)))
}

async fn remove(office: &Office<'_>, team: &str, user: &str) -> Result<String> {
    known(office, team).await?;
    check::user_id("user", user)?;
    office.record(AuditAction::MemberChanged, team, json!({ "user": user, "did": "removed" })).await?;
    match office.store.remove_member(team, user).await {
        Ok(true) => {}
        Ok(false) => bail!("{user} is not in {team}"),
        Err(StoreError::Conflict(why)) => bail!("{why}"),
        Err(error) => return Err(error.into()),
    }
    office.tell(Event::Teams { users: vec![user.to_owned()] }).await;
    Ok(format!("{user} is not in {team} any more\n"))
}

async fn delete(office: &Office<'_>, team: &str) -> Result<String> {
    known(office, team).await?;
    office.record(AuditAction::TeamChanged, team, json!({ "did": "deleted" })).await?;
    let deleted = office.store.delete_team(team, None, office.now()).await?;
    if let (Some(deleted), Some(live)) = (deleted, office.live) {
        heard(tell_of_end(live, deleted).await);
    }
    Ok(format!("deleted team {team}\n"))
}

async fn known(office: &Office<'_>, team: &str) -> Result<Team> {
    check::id("team", team, MAX_USER_ID)?;
    office.store.team(team).await?.ok_or_else(|| unknown("team", team))
}

fn role_name(role: TeamRole) -> &'static str {
    match role {
        TeamRole::Member => "member",
        TeamRole::Admin => "admin",
    }
}
