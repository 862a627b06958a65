//! Makes the tables, or brings them up to date.
//!
//! All that is missing happens in one transaction under one lock, so that of two replicas that start at once
//! one does it and the other finds it done. Forward only: a program that is older than its database works,
//! because migrations keep what the version before them needs.

use std::borrow::Cow;
use std::time::Duration;

use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Connection, SqlSafeStr};
use tokio::time::{Instant, sleep_until, timeout};

use super::errors::classify;
use super::pool::{Pool, connect};
use super::statement::{Columns, Sql, broken};
use super::{StoreError, dialect};

/// How often a database that is away is tried.
const RETRY: Duration = Duration::from_millis(500);
/// Making tables may take longer than any answer to a request.
const LONGEST: Duration = Duration::from_secs(600);

fn migrator() -> Migrator {
    let list = dialect::MIGRATIONS.iter().map(|(version, name, text)| {
        let up = MigrationType::Simple;
        Migration::new(*version, Cow::Borrowed(*name), up, text.into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(list.collect());
    migrator.set_locking(false).set_ignore_missing(true);
    migrator
}

/// Brings the tables up to date; a database that is away is waited for as long as `wait` says.
pub(super) async fn migrate(pool: &Pool, wait: Option<Duration>) -> Result<(), StoreError> {
    let until = Instant::now() + wait.unwrap_or_default();
    let mut said = false;
    loop {
        match timeout(LONGEST, run(pool)).await {
            Ok(Err(StoreError::Unavailable(error))) if Instant::now() < until => {
                // Once, not with every try.
                if !said {
                    tracing::warn!(%error, "the database does not answer; waiting for it, to make the tables");
                    said = true;
                }
                sleep_until((Instant::now() + RETRY).min(until)).await;
            }
            Ok(outcome) => return outcome,
            Err(_) => return Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)),
        }
    }
}

async fn run(pool: &Pool) -> Result<(), StoreError> {
    // Not one of the pool: its statements may take longer than a request's.
    let options = dialect::unhurried(pool.options());
    let connecting = timeout(pool.patience(), connect(&options)).await;
    let mut wire = connecting.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(classify)?;
    let mut transaction = wire.begin_with(dialect::BEGIN).await.map_err(classify)?;
    for statement in dialect::LOCK_FOR_MIGRATION {
        sqlx::raw_sql(*statement).execute(&mut *transaction).await.map_err(classify)?;
    }
    run_in(&mut *transaction).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => classify(error),
        error => broken(error),
    })?;
    transaction.commit().await.map_err(classify)?;
    // What has closed the connection cannot take back what is committed.
    let _ = wire.close().await;
    Ok(())
}

async fn run_in<C: Migrate>(connection: &mut C) -> Result<(), MigrateError> {
    migrator().run_direct(None, connection, false).await
}

/// Whether the tables are those of this program, or newer.
pub(super) async fn check(pool: &Pool) -> Result<(), StoreError> {
    let known = dialect::MIGRATIONS.iter().map(|(version, ..)| *version).max().unwrap_or_default();
    // Asked for first: a table that is missing is an error of its own kind.
    let made = pool.first(&Sql::new(dialect::HAS_MIGRATIONS)).await?;
    let made = made.map(|row| Columns::of(&row).flag()).transpose()?.unwrap_or_default();
    let found = if made {
        let newest = Sql::new("SELECT max(version) FROM _sqlx_migrations WHERE success");
        let row = pool.first(&newest).await?;
        row.map(|row| Columns::of(&row).number_or_none()).transpose()?.flatten().unwrap_or_default()
    } else {
        0
    };
    if found < known {
        let what = format!("the tables have version {found} and must have {known}: run `migrate`");
        return Err(broken(what));
    }
    Ok(())
}
