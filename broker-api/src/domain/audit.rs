//! Writes the audit log: what must be written down before it is answered.
//!
//! Requests that come at the same time share a transaction: each hands its entry to the [`Journal`], which
//! writes whatever has gathered and answers each request only after its entry is durable. A single request
//! pays one transaction, a thousand at once pay a handful.

use std::sync::Arc;
use std::time::Duration;

use culvert_broker_wire::{ErrorCode, Timestamp};
use culvert_service_kit::Clock;
use culvert_service_kit::metric_set::Counter;
use serde_json::Value;

use crate::batches::{Batches, Waiting};
use crate::core::{Caller, Core, Refusal, Visitor};
use crate::store::{
    AuditAction, AuditEntry, AuditFilter, AuditLine, AuditRecord, Outcome, Page, PageRequest, Store,
};

/// Entries of one transaction.
const BATCH: usize = 256;

/// Gathers entries of requests that run at the same time into one transaction.
pub struct Journal(Batches<AuditLine, bool>);

impl Journal {
    /// Starts to write into this store, and counts the entries that it does not take; within a runtime. Ends
    /// after it is dropped, see [`Self::close`].
    pub fn start(store: Arc<dyn Store>, clock: Clock, failures: Counter) -> Self {
        Self(Batches::start(BATCH, Duration::ZERO, move |batch| {
            let (store, failures) = (store.clone(), failures.clone());
            let now = Timestamp::from_unix_seconds(clock.unix_seconds());
            async move { write_down(store.as_ref(), now, &failures, batch).await }
        }))
    }

    /// Completes if nothing is written down any more, because the task that does it has ended. Cancel safe.
    pub async fn ended(&self) {
        self.0.ended().await;
    }

    /// Waits until everything that was handed over is written or refused.
    pub async fn close(self) {
        self.0.close().await;
    }

    /// Writes an entry down.
    ///
    /// # Errors
    /// `UNAVAILABLE`: it may not have been written.
    async fn append(&self, line: AuditLine) -> Result<(), Refusal> {
        if self.0.ask(line).await == Some(true) { Ok(()) } else { Err(Refusal::unavailable()) }
    }
}

async fn write_down(
    store: &dyn Store,
    now: Timestamp,
    failures: &Counter,
    batch: Vec<Waiting<AuditLine, bool>>,
) {
    let (lines, askers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
    let written = store.append_lines(lines, now).await;
    if let Err(error) = &written {
        failures.increment(askers.len() as u64);
        tracing::error!(%error, entries = askers.len(), "the audit log cannot be written");
    }
    askers.into_iter().for_each(|asker| asker.answer(written.is_ok()));
}

/// Writes down what was done or refused, and returns once that is durable.
///
/// `subject` is an id, never a token or a secret; `detail` is an object.
///
/// # Errors
/// `UNAVAILABLE`: it may not have been written, so what depends on it must not be given.
pub async fn record(
    core: &Core,
    caller: Option<&Caller>,
    visitor: Visitor,
    action: AuditAction,
    subject: Option<&str>,
    outcome: Outcome,
    detail: Value,
) -> Result<(), Refusal> {
    core.audit.append(entry(caller, visitor, action, subject, outcome, detail).into()).await
}

/// Writes down that somebody got a share; `counts` adds one to its downloads in the same go.
///
/// # Errors
/// As [`record`].
pub async fn granted(
    core: &Core,
    caller: Option<&Caller>,
    visitor: Visitor,
    share: &str,
    detail: Value,
    counts: bool,
) -> Result<(), Refusal> {
    let action = AuditAction::ShareRequested;
    let record = entry(caller, visitor, action, Some(share), Outcome::Done, detail);
    core.audit.append(AuditLine { record, counts }).await
}

/// Writes down that something was done by a caller.
///
/// # Errors
/// As [`record`].
pub async fn done(
    core: &Core,
    caller: &Caller,
    action: AuditAction,
    subject: &str,
    detail: Value,
) -> Result<(), Refusal> {
    record(core, Some(caller), caller.visitor, action, Some(subject), Outcome::Done, detail).await
}

/// Writes down a denial. One that cannot be written is still a denial; that is logged by the journal.
pub async fn denied(
    core: &Core,
    caller: Option<&Caller>,
    visitor: Visitor,
    action: AuditAction,
    subject: Option<&str>,
    detail: Value,
) {
    let _ = record(core, caller, visitor, action, subject, Outcome::Denied, detail).await;
}

/// The action with this stable name.
///
/// # Errors
/// `INVALID_INPUT`.
pub fn action(name: &str) -> Result<AuditAction, Refusal> {
    let known = AuditAction::ALL.iter().find(|action| action.name() == name);
    known.copied().ok_or_else(|| Refusal::new(ErrorCode::InvalidInput, "`action` is not one that is written"))
}

/// Entries of the log, for administrators.
///
/// # Errors
/// `FORBIDDEN`; the database is not available.
pub async fn entries(
    core: &Core,
    caller: &Caller,
    filter: AuditFilter,
    page: PageRequest,
) -> Result<Page<AuditEntry>, Refusal> {
    super::admins_only(core, caller, AuditAction::AuditRead).await?;
    Ok(core.store.entries(filter, page).await?)
}

fn entry(
    caller: Option<&Caller>,
    visitor: Visitor,
    action: AuditAction,
    subject: Option<&str>,
    outcome: Outcome,
    detail: Value,
) -> AuditRecord {
    AuditRecord {
        actor: caller.map(|caller| caller.user.clone()),
        action,
        subject: subject.map(str::to_owned),
        outcome,
        source: Some(visitor.source.to_string()),
        detail,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use culvert_service_kit::metric_set::Registry;
    use serde_json::json;

    use super::*;
    use crate::metrics::Metrics;
    use crate::store::postgres::PostgresStore;

    #[tokio::test]
    async fn an_entry_that_the_database_does_not_take_is_refused_and_counted() {
        // Nothing listens on port 1.
        let store = PostgresStore::connect("postgres://127.0.0.1:1/none", 1, Duration::from_secs(5)).unwrap();
        let registry = Registry::new();
        let failures = Metrics::register(registry.recorder()).audit_failures;
        let journal = Journal::start(Arc::new(store), Clock::system(), failures);
        let here = Visitor { source: Ipv4Addr::LOCALHOST.into(), secure: true };
        let entry = entry(None, here, AuditAction::KeyRotated, None, Outcome::Done, json!({}));
        let refusal = journal.append(entry.into()).await.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::Unavailable);
        assert!(
            registry.render().contains("culvert_broker_audit_failures_total 1\n"),
            "{}",
            registry.render()
        );
        journal.close().await;
    }
}
