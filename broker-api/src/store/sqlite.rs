//! What lasts, in a SQLite file of this machine.
//!
//! The statements stand in `sql/`, once for both databases; here is what differs: a moment is a number, one
//! writes at a time, and unique constraints are known by their columns.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use super::StoreError;

type Db = sqlx::Sqlite;
type Backend = SqliteStore;

/// Nothing to add: whoever writes is alone, from the beginning of the transaction.
macro_rules! locking {
    ($sql:expr, $lock:literal) => {
        $sql
    };
}

#[path = "sql/audit.rs"]
mod audit;
#[path = "sql/backups.rs"]
mod backups;
#[path = "sql/credentials.rs"]
mod credentials;
#[path = "sql/errors.rs"]
mod errors;
#[path = "sql/idempotency.rs"]
mod idempotency;
#[path = "sql/migrations.rs"]
mod migrations;
#[path = "sql/pages.rs"]
mod pages;
#[path = "sql/policy.rs"]
mod policy;
#[path = "sql/pool.rs"]
mod pool;
#[path = "sql/secrets.rs"]
mod secrets;
#[path = "sql/sessions.rs"]
mod sessions;
#[path = "sql/shares.rs"]
mod shares;
#[path = "sql/statement.rs"]
mod statement;
#[path = "sql/store.rs"]
mod store;
#[path = "sql/teams.rs"]
mod teams;
#[path = "sql/upload.rs"]
mod upload;
#[path = "sql/users.rs"]
mod users;

/// Statements that stay prepared on a connection: all there are.
const PREPARED: usize = 256;

/// What lasts, in a SQLite file.
#[derive(Clone)]
pub struct SqliteStore {
    pool: pool::Pool,
}

impl SqliteStore {
    /// The database in this file, which is made when it is needed, over at most so many connections.
    /// `patience` is how long a lock or an answer may take.
    ///
    /// # Errors
    /// The limits make no pool.
    pub fn open(path: &Path, connections: u32, patience: Duration) -> Result<Self, StoreError> {
        // Others on the machine have no business in it; the log beside it gets the same rights. If there is
        // one already its rights stay, and if there can be none SQLite says so.
        let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // With less, the last transactions are lost when the power goes.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(patience)
            .statement_cache_capacity(PREPARED)
            .disable_statement_logging();
        Ok(Self { pool: pool::Pool::new(options, connections, patience)? })
    }
}

mod dialect {
    use culvert_broker_wire::Timestamp;
    use sqlx::encode::IsNull;
    use sqlx::error::{BoxDynError, DatabaseError};
    use sqlx::sqlite::{SqliteArgumentsBuffer, SqliteConnectOptions, SqliteTypeInfo, SqliteValueRef};
    use sqlx::{Decode, Encode, Sqlite, Type};

    use super::errors::{NO_USER, unique};
    use super::pool::Transaction;
    use crate::store::StoreError;

    pub(super) const MIGRATIONS: &[(i64, &str, &str)] =
        &[(1, "initial", include_str!("../../../migrations/sqlite/0001_initial.sql"))];
    /// The transaction is the lock.
    pub(super) const LOCK_FOR_MIGRATION: &[&str] = &[];
    pub(super) const HAS_MIGRATIONS: &str =
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations')";
    /// A transaction that begins by reading and then wants to write fails when another one was quicker.
    pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";
    /// SQLite writes to one table with a statement.
    pub(super) const APPEND_AND_COUNT: Option<(&str, &str)> = None;
    /// The file has one writer at a time; waiting here is fair, and waiting in SQLite is polling.
    pub(super) const MOST_WRITERS: usize = 1;

    pub(super) fn unhurried(options: &SqliteConnectOptions) -> SqliteConnectOptions {
        options.clone()
    }

    /// Whoever writes is alone.
    pub(super) async fn lock_signing_keys(_transaction: &mut Transaction) -> Result<(), StoreError> {
        Ok(())
    }

    /// A moment, as microseconds since the start of 1970.
    #[derive(Debug, Clone, Copy)]
    pub(super) struct Moment(pub(super) Timestamp);

    impl Type<Sqlite> for Moment {
        fn type_info() -> SqliteTypeInfo {
            <i64 as Type<Sqlite>>::type_info()
        }

        fn compatible(other: &SqliteTypeInfo) -> bool {
            <i64 as Type<Sqlite>>::compatible(other)
        }
    }

    impl Encode<'_, Sqlite> for Moment {
        fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
            <i64 as Encode<Sqlite>>::encode(self.0.unix_micros(), buffer)
        }
    }

    impl Decode<'_, Sqlite> for Moment {
        fn decode(value: SqliteValueRef<'_>) -> Result<Self, BoxDynError> {
            let moment = Timestamp::from_unix_micros(<i64 as Decode<Sqlite>>::decode(value)?);
            Ok(Self(moment.ok_or("a moment beyond the years 1 to 9999")?))
        }
    }

    /// The extended result code, whose last byte is the plain one.
    fn code(error: &dyn DatabaseError) -> u32 {
        error.code().and_then(|code| code.parse().ok()).unwrap_or_default()
    }

    /// What an error of SQLite means.
    pub(super) enum Verdict {
        Violates(&'static str),
        Unstorable,
        Away,
        Unexpected,
    }

    pub(super) fn verdict(error: &dyn DatabaseError) -> Verdict {
        let code = code(error);
        match (code, code & 0xff) {
            // SQLITE_CONSTRAINT_FOREIGNKEY
            (787, _) => Verdict::Violates(NO_USER),
            // SQLITE_CONSTRAINT_UNIQUE and _PRIMARYKEY: "UNIQUE constraint failed: teams.id"
            (2067 | 1555, _) => match error.message().rsplit(": ").next().and_then(unique) {
                Some(sentence) => Verdict::Violates(sentence),
                None => Verdict::Unexpected,
            },
            // SQLITE_TOOBIG
            (_, 18) => Verdict::Unstorable,
            // SQLITE_BUSY, LOCKED, NOMEM, INTERRUPT, IOERR, FULL, CANTOPEN
            (_, 5 | 6 | 7 | 9 | 10 | 13 | 14) => Verdict::Away,
            _ => Verdict::Unexpected,
        }
    }

    /// Connections that make a new file one with a log at the same moment fail with SQLITE_BUSY at once: there
    /// SQLite does not wait, because each would wait for the other.
    pub(super) fn was_contended(error: &dyn DatabaseError) -> bool {
        code(error) & 0xff == 5
    }

    /// There is no server that could close a connection.
    pub(super) fn was_closed(_error: &dyn DatabaseError) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
