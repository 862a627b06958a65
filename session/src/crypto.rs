//! The seam to cryptography: what a session needs of a provider.
//!
//! Native builds use [`AWS_LC`]. A browser build brings its own implementation and hands it to
//! [`crate::Identity::with_crypto`]; nothing else in the crate changes. The Noise handshake itself is
//! done by `snow`, on randomness that also comes from here.

mod aws_lc;

pub use aws_lc::{AWS_LC, AwsLc};

/// Bytes of an authentication tag (ChaCha20-Poly1305, RFC 8439).
pub const TAG_LEN: usize = 16;

/// The primitives behind records and identities. Implementations hold no state.
pub trait Crypto: Send + Sync {
    /// A ChaCha20-Poly1305 key (RFC 8439), which is wiped from memory when dropped.
    fn aead(&self, key: &[u8; 32]) -> Box<dyn Aead>;

    /// HKDF-Expand with SHA-256 (RFC 5869): 32 bytes from a uniformly random `key`.
    fn derive(&self, key: &[u8; 32], label: &[u8]) -> [u8; 32];

    /// SHA-256 (FIPS 180-4) over the parts, one after the other.
    fn digest(&self, parts: &[&[u8]]) -> [u8; 32];

    /// The Ed25519 public key (RFC 8032) of a seed.
    fn public_key(&self, seed: &[u8; 32]) -> [u8; 32];

    /// The Ed25519 signature of `message` by the key with this seed.
    fn sign(&self, seed: &[u8; 32], message: &[u8]) -> [u8; 64];

    /// Whether `signature` is `public`'s over `message`.
    fn verify(&self, public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool;
}

/// One key that seals and opens records in place.
pub trait Aead: Send + Sync {
    /// Encrypts `in_out` in place and returns its tag. A nonce is used once per key.
    fn seal(&self, nonce: u64, header: &[u8], in_out: &mut [u8]) -> [u8; TAG_LEN];

    /// Decrypts ciphertext and tag in place; the plaintext is returned, or `None` for a forgery, after
    /// which the contents of `in_out` are meaningless.
    fn open<'a>(&self, nonce: u64, header: &[u8], in_out: &'a mut [u8]) -> Option<&'a mut [u8]>;
}

/// Where a session takes its random numbers from. Tests pass a seeded one.
pub trait Rng: Send {
    /// Fills `out` with random bytes fit for keys.
    fn fill(&mut self, out: &mut [u8]);
}

pub(crate) fn random_u64(rng: &mut dyn Rng) -> u64 {
    let mut bytes = [0; 8];
    rng.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
