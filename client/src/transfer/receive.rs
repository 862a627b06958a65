//! The receiver's half of a conversation: asks for pages and ranges, verifies, writes.
//!
//! [`receive`] runs a `receiver::Receiver`; each file under way is a `job::Job`.

mod job;
mod receiver;

use std::io;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use self::receiver::Receiver;
use super::line::{Line, LineError, PATIENCE};
use super::message::StopReason;
use super::progress::Progress;
use super::serve::blocking;
use crate::transport::Connection;

/// Where and how to receive.
#[derive(Debug, Clone)]
pub struct ReceiveOptions {
    /// The folder to write into; created if it is not there.
    pub out: PathBuf,
    /// Whether files that exist and differ are replaced.
    pub overwrite: bool,
}

/// What was received.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    /// What the sender called it.
    pub name: String,
    /// What appeared in the output folder, at its top; at most 1,000 of them.
    pub paths: Vec<PathBuf>,
    /// Files and folders that are there now.
    pub kept: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Of these, bytes that were there before this conversation.
    pub present: u64,
    /// How many are not there.
    pub left: u64,
    /// Why, for the first hundred.
    pub problems: Vec<Problem>,
}

/// Why something was not received although the transfer went on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its path, made harmless.
    pub path: String,
    /// A sentence.
    pub reason: String,
}

/// Why a transfer broke off.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// Someone here wanted it to end.
    #[error("the transfer was cancelled; what arrived is kept")]
    Cancelled,
    /// The sender closed without a word.
    #[error("the sender left before everything was here; what arrived is kept")]
    Left,
    /// The sender ended it.
    #[error("the sender stopped: {0}")]
    Stopped(StopReason),
    /// The sender is connected and silent.
    #[error("the sender said nothing for {} minutes; what arrived is kept", PATIENCE.as_secs() / 60)]
    Silent,
    /// An earlier receiver had the beginning of the stream, which cannot be given twice.
    #[error("the sender no longer has the beginning of this stream: another receiver took it")]
    Forgotten,
    /// What the sender sent is not what it announced.
    #[error("the sender's data does not match its own checksum (in {path}); nothing of it was kept")]
    Corrupt {
        /// The file.
        path: String,
    },
    /// The sender tried a path that nothing honest has.
    #[error("the sender offered {0}, which could only do harm here; nothing more is taken from it")]
    Unsafe(String),
    /// There is no room.
    #[error("no room for {}; what arrived is kept: make room and receive again", path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something else is wrong with the disk.
    #[error("cannot write {}; what arrived is kept", path.display())]
    Write {
        /// What was being written.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The sender sent what the protocol does not allow.
    #[error("the sender did not keep to the protocol: {0}")]
    Protocol(String),
    /// The conversation ended.
    #[error("the connection ended: {0:#}")]
    Connection(anyhow::Error),
}

impl ReceiveError {
    /// Whether trying again may bring the rest without anyone doing anything.
    pub fn may_resume(&self) -> bool {
        matches!(self, Self::Left | Self::Silent | Self::Connection(_))
    }

    fn reason(&self) -> Option<StopReason> {
        match self {
            Self::Cancelled | Self::Forgotten => Some(StopReason::Cancelled),
            Self::Corrupt { .. } => Some(StopReason::BadData),
            Self::DiskFull { .. } => Some(StopReason::DiskFull),
            Self::Write { .. } => Some(StopReason::CannotWrite),
            Self::Unsafe(_) | Self::Protocol(_) => Some(StopReason::Protocol),
            Self::Left | Self::Stopped(_) | Self::Silent | Self::Connection(_) => None,
        }
    }
}

impl From<LineError> for ReceiveError {
    fn from(error: LineError) -> Self {
        match error {
            LineError::Cancelled => ReceiveError::Cancelled,
            LineError::Left => ReceiveError::Left,
            LineError::Silent => ReceiveError::Silent,
            LineError::Broken(error) => ReceiveError::Connection(error),
        }
    }
}

/// Receives everything that the other side offers, going on where an earlier attempt stopped.
///
/// Cancel it by the token: the sender is told, and what arrived is on the disk when this returns.
/// Dropping the future keeps what arrived as well, a moment later.
///
/// # Errors
/// The transfer broke off. Files that could not be taken one by one are in [`Received::problems`].
pub async fn receive(
    connection: &mut dyn Connection,
    options: &ReceiveOptions,
    progress: &Progress,
    cancelled: &CancellationToken,
) -> Result<Received, ReceiveError> {
    let mut line = Line::new(connection, cancelled);
    let mut receiver = Receiver::new(options, progress);
    let mut result = receiver.run(&mut line).await;
    // Keeps what arrived before the sender is told, so that it is true.
    let held = receiver.release();
    blocking(move || drop(held)).await;
    if let Err(ReceiveError::Connection(_)) = result
        && let Some(reason) = line.last_word().await
    {
        result = Err(ReceiveError::Stopped(reason));
    }
    if let Some(reason) = result.as_ref().err().and_then(ReceiveError::reason) {
        line.stop(reason).await;
    }
    result
}
