//! OPAQUE (RFC 9807) for the institution's password: the suite, and what both sides derive from a login.
//!
//! Ristretto255 with SHA-512, and Argon2id on the client: neither the network nor a broker that only
//! pretends to be one learns anything that passwords could be tried against.

use argon2::Argon2;
use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use opaque_ke::rand::{CryptoRng, Error, RngCore};
use opaque_ke::{CipherSuite, Ristretto255, TripleDh};

/// The suite. Its Argon2id runs with [`stretching`].
pub struct Suite;

impl CipherSuite for Suite {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, sha2::Sha512>;
    type Ksf = Argon2<'static>;
}

/// Under what name the institution's password is registered.
pub const INSTITUTION: &[u8] = b"culvert institution v1";
/// What both sides agree to be doing.
pub const CONTEXT: &[u8] = b"culvert broker login v1";

/// Argon2id as the client runs it: 19 MiB, two passes (OWASP's first choice).
pub fn stretching() -> Argon2<'static> {
    Argon2::default()
}

/// What the device signs to finish a login: only the two sides of this one login can know it, so that a
/// proof cannot be put into another login, nor another proof or user into this one.
pub fn device_challenge(session_key: &[u8], login_id: &str, user_id: &str) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, session_key));
    context.update(b"culvert broker device challenge v1\0");
    context.update(&u32::try_from(login_id.len()).unwrap_or(u32::MAX).to_be_bytes());
    context.update(login_id.as_bytes());
    context.update(user_id.as_bytes());
    BASE64URL_NOPAD.encode(context.sign().as_ref())
}

/// Random numbers as `opaque-ke` takes them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Random;

impl RngCore for Random {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_ne_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_ne_bytes(bytes)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        rand::fill(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for Random {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_belongs_to_one_key_one_login_and_one_user() {
        let right = device_challenge(b"key", "login", "alice");
        assert_eq!(right.len(), 43);
        assert_eq!(device_challenge(b"key", "login", "alice"), right);
        let others = [
            device_challenge(b"kez", "login", "alice"),
            device_challenge(b"key", "logio", "alice"),
            device_challenge(b"key", "login", "alicf"),
            device_challenge(b"key", "logina", "lice"),
        ];
        assert!(!others.contains(&right));
    }
}
