//! `culvert-broker-api audit`.

use anyhow::{Context, Result};
use clap::Args;
use culvert_broker_wire::Timestamp;
use serde_json::{Value, json};

use super::{Office, gather, listing};
use crate::store::{AuditAction, AuditEntry, AuditFilter, Outcome};

/// Which entries of the audit log to print, newest first.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Entries at most.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// By this user.
    #[arg(long)]
    user: Option<String>,
    /// Of this kind, such as `login` or `share_requested`.
    #[arg(long)]
    action: Option<String>,
    /// About this user, team, share or credential.
    #[arg(long)]
    subject: Option<String>,
    /// Not before this moment, such as 2025-10-03T12:00:00Z.
    #[arg(long)]
    since: Option<Timestamp>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &AuditArgs, office: &Office<'_>) -> Result<String> {
    let action = args.action.as_deref().map(|name| {
        let known = || AuditAction::ALL.iter().map(|action| action.name()).collect::<Vec<_>>().join(", ");
        let found = AuditAction::ALL.iter().find(|action| action.name() == name).copied();
        found.with_context(|| format!("there is no action {name:?}; there are {}", known()))
    });
    let filter = AuditFilter {
        actor: args.user.clone(),
        action: action.transpose()?,
        subject: args.subject.clone(),
        since: args.since,
    };
    let entries = gather(args.limit, async |page| office.store.entries(filter.clone(), page).await).await?;
    let header = ["at", "actor", "action", "outcome", "subject", "source", "detail"];
    listing(args.json, &header, entries.into_iter().map(row).collect())
}

fn row(entry: AuditEntry) -> Value {
    let AuditEntry { id, at, record } = entry;
    json!({
        "id": id,
        "at": at.to_string(),
        "actor": record.actor,
        "action": record.action.name(),
        "outcome": match record.outcome { Outcome::Done => "done", Outcome::Denied => "denied" },
        "subject": record.subject,
        "source": record.source,
        "detail": record.detail,
    })
}
