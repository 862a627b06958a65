//! Whether what the broker needs answers: asked once a second, said when it changes.
//!
//! A broker whose stores went away stays ready. It cannot tell whether it alone is cut off or the stores
//! are down for all, and in the second case a balancer without a ready replica would answer nothing, where
//! the broker answers 503 with the reason and is back by itself. The reason is also in `/readyz`.

use std::sync::Arc;
use std::time::Duration;

use culvert_service_kit::Readiness;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::core::Core;
use crate::metrics::{Backend, Lent};

/// How often.
const EVERY: Duration = Duration::from_secs(1);

/// Watches until dropped.
pub(super) async fn watch(core: Arc<Core>, readiness: Readiness) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = (true, true);
    loop {
        ticks.tick().await;
        let limit = core.config.timing.backend;
        let database = async { matches!(timeout(limit, core.store.check()).await, Ok(Ok(()))) };
        let live = async { matches!(timeout(limit, core.live.check()).await, Ok(Ok(()))) };
        let (database, live) = tokio::join!(database, live);
        note(&core, Backend::Database, database);
        note(&core, Backend::Live, live);
        count_connections(&core);
        if (database, live) != before {
            let state = state(database, live);
            tracing::info!(database, live, "what the broker needs: {state}");
            readiness.set(true, state);
            before = (database, live);
        }
    }
}

fn note(core: &Core, backend: Backend, up: bool) {
    core.metrics.backend_up[backend].set(if up { 1.0 } else { 0.0 });
    if !up {
        core.metrics.backend_failures[backend].increment(1);
    }
}

fn count_connections(core: &Core) {
    let (connections, metrics) = (core.store.connections(), &core.metrics);
    metrics.database_connections[Lent::Busy].set(connections.busy as f64);
    metrics.database_connections[Lent::Idle].set(connections.idle as f64);
    metrics.database_waiting.set(connections.waiting as f64);
    metrics.most_database_connections.set(connections.most as f64);
}

fn state(database: bool, live: bool) -> &'static str {
    match (database, live) {
        (true, true) => "serving",
        (false, true) => "the database does not answer",
        (true, false) => "Redis does not answer",
        (false, false) => "neither the database nor Redis answers",
    }
}
