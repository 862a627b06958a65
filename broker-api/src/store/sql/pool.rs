//! Connections to the database, kept open and lent out.
//!
//! The pool of sqlx asks the server whether a connection still works each time it comes back; that doubles
//! the round trips of a look-up. Here a connection that failed, or whose user was cancelled in the middle,
//! is closed instead of given back (which also rolls back what it had begun), so that those in the pool are
//! sound unless the server went away while nobody looked. Only one that was idle for [`IDLE`] is asked, and
//! when a lent one turns out to be dead after all, all idle ones are dropped and reads are tried once more.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use deadpool::Runtime;
use deadpool::managed::{
    self, Manager, Metrics, Object, PoolConfig, PoolError, QueueMode, RecycleResult, Timeouts,
};
use sqlx::{ConnectOptions, Connection, Database};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::dialect;
use super::errors::{classify, is_lost};
use super::statement::Sql;
use super::{Db, StoreError};
use crate::store::Connections;

/// A connection that was not used for so long is asked whether it still works.
const IDLE: Duration = Duration::from_secs(1);

/// How often a connection is tried that others, opened at the same moment, stand in the way of.
const AGAIN: Duration = Duration::from_millis(10);

type Wire = <Db as Database>::Connection;
pub(super) type Options = <Wire as Connection>::Options;
pub(super) type Row = <Db as Database>::Row;

/// Opens connections.
pub(super) struct Opener {
    options: Options,
    patience: Duration,
}

impl Manager for Opener {
    type Type = Wire;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<Wire, sqlx::Error> {
        connect(&self.options).await
    }

    async fn recycle(&self, wire: &mut Wire, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        if metrics.last_used() > IDLE {
            timeout(self.patience, wire.ping()).await.map_err(|_| slow())??;
        }
        Ok(())
    }
}

/// Opens a connection. Whoever calls it says how long that may take.
pub(super) async fn connect(options: &Options) -> Result<Wire, sqlx::Error> {
    let again = ConstantBuilder::default().with_delay(AGAIN).with_jitter().without_max_times();
    let contended = |error: &sqlx::Error| error.as_database_error().is_some_and(dialect::was_contended);
    (|| options.connect()).retry(again).when(contended).await
}

/// The pool.
#[derive(Clone)]
pub(super) struct Pool {
    connections: managed::Pool<Opener>,
    writers: Arc<Semaphore>,
    patience: Duration,
}

/// A connection on loan.
pub(super) struct Lease {
    wire: Option<Object<Opener>>,
    /// Something was begun and has not ended: it must not be given back.
    unfinished: bool,
    /// It has been used before, so that it may be dead without anybody having noticed.
    used: bool,
    patience: Duration,
    _writer: Option<OwnedSemaphorePermit>,
}

/// A transaction. It ends with [`Transaction::end`]; dropped before, it is rolled back by closing its connection.
pub(super) struct Transaction(Lease);

impl Pool {
    /// Opens nothing yet: the first to need a connection does.
    pub(super) fn new(options: Options, size: u32, patience: Duration) -> Result<Self, StoreError> {
        let size = usize::try_from(size).unwrap_or(usize::MAX).max(1);
        let waits = Timeouts { wait: Some(patience), create: Some(patience), recycle: None };
        let config = PoolConfig { max_size: size, timeouts: waits, queue_mode: QueueMode::Lifo };
        let pool = managed::Pool::builder(Opener { options, patience })
            .config(config)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::Broken(Box::new(error)))?;
        Ok(Self { connections: pool, writers: Arc::new(Semaphore::new(dialect::MOST_WRITERS)), patience })
    }

    /// How this database is reached.
    pub(super) fn options(&self) -> &Options {
        &self.connections.manager().options
    }

    /// How long one answer may take.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// What they do now.
    pub(super) fn connections(&self) -> Connections {
        let managed::Status { max_size: most, size, available: idle, waiting } = self.connections.status();
        Connections { busy: size.saturating_sub(idle), idle, waiting, most }
    }

    async fn lease(&self, writes: bool) -> Result<Lease, StoreError> {
        let writer = if writes {
            let permit = timeout(self.patience, Arc::clone(&self.writers).acquire_owned()).await;
            let permit = permit.map_err(|_| StoreError::Unavailable(sqlx::Error::PoolTimedOut))?;
            Some(permit.map_err(|_| StoreError::Unavailable(sqlx::Error::PoolClosed))?)
        } else {
            None
        };
        let wire = self.connections.get().await.map_err(|error| match error {
            PoolError::Backend(error) => classify(error),
            PoolError::Timeout(_) => StoreError::Unavailable(sqlx::Error::PoolTimedOut),
            error => StoreError::Broken(Box::new(error)),
        })?;
        let used = Object::metrics(&wire).recycle_count > 0;
        Ok(Lease { wire: Some(wire), unfinished: false, used, patience: self.patience, _writer: writer })
    }

    /// Those that are idle now went with the one that was found dead.
    fn forget_idle(&self) {
        self.connections.retain(|_, _| false);
    }

    /// The rows of a statement that may be given twice: one that reads.
    pub(super) async fn all(&self, sql: &Sql<'_>) -> Result<Vec<Row>, StoreError> {
        let mut lease = self.lease(false).await?;
        match lease.all(sql).await {
            Err(error) if lease.used && is_lost(&error) => {
                drop(lease);
                self.forget_idle();
                self.lease(false).await?.all(sql).await
            }
            answer => answer,
        }
    }

    /// The only row, or none, of a statement that reads.
    pub(super) async fn first(&self, sql: &Sql<'_>) -> Result<Option<Row>, StoreError> {
        Ok(self.all(sql).await?.into_iter().next())
    }

    /// How many rows one statement changed, which is a transaction by itself.
    pub(super) async fn change(&self, sql: &Sql<'_>) -> Result<u64, StoreError> {
        let mut lease = self.lease(true).await?;
        let answer = lease.change(sql).await;
        self.note(&lease, &answer);
        answer
    }

    /// The rows that one statement changed and gives back, which is a transaction by itself.
    pub(super) async fn change_returning(&self, sql: &Sql<'_>) -> Result<Vec<Row>, StoreError> {
        let mut lease = self.lease(true).await?;
        let answer = lease.all(sql).await;
        self.note(&lease, &answer);
        answer
    }

    /// Begins to write.
    pub(super) async fn begin(&self) -> Result<Transaction, StoreError> {
        let mut lease = self.lease(true).await?;
        if let Err(error) = lease.control(dialect::BEGIN).await {
            if !(lease.used && is_lost(&error)) {
                return Err(error);
            }
            drop(lease);
            self.forget_idle();
            lease = self.lease(true).await?;
            lease.control(dialect::BEGIN).await?;
        }
        lease.unfinished = true;
        Ok(Transaction(lease))
    }

    fn note<T>(&self, lease: &Lease, answer: &Result<T, StoreError>) {
        if matches!(answer, Err(error) if lease.used && is_lost(error)) {
            self.forget_idle();
        }
    }
}

impl Lease {
    /// The rows of a statement. All of them are read before the first is looked at: a row may come before
    /// the commit that it announces.
    pub(super) async fn all(&mut self, sql: &Sql<'_>) -> Result<Vec<Row>, StoreError> {
        let query = sql.query()?;
        let (begun, patience) = (self.unfinished, self.patience);
        let answer = timeout(patience, query.fetch_all(self.wire()?)).await;
        self.settle(begun, answer.unwrap_or_else(|_| Err(slow())))
    }

    /// The only row, or none.
    pub(super) async fn first(&mut self, sql: &Sql<'_>) -> Result<Option<Row>, StoreError> {
        Ok(self.all(sql).await?.into_iter().next())
    }

    /// How many rows a statement changed.
    pub(super) async fn change(&mut self, sql: &Sql<'_>) -> Result<u64, StoreError> {
        let query = sql.query()?;
        let (begun, patience) = (self.unfinished, self.patience);
        let answer = timeout(patience, query.execute(self.wire()?)).await;
        let done = self.settle(begun, answer.unwrap_or_else(|_| Err(slow())))?;
        Ok(done.rows_affected())
    }

    async fn control(&mut self, statement: &'static str) -> Result<(), StoreError> {
        let (begun, patience) = (self.unfinished, self.patience);
        let answer = timeout(patience, sqlx::raw_sql(statement).execute(self.wire()?)).await;
        self.settle(begun, answer.unwrap_or_else(|_| Err(slow()))).map(drop)
    }

    /// The connection, from now on unfinished: whoever is cancelled while waiting for it leaves it so.
    fn wire(&mut self) -> Result<&mut Wire, StoreError> {
        self.unfinished = true;
        let wire = self.wire.as_mut().ok_or(StoreError::Unavailable(sqlx::Error::PoolClosed))?;
        Ok(wire)
    }

    fn settle<T>(&mut self, begun: bool, answer: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        self.unfinished = begun;
        // Only what the database itself said leaves a connection that is understood.
        let understood = matches!(answer, Ok(_) | Err(sqlx::Error::Database(_)));
        let answer = answer.map_err(classify);
        if !understood || matches!(answer, Err(StoreError::Unavailable(_))) {
            self.discard();
        }
        answer
    }

    fn discard(&mut self) {
        if let Some(wire) = self.wire.take() {
            drop(Object::take(wire));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.unfinished {
            self.discard();
        }
    }
}

impl Transaction {
    /// The rows of a statement.
    pub(super) async fn all(&mut self, sql: &Sql<'_>) -> Result<Vec<Row>, StoreError> {
        self.0.all(sql).await
    }

    /// The only row, or none.
    pub(super) async fn first(&mut self, sql: &Sql<'_>) -> Result<Option<Row>, StoreError> {
        self.0.first(sql).await
    }

    /// How many rows a statement changed.
    pub(super) async fn change(&mut self, sql: &Sql<'_>) -> Result<u64, StoreError> {
        self.0.change(sql).await
    }

    /// Commits what came out well, and rolls back what did not.
    pub(super) async fn end<T>(mut self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        match outcome {
            Ok(value) => {
                self.0.control("COMMIT").await?;
                self.0.unfinished = false;
                Ok(value)
            }
            Err(error) => {
                // Why it failed is worth more than that the connection is gone as well.
                if self.0.wire.is_some() && self.0.control("ROLLBACK").await.is_ok() {
                    self.0.unfinished = false;
                }
                Err(error)
            }
        }
    }
}

fn slow() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))
}
