//! A peer's Ed25519 key, as tests need it: made at will, and willing to sign anything.

use anyhow::{Context, Result};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use culvert_wire::PeerId;

/// An Ed25519 key pair.
pub struct Identity {
    pair: Ed25519KeyPair,
    seed: [u8; 32],
}

impl Identity {
    /// A fresh random one.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn random() -> Result<Self> {
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).context("no random bytes")?;
        Self::from_seed(seed)
    }

    /// The same one for the same seed, for tests that compare runs.
    ///
    /// # Errors
    /// None that is known: every 32 bytes are a seed.
    pub fn from_seed(seed: [u8; 32]) -> Result<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).context("not an Ed25519 seed")?;
        Ok(Self { pair, seed })
    }

    /// The public key.
    pub fn peer(&self) -> PeerId {
        let mut id = [0; 32];
        id.copy_from_slice(self.pair.public_key().as_ref());
        PeerId(id)
    }

    /// The private key's seed.
    pub fn seed(&self) -> [u8; 32] {
        self.seed
    }

    /// An Ed25519 signature (RFC 8032) over the bytes.
    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(bytes).as_ref());
        signature
    }

    /// The private key as PKCS#8 PEM, the form that key files have.
    ///
    /// # Errors
    /// The key cannot be encoded.
    pub fn private_pem(&self) -> Result<String> {
        let der = self.pair.to_pkcs8v1().context("key does not encode")?;
        Ok(pem("PRIVATE KEY", der.as_ref()))
    }

    /// The public key as SubjectPublicKeyInfo PEM (RFC 8410).
    pub fn public_pem(&self) -> String {
        const SPKI_PREFIX: [u8; 12] =
            [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        pem("PUBLIC KEY", &[&SPKI_PREFIX[..], &self.peer().0].concat())
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self::from_seed(self.seed).expect("the same seed was accepted before")
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    let lines: Vec<String> = text.as_bytes().chunks(64).map(|l| String::from_utf8_lossy(l).into()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    #[test]
    fn what_it_signs_verifies_under_its_peer_id() {
        let identity = Identity::from_seed([7; 32]).unwrap();
        let key = UnparsedPublicKey::new(&ED25519, identity.peer().0);
        assert!(key.verify(b"bytes", &identity.sign(b"bytes")).is_ok());
        assert!(key.verify(b"other", &identity.sign(b"bytes")).is_err());
        assert_ne!(Identity::random().unwrap().peer(), identity.peer());
    }

    #[test]
    fn its_private_pem_reads_back_as_the_same_key() {
        let identity = Identity::from_seed([9; 32]).unwrap();
        let pair = rcgen::KeyPair::from_pem(&identity.private_pem().unwrap()).unwrap();
        assert_eq!(pair.public_key_raw(), identity.peer().0);
        assert_eq!(pair.public_key_pem().replace("\r\n", "\n"), identity.public_pem());
    }
}
