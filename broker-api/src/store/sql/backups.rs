//! Backups, and how they are read a piece at a time.
//!
//! Neither way holds a transaction or a connection while a client sends or takes bytes. A backup that is
//! removed while it is read ends in an error, as does one whose bytes are not those that were stored.

use std::io;

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use culvert_broker_wire::Timestamp;
use data_encoding::HEXLOWER;
use futures_util::{StreamExt, stream};

use super::pool::{Pool, Row, Transaction};
use super::statement::{Columns, Sql};
use super::upload::Upload;
use super::{Backend, StoreError};
use crate::store::{BackupMeta, Backups, ByteStream, NewBackup, Precondition};

fn read_meta(columns: &mut Columns<'_>) -> Result<BackupMeta, StoreError> {
    Ok(BackupMeta {
        version: columns.number()?,
        state_hash: columns.text()?,
        size_bytes: columns.count()?,
        created_at: columns.at()?,
    })
}

fn meta(row: &Row) -> Result<BackupMeta, StoreError> {
    read_meta(&mut Columns::of(row))
}

#[async_trait]
impl Backups for Backend {
    async fn put_backup(&self, user: &str, new: NewBackup, now: Timestamp) -> Result<BackupMeta, StoreError> {
        // Asked now to spare an upload that cannot succeed, and again when it is whole.
        check(new.condition, latest(&self.pool.all(&newest(user)).await?)?)?;
        let upload = Upload::begin(&self.pool, user, now).await?;
        let outcome = receive(&self.pool, &upload, user, new, now).await;
        if outcome.is_err() {
            upload.forget(&self.pool).await;
        }
        outcome
    }

    async fn backup(
        &self,
        user: &str,
        version: Option<i64>,
    ) -> Result<Option<(BackupMeta, ByteStream)>, StoreError> {
        let sql = Sql::new(
            "SELECT version, state_hash, size_bytes, created_at, id FROM user_backups \
             WHERE user_id = $1 AND version = COALESCE($2, ( \
                 SELECT max(b.version) FROM user_backups b WHERE b.user_id = $1))",
        );
        let Some(row) = self.pool.first(&sql.bind(user).bind(version)).await? else { return Ok(None) };
        let mut columns = Columns::of(&row);
        let meta = read_meta(&mut columns)?;
        let reader = Reader {
            pool: self.pool.clone(),
            id: columns.text()?,
            position: 0,
            left: meta.size_bytes,
            hash: Context::new(&SHA256),
            expected: meta.state_hash.clone(),
        };
        Ok(Some((meta, reader.stream())))
    }

    async fn backups(&self, user: &str) -> Result<Vec<BackupMeta>, StoreError> {
        let sql = Sql::new(
            "SELECT version, state_hash, size_bytes, created_at FROM user_backups \
             WHERE user_id = $1 AND version IS NOT NULL ORDER BY version DESC",
        );
        self.pool.all(&sql.bind(user)).await?.iter().map(meta).collect()
    }

    async fn delete_backups(&self, user: &str, condition: Precondition) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let outcome = delete(&mut transaction, user, condition).await;
        transaction.end(outcome).await
    }
}

async fn receive(
    pool: &Pool,
    upload: &Upload,
    user: &str,
    new: NewBackup,
    now: Timestamp,
) -> Result<BackupMeta, StoreError> {
    let (size_bytes, state_hash) = upload.receive(pool, new.bytes, new.limit).await?;
    if new.state_hash.is_some_and(|announced| !announced.eq_ignore_ascii_case(&state_hash)) {
        return Err(StoreError::HashMismatch);
    }
    let whole = BackupMeta { version: 0, state_hash, size_bytes, created_at: now };
    let mut transaction = pool.begin().await?;
    let outcome = publish(&mut transaction, upload, user, whole, new.condition, new.keep).await;
    transaction.end(outcome).await
}

fn newest(user: &str) -> Sql<'_> {
    Sql::new("SELECT max(version) FROM user_backups WHERE user_id = $1").bind(user)
}

fn latest(rows: &[Row]) -> Result<Option<i64>, StoreError> {
    Ok(rows.first().map(|row| Columns::of(row).number_or_none()).transpose()?.flatten())
}

fn check(condition: Precondition, latest: Option<i64>) -> Result<(), StoreError> {
    let holds = match condition {
        Precondition::None => true,
        Precondition::Version(version) => latest == Some(version),
        Precondition::Absent => latest.is_none(),
    };
    if holds { Ok(()) } else { Err(StoreError::Conflict("another version of the backup is the latest")) }
}

/// Makes an upload the next version, for everybody to see.
async fn publish(
    transaction: &mut Transaction,
    upload: &Upload,
    user: &str,
    whole: BackupMeta,
    condition: Precondition,
    keep: u32,
) -> Result<BackupMeta, StoreError> {
    // Whoever counts comes one after the other.
    let sql = Sql::new(
        "INSERT INTO backup_versions (user_id, last) VALUES ($1, 1) \
         ON CONFLICT (user_id) DO UPDATE SET last = backup_versions.last + 1 RETURNING last",
    );
    let counted = latest(&transaction.all(&sql.bind(user)).await?)?;
    check(condition, latest(&transaction.all(&newest(user)).await?)?)?;
    let meta = BackupMeta { version: counted.unwrap_or(1), ..whole };
    let size = i64::try_from(meta.size_bytes).unwrap_or(i64::MAX);
    let sql = Sql::new(
        "UPDATE user_backups SET version = $2, state_hash = $3, size_bytes = $4, created_at = $5 WHERE id = $1",
    );
    let sql = sql.bind(upload.id()).bind(meta.version).bind(&meta.state_hash);
    if transaction.change(&sql.bind(size).bind(meta.created_at)).await? == 0 {
        return Err(StoreError::Conflict("the upload took too long, or there were too many at once"));
    }
    let sql = Sql::new("DELETE FROM user_backups WHERE user_id = $1 AND version <= $2");
    transaction.change(&sql.bind(user).bind(meta.version - i64::from(keep.max(1)))).await?;
    Ok(meta)
}

async fn delete(
    transaction: &mut Transaction,
    user: &str,
    condition: Precondition,
) -> Result<bool, StoreError> {
    let sql = Sql::new(locking!("SELECT last FROM backup_versions WHERE user_id = $1", "FOR UPDATE"));
    transaction.all(&sql.bind(user)).await?;
    check(condition, latest(&transaction.all(&newest(user)).await?)?)?;
    let sql = Sql::new("DELETE FROM user_backups WHERE user_id = $1 AND version IS NOT NULL").bind(user);
    Ok(transaction.change(&sql).await? > 0)
}

/// A backup on its way to a client.
struct Reader {
    pool: Pool,
    id: String,
    position: i64,
    left: u64,
    hash: Context,
    expected: String,
}

impl Reader {
    /// Ends after an error.
    fn stream(self) -> ByteStream {
        let pieces = stream::try_unfold(self, |mut reader| async move {
            let piece = reader.next().await?;
            Ok(piece.map(|piece| (piece, reader)))
        });
        pieces.boxed()
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        let sql = Sql::new("SELECT bytes FROM backup_chunks WHERE backup_id = $1 AND position = $2");
        let row = self.pool.first(&sql.bind(&self.id).bind(self.position)).await.map_err(io::Error::other)?;
        let piece = row.map(|row| Columns::of(&row).bytes()).transpose().map_err(io::Error::other)?;
        let piece = piece.ok_or_else(|| io::Error::other("the backup was removed while it was read"))?;
        self.hash.update(&piece);
        self.position += 1;
        self.left = self.left.saturating_sub(piece.len() as u64);
        // Said before the last piece is given, so that nobody takes what is damaged for whole.
        if self.left == 0 && HEXLOWER.encode(self.hash.clone().finish().as_ref()) != self.expected {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the backup is damaged in the database"));
        }
        Ok(Some(piece.into()))
    }
}
