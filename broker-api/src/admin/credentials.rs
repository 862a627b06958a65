//! `culvert-broker-api credentials`.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Subcommand;
use culvert_broker_wire::Timestamp;
use serde_json::{Value, json};

use super::{Office, details, gather, listing, unknown};
use crate::domain::check;
use crate::domain::credentials::{LONGEST_OVERLAP, USUAL_OVERLAP};
use crate::identity::{new_api_key, new_api_secret};
use crate::store::{AuditAction, Credential, StoreError};

/// What to do about API credentials.
#[derive(Debug, Subcommand)]
pub enum CredentialsCommand {
    /// Make a credential for a user; its secret is printed once and never again.
    Create {
        /// Whose.
        user: String,
        /// What it is for.
        #[arg(long)]
        name: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List a user's credentials, newest first.
    List {
        /// Whose.
        user: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give a credential a second secret, printed once; the first one holds for a while beside it.
    Rotate {
        /// Whose.
        user: String,
        /// `rpa_…`
        api_key: String,
        /// How long the first secret still holds.
        #[arg(long, default_value_t = humantime::Duration::from(USUAL_OVERLAP))]
        overlap: humantime::Duration,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// End a credential for good.
    Revoke {
        /// Whose.
        user: String,
        /// `rpa_…`
        api_key: String,
    },
}

pub(super) async fn run(command: &CredentialsCommand, office: &Office<'_>) -> Result<String> {
    match command {
        CredentialsCommand::Create { user, name, json } => create(office, user, name, *json).await,
        CredentialsCommand::List { user, json } => list(office, user, *json).await,
        CredentialsCommand::Rotate { user, api_key, overlap, json } => {
            rotate(office, user, api_key, **overlap, *json).await
        }
        CredentialsCommand::Revoke { user, api_key } => {
            let detail = json!({ "did": "revoked", "user": user });
            office.record(AuditAction::CredentialChanged, api_key, detail).await?;
            if !office.store.revoke_credential(user, api_key, office.now()).await? {
                return Err(unknown("credential of this user", api_key));
            }
            office.sessions_changed(user).await;
            Ok(format!("revoked {api_key}\n"))
        }
    }
}

async fn create(office: &Office<'_>, user: &str, name: &str, json: bool) -> Result<String> {
    check::title("name", name)?;
    known(office, user).await?;
    let (api_key, now) = (new_api_key(), office.now());
    let (secret, sealed) = new_api_secret(office.sealer, &api_key, now)?;
    let detail = json!({ "did": "created", "user": user });
    office.record(AuditAction::CredentialChanged, &api_key, detail).await?;
    let credential = Credential {
        api_key: api_key.clone(),
        user: user.to_owned(),
        name: name.to_owned(),
        created_at: now,
        last_used_at: None,
        secrets: vec![sealed],
    };
    office.store.create_credential(credential).await?;
    details(json, &json!({ "user": user, "api_key": api_key, "api_secret": secret }))
}

async fn list(office: &Office<'_>, user: &str, json: bool) -> Result<String> {
    known(office, user).await?;
    let now = office.now();
    let found = gather(u32::MAX, async |page| office.store.credentials_of(user, page, now).await).await?;
    let header = ["api_key", "name", "created_at", "last_used_at", "secrets", "older_until"];
    listing(json, &header, found.into_iter().map(row).collect())
}

async fn rotate(
    office: &Office<'_>,
    user: &str,
    api_key: &str,
    overlap: Duration,
    json: bool,
) -> Result<String> {
    if overlap > LONGEST_OVERLAP {
        bail!("the first secret may hold for {} at most", humantime::format_duration(LONGEST_OVERLAP));
    }
    known(office, user).await?;
    let (secret, sealed) = new_api_secret(office.sealer, api_key, office.now())?;
    let until = Timestamp::from_unix_seconds(office.clock.unix_seconds().saturating_add(overlap.as_secs()));
    let detail = json!({ "did": "rotated", "user": user });
    office.record(AuditAction::CredentialChanged, api_key, detail).await?;
    match office.store.rotate(user, api_key, sealed, until).await {
        Ok(Some(_)) => {}
        Ok(None) => return Err(unknown("credential of this user", api_key)),
        Err(StoreError::Conflict(_)) => {
            bail!("two secrets of {api_key} live already; wait for the older one to end, or revoke it")
        }
        Err(error) => return Err(error.into()),
    }
    let shown = json!({
        "user": user, "api_key": api_key, "api_secret": secret, "older_until": until.to_string(),
    });
    details(json, &shown)
}

async fn known(office: &Office<'_>, user: &str) -> Result<()> {
    check::user_id("user", user)?;
    office.store.user(user).await?.map(drop).ok_or_else(|| unknown("user", user))
}

fn row(credential: Credential) -> Value {
    let older_until = credential.secrets.iter().find_map(|secret| secret.expires_at);
    json!({
        "api_key": credential.api_key,
        "name": credential.name,
        "created_at": credential.created_at.to_string(),
        "last_used_at": credential.last_used_at.map(|at| at.to_string()),
        "secrets": credential.secrets.len(),
        "older_until": older_until.map(|at| at.to_string()),
    })
}
