//! From the settings to everything that requests work with, as soon as the stores answer.

use std::sync::Arc;
use std::time::Duration;

use culvert_relay::bus::redis::reach::ReachError;
use culvert_service_kit::{Clock, Readiness};
use tokio::time::sleep;

use super::sole::{Sole, SoleError};
use crate::args::chain;
use crate::config::Config;
use crate::core::Core;
use crate::domain::audit::Journal;
use crate::domain::keys::{KeysError, SigningKeys};
use crate::domain::shares::Desk;
use crate::identity::{Identity, LoadError};
use crate::live::memory::MemoryLive;
use crate::live::redis::RedisLive;
use crate::live::{Live, LiveError};
use crate::metrics::Metrics;
use crate::seal::{KeyError, Sealer};
use crate::store::{self, Store, StoreError};
use crate::ws::Sockets;

/// Between two attempts.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a start waits for another replica that changes the tables.
const MIGRATION: Duration = Duration::from_secs(60);

/// A broker that cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database cannot be used.
    #[error("the database cannot be used")]
    Store(#[source] StoreError),
    /// The settings for Redis make no connection.
    #[error(transparent)]
    Redis(#[from] ReachError),
    /// Redis does not answer.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// The database is another broker's.
    #[error(transparent)]
    Sole(#[from] SoleError),
    /// The data keys are no keys.
    #[error(transparent)]
    DataKeys(#[from] KeyError),
    /// What identifies users cannot be loaded.
    #[error(transparent)]
    Identity(#[from] LoadError),
    /// The signing keys cannot be loaded.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl OpenError {
    /// Whether the same may work a moment later.
    fn is_temporary(&self) -> bool {
        let store = |error: &StoreError| matches!(error, StoreError::Unavailable(_));
        match self {
            Self::Store(error) => store(error),
            Self::Live(_) | Self::Sole(SoleError::Unavailable(_)) => true,
            Self::Identity(LoadError::Store(error)) | Self::Keys(KeysError::Store(error)) => store(error),
            _ => false,
        }
    }
}

/// Tries until the stores answer, and says what it waits for.
pub(super) async fn patiently(
    config: &Config,
    clock: &Clock,
    live: Option<&Arc<dyn Live>>,
    metrics: &Metrics,
    readiness: &Readiness,
) -> Result<(Arc<Core>, Sole), OpenError> {
    let mut said = String::new();
    loop {
        let error = match once(config, clock, live, metrics).await {
            Ok(opened) => return Ok(opened),
            Err(error) if error.is_temporary() => chain(&error),
            Err(error) => return Err(error),
        };
        if error != said {
            tracing::warn!(error, "the broker waits for its stores and answers 503 until then");
            readiness.set(false, format!("waiting for the stores: {error}"));
            said = error;
        }
        sleep(AGAIN).await;
    }
}

async fn once(
    config: &Config,
    clock: &Clock,
    live: Option<&Arc<dyn Live>>,
    metrics: &Metrics,
) -> Result<(Arc<Core>, Sole), OpenError> {
    let sole = Sole::take(config).await?;
    let store = open_store(config).await?;
    let live: Arc<dyn Live> = match (live, &config.redis) {
        (Some(live), _) => live.clone(),
        (None, Some(settings)) => Arc::new(RedisLive::new(settings, clock.clone())?),
        (None, None) => Arc::new(MemoryLive::new(clock.clone())),
    };
    live.check().await?;
    let sealer = Sealer::new(&config.data_keys)?;
    let identity = Identity::load(config, store.as_ref(), &live, &sealer).await?;
    let keys = SigningKeys::load(config, &store, &sealer, clock.clone()).await?;
    let core = Core {
        config: config.clone(),
        clock: clock.clone(),
        desk: Desk::open(store.clone(), live.clone(), clock.clone()),
        audit: Journal::start(store.clone(), clock.clone(), metrics.audit_failures.clone()),
        store,
        live,
        sealer,
        identity,
        keys,
        sockets: Sockets::new(),
        metrics: metrics.clone(),
    };
    Ok((Arc::new(core), sole))
}

/// Makes or changes the tables; waits so long for another one that is at it.
///
/// # Errors
/// The database does not answer, or cannot be changed.
pub async fn migrate(config: &Config, wait: Option<Duration>) -> Result<(), OpenError> {
    let store = store::open(config).map_err(OpenError::Store)?;
    store.migrate(wait).await.map_err(OpenError::Store)
}

/// The database, with the tables that this program knows.
///
/// # Errors
/// It does not answer, or has other tables.
pub async fn open_store(config: &Config) -> Result<Arc<dyn Store>, OpenError> {
    let store = store::open(config).map_err(OpenError::Store)?;
    if config.migrate {
        store.migrate(Some(MIGRATION)).await.map_err(OpenError::Store)?;
    }
    store.check().await.map_err(OpenError::Store)?;
    Ok(store)
}
