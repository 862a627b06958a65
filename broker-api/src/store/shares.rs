//! Shares.

use async_trait::async_trait;
use culvert_broker_wire::{AccessPolicy, Timestamp};

use super::{Page, PageRequest, StoreError};

/// A share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Its id: random, not secret.
    pub id: String,
    /// SHA-256 of its token; the token itself is not stored.
    pub token_hash: [u8; 32],
    /// The token, sealed with the broker's data key, so that its owner can see it again.
    pub token_sealed: Vec<u8>,
    /// Whose.
    pub owner: String,
    /// What the owner's server knows the result by.
    pub result_id: String,
    /// For people.
    pub title: String,
    /// For people, longer.
    pub description: Option<String>,
    /// When the result was made, as its owner says.
    pub created_at: Timestamp,
    /// Who may use it.
    pub policy: AccessPolicy,
    /// Grants to download given out.
    pub downloads: u32,
    /// When it was published.
    pub published_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// Counts up with every change.
    pub version: i64,
}

/// A share to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewShare {
    /// Its id, unless the token is known already.
    pub id: String,
    /// SHA-256 of its token.
    pub token_hash: [u8; 32],
    /// The token, sealed.
    pub token_sealed: Vec<u8>,
    /// Whose.
    pub owner: String,
    /// What the owner's server knows the result by.
    pub result_id: String,
    /// For people.
    pub title: String,
    /// For people, longer.
    pub description: Option<String>,
    /// When the result was made.
    pub created_at: Timestamp,
    /// Who may use it.
    pub policy: AccessPolicy,
}

/// What became of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// The share is new.
    New(Share),
    /// The owner published it before; title, description, policy and result are as given now.
    Changed {
        /// As it was.
        before: Box<Share>,
        /// As it is.
        after: Box<Share>,
    },
    /// The owner published exactly this before.
    Same(Share),
}

/// What to change in a share; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShareChanges {
    /// For people.
    pub title: Option<String>,
    /// For people, longer; `Some(None)` removes it.
    pub description: Option<Option<String>>,
    /// Who may use it.
    pub policy: Option<AccessPolicy>,
}

/// A share that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookUp {
    /// SHA-256 of its token.
    pub token_hash: [u8; 32],
    /// Who asks, if it is a user.
    pub viewer: Option<String>,
}

/// What a look-up found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// The viewer owns it.
    Owner(Share),
    /// The policy lets the viewer use it.
    Granted(Share),
    /// It exists, and the policy says no: not in the audience, expired, or used up.
    Denied(Share),
}

/// Shares. Every look-up leaves out revoked ones unless it says otherwise.
#[async_trait]
pub trait Shares: Send + Sync {
    /// Publishes a share. A conflict if the token is somebody else's, or was revoked; if the policy names a
    /// team that does not exist or that the owner is not in; or if there is no such owner. A policy comes back
    /// with its permissions in their order and everything once.
    async fn publish(&self, share: NewShare, now: Timestamp) -> Result<Published, StoreError>;
    /// The shares with these tokens, in their order, and whether their viewers may use them at `now`; one
    /// round trip.
    async fn look_up_all(
        &self,
        look_ups: &[LookUp],
        now: Timestamp,
    ) -> Result<Vec<Option<Access>>, StoreError>;
    /// The same for one.
    async fn look_up(
        &self,
        token_hash: &[u8; 32],
        viewer: Option<&str>,
        now: Timestamp,
    ) -> Result<Option<Access>, StoreError> {
        let look_up = LookUp { token_hash: *token_hash, viewer: viewer.map(str::to_owned) };
        Ok(self.look_up_all(&[look_up], now).await?.pop().flatten())
    }
    /// The owner's share with this id.
    async fn share(&self, owner: &str, id: &str) -> Result<Option<Share>, StoreError>;
    /// Shares that this user owns.
    async fn shares_of(&self, owner: &str, page: PageRequest) -> Result<Page<Share>, StoreError>;
    /// Shares of others that name this user, one of their teams or the institution, and hold at `now`.
    async fn shared_with(
        &self,
        user: &str,
        page: PageRequest,
        now: Timestamp,
    ) -> Result<Page<Share>, StoreError>;
    /// Changes the owner's share: gives it as it was and as it is, or `None` if there is no such share. A
    /// conflict if `version` is given and not its version.
    async fn change_share(
        &self,
        owner: &str,
        token_hash: &[u8; 32],
        changes: ShareChanges,
        version: Option<i64>,
        now: Timestamp,
    ) -> Result<Option<(Share, Share)>, StoreError>;
    /// Revokes the owner's share for good and gives it; `None` if there is no such share.
    async fn revoke(
        &self,
        owner: &str,
        token_hash: &[u8; 32],
        version: Option<i64>,
        now: Timestamp,
    ) -> Result<Option<Share>, StoreError>;
    /// Counts one grant to download; false if the policy's number is used up, or the share revoked. Never lets
    /// more through, whoever asks at once.
    async fn count_download(&self, share_id: &str) -> Result<bool, StoreError>;
}
