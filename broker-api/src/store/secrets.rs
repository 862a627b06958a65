//! What the broker keeps for itself: keys, and answers to requests that may be repeated.

use async_trait::async_trait;
use culvert_broker_wire::Timestamp;

use super::StoreError;

/// A key that signs tickets and grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Its id in tokens and in the key set.
    pub kid: String,
    /// Ed25519 public key.
    pub public: [u8; 32],
    /// The private key as PKCS#8, sealed with the broker's data key.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it signs: later than its making, so that everybody has fetched it.
    pub active_from: Timestamp,
    /// When it leaves the key set.
    pub retires_at: Timestamp,
}

/// Keys and values sealed with the broker's data key.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// Keys that have not retired at `now`, newest first.
    async fn signing_keys(&self, now: Timestamp) -> Result<Vec<SigningKey>, StoreError>;
    /// Adds a key unless another one with `active_from` after `unless_after` exists; says whether it did.
    async fn add_signing_key(&self, key: SigningKey, unless_after: Timestamp) -> Result<bool, StoreError>;
    /// The value of this name.
    async fn secret(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;
    /// Keeps a value unless there is one; gives the one that is kept.
    async fn keep_secret(&self, name: &str, value: Vec<u8>) -> Result<Vec<u8>, StoreError>;
}

/// An answer that is given again to a repeated request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// HTTP status.
    pub status: u16,
    /// Headers worth repeating, by name.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

/// What is known of a repeated request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Nothing: do it, then [`Idempotency::answer`].
    New,
    /// It was done.
    Answered(StoredAnswer),
    /// It is being done right now, or was and broke off less than a minute ago.
    UnderWay,
    /// The key was used for another request.
    Other,
}

/// Answers to requests with an `Idempotency-Key`.
#[async_trait]
pub trait Idempotency: Send + Sync {
    /// Claims a key of a user for the request with this hash; kept until `until`.
    async fn claim(
        &self,
        user: &str,
        key: &str,
        request: &[u8; 32],
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Claim, StoreError>;
    /// Keeps the answer; `None` gives the key up, because nothing was done.
    async fn answer(&self, user: &str, key: &str, answer: Option<StoredAnswer>) -> Result<(), StoreError>;
}
