//! What the operator does to users, credentials and teams, and reads in the audit log, at the command line.
//!
//! Works on the database itself, beside the running brokers, and is written to the audit log as done by the
//! operator. Brokers hear of it through Redis and act at once: sessions end, sockets close, relays let go.
//! A broker without Redis believes a session for up to ten seconds more.
//!
//! Passwords and secrets are never arguments, which every process of the machine can read: passwords come
//! from the terminal or standard input, or are made here; what is made here is printed once.

mod credentials;
mod log;
mod secret;
mod team;
#[cfg(test)]
mod tests;
mod user;

pub use credentials::CredentialsCommand;
pub use log::AuditArgs;
pub use team::TeamCommand;
pub use user::UserCommand;

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Subcommand;
use comfy_table::{Table, presets};
use culvert_broker_wire::Timestamp;
use culvert_service_kit::{Clock, Secret};
use serde_json::Value;

use crate::domain::MAX_PAGE;
use crate::live::{Event, Live, LiveError};
use crate::seal::Sealer;
use crate::store::{AuditAction, AuditRecord, Outcome, Page, PageRequest, Store, StoreError};

/// What the operator wants.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Create, show, suspend and remove users.
    #[command(subcommand)]
    User(UserCommand),
    /// Create, rotate and revoke users' API credentials.
    #[command(subcommand)]
    Credentials(CredentialsCommand),
    /// Create and delete teams, and choose who is in them.
    #[command(subcommand)]
    Team(TeamCommand),
    /// Read what was granted, denied and changed.
    Audit(AuditArgs),
}

/// What a command works with.
pub struct Office<'a> {
    /// What lasts.
    pub store: &'a dyn Store,
    /// Seals secrets.
    pub sealer: &'a Sealer,
    /// What time it is.
    pub clock: &'a Clock,
    /// How running brokers and relays are told; `None` without Redis.
    pub live: Option<&'a dyn Live>,
    /// How long relay tickets last at most.
    pub ticket: Duration,
}

/// Does it, and writes the outcome to standard output.
///
/// # Errors
/// It cannot be done, with what to do about it.
pub async fn run(command: &AdminCommand, office: &Office<'_>) -> Result<()> {
    let text = execute(command, office, &mut secret::ask).await?;
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
}

/// Asks for a secret; what it is for.
type Ask<'a> = dyn FnMut(&str) -> Result<Secret<String>> + Send + 'a;

/// Does it, and gives what is to be printed.
async fn execute(command: &AdminCommand, office: &Office<'_>, ask: &mut Ask<'_>) -> Result<String> {
    match command {
        AdminCommand::User(command) => user::run(command, office, ask).await,
        AdminCommand::Credentials(command) => credentials::run(command, office).await,
        AdminCommand::Team(command) => team::run(command, office).await,
        AdminCommand::Audit(args) => log::run(args, office).await,
    }
}

impl Office<'_> {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_seconds(self.clock.unix_seconds())
    }

    /// Writes down what the operator is about to do; it is not done otherwise.
    async fn record(&self, action: AuditAction, subject: &str, mut detail: Value) -> Result<()> {
        detail["way"] = crate::identity::way_name(crate::store::Way::Operator).into();
        let subject = Some(subject.to_owned());
        let record =
            AuditRecord { actor: None, action, subject, outcome: Outcome::Done, source: None, detail };
        self.store.append(vec![record], self.now()).await.context("the audit log cannot be written")
    }

    /// Tells the running brokers. What is in the database holds whether they hear it or not.
    async fn tell(&self, event: Event) {
        let Some(live) = self.live else { return };
        heard(live.publish(&event).await);
    }

    /// Sessions of this user ended, or changed.
    async fn sessions_changed(&self, user: &str) {
        self.tell(Event::Sessions { user: user.to_owned(), session: None }).await;
    }
}

/// Says when running brokers could not be told something.
fn heard(told: Result<(), LiveError>) {
    if let Err(error) = told {
        tracing::warn!(%error, "running brokers were not told and notice within ten seconds");
    }
}

/// What is not there.
fn unknown(kind: &str, id: &str) -> anyhow::Error {
    anyhow::anyhow!("there is no {kind} {id:?}")
}

/// All entries of a list, up to a limit, a page at a time.
async fn gather<T>(
    limit: u32,
    mut next: impl AsyncFnMut(PageRequest) -> Result<Page<T>, StoreError>,
) -> Result<Vec<T>> {
    let (mut items, mut after) = (Vec::new(), None);
    loop {
        let missing = limit.saturating_sub(u32::try_from(items.len()).unwrap_or(u32::MAX));
        if missing == 0 {
            return Ok(items);
        }
        let page = next(PageRequest { after, limit: missing.min(MAX_PAGE) }).await?;
        items.extend(page.items);
        if page.next.is_none() {
            return Ok(items);
        }
        after = page.next;
    }
}

/// Rows under a header, or as JSON: an array of objects.
fn listing(json: bool, header: &[&str], rows: Vec<Value>) -> Result<String> {
    if json {
        return Ok(serde_json::to_string_pretty(&rows)? + "\n");
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().map(|name| name.replace('_', " ").to_uppercase()));
    for row in &rows {
        table.add_row(header.iter().map(|name| cell(&row[*name])));
    }
    Ok(format!("{table}\n"))
}

/// One object, a line for each field, or as JSON.
fn details(json: bool, value: &Value) -> Result<String> {
    if json {
        return Ok(serde_json::to_string_pretty(value)? + "\n");
    }
    let fields = value.as_object().into_iter().flatten();
    Ok(fields.map(|(name, value)| format!("{:14} {}\n", name.replace('_', " "), cell(value))).collect())
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        value => value.to_string(),
    }
}
