//! One connection through the proxy: its controls, and the task that obeys them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncWriteExt, copy, sink, split};
use tokio::sync::watch;

use super::end::End;
use super::faults::{Cut, Faults};
use super::pump::{Meter, pump};
use crate::capture::Tape;

/// Controls of one connection. Cheap to clone.
#[derive(Clone)]
pub struct ChaosConnection {
    source: SocketAddr,
    faults: Arc<watch::Sender<Faults>>,
    cut: Arc<watch::Sender<Option<Cut>>>,
    moved: watch::Receiver<Moved>,
}

/// How many bytes have been delivered, by direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// To the target.
    pub up: u64,
    /// To the client.
    pub down: u64,
}

/// What the connection's task holds.
pub(super) struct Control {
    faults: watch::Receiver<Faults>,
    cut: watch::Receiver<Option<Cut>>,
    moved: watch::Sender<Moved>,
}

impl ChaosConnection {
    pub(super) fn new(source: SocketAddr, faults: Faults) -> (Self, Control) {
        let faults = watch::Sender::new(faults);
        let cut = watch::Sender::new(None);
        let (moved, progress) = watch::channel(Moved::default());
        let control = Control { faults: faults.subscribe(), cut: cut.subscribe(), moved };
        (Self { source, faults: Arc::new(faults), cut: Arc::new(cut), moved: progress }, control)
    }

    /// The address from which the target sees it coming, such as `CLIENT LIST` of Redis shows it.
    pub fn source(&self) -> SocketAddr {
        self.source
    }

    /// Changes the faults of this connection.
    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        self.faults.send_modify(change);
    }

    /// Cuts this connection and waits until both ends were told.
    pub async fn cut(&self, how: Cut) {
        self.cut.send_replace(Some(how));
        self.ended().await;
    }

    /// Waits until this connection is over, whoever ended it.
    pub async fn ended(&self) {
        let mut moved = self.moved.clone();
        while moved.changed().await.is_ok() {}
    }

    /// Whether bytes can still move.
    pub fn is_open(&self) -> bool {
        self.moved.has_changed().is_ok()
    }

    /// Bytes delivered so far.
    pub fn moved(&self) -> Moved {
        *self.moved.borrow()
    }

    /// Waits until so much was delivered that `enough` holds.
    ///
    /// # Errors
    /// It does not hold after `deadline`, or the connection ended first.
    pub async fn moved_until(&self, deadline: Duration, enough: impl Fn(Moved) -> bool) -> Result<Moved> {
        let mut moved = self.moved.clone();
        let reached = tokio::time::timeout(deadline, moved.wait_for(|moved| enough(*moved))).await;
        let reached = reached.with_context(|| format!("not after {deadline:?}: {:?}", self.moved()))?;
        Ok(*reached.context("the connection ended first")?)
    }
}

/// Runs a connection to its end: by command, by either side's end, or by an error, which becomes a reset.
pub(super) async fn run(mut client: End, mut server: End, control: Control, tape: Option<Tape>) {
    let Control { faults, mut cut, moved } = control;
    let end = {
        let (client_read, client_write) = split(&mut client);
        let (server_read, server_write) = split(&mut server);
        let up = Meter {
            faults: faults.clone(),
            flow: |faults| faults.up,
            record: tape.clone().map(|tape| move |bytes: &[u8]| tape.push_up(bytes)),
            count: |bytes| moved.send_modify(|moved| moved.up += bytes),
        };
        let down = Meter {
            faults,
            flow: |faults| faults.down,
            record: tape.map(|tape| move |bytes: &[u8]| tape.push_down(bytes)),
            count: |bytes| moved.send_modify(|moved| moved.down += bytes),
        };
        let both = async {
            tokio::try_join!(pump(client_read, server_write, up), pump(server_read, client_write, down))
        };
        tokio::select! {
            moved = both => moved.map(|_| None),
            how = cut.wait_for(Option::is_some) => Ok(how.ok().and_then(|how| *how)),
        }
    };
    match end {
        // Both streams ended, and each end was passed on.
        Ok(None) => {}
        Ok(Some(Cut::Reset)) | Err(_) => {
            client.reset();
            server.reset();
        }
        Ok(Some(Cut::Finish)) => {
            let _ = tokio::join!(client.shutdown(), server.shutdown());
            drop(moved);
            // Closing with unread bytes would turn the end into a reset.
            let (mut nowhere, mut neither) = (sink(), sink());
            let _ = tokio::join!(copy(&mut client, &mut nowhere), copy(&mut server, &mut neither));
        }
    }
}
