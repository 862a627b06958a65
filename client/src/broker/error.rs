//! Why the broker, or something on the way to it, did not do what was asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use culvert_broker_wire::ErrorCode;

use super::address::BrokerUrlError;
use super::login::InstitutionLoginError;
use super::share_link::{ParseShareLinkError, ShareLink};
use crate::dial::DialError;

/// What became of a request instead of its answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SyncError {
    /// The broker said no.
    #[error("{message} ({})", .code.name())]
    Refused {
        /// Stable.
        code: ErrorCode,
        /// A sentence that says what to do.
        message: String,
        /// When to try again.
        retry_after: Option<Duration>,
    },
    /// The broker's URL is of no use.
    #[error(transparent)]
    Url(#[from] BrokerUrlError),
    /// What was given names no share.
    #[error(transparent)]
    Link(#[from] ParseShareLinkError),
    /// The institution's password was not accepted, or not by the right broker.
    #[error(transparent)]
    Login(#[from] InstitutionLoginError),
    /// No connection could be opened.
    #[error("the broker cannot be reached: {0}")]
    Dial(#[source] Arc<DialError>),
    /// The connection is broken; it is opened again in the background.
    #[error("the broker cannot be reached now: {0}")]
    Offline(String),
    /// No answer came in time.
    #[error("the broker did not answer within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    /// A publication or revocation that is kept, and made as soon as the broker is back.
    #[error("the broker cannot be reached now; the change is kept and made when it is back")]
    Queued(ShareLink),
    /// As many changes wait for the broker as may.
    #[error("{0} changes wait for the broker already; wait until it is back")]
    QueueFull(usize),
    /// As many requests wait for an answer as may.
    #[error("{0} requests wait for the broker already; wait until some are answered")]
    Busy(usize),
    /// It sent something that the protocol does not allow there.
    #[error("the broker broke the protocol: {0}")]
    Protocol(String),
    /// What lasts could not be kept or read here.
    #[error("cannot use {}: {source}", path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The client was disconnected.
    #[error("the client was disconnected")]
    Disconnected,
}

impl SyncError {
    /// The broker's code, if it was the broker that refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether connecting again with the same credentials fails again.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Refused { code, .. } => matches!(
                code,
                ErrorCode::AuthRequired
                    | ErrorCode::AuthFailed
                    | ErrorCode::Forbidden
                    | ErrorCode::InvalidInput
                    | ErrorCode::NotImplemented
            ),
            Self::Dial(error) => !error.is_transient(),
            Self::Url(_) | Self::Link(_) => true,
            _ => false,
        }
    }

    pub(crate) fn refused(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Refused { code, message: message.into(), retry_after: None }
    }

    pub(crate) fn disk(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::Disk { path: path.to_owned(), source: Arc::new(source) }
    }
}

impl From<DialError> for SyncError {
    fn from(error: DialError) -> Self {
        Self::Dial(Arc::new(error))
    }
}
