//! Passwords as they are stored: Argon2id (RFC 9106), computed off the event loop and a few at a time.

use std::sync::Arc;

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use culvert_broker_wire::ErrorCode;
use culvert_broker_wire::auth::MIN_PASSWORD;
use culvert_broker_wire::limits::MAX_PASSWORD;
use culvert_broker_wire::opaque::stretching;
use culvert_service_kit::Secret;
use tokio::sync::Semaphore;

use crate::core::Refusal;

/// Computes password hashes, so many at a time and no more: each takes 19 MiB and some ten milliseconds.
pub struct Hasher {
    turns: Arc<Semaphore>,
    /// Of a password that nobody has: what is checked for a user who does not exist, or has no password, so
    /// that the time of an answer does not tell.
    nobodys: Arc<str>,
}

/// A hash that could not be computed; a fault of the program or of its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a password hash could not be computed")]
pub struct HashError;

impl From<HashError> for Refusal {
    fn from(error: HashError) -> Self {
        tracing::error!(%error, "passwords cannot be checked");
        Self::internal()
    }
}

impl Hasher {
    /// Computes `at_once` hashes at a time.
    ///
    /// # Errors
    /// See [`HashError`].
    pub async fn new(at_once: usize) -> Result<Self, HashError> {
        let mut hasher = Self { turns: Arc::new(Semaphore::new(at_once.max(1))), nobodys: "".into() };
        let mut password = [0_u8; 32];
        rand::fill(&mut password);
        hasher.nobodys = hasher.hash(data_encoding::HEXLOWER.encode(&password)).await?.into();
        Ok(hasher)
    }

    /// The hash of a password, as a PHC string.
    ///
    /// # Errors
    /// See [`HashError`].
    pub async fn hash(&self, password: String) -> Result<String, HashError> {
        self.compute(move || hash_now(&Secret::new(password))).await?
    }

    /// Whether this is the password; `None` takes as long and says no.
    ///
    /// # Errors
    /// See [`HashError`].
    pub async fn verify(&self, password: &str, hash: Option<&str>) -> Result<bool, HashError> {
        let password = Secret::new(password.to_owned());
        let known = hash.is_some();
        let hash: Arc<str> = hash.map_or_else(|| Arc::clone(&self.nobodys), Arc::from);
        let right = self
            .compute(move || {
                let hash = PasswordHash::new(&hash).map_err(|_| HashError)?;
                Ok(stretching().verify_password(password.expose().as_bytes(), &hash).is_ok())
            })
            .await??;
        Ok(right && known)
    }

    /// Waits for a turn, and computes without holding up anybody else.
    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HashError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| HashError)?;
        // The turn ends with the work, also when whoever asked does not wait any more.
        let work = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        });
        work.await.map_err(|_| HashError)
    }
}

/// The hash of a password, as a PHC string, in this thread.
///
/// # Errors
/// See [`HashError`].
pub fn hash_now(password: &Secret<String>) -> Result<String, HashError> {
    let mut salt = [0; 16];
    rand::fill(&mut salt);
    let salt = SaltString::encode_b64(&salt).map_err(|_| HashError)?;
    let hash = stretching().hash_password(password.expose().as_bytes(), &salt).map_err(|_| HashError)?;
    Ok(hash.to_string())
}

/// Refuses a new password that is too short or too long.
///
/// # Errors
/// `INVALID_INPUT`.
pub fn check_new(password: &str) -> Result<(), Refusal> {
    if (MIN_PASSWORD..=MAX_PASSWORD).contains(&password.len()) {
        return Ok(());
    }
    let text = format!("a password has from {MIN_PASSWORD} to {MAX_PASSWORD} bytes");
    Err(Refusal::new(ErrorCode::InvalidInput, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_again_and_its_hash_is_argon2id_with_a_salt_of_its_own() {
        let hasher = Hasher::new(2).await.unwrap();
        let hash = hasher.hash("correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(hasher.verify("correct horse", Some(&hash)).await.unwrap());
        assert!(!hasher.verify("correct horsf", Some(&hash)).await.unwrap());
        assert_ne!(hasher.hash("correct horse".into()).await.unwrap(), hash);
    }

    #[tokio::test]
    async fn who_has_no_password_is_refused_whatever_is_guessed() {
        let hasher = Hasher::new(1).await.unwrap();
        assert!(!hasher.verify("", None).await.unwrap());
        assert!(hasher.verify("x", Some("not a hash")).await.is_err());
    }

    #[test]
    fn new_passwords_have_a_length_that_is_worth_checking() {
        assert!(check_new("12345678").is_ok());
        assert!(check_new("1234567").is_err());
        assert!(check_new(&"x".repeat(MAX_PASSWORD + 1)).is_err());
    }
}
