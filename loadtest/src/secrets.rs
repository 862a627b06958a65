//! Secrets that a run needs: how peers are let in, and what workers know each other by.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use data_encoding::BASE64;
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};

/// What comes before the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410).
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The public half, PEM, of an Ed25519 key in PKCS#8 PEM.
///
/// # Errors
/// It is no such key.
pub fn public_pem(private: &str) -> Result<String> {
    let der =
        PrivatePkcs8KeyDer::from_pem_slice(private.as_bytes()).context("the ticket key is no PKCS#8 PEM")?;
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der());
    let pair = pair.ok().context("the ticket key is no Ed25519 key")?;
    let der = [&ED25519_PREFIX, pair.public_key().as_ref()].concat();
    Ok(format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(&der)))
}

/// The secret in a file, without the blanks around it.
///
/// # Errors
/// The file cannot be read, or there is nothing in it.
pub fn read(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let secret = text.trim().to_owned();
    ensure!(!secret.is_empty(), "{} is empty", path.display());
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use culvert_testkit::Identity;

    use super::*;

    #[test]
    fn the_public_half_of_a_ticket_key_is_what_relays_are_given() {
        let identity = Identity::from_seed([3; 32]).unwrap();
        assert_eq!(public_pem(&identity.private_pem().unwrap()).unwrap(), identity.public_pem());
        assert!(public_pem("no key").is_err());
    }
}
