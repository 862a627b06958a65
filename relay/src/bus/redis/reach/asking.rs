//! Connections for registry work, lent out.
//!
//! A server alone, and the master that Sentinels name, have a pool of deadpool-redis. A cluster has one
//! connection of the redis crate that everybody shares: it multiplexes, follows slots and reconnects by
//! itself, and deadpool-redis makes it without timeouts and certificates.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use deadpool_redis::{Manager, Pool, PoolError, Runtime};
use redis::aio::ConnectionLike;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, ErrorKind, Pipeline, ProtocolVersion, RedisError, RedisFuture, ServerErrorKind, Value};
use tokio::sync::Mutex;

use super::link::Link;
use super::{Place, ReachError};

/// Connections of one node for registry work: the lease, the registry's writer, and a few joins that wait
/// for their answer. More would only queue in Redis.
const CONNECTIONS: usize = 8;

/// Connections to the one server that serves everything.
pub(super) struct MasterPool {
    link: Arc<Link>,
    /// Made anew when another server becomes the master.
    current: Mutex<Option<(Place, Pool)>>,
}

/// The connection to a cluster.
pub(super) struct SharedCluster {
    client: ClusterClient,
    link: Arc<Link>,
    /// The first address, for errors.
    seed: Place,
    connection: Mutex<Option<ClusterConnection>>,
}

/// A connection that was lent; it goes back when dropped.
pub struct Asking {
    connection: Connection,
    doubt: Arc<AtomicBool>,
}

pub(super) enum Connection {
    Master(deadpool_redis::Connection),
    Cluster(ClusterConnection),
}

impl MasterPool {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link, current: Mutex::new(None) }
    }

    pub(super) async fn borrow(&self, master: &Place) -> Result<Connection, ReachError> {
        let pool = {
            let mut current = self.current.lock().await;
            match &*current {
                Some((place, pool)) if place == master => pool.clone(),
                _ => {
                    let pool = self.pool(master)?;
                    *current = Some((master.clone(), pool.clone()));
                    pool
                }
            }
        };
        match pool.get().await {
            Ok(connection) => Ok(Connection::Master(connection)),
            Err(PoolError::Backend(error)) => Err(self.link.error(&master.0, error)),
            Err(PoolError::Timeout(_)) => {
                Err(ReachError::Timeout { server: master.to_string(), limit: self.link.limit() })
            }
            Err(error) => Err(ReachError::Unusable(error.to_string())),
        }
    }

    /// Lends no connection again that was made so far: of several that hang, each would cost a timeout.
    pub(super) async fn forget(&self) {
        *self.current.lock().await = None;
    }

    fn pool(&self, master: &Place) -> Result<Pool, ReachError> {
        let unusable = |error: String| ReachError::Unusable(error);
        let client = self.link.client(&master.0, ProtocolVersion::RESP2)?;
        let manager = Manager::new_with_config(client.get_connection_info().clone(), self.link.config())
            .map_err(|error| unusable(error.to_string()))?;
        let limit = Some(self.link.limit());
        Pool::builder(manager)
            .max_size(CONNECTIONS)
            .wait_timeout(limit)
            .create_timeout(limit)
            .recycle_timeout(limit)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| unusable(error.to_string()))
    }
}

impl SharedCluster {
    pub(super) fn new(client: ClusterClient, link: Arc<Link>, seed: Place) -> Self {
        Self { client, link, seed, connection: Mutex::new(None) }
    }

    pub(super) async fn borrow(&self) -> Result<Connection, ReachError> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = &*connection {
            return Ok(Connection::Cluster(connection.clone()));
        }
        let made = self.client.get_async_connection().await;
        let made = made.map_err(|error| self.link.error(&self.seed.0, error))?;
        *connection = Some(made.clone());
        Ok(Connection::Cluster(made))
    }
}

impl Asking {
    pub(super) fn new(connection: Connection, doubt: Arc<AtomicBool>) -> Self {
        Self { connection, doubt }
    }
}

impl ConnectionLike for Asking {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        let Self { connection, doubt } = self;
        Box::pin(async move {
            let answer = match connection {
                Connection::Master(master) => master.req_packed_command(command).await,
                Connection::Cluster(cluster) => cluster.req_packed_command(command).await,
            };
            let doubtful = match &answer {
                Ok(value) => is_demoted(value),
                Err(error) => is_doubtful(error),
            };
            doubt.fetch_or(doubtful, Ordering::Relaxed);
            answer
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        let Self { connection, doubt } = self;
        Box::pin(async move {
            let answers = match connection {
                Connection::Master(master) => master.req_packed_commands(pipeline, offset, count).await,
                Connection::Cluster(cluster) => cluster.req_packed_commands(pipeline, offset, count).await,
            };
            let doubtful = match &answers {
                Ok(values) => values.iter().any(is_demoted),
                Err(error) => is_doubtful(error),
            };
            doubt.fetch_or(doubtful, Ordering::Relaxed);
            answers
        })
    }

    fn get_db(&self) -> i64 {
        match &self.connection {
            Connection::Master(master) => master.get_db(),
            Connection::Cluster(cluster) => cluster.get_db(),
        }
    }
}

/// Whether the server may be the master no longer.
fn is_doubtful(error: &RedisError) -> bool {
    error.is_io_error() || matches!(error.kind(), ErrorKind::Server(kind) if is_demotion(kind))
}

/// An error that a server answers stands where the answer would.
fn is_demoted(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.kind().is_some_and(is_demotion))
}

fn is_demotion(kind: ServerErrorKind) -> bool {
    matches!(kind, ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
}
