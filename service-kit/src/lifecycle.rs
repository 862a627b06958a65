//! How a server ends: finish, then stop.
//!
//! Two tokens. *Drain* asks everything to finish: no new connections, peers told to move on. *Kill* makes
//! everything stop now. The first signal drains, a second one kills. A task that the server cannot live
//! without holds a [`TaskGuard`], so that its death drains the node instead of leaving half a process.
//! [`drain`](fn@drain) walks the steps in between, each of them bounded.

mod readiness;
mod steps;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use readiness::{Readiness, State};
pub use steps::{Drained, Limits, drain};

/// The two tokens of a server; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    kill: CancellationToken,
    failed: Arc<AtomicBool>,
}

impl Shutdown {
    /// Tokens that nobody has pulled yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everything to finish.
    pub fn request_drain(&self) {
        self.drain.cancel();
    }

    /// Completes once a drain was requested. Cancel safe.
    pub fn drain_requested(&self) -> impl Future<Output = ()> + Send + 'static {
        self.drain.clone().cancelled_owned()
    }

    /// Whether a drain was requested.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Stops everything now; implies a drain, so that nobody keeps waiting for one.
    pub fn kill(&self) {
        self.kill.cancel();
        self.drain.cancel();
    }

    /// Completes once everything has to stop. Cancel safe.
    pub fn killed(&self) -> impl Future<Output = ()> + Send + 'static {
        self.kill.clone().cancelled_owned()
    }

    /// Whether everything has to stop.
    pub fn is_killed(&self) -> bool {
        self.kill.is_cancelled()
    }

    /// Whether a task that the server needs ended on its own, which is why it drains.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// A guard for a task that the server cannot live without.
    pub fn guard(&self, task: &'static str) -> TaskGuard {
        TaskGuard { shutdown: self.clone(), task }
    }
}

/// Held by a task that the server cannot live without.
///
/// Dropped before a drain was requested (the task returned, panicked or was aborted), it logs which task
/// ended and requests one. During a drain it does nothing, because then tasks are meant to end.
#[derive(Debug)]
#[must_use = "dropping the guard drains the server"]
pub struct TaskGuard {
    shutdown: Shutdown,
    task: &'static str,
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        if !self.shutdown.is_draining() {
            tracing::error!(task = self.task, "a task that the server needs has ended, draining");
            self.shutdown.failed.store(true, Ordering::Relaxed);
            self.shutdown.request_drain();
        }
    }
}

/// Installs handlers for SIGTERM and SIGINT; the returned future acts on them.
///
/// The first signal requests a drain, the second kills, and then the future completes. From this call on,
/// not from the first poll, the signals no longer end the process by themselves; so run the future.
pub fn signals(shutdown: Shutdown) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let signal = next().await;
        tracing::info!(signal, "draining; a second signal stops at once");
        shutdown.request_drain();
        let signal = next().await;
        tracing::warn!(signal, "second signal, stopping now");
        shutdown.kill();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn kill_implies_drain_and_wakes_both() {
        let shutdown = Shutdown::new();
        let (drain, kill) = (shutdown.drain_requested(), shutdown.killed());
        shutdown.clone().kill();
        drain.await;
        kill.await;
        assert!(shutdown.is_draining() && shutdown.is_killed());
    }

    #[tokio::test]
    async fn a_needed_task_that_panics_drains_the_server_but_does_not_kill_it() {
        let shutdown = Shutdown::new();
        let guard = shutdown.guard("test");
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let _guard = guard;
            panic!("the task's own problem");
        });
        shutdown.drain_requested().await;
        assert!(shutdown.has_failed() && !shutdown.is_killed());
        assert!(tasks.join_next().await.unwrap().is_err());
    }

    #[test]
    fn a_needed_task_that_ends_during_a_drain_changes_nothing() {
        let shutdown = Shutdown::new();
        let guard = shutdown.guard("test");
        shutdown.request_drain();
        drop(guard);
        assert!(!shutdown.has_failed() && !shutdown.is_killed());
    }
}
