//! What every request needs, who makes it, and how it is refused.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use culvert_broker_wire::{ErrorCode, Timestamp};
use culvert_service_kit::Clock;
use culvert_wire::PeerId;

use crate::config::Config;
use crate::domain::audit::Journal;
use crate::domain::keys::SigningKeys;
use crate::domain::shares::Desk;
use crate::identity::Identity;
use crate::live::{Live, LiveError};
use crate::metrics::Metrics;
use crate::seal::Sealer;
use crate::store::{Role, Store, StoreError, Way};
use crate::ws::Sockets;

/// What every request needs.
pub struct Core {
    /// What the operator said.
    pub config: Config,
    /// What time it is.
    pub clock: Clock,
    /// What lasts.
    pub store: Arc<dyn Store>,
    /// What is true now.
    pub live: Arc<dyn Live>,
    /// Seals what the database must not know.
    pub sealer: Sealer,
    /// Who is who.
    pub identity: Identity,
    /// Signs tickets and grants.
    pub keys: SigningKeys,
    /// Answers look-ups of shares.
    pub desk: Desk,
    /// Writes the audit log.
    pub audit: Journal,
    /// The WebSockets of this replica.
    pub sockets: Sockets,
    /// What operators see.
    pub metrics: Metrics,
}

impl Core {
    /// What time it is.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_unix_seconds(self.clock.unix_seconds())
    }
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visitor {
    /// Its address, behind balancers that are believed.
    pub source: IpAddr,
    /// Whether nobody on the way could read it.
    pub secure: bool,
}

/// Somebody who proved who they are. Made by [`crate::identity`] and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who.
    pub user: String,
    /// What they may do.
    pub role: Role,
    /// How they proved it.
    pub way: Way,
    /// The device that proved itself, if one did.
    pub device: Option<PeerId>,
    /// SHA-256 of the session's token, if there is a session.
    pub session: Option<[u8; 32]>,
    /// The API key, if the request was keyed.
    pub api_key: Option<String>,
    /// From where.
    pub visitor: Visitor,
}

/// Why something was refused: what the other side gets to know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Stable.
    pub code: ErrorCode,
    /// A sentence that says what to do.
    pub message: String,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// With a code and a sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// The same, to be tried again after a while.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// A store that the broker needs does not answer.
    pub fn unavailable() -> Self {
        Self::new(ErrorCode::Unavailable, "the broker cannot reach one of its stores; try again soon")
            .after(Duration::from_secs(2))
    }

    /// Something failed that nobody outside caused or can mend. Whoever gives this logs what it was.
    pub fn internal() -> Self {
        Self::new(ErrorCode::Internal, "the broker has an error of its own; its operator can see it")
    }
}

/// What a caller would handle apart (conflicts, sizes) is turned into its own refusal before this.
impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(what) => Self::new(ErrorCode::Conflict, what),
            StoreError::Invalid(what) => Self::new(ErrorCode::InvalidInput, what),
            StoreError::TooLarge { limit } => {
                Self::new(ErrorCode::TooLarge, format!("larger than the limit of {limit} bytes"))
            }
            StoreError::HashMismatch => {
                Self::new(ErrorCode::InvalidInput, "the bytes have another SHA-256 than state_hash says")
            }
            StoreError::Interrupted(_) => Self::new(ErrorCode::BackupError, "the upload broke off"),
            StoreError::Unavailable(source) => {
                tracing::warn!(error = %source, "the database is not available");
                Self::unavailable()
            }
            StoreError::Broken(source) => {
                tracing::error!(error = %source, "the database does something unexpected");
                Self::internal()
            }
        }
    }
}

impl From<LiveError> for Refusal {
    fn from(error: LiveError) -> Self {
        match error {
            LiveError::Unavailable(_) => {
                tracing::warn!(%error, "presence is not available");
                Self::unavailable()
            }
            LiveError::Broken(_) => {
                tracing::error!(%error, "a key of Redis is not this broker's");
                Self::internal()
            }
        }
    }
}
