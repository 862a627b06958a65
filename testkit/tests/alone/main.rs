//! What measures, loads or breaks whole clusters, and so wants the machine for itself: one test at a time.

#![allow(clippy::unwrap_used, reason = "helpers of tests: what fails here fails the test")]

#[path = "../common/mod.rs"]
mod common;
mod files;

mod cluster_faults;
mod redis_modes;
mod redis_sweep;
mod rolling_transfer;
mod rollout;
mod transfer;

use tokio::sync::{Mutex, MutexGuard};

static ALONE: Mutex<()> = Mutex::const_new(());

/// Keeps the tests of this program apart; each takes it first, since what it starts is disturbed as well.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().await
}
