//! The connection that questions to Redis share.
//!
//! One multiplexed connection carries what all requests of this replica ask, so that a question costs one
//! round trip and no connection of its own. It is made anew once it broke, hung, or led to a server that is
//! the master no longer; what was under way then fails, and is not tried again: it may have been done. In a
//! cluster the relay's [`Reach`] lends one that follows slots.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use culvert_relay::bus::redis::reach::{Asking, Place, Reach, ReachError};
use parking_lot::Mutex;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, ErrorKind, Pipeline, PushInfo, PushKind, RedisError, RedisFuture, ServerErrorKind, Value};
use tokio::time::timeout;

/// Everything that asks Redis something asks through it.
pub(super) struct Line {
    reach: Arc<Reach>,
    current: Mutex<Option<Shared>>,
    /// Held by whoever makes a new one; the others wait for it.
    opening: tokio::sync::Mutex<()>,
    /// The last attempt failed, so another server may be the master.
    doubt: AtomicBool,
}

/// A connection that was lent.
pub(super) enum Lent {
    Master(Shared),
    Cluster(Box<Asking>),
}

#[derive(Clone)]
pub(super) struct Shared {
    place: Place,
    connection: MultiplexedConnection,
    broken: Arc<AtomicBool>,
}

impl Line {
    pub(super) fn new(reach: Arc<Reach>) -> Self {
        Self {
            reach,
            current: Mutex::new(None),
            opening: tokio::sync::Mutex::new(()),
            doubt: AtomicBool::new(false),
        }
    }

    /// Lends the connection.
    pub(super) async fn borrow(&self) -> Result<Lent, ReachError> {
        if self.reach.is_cluster() {
            return self.reach.ask().await.map(Box::new).map(Lent::Cluster);
        }
        // The channel says nothing where one server serves all of them.
        let place = self.reach.place("").await?;
        match self.current(&place) {
            Some(shared) => Ok(Lent::Master(shared)),
            None => self.open(place).await.map(Lent::Master),
        }
    }

    fn current(&self, place: &Place) -> Option<Shared> {
        let current = self.current.lock();
        let usable = |shared: &&Shared| shared.place == *place && !shared.broken.load(Ordering::Acquire);
        current.as_ref().filter(usable).cloned()
    }

    async fn open(&self, place: Place) -> Result<Shared, ReachError> {
        let limit = self.reach.timeout();
        let late = ReachError::Timeout { server: place.to_string(), limit };
        let opened = timeout(limit, async {
            let _opening = self.opening.lock().await;
            if let Some(shared) = self.current(&place) {
                return Ok(shared);
            }
            let broke = self.current.lock().take().is_some();
            // Until this one succeeds.
            let doubted = self.doubt.swap(true, Ordering::AcqRel);
            let place = if broke || doubted {
                // Another server may be the master now.
                self.reach.refresh().await;
                self.reach.place("").await?
            } else {
                place
            };
            let broken = Arc::new(AtomicBool::new(false));
            let flag = Arc::clone(&broken);
            let push = move |info: PushInfo| {
                if info.kind == PushKind::Disconnection {
                    flag.store(true, Ordering::Release);
                }
            };
            let connection = self.reach.subscriber(&place, push).await?;
            let shared = Shared { place, connection, broken };
            *self.current.lock() = Some(shared.clone());
            self.doubt.store(false, Ordering::Release);
            Ok(shared)
        });
        opened.await.unwrap_or(Err(late))
    }
}

impl Shared {
    /// Looks at an answer for signs that the connection should not be used again.
    fn judge(&self, answer: Result<&[Value], &RedisError>) {
        let doubtful = match answer {
            Err(error) => is_doubtful(error),
            Ok(values) => values.iter().any(|value| match value {
                Value::ServerError(error) => error.kind().is_some_and(is_demotion),
                _ => false,
            }),
        };
        if doubtful {
            self.broken.store(true, Ordering::Release);
        }
    }
}

impl ConnectionLike for Lent {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Cluster(asking) => asking.req_packed_command(command),
            Self::Master(shared) => Box::pin(async move {
                let answer = shared.connection.req_packed_command(command).await;
                shared.judge(answer.as_ref().map(std::slice::from_ref));
                answer
            }),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Cluster(asking) => asking.req_packed_commands(pipeline, offset, count),
            Self::Master(shared) => Box::pin(async move {
                let answers = shared.connection.req_packed_commands(pipeline, offset, count).await;
                shared.judge(answers.as_deref());
                answers
            }),
        }
    }

    fn get_db(&self) -> i64 {
        0
    }
}

/// Whether the connection is dead or hangs, or the server is the master no longer.
fn is_doubtful(error: &RedisError) -> bool {
    error.is_io_error() || matches!(error.kind(), ErrorKind::Server(kind) if is_demotion(kind))
}

fn is_demotion(kind: ServerErrorKind) -> bool {
    matches!(kind, ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
}
