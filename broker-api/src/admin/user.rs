//! `culvert-broker-api user`.

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use culvert_relay::admission::Revoked;
use culvert_service_kit::Secret;
use serde_json::{Value, json};

use super::{Ask, Office, details, gather, listing, secret, unknown};
use crate::domain::users::{role_name, status_name};
use crate::domain::{check, tickets};
use crate::identity::password;
use crate::live::Event;
use crate::store::{Admitted, AuditAction, AuditRecord, NewUser, Outcome, Role, Status, User};

/// What to do about users.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Create a user with an account; the password is asked for, or read from standard input.
    Create {
        /// Their id, often an e-mail address.
        user: String,
        /// Let them administer the broker.
        #[arg(long)]
        admin: bool,
        /// Where the password comes from.
        #[command(flatten)]
        password: Generate,
    },
    /// List users, newest first.
    List {
        /// Users at most.
        #[arg(long, default_value_t = 1000)]
        limit: u32,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show a user, their devices and credentials.
    Show {
        /// Whom.
        user: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give a user another password and end their sessions.
    ResetPassword {
        /// Whose.
        user: String,
        /// Where the password comes from.
        #[command(flatten)]
        password: Generate,
    },
    /// Let a user in no more, from now on: sessions end, relays let go. Nothing of theirs is removed.
    Suspend {
        /// Whom.
        user: String,
    },
    /// Let a suspended user in again.
    Activate {
        /// Whom.
        user: String,
    },
    /// Let a user administer the broker.
    GrantAdmin {
        /// Whom.
        user: String,
    },
    /// Let a user administer the broker no more.
    RevokeAdmin {
        /// Whom.
        user: String,
    },
    /// Remove a user with devices, credentials, backups and memberships, and revoke their shares.
    Delete {
        /// Whom.
        user: String,
    },
}

/// Where a password comes from.
#[derive(Debug, Args)]
pub struct Generate {
    /// Make up a password and print it once, instead of asking for one.
    #[arg(long)]
    generate_password: bool,
}

pub(super) async fn run(command: &UserCommand, office: &Office<'_>, ask: &mut Ask<'_>) -> Result<String> {
    match command {
        UserCommand::Create { user, admin, password } => create(office, ask, user, *admin, password).await,
        UserCommand::List { limit, json } => {
            let users = gather(*limit, async |page| office.store.users(page).await).await?;
            let header = ["user", "role", "status", "account", "created_at", "last_seen"];
            listing(*json, &header, users.into_iter().map(row).collect())
        }
        UserCommand::Show { user, json } => show(office, user, *json).await,
        UserCommand::ResetPassword { user, password } => reset(office, ask, user, password).await,
        UserCommand::Suspend { user } => suspend(office, user).await,
        UserCommand::Activate { user } => {
            change(office, user, json!({ "status": "active" })).await?;
            office.store.set_status(user, Status::Active).await?;
            Ok(format!("{user} may come in again\n"))
        }
        UserCommand::GrantAdmin { user } => set_role(office, user, Role::Admin).await,
        UserCommand::RevokeAdmin { user } => set_role(office, user, Role::User).await,
        UserCommand::Delete { user } => delete(office, user).await,
    }
}

async fn create(
    office: &Office<'_>,
    ask: &mut Ask<'_>,
    user: &str,
    admin: bool,
    generate: &Generate,
) -> Result<String> {
    check::user_id("user", user)?;
    if office.store.user(user).await?.is_some() {
        bail!("there is a user {user:?} already; reset-password gives them another password");
    }
    let (password, told) = chosen(ask, user, generate)?;
    let hash = password::hash_now(&password)?;
    let role = if admin { Role::Admin } else { Role::User };
    office.record(AuditAction::UserAdmitted, user, json!({ "role": role_name(role) })).await?;
    let new = NewUser { id: user.to_owned(), role, password_hash: Some(hash), device: None };
    match office.store.admit(new, office.now()).await? {
        Admitted::New => Ok(format!("created {user}\n{told}")),
        Admitted::Exists(_) => bail!("somebody else took the id {user:?} at this moment"),
    }
}

async fn reset(office: &Office<'_>, ask: &mut Ask<'_>, user: &str, generate: &Generate) -> Result<String> {
    known(office, user).await?;
    let (password, told) = chosen(ask, user, generate)?;
    let hash = password::hash_now(&password)?;
    change(office, user, json!({ "change": "password" })).await?;
    office.store.set_password(user, Some(hash)).await?;
    let ended = office.store.end_sessions(user).await?;
    office.sessions_changed(user).await;
    Ok(format!("{user} has another password; sessions ended: {ended}\n{told}"))
}

/// A password, and what is printed about it.
fn chosen(ask: &mut Ask<'_>, user: &str, generate: &Generate) -> Result<(Secret<String>, String)> {
    if generate.generate_password {
        let password = secret::generate();
        let told = format!("password: {}\n", password.expose());
        return Ok((password, told));
    }
    let password = ask(&format!("password of {user}"))?;
    password::check_new(password.expose())?;
    Ok((password, String::new()))
}

async fn show(office: &Office<'_>, user: &str, json: bool) -> Result<String> {
    let found = known(office, user).await?;
    let devices = office.store.devices(user).await?;
    let now = office.now();
    let credentials =
        gather(u32::MAX, async |page| office.store.credentials_of(user, page, now).await).await?;
    let mut shown = row(found);
    let devices = devices.into_iter().map(|device| match device.name.as_str() {
        "" => device.key.to_string(),
        name => format!("{name} ({})", device.key),
    });
    shown["devices"] = devices.collect();
    shown["credentials"] = credentials.into_iter().map(|credential| credential.api_key).collect();
    details(json, &shown)
}

async fn suspend(office: &Office<'_>, user: &str) -> Result<String> {
    change(office, user, json!({ "status": "suspended" })).await?;
    office.store.set_status(user, Status::Suspended).await?;
    let ended = shut_out(office, user).await?;
    Ok(format!("{user} may not come in; sessions ended: {ended}\n"))
}

async fn set_role(office: &Office<'_>, user: &str, role: Role) -> Result<String> {
    change(office, user, json!({ "role": role_name(role) })).await?;
    office.store.set_role(user, role).await?;
    office.sessions_changed(user).await;
    let may = if role == Role::Admin { "administers the broker" } else { "administers the broker no more" };
    Ok(format!("{user} {may}\n"))
}

async fn delete(office: &Office<'_>, user: &str) -> Result<String> {
    change(office, user, json!({ "did": "deleted" })).await?;
    // While the devices are still known.
    shut_out(office, user).await?;
    office.store.delete_user(user, office.now()).await?;
    office.sessions_changed(user).await;
    office.tell(Event::Teams { users: vec![user.to_owned()] }).await;
    Ok(format!("removed {user}\n"))
}

/// Ends a user's sessions and their devices' tickets at the relays; gives how many sessions.
async fn shut_out(office: &Office<'_>, user: &str) -> Result<u64> {
    let ended = office.store.end_sessions(user).await?;
    office.sessions_changed(user).await;
    let devices = office.store.devices(user).await?;
    let revoked: Vec<_> = devices.into_iter().map(|device| Revoked::Peer(device.key)).collect();
    if revoked.is_empty() {
        return Ok(ended);
    }
    let until = office.clock.unix_seconds().saturating_add(office.ticket.as_secs());
    let records = revoked.iter().map(|one| AuditRecord {
        actor: None,
        action: AuditAction::TicketRevoked,
        subject: Some(tickets::subject(one)),
        outcome: Outcome::Done,
        source: None,
        detail: json!({ "until": until, "way": "operator" }),
    });
    // Brokers read it there and tell the relays, also when they cannot be told now.
    office.store.append(records.collect(), office.now()).await.context("the audit log cannot be written")?;
    if let Some(live) = office.live
        && let Err(error) = live.revoke(&revoked, until).await
    {
        tracing::warn!(%error, "the relays hear of the revocation as soon as a broker reaches them");
    }
    Ok(ended)
}

/// Writes down a change of a user who exists.
async fn change(office: &Office<'_>, user: &str, detail: Value) -> Result<()> {
    known(office, user).await?;
    office.record(AuditAction::UserChanged, user, detail).await
}

async fn known(office: &Office<'_>, user: &str) -> Result<User> {
    check::user_id("user", user)?;
    office.store.user(user).await?.ok_or_else(|| unknown("user", user))
}

fn row(user: User) -> Value {
    json!({
        "user": user.id,
        "role": role_name(user.role),
        "status": status_name(user.status),
        "account": user.password_hash.is_some(),
        "created_at": user.created_at.to_string(),
        "last_seen": user.last_seen.map(|at| at.to_string()),
    })
}
