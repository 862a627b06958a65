//! What lasts: users, sessions, shares, teams, backups, credentials, keys and the audit log.
//!
//! One trait for each kind of thing, implemented by Postgres and by SQLite; `tests/conformance` holds both
//! to the same rules. Time never comes from the database: callers say what time it is. A call is one
//! transaction, and when it returns `Ok`, what it did is durable. A call that returns an error has done
//! nothing, except [`StoreError::Unavailable`], after which it may have been done.
//!
//! Ids are compared byte by byte. Text with a NUL character is neither kept nor looked for
//! ([`StoreError::Invalid`]).
//!
//! Lists come in pages ([`Page`]): newest first, ordered by creation and id, so that nothing is seen twice
//! or missed because something was added meanwhile.

mod audit;
mod backups;
mod credentials;
mod names;
mod page;
pub mod postgres;
mod secrets;
mod sessions;
mod shares;
pub mod sqlite;
mod teams;
mod users;

pub use audit::{AuditAction, AuditEntry, AuditFilter, AuditLine, AuditLog, AuditRecord, Outcome};
pub use backups::{BackupMeta, Backups, ByteStream, NewBackup, Precondition};
pub use credentials::{ApiSecret, Credential, Credentials};
pub use page::{Cursor, Page, PageRequest};
pub use secrets::{Claim, Idempotency, Secrets, SigningKey, StoredAnswer};
pub use sessions::{Session, SessionUser, Sessions, Way};
pub use shares::{Access, LookUp, NewShare, Published, Share, ShareChanges, Shares};
pub use teams::{DeletedTeam, Member, NewTeam, Team, TeamRole, Teams};
pub use users::{Admitted, Device, NewUser, Role, Status, User, Users};

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::config::{Config, Database};

/// A store that could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It exists already, or belongs to somebody else, or is not what the condition said.
    #[error("conflict: {0}")]
    Conflict(&'static str),
    /// More than the limit that was given.
    #[error("larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// What was stored is not what was announced.
    #[error("the bytes have another SHA-256 than announced")]
    HashMismatch,
    /// What the caller streamed broke off.
    #[error("the upload broke off")]
    Interrupted(#[source] std::io::Error),
    /// Something that neither database keeps: text with a NUL character, an id longer than an index takes.
    #[error("invalid: {0}")]
    Invalid(&'static str),
    /// The database does not answer, or not in time; it may answer later.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// A broken promise between this program and its database.
    #[error("the database holds or does something unexpected")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The connections to a database at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Lent out.
    pub busy: usize,
    /// Open and not lent out.
    pub idle: usize,
    /// How many wait for one.
    pub waiting: usize,
    /// How many there may be.
    pub most: usize,
}

/// Everything that lasts.
#[async_trait]
pub trait Store:
    Users + Sessions + Shares + Teams + Backups + Credentials + AuditLog + Idempotency + Secrets
{
    /// Whether the database answers and has the tables this program knows.
    ///
    /// # Errors
    /// What is wrong.
    async fn check(&self) -> Result<(), StoreError>;

    /// Its connections now.
    fn connections(&self) -> Connections;

    /// Makes the tables, or brings them up to date; waits for the database as long as `wait` says. Any number
    /// of replicas may do so at once: one does it, the others find it done.
    ///
    /// # Errors
    /// The database is away, or its tables are not those that this program made.
    async fn migrate(&self, wait: Option<Duration>) -> Result<(), StoreError>;

    /// Removes what has ended: sessions, answers kept for repeated requests, API secrets, signing keys, and
    /// uploads that broke off a day ago. Bounded work per call; gives how many rows went.
    ///
    /// # Errors
    /// The database is not available.
    async fn tidy(&self, now: culvert_broker_wire::Timestamp) -> Result<u64, StoreError>;
}

/// The store that a broker was told to use. Its database may be away: calls fail until it is there.
///
/// # Errors
/// The URL of the database is not one.
pub fn open(config: &Config) -> Result<Arc<dyn Store>, StoreError> {
    let (connections, patience) = (config.limits.database_connections, config.timing.backend);
    Ok(match &config.database {
        Database::Postgres(url) => {
            Arc::new(postgres::PostgresStore::connect(url.expose(), connections, patience)?)
        }
        Database::Sqlite(path) => Arc::new(sqlite::SqliteStore::open(path, connections, patience)?),
    })
}
