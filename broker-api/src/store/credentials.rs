//! API credentials.

use async_trait::async_trait;
use culvert_broker_wire::Timestamp;

use super::{Page, PageRequest, StoreError};

/// API credentials of a user: a public key part and one or two secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// `rpa_…`, not secret.
    pub api_key: String,
    /// Whose.
    pub user: String,
    /// For people.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// Its live secrets, oldest first.
    pub secrets: Vec<ApiSecret>,
}

/// One secret of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiSecret {
    /// Its id.
    pub id: String,
    /// `rps_…`, sealed with the broker's data key.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends, once it is being replaced.
    pub expires_at: Option<Timestamp>,
}

/// Credentials.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// Keeps a new credential with its first secret.
    async fn create_credential(&self, credential: Credential) -> Result<(), StoreError>;
    /// The credential with this key that is not revoked, of an active user, with secrets that live at `now`.
    async fn credential(&self, api_key: &str, now: Timestamp) -> Result<Option<Credential>, StoreError>;
    /// The credentials of a user that are not revoked.
    async fn credentials_of(
        &self,
        user: &str,
        page: PageRequest,
        now: Timestamp,
    ) -> Result<Page<Credential>, StoreError>;
    /// Adds a second secret; those before end at `old_until`. `None` if the user has no such credential, a
    /// conflict if two live already.
    async fn rotate(
        &self,
        user: &str,
        api_key: &str,
        secret: ApiSecret,
        old_until: Timestamp,
    ) -> Result<Option<Credential>, StoreError>;
    /// Ends a credential for good; false if the user has no such one.
    async fn revoke_credential(&self, user: &str, api_key: &str, now: Timestamp) -> Result<bool, StoreError>;
    /// Notes that it was used.
    async fn credential_used(&self, api_key: &str, at: Timestamp) -> Result<(), StoreError>;
    /// The timestamp (seconds since 1970) up to which keyed requests may have been accepted, raised to at
    /// least `to`; survives whatever happens to Redis.
    async fn raise_horizon(&self, to: u64) -> Result<u64, StoreError>;
}
