//! A conversation's connection, as both halves use it: with deadlines, a way to be cancelled, and last
//! words.

use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::message::{self, Control, Message, StopReason};
use crate::transport::Connection;

/// How long the other side may say nothing while nothing is under way to it.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);
/// How long to wait for last words, in either direction.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A connection and the wish to go on.
pub(super) struct Line<'a> {
    connection: &'a mut dyn Connection,
    cancelled: &'a CancellationToken,
}

/// Why there is nothing more to hear or say.
#[derive(Debug)]
pub(super) enum LineError {
    /// Somebody here wants to stop.
    Cancelled,
    /// The other side closed.
    Left,
    /// The other side is connected and silent.
    Silent,
    /// The conversation broke.
    Broken(anyhow::Error),
}

impl<'a> Line<'a> {
    pub(super) fn new(connection: &'a mut dyn Connection, cancelled: &'a CancellationToken) -> Self {
        Self { connection, cancelled }
    }

    /// Sends one message; waits while the window is full.
    pub(super) async fn send(&mut self, message: &[u8]) -> Result<(), LineError> {
        tokio::select! {
            sent = tokio::time::timeout(PATIENCE, self.connection.send(message)) => {
                sent.map_err(|_| LineError::Silent)?.map_err(LineError::Broken)
            }
            () = self.cancelled.cancelled() => Err(LineError::Cancelled),
        }
    }

    /// Sends a control message.
    pub(super) async fn tell(&mut self, control: &Control) -> Result<(), LineError> {
        self.send(&message::encode(control)).await
    }

    /// Waits for the next message as long as patience lasts. Cancel safe.
    pub(super) async fn hear(&mut self) -> Result<Vec<u8>, LineError> {
        tokio::select! {
            heard = tokio::time::timeout(PATIENCE, self.connection.receive()) => {
                taken(heard.map_err(|_| LineError::Silent)?)
            }
            () = self.cancelled.cancelled() => Err(LineError::Cancelled),
        }
    }

    /// The next message, if it is there.
    pub(super) fn hear_now(&mut self) -> Option<Result<Vec<u8>, LineError>> {
        if self.cancelled.is_cancelled() {
            return Some(Err(LineError::Cancelled));
        }
        self.connection.receive().now_or_never().map(taken)
    }

    /// Waits until everything sent has arrived.
    pub(super) async fn flush(&mut self) {
        let _ = tokio::time::timeout(PATIENCE, self.connection.flush()).await;
    }

    /// Says why this side ends, and waits a moment for the other side to hear it and leave.
    ///
    /// What still comes is thrown away meanwhile: the other side may be waiting for room to send.
    pub(super) async fn stop(&mut self, reason: StopReason) {
        let last = async {
            self.connection.send(&message::encode(&Control::Stop { reason })).await?;
            while self.connection.receive().await?.is_some() {}
            anyhow::Ok(())
        };
        if let Ok(Err(error)) = tokio::time::timeout(LAST_WORDS, last).await {
            tracing::debug!(%error, "the other side was not told why the transfer stops");
        }
    }

    /// Looks whether a conversation that broke while this side was talking had been ended on purpose.
    pub(super) async fn last_word(&mut self) -> Option<StopReason> {
        let look = async {
            while let Ok(Some(bytes)) = self.connection.receive().await {
                if let Ok(Message::Control(Control::Stop { reason })) = message::decode(&bytes) {
                    return Some(reason);
                }
            }
            None
        };
        tokio::time::timeout(LAST_WORDS, look).await.ok().flatten()
    }
}

fn taken(received: anyhow::Result<Option<Vec<u8>>>) -> Result<Vec<u8>, LineError> {
    received.map_err(LineError::Broken)?.ok_or(LineError::Left)
}
