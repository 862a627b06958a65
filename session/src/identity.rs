//! A peer's long-term key.

use std::fmt;
use std::sync::Arc;

use culvert_wire::PeerId;
use zeroize::Zeroizing;

use crate::crypto::{AWS_LC, Crypto, Rng};

/// An Ed25519 key pair: who this peer is. The seed is wiped when the last clone goes.
///
/// `Debug` shows the public half only.
#[derive(Clone)]
pub struct Identity {
    seed: Arc<Zeroizing<[u8; 32]>>,
    peer: PeerId,
    crypto: &'static dyn Crypto,
}

impl Identity {
    /// The identity with this seed (the private key of RFC 8032), on the native provider.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::with_crypto(seed, &AWS_LC)
    }

    /// The identity with this seed, whose sessions use `crypto` throughout.
    pub fn with_crypto(seed: &[u8; 32], crypto: &'static dyn Crypto) -> Self {
        Self { seed: Arc::new(Zeroizing::new(*seed)), peer: PeerId(crypto.public_key(seed)), crypto }
    }

    /// A fresh identity on the native provider.
    pub fn generate(rng: &mut dyn Rng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill(&mut seed[..]);
        Self::from_seed(&seed)
    }

    /// The public half.
    pub fn peer_id(&self) -> PeerId {
        self.peer
    }

    /// The seed, for storing it; the caller keeps it secret.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// Signs `message`, which must begin with a label of its own so that no signature serves two ends.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.crypto.sign(&self.seed, message)
    }

    pub(crate) fn crypto(&self) -> &'static dyn Crypto {
        self.crypto
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.peer.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_half_follows_rfc_8032() {
        // RFC 8032, section 7.1, test 1.
        let seed = data("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let public = data("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let identity = Identity::from_seed(&seed);
        assert_eq!(identity.peer_id(), PeerId(public));
        let signature = identity.sign(b"");
        assert_eq!(signature[..4], [0xe5, 0x56, 0x43, 0x00]);
        assert!(AWS_LC.verify(&public, b"", &signature));
        assert!(!AWS_LC.verify(&public, b"x", &signature));
    }

    #[test]
    fn debug_shows_nothing_of_the_seed() {
        let identity = Identity::from_seed(&[0xab; 32]);
        assert!(!format!("{identity:?}").contains("abab"));
    }

    fn data(text: &str) -> [u8; 32] {
        text.parse::<PeerId>().unwrap().0
    }
}
