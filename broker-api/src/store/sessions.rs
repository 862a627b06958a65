//! Sessions: what a login gave out.

use async_trait::async_trait;
use culvert_broker_wire::Timestamp;
use culvert_wire::PeerId;

use super::{Role, StoreError};

/// How somebody proved who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The institution's password, and a device that it bound.
    Institution,
    /// An account's password.
    Account,
    /// A device's key.
    Device,
    /// API credentials.
    Credential,
    /// The operator, at the command line.
    Operator,
}

/// A session to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// SHA-256 of its token.
    pub hash: [u8; 32],
    /// Whose.
    pub user: String,
    /// The device that proved itself, if one did.
    pub device: Option<PeerId>,
    /// How they came in.
    pub way: Way,
    /// Since when.
    pub created_at: Timestamp,
    /// Until when.
    pub expires_at: Timestamp,
}

/// A session that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionUser {
    /// The session.
    pub session: Session,
    /// What its user may do.
    pub role: Role,
}

/// Sessions.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Keeps a session.
    async fn create_session(&self, session: Session) -> Result<(), StoreError>;
    /// The session with this hash, if it has not ended at `now`, its user is active and its device not
    /// revoked.
    async fn session(&self, hash: &[u8; 32], now: Timestamp) -> Result<Option<SessionUser>, StoreError>;
    /// Ends one session; false if it had ended.
    async fn end_session(&self, hash: &[u8; 32]) -> Result<bool, StoreError>;
    /// Ends all sessions of a user; gives how many.
    async fn end_sessions(&self, user: &str) -> Result<u64, StoreError>;
}
