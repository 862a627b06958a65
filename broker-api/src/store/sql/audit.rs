//! The audit log. That it is append-only, the database itself says, by a trigger.

use std::borrow::Cow;
use std::collections::BTreeMap;

use async_trait::async_trait;
use culvert_broker_wire::Timestamp;

use super::pages::Wanted;
use super::pool::{Row, Transaction};
use super::statement::{Columns, Sql, Value, broken};
use super::{Backend, StoreError, dialect};
use crate::store::{
    AuditAction, AuditEntry, AuditFilter, AuditLine, AuditLog, AuditRecord, Cursor, Outcome, Page,
    PageRequest,
};

/// Entries written with one statement; a statement has at most 32,766 values in SQLite.
const AT_ONCE: usize = 256;
/// What strangers claim can be of any length, and is worth writing down up to here.
const LONGEST: usize = 512;

#[async_trait]
impl AuditLog for Backend {
    async fn append_lines(&self, lines: Vec<AuditLine>, at: Timestamp) -> Result<(), StoreError> {
        if lines.is_empty() {
            return Ok(());
        }
        let downloads = downloads(&lines);
        if lines.len() <= AT_ONCE {
            // One statement is a transaction by itself.
            let one = match dialect::APPEND_AND_COUNT {
                _ if downloads.is_empty() => Some(append(&lines, at)),
                parts => parts
                    .map(|(head, tail)| Sql::rows(head, lines.iter().map(|line| counted(line, at)), tail)),
            };
            if let Some(one) = one {
                return self.pool.change(&one).await.map(drop);
            }
        }
        let mut transaction = self.pool.begin().await?;
        let outcome = append_all(&mut transaction, &lines, &downloads, at).await;
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

async fn append_all(
    transaction: &mut Transaction,
    lines: &[AuditLine],
    downloads: &BTreeMap<&str, u32>,
    at: Timestamp,
) -> Result<(), StoreError> {
    for part in lines.chunks(AT_ONCE) {
        transaction.change(&append(part, at)).await?;
    }
    if downloads.is_empty() {
        return Ok(());
    }
    // In the order of ids, so that two replicas never wait for each other's rows.
    let ids = downloads.keys().map(|id| [Value::from(*id)]);
    let tail = locking!(") ORDER BY id", "FOR NO KEY UPDATE");
    transaction.all(&Sql::rows("SELECT id FROM shared_results WHERE id IN (", ids, tail)).await?;
    let add = Sql::rows(
        "UPDATE shared_results SET downloads = downloads + counted.column2 FROM (",
        downloads.iter().map(|(id, count)| [Value::from(*id), Value::from(*count)]),
        ") AS counted WHERE id = counted.column1",
    );
    transaction.change(&add).await.map(drop)
}

/// How often each share is downloaded by these lines.
fn downloads(lines: &[AuditLine]) -> BTreeMap<&str, u32> {
    let mut downloads = BTreeMap::new();
    let shares = lines.iter().filter(|line| line.counts).filter_map(|line| line.record.subject.as_deref());
    for share in shares {
        *downloads.entry(share).or_default() += 1;
    }
    downloads
}

fn append(lines: &[AuditLine], at: Timestamp) -> Sql<'_> {
    let rows = lines.iter().map(|line| values(&line.record, at));
    Sql::rows("INSERT INTO audit_log (at, actor, action, subject, outcome, source, detail) ", rows, "")
}

/// A line and the downloads that it adds.
fn counted(line: &AuditLine, at: Timestamp) -> [Value<'_>; 8] {
    let [at, actor, action, subject, outcome, source, detail] = values(&line.record, at);
    [at, actor, action, subject, outcome, source, detail, Value::from(i64::from(line.counts))]
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
