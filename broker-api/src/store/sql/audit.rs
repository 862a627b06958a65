//! The audit log. That it is append-only, the database itself says, by a trigger.

use std::borrow::Cow;

use async_trait::async_trait;
use culvert_broker_wire::Timestamp;

use super::pages::Wanted;
use super::pool::Row;
use super::statement::{Columns, Sql, Value, broken};
use super::{Backend, StoreError};
use crate::store::{
    AuditAction, AuditEntry, AuditFilter, AuditLog, AuditRecord, Cursor, Outcome, Page, PageRequest,
};

/// Entries written with one statement; a statement has at most 32,766 values in SQLite.
const AT_ONCE: usize = 256;
/// What strangers claim can be of any length, and is worth writing down up to here.
const LONGEST: usize = 512;

#[async_trait]
impl AuditLog for Backend {
    async fn append(&self, records: Vec<AuditRecord>, at: Timestamp) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        // One statement is a transaction by itself.
        if records.len() <= AT_ONCE {
            return self.pool.change(&append(&records, at)).await.map(drop);
        }
        let mut transaction = self.pool.begin().await?;
        let mut outcome = Ok(());
        for part in records.chunks(AT_ONCE) {
            outcome = transaction.change(&append(part, at)).await.map(drop);
            if outcome.is_err() {
                break;
            }
        }
        transaction.end(outcome).await
    }

    async fn entries(&self, filter: AuditFilter, page: PageRequest) -> Result<Page<AuditEntry>, StoreError> {
        // Their numbers alone order them.
        let before = match &page.after {
            Some(cursor) => {
                cursor.id.parse().map_err(|_| StoreError::Invalid("not a cursor of the audit log"))?
            }
            None => i64::MAX,
        };
        let wanted = Wanted::of(page);
        // What is not asked for is not part of the statement, so that each filter is served by its index.
        let mut sql = Sql::new(
            "SELECT id, at, actor, action, subject, outcome, source, detail FROM audit_log WHERE id < $1",
        );
        sql = sql.bind(before);
        if let Some(actor) = &filter.actor {
            sql = sql.with(" AND actor = $", actor);
        }
        if let Some(action) = filter.action {
            sql = sql.with(" AND action = $", action.name());
        }
        if let Some(subject) = &filter.subject {
            sql = sql.with(" AND subject = $", subject);
        }
        if let Some(since) = filter.since {
            sql = sql.with(" AND at >= $", since);
        }
        sql = sql.with(" ORDER BY id DESC LIMIT $", wanted.rows);
        let rows = self.pool.all(&sql).await?;
        wanted.page(&rows, entry, |entry| Cursor { at: entry.at, id: entry.id.clone() })
    }
}

fn append(records: &[AuditRecord], at: Timestamp) -> Sql<'_> {
    let rows = records.iter().map(|record| values(record, at));
    Sql::rows("INSERT INTO audit_log (at, actor, action, subject, outcome, source, detail) ", rows, "")
}

fn values(record: &AuditRecord, at: Timestamp) -> [Value<'_>; 7] {
    [
        at.into(),
        record.actor.as_deref().map(storable).into(),
        record.action.name().into(),
        record.subject.as_deref().map(storable).into(),
        record.outcome.name().into(),
        record.source.as_deref().map(storable).into(),
        // JSON writes a NUL as six characters.
        record.detail.to_string().into(),
    ]
}

/// Whatever a stranger claims can be written down: only NUL is replaced, and what is too long is cut.
fn storable(text: &str) -> Cow<'_, str> {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = &text[..end];
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

fn entry(row: &Row) -> Result<AuditEntry, StoreError> {
    let mut columns = Columns::of(row);
    let (id, at) = (columns.number()?, columns.at()?);
    let record = AuditRecord {
        actor: columns.text_or_none()?,
        action: columns.name(|name| AuditAction::ALL.iter().copied().find(|action| action.name() == name))?,
        subject: columns.text_or_none()?,
        outcome: columns.name(Outcome::named)?,
        source: columns.text_or_none()?,
        detail: serde_json::from_str(&columns.text()?).map_err(broken)?,
    };
    Ok(AuditEntry { id: id.to_string(), at, record })
}
