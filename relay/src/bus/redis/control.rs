//! What people ask and tell a cluster, through its Redis: from a command line, without being a node.

use std::time::Duration;

use culvert_service_kit::Clock;
use redis::RedisError;
use tokio::time::timeout;

use super::check::{Findings, check};
use super::lease::tick::look;
use super::nodes::Snapshot;
use super::reach::{Reach, ReachError};
use super::revocation;
use super::settings::Settings;
use crate::admission::Revoked;

/// Questions to a cluster, and orders.
pub struct Control {
    reach: Reach,
    limit: Duration,
    clock: Clock,
}

/// A cluster at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The leases, as Redis has them.
    pub nodes: Snapshot,
    /// Tickets and peers that are revoked now.
    pub revocations: usize,
    /// What is wrong with Redis itself.
    pub redis: Findings,
}

/// Redis did not answer, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No connection.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// The connection broke, or the user lacks the right.
    #[error("redis refuses; compare the rights of its user with the documentation")]
    Redis(#[from] RedisError),
    /// Not in time. What was asked for may have been done.
    #[error("redis did not answer within {0:?}; ask again")]
    Late(Duration),
}

impl Control {
    /// Prepares the way; nothing is connected yet.
    ///
    /// # Errors
    /// The settings make no connection.
    pub fn new(settings: &Settings) -> Result<Self, ReachError> {
        Ok(Self { reach: Reach::new(settings)?, limit: settings.timeout, clock: Clock::system() })
    }

    /// Revokes on every node until `until`, in seconds since 1970; nodes hear of it with their next tick.
    /// An end that is later already stays.
    ///
    /// # Errors
    /// It is not certain to be revoked.
    pub async fn revoke(&self, revoked: Revoked, until: u64) -> Result<(), ControlError> {
        self.within(async {
            let mut asking = self.reach.ask().await?;
            revocation::add(&mut asking, self.reach.keys(), &[(revoked, until)]).await?;
            Ok(())
        })
        .await
    }

    /// How the cluster is.
    ///
    /// # Errors
    /// Redis cannot be asked.
    pub async fn status(&self) -> Result<Status, ControlError> {
        let redis = check(&self.reach).await?;
        self.within(async {
            let mut asking = self.reach.ask().await?;
            let keys = self.reach.keys();
            let nodes = look(&mut asking, keys).await?;
            let (_, revoked) = revocation::read(&mut asking, keys).await?;
            let now = self.clock.unix_seconds();
            let revocations = revoked.values().filter(|ends| **ends > now).count();
            Ok(Status { nodes, revocations, redis })
        })
        .await
    }

    /// Each answer has its time, and the connection before them.
    async fn within<T>(
        &self,
        asked: impl Future<Output = Result<T, ControlError>>,
    ) -> Result<T, ControlError> {
        let limit = self.limit * 3;
        timeout(limit, asked).await.unwrap_or(Err(ControlError::Late(limit)))
    }
}
