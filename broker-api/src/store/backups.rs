//! Backups of users' states: bytes that mean nothing to the broker.

use async_trait::async_trait;
use bytes::Bytes;
use culvert_broker_wire::Timestamp;
use futures_util::stream::BoxStream;

use super::StoreError;

/// Bytes on their way.
pub type ByteStream = BoxStream<'static, Result<Bytes, std::io::Error>>;

/// What the latest version has to be for a change to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Anything.
    None,
    /// This version (`If-Match`).
    Version(i64),
    /// There must be none (`If-None-Match: *`).
    Absent,
}

/// A stored backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupMeta {
    /// Counts up for each user, and never back, also after a deletion.
    pub version: i64,
    /// SHA-256 of the bytes, lowercase hexadecimal.
    pub state_hash: String,
    /// How many bytes.
    pub size_bytes: u64,
    /// When it was stored.
    pub created_at: Timestamp,
}

/// A state to be stored.
pub struct NewBackup {
    /// Its SHA-256 in hexadecimal, if it was announced.
    pub state_hash: Option<String>,
    /// What the latest version has to be.
    pub condition: Precondition,
    /// The state, on its way.
    pub bytes: ByteStream,
    /// Bytes it may have.
    pub limit: u64,
    /// Versions that are kept, this one included; at least one.
    pub keep: u32,
}

/// Backups.
#[async_trait]
pub trait Backups: Send + Sync {
    /// Stores a state as the next version, a piece at a time, and removes versions beyond those that are kept.
    /// Nothing of it is visible before all of it is there and has the announced hash. Of a user's uploads four
    /// may be under way; one more ends the oldest.
    async fn put_backup(&self, user: &str, new: NewBackup, now: Timestamp) -> Result<BackupMeta, StoreError>;
    /// A version, or the latest one, and its bytes a piece at a time; the last piece comes only if all of them
    /// have the hash. Ends in an error if the version is removed meanwhile.
    async fn backup(
        &self,
        user: &str,
        version: Option<i64>,
    ) -> Result<Option<(BackupMeta, ByteStream)>, StoreError>;
    /// The versions that are kept, newest first.
    async fn backups(&self, user: &str) -> Result<Vec<BackupMeta>, StoreError>;
    /// Removes all versions; false if there were none.
    async fn delete_backups(&self, user: &str, condition: Precondition) -> Result<bool, StoreError>;
}
