//! Whether this broker may use its database beside others.
//!
//! A broker with Redis is one of several replicas; one without keeps presence to itself and has to be the
//! only one. Nothing but the database knows who else is there, so every broker holds a lock in it for its
//! life: replicas share one, a broker without Redis has it alone. The lock goes with its connection, so a
//! broker that is killed leaves none behind. For SQLite it is a lock on a file beside the database.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, Row};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::config::{Config, Database};

/// The lock's number in the database; "culvert" in ASCII and a version.
const LOCK: i64 = 0x0063_756c_7665_7274;
/// How often the connection is tried that holds the lock.
const TRIED: Duration = Duration::from_secs(5);
/// Between two attempts to have it again.
const AGAIN: Duration = Duration::from_secs(1);

/// The right to use the database; gone when dropped.
pub(super) enum Sole {
    /// Held by this connection.
    Postgres(Box<PgConnection>),
    /// Held by this open file.
    File { _file: File },
}

/// The database is not for this broker.
#[derive(Debug, thiserror::Error)]
pub enum SoleError {
    /// Others are there, and this one would have to be alone.
    #[error(
        "another broker uses this database, and without redis this one has to be the only one; give redis \
         to all replicas, or stop the other one first"
    )]
    NotAlone,
    /// One is there that has to be alone.
    #[error(
        "a broker without redis uses this database and has to be the only one; give it the same redis, or \
         stop it first"
    )]
    Taken,
    /// The lock file cannot be used.
    #[error("the file {path} cannot be locked")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database does not answer.
    #[error("the database cannot be reached")]
    Unavailable(#[source] sqlx::Error),
}

impl Sole {
    /// Takes the lock, or says who has it.
    pub(super) async fn take(config: &Config) -> Result<Self, SoleError> {
        match &config.database {
            Database::Sqlite(path) => lock_file(path),
            Database::Postgres(url) => {
                let taken = take_in_postgres(url.expose(), config.redis.is_some());
                match timeout(config.timing.backend, taken).await {
                    Ok(taken) => taken.map(|connection| Self::Postgres(Box::new(connection))),
                    Err(_) => Err(SoleError::Unavailable(timed_out())),
                }
            }
        }
    }

    /// Holds it; ends when somebody else has it. Where the database went away, takes it again when that is
    /// back: until then nothing is served anyway.
    pub(super) async fn keep(self, config: &Config) -> SoleError {
        let Self::Postgres(mut connection) = self else { return std::future::pending().await };
        loop {
            let mut ticks = interval(TRIED);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if !matches!(timeout(config.timing.backend, connection.ping()).await, Ok(Ok(()))) {
                    break;
                }
            }
            tracing::warn!("the connection that holds this broker's lock in the database is lost");
            connection = loop {
                match Self::take(config).await {
                    Ok(Self::Postgres(connection)) => break connection,
                    Ok(Self::File { .. }) | Err(SoleError::Unavailable(_)) => sleep(AGAIN).await,
                    Err(lost) => return lost,
                }
            };
            tracing::info!("this broker has its lock in the database again");
        }
    }
}

async fn take_in_postgres(url: &str, shared: bool) -> Result<PgConnection, SoleError> {
    let mut connection = PgConnection::connect(url).await.map_err(SoleError::Unavailable)?;
    let question =
        if shared { "SELECT pg_try_advisory_lock_shared($1)" } else { "SELECT pg_try_advisory_lock($1)" };
    let row = connection.fetch_one(sqlx::query(question).bind(LOCK)).await.map_err(SoleError::Unavailable)?;
    match row.try_get(0).map_err(SoleError::Unavailable)? {
        true => Ok(connection),
        false if shared => Err(SoleError::Taken),
        false => Err(SoleError::NotAlone),
    }
}

fn lock_file(database: &Path) -> Result<Sole, SoleError> {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    let fault = |source| SoleError::File { path: path.to_string_lossy().into_owned(), source };
    let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(fault)?;
    match file.try_lock() {
        Ok(()) => Ok(Sole::File { _file: file }),
        Err(TryLockError::WouldBlock) => Err(SoleError::NotAlone),
        Err(TryLockError::Error(source)) => Err(fault(source)),
    }
}

fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_brokers_on_one_file_the_second_is_refused_until_the_first_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("broker.db");
        let first = lock_file(&database).unwrap();
        assert!(matches!(lock_file(&database), Err(SoleError::NotAlone)));
        drop(first);
        assert!(lock_file(&database).is_ok());
    }
}
