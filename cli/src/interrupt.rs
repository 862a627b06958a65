//! Ctrl-C: the first one ends the work properly, the second one ends the process.

use std::process;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::failure::Code;

/// Tells when somebody wants the command to end. Its task ends when it is dropped.
pub(crate) struct Interrupt {
    token: CancellationToken,
    _task: JoinSet<()>,
}

impl Interrupt {
    /// From here on SIGINT and SIGTERM no longer end the process by themselves.
    pub(crate) fn install() -> Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be handled")?;
        let mut terminate = signal(SignalKind::terminate()).context("signals cannot be handled")?;
        let token = CancellationToken::new();
        let mut task = JoinSet::new();
        let cancel = token.clone();
        task.spawn(async move {
            let mut next = async || {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            };
            next().await;
            cancel.cancel();
            next().await;
            process::exit(Code::Interrupted as i32);
        });
        Ok(Self { token, _task: task })
    }

    /// Cancelled by the first signal.
    pub(crate) fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}
