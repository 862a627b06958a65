//! What has to be done though nobody asks: keys follow one another, revocations outlive Redis, what has
//! ended is removed.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval};

use super::{audit, tickets};
use crate::core::{Core, Visitor};
use crate::live::Event;
use crate::store::{AuditAction, Outcome};

/// How often keys are looked at and ended things removed.
const ROUND: Duration = Duration::from_secs(60);

/// Runs until it is dropped; the server owns it. Cancel safe: every step can be repeated.
pub async fn run(core: Arc<Core>) {
    let mut events = core.live.events();
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    loop {
        tokio::select! {
            _ = rounds.tick() => {
                refresh_keys(&core).await;
                tidy(&core).await;
                if !told {
                    told = restore(&core).await;
                }
            }
            event = events.recv() => match event {
                Ok(Event::Keys) => refresh_keys(&core).await,
                Ok(Event::Missed) | Err(RecvError::Lagged(_)) => {
                    refresh_keys(&core).await;
                    told = restore(&core).await;
                }
                Ok(_) => {}
                Err(RecvError::Closed) => return,
            },
        }
    }
}

/// Loads the keys of other replicas, or makes the next one and tells them.
pub async fn refresh_keys(core: &Core) {
    match core.keys.refresh(core.store.as_ref(), &core.sealer).await {
        Ok(false) => {}
        Ok(true) => {
            tracing::info!("a new signing key is published and will sign once everybody has it");
            let here = Visitor { source: std::net::Ipv4Addr::LOCALHOST.into(), secure: true };
            let action = AuditAction::KeyRotated;
            let written = audit::record(core, None, here, action, None, Outcome::Done, json!({})).await;
            if written.is_err() || core.live.publish(&Event::Keys).await.is_err() {
                tracing::warn!("a new signing key was not announced; others find it within a minute");
            }
        }
        Err(error) => tracing::warn!(%error, "the signing keys cannot be refreshed; the old ones go on"),
    }
    if let Some(due) = core.keys.next_due() {
        core.metrics.next_key_due.set(due.unix_seconds() as f64);
    }
}

/// Whether the relays were told.
async fn restore(core: &Core) -> bool {
    match tickets::restore(core).await {
        Ok(0) => true,
        Ok(count) => {
            tracing::info!(count, "the relays were told again what is revoked");
            true
        }
        Err(error) => {
            tracing::warn!(%error, "the relays were not told again what is revoked; tried again in a minute");
            false
        }
    }
}

async fn tidy(core: &Core) {
    match core.store.tidy(core.now()).await {
        Ok(0) => {}
        Ok(rows) => tracing::debug!(rows, "what has ended was removed"),
        Err(error) => tracing::warn!(%error, "what has ended could not be removed"),
    }
}
