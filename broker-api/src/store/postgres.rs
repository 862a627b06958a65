//! What lasts, in PostgreSQL 14 or later.
//!
//! The statements stand in `sql/`, once for both databases; here is what differs: how a moment is encoded,
//! how rows are locked, and what an error means.

use std::str::FromStr;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

use super::StoreError;

type Db = sqlx::Postgres;
type Backend = PostgresStore;

/// Adds to a statement the lock that it takes on the rows it reads.
macro_rules! locking {
    ($sql:expr, $lock:literal) => {
        concat!($sql, " ", $lock)
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

/// What lasts, in PostgreSQL.
#[derive(Clone)]
pub struct PostgresStore {
    pool: pool::Pool,
}

impl PostgresStore {
    /// The database behind this URL, over at most so many connections, none of which is opened yet: a
    /// database that is away makes its calls fail, and is used as soon as it is there. `patience` is how
    /// long a connection, a lock or an answer may take.
    ///
    /// # Errors
    /// The URL is not one of Postgres.
    pub fn connect(url: &str, connections: u32, patience: Duration) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url).map_err(errors::classify)?;
        let limit = format!("{}ms", patience.as_millis().max(1));
        // The server ends what this program no longer waits for. A broker that is stopped in the middle of a
        // transaction must not hold its locks for ever.
        let settings = [("statement_timeout", &limit), ("idle_in_transaction_session_timeout", &limit)];
        let mut options =
            options.options(settings).statement_cache_capacity(PREPARED).disable_statement_logging();
        if options.get_application_name().is_none() {
            options = options.application_name("culvert-broker");
        }
        Ok(Self { pool: pool::Pool::new(options, connections, patience)? })
    }
}

mod dialect {
    use culvert_broker_wire::Timestamp;
    use sqlx::encode::IsNull;
    use sqlx::error::{BoxDynError, DatabaseError};
    use sqlx::postgres::types::Oid;
    use sqlx::postgres::{PgArgumentBuffer, PgConnectOptions, PgTypeInfo, PgValueRef};
    use sqlx::{Decode, Encode, Postgres, Type};

    use super::errors::{NO_USER, unique};
    use super::pool::Transaction;
    use super::statement::Sql;
    use crate::store::StoreError;

    pub(super) const MIGRATIONS: &[(i64, &str, &str)] =
        &[(1, "initial", include_str!("../../../migrations/postgres/0001_initial.sql"))];
    /// Held until the transaction ends. "culvertm" as a number.
    pub(super) const LOCK_FOR_MIGRATION: &[&str] =
        &["SET LOCAL lock_timeout = 0", "SELECT pg_advisory_xact_lock(7166753637793952877)"];
    pub(super) const HAS_MIGRATIONS: &str = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
    pub(super) const BEGIN: &str = "BEGIN";
    /// Before and after the lines of the audit log in the one statement that writes them and counts the downloads
    /// that they grant. Shares are locked in the order of their ids, so that two replicas never wait for each
    /// other's rows.
    pub(super) const APPEND_AND_COUNT: Option<(&str, &str)> = Some((
        "WITH lines AS (",
        "), written AS ( \
             INSERT INTO audit_log (at, actor, action, subject, outcome, source, detail) \
             SELECT column1, column2, column3, column4, column5, column6, column7 FROM lines), \
         counted AS ( \
             SELECT s.id, c.added FROM shared_results s \
             JOIN (SELECT column4 AS id, sum(column8)::bigint AS added FROM lines GROUP BY column4) AS c ON c.id = s.id \
             WHERE c.added > 0 ORDER BY s.id FOR NO KEY UPDATE OF s) \
         UPDATE shared_results SET downloads = downloads + counted.added FROM counted \
         WHERE shared_results.id = counted.id",
    ));
    /// The server orders writers by itself.
    pub(super) const MOST_WRITERS: usize = 1 << 16;

    /// Making tables is not held to the time of a request.
    pub(super) fn unhurried(options: &PgConnectOptions) -> PgConnectOptions {
        options.clone().options([("statement_timeout", "0"), ("idle_in_transaction_session_timeout", "0")])
    }

    /// Keeps others from changing the set of signing keys until the transaction ends.
    pub(super) async fn lock_signing_keys(transaction: &mut Transaction) -> Result<(), StoreError> {
        // "culvertk" as a number.
        transaction.all(&Sql::new("SELECT pg_advisory_xact_lock(7166753637793952875)")).await?;
        Ok(())
    }

    /// A moment, as `timestamptz`.
    #[derive(Debug, Clone, Copy)]
    pub(super) struct Moment(pub(super) Timestamp);

    /// The start of 2000, from which Postgres counts microseconds.
    const EPOCH: i64 = 946_684_800_000_000;
    const TIMESTAMPTZ: Oid = Oid(1184);

    impl Type<Postgres> for Moment {
        fn type_info() -> PgTypeInfo {
            PgTypeInfo::with_oid(TIMESTAMPTZ)
        }
    }

    impl Encode<'_, Postgres> for Moment {
        fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
            <i64 as Encode<Postgres>>::encode(self.0.unix_micros() - EPOCH, buffer)
        }
    }

    impl Decode<'_, Postgres> for Moment {
        fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
            let micros = <i64 as Decode<Postgres>>::decode(value)?.checked_add(EPOCH);
            let moment = micros.and_then(Timestamp::from_unix_micros);
            Ok(Self(moment.ok_or("a moment beyond the years 1 to 9999")?))
        }
    }

    /// What an error of the server means.
    pub(super) enum Verdict {
        Violates(&'static str),
        Unstorable,
        Away,
        Unexpected,
    }

    pub(super) fn verdict(error: &dyn DatabaseError) -> Verdict {
        let code = error.code().unwrap_or_default();
        match code.as_ref() {
            "23503" => Verdict::Violates(NO_USER),
            "23505" => match error.constraint().and_then(unique) {
                Some(sentence) => Verdict::Violates(sentence),
                None => Verdict::Unexpected,
            },
            // A character that cannot be stored; a key too long for its index.
            "22021" | "54000" => Verdict::Unstorable,
            // Deadlock, serialization; a lock, a statement or a transaction that took too long; a server that
            // only reads, because another one has taken over.
            "40001" | "40P01" | "55P03" | "57014" | "25P03" | "25006" => Verdict::Away,
            // Connections; no memory, disk or connections left; shutting down or starting up.
            code if ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => Verdict::Away,
            _ => Verdict::Unexpected,
        }
    }

    /// The server takes connections one after the other.
    pub(super) fn was_contended(_error: &dyn DatabaseError) -> bool {
        false
    }

    /// Whether the server said that it closes the connection.
    pub(super) fn was_closed(error: &dyn DatabaseError) -> bool {
        matches!(error.code().as_deref(), Some("57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "08006"))
    }
}

#[cfg(test)]
mod tests;
