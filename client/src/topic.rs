//! Where peers meet: from a database's name, or from a secret they share, to a topic.
//!
//! [`derive_topic`] is for compatibility: it hashes a name, so whoever guesses the name finds the topic.
//! It is an address and never a key. A [`TopicSecret`] gives both an address that nobody can guess and,
//! under another label, a pre-shared key for the Noise handshake: whoever knows only the topic (the
//! relay, a proxy in between) can neither pose as a member nor read one.

use std::fmt;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use zeroize::Zeroizing;

use crate::transport::TopicHash;

const SALT: &[u8] = b"culvert topic secret v1";
const TOPIC_LABEL: &[u8] = b"topic id\0";
const PSK_LABEL: &[u8] = b"noise psk\0";

/// The topic of a database: unkeyed BLAKE2b-256 of its id.
///
/// Anyone who knows or guesses the id can compute it. For private data prefer [`TopicSecret`].
pub fn derive_topic(database_id: &str) -> TopicHash {
    Blake2b::<U32>::digest(database_id.as_bytes()).into()
}

/// The topic called `name` among those that share `secret`.
///
/// Different names give unrelated topics; without the secret none of them can be guessed.
pub fn derive_topic_keyed(secret: &TopicSecret, name: &str) -> TopicHash {
    secret.derive(&[TOPIC_LABEL, name.as_bytes()])
}

/// 32 random bytes that the peers of a topic share and the relay never sees.
#[derive(Clone, PartialEq, Eq)]
pub struct TopicSecret(Zeroizing<[u8; 32]>);

impl TopicSecret {
    /// A fresh one, from the operating system's random numbers.
    ///
    /// # Panics
    /// When the operating system has no random numbers to give.
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(bytes.as_mut()).expect("the operating system gives random numbers");
        Self(bytes)
    }

    /// The one with these bytes, which must have been random.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its bytes, for passing it on to another peer. Whoever has them is a member.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The unnamed topic of this secret.
    pub fn topic(&self) -> TopicHash {
        derive_topic_keyed(self, "")
    }

    /// The pre-shared key of the Noise handshake between members.
    pub fn psk(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.derive(&[PSK_LABEL]))
    }

    /// HKDF-SHA256 (RFC 5869) with the label as `info`.
    fn derive(&self, info: &[&[u8]]) -> [u8; 32] {
        struct Bytes32;
        impl KeyType for Bytes32 {
            fn len(&self) -> usize {
                32
            }
        }
        let prk: Prk = Salt::new(HKDF_SHA256, SALT).extract(self.0.as_ref());
        let mut out = [0; 32];
        prk.expand(info, Bytes32)
            .and_then(|okm| okm.fill(&mut out))
            .expect("32 bytes are within what HKDF-SHA256 can expand to");
        out
    }
}

impl fmt::Debug for TopicSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TopicSecret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    #[test]
    fn topics_of_databases_are_the_published_vectors() {
        let vectors = [
            ("my-app-database", "9b7834b794d97cd464a616bf639d0f36788de21c2849d5a8652637769f6e47cc"),
            ("my-database", "dc365a610d48569b953b16c961389c28ed3d1e7210949dde7a073cc1d1963208"),
            ("", "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"),
        ];
        for (id, topic) in vectors {
            assert_eq!(HEXLOWER.encode(&derive_topic(id)), topic, "{id:?}");
        }
    }

    /// Hole 3.b.2 of the predecessor: its topic was the encryption key.
    #[test]
    fn hole_3b_02_the_topic_is_not_a_key() {
        let secret = TopicSecret::from_bytes([7; 32]);
        assert_ne!(secret.topic(), *secret.psk());
        assert_ne!(secret.topic(), *secret.as_bytes());
        assert_ne!(derive_topic_keyed(&secret, "a"), derive_topic_keyed(&secret, "b"));
        assert_ne!(derive_topic_keyed(&secret, "my-database"), derive_topic("my-database"));
        let other = TopicSecret::from_bytes([8; 32]);
        assert_ne!(secret.topic(), other.topic());
        assert_ne!(secret.psk(), other.psk());
        assert_eq!(format!("{secret:?}"), "TopicSecret(***)");
    }

    #[test]
    fn keyed_topics_do_not_change_between_versions() {
        // Computed with Python's hmac: RFC 5869 with the salt and labels above.
        let secret = TopicSecret::from_bytes([7; 32]);
        assert_eq!(
            HEXLOWER.encode(&secret.topic()),
            "cb7b9d0db556cbcd52bfb753b09133a39a6d0e1edb2536b9ebac5afde23eda0f"
        );
        assert_eq!(
            HEXLOWER.encode(&*secret.psk()),
            "593adad7c48fa92b6ba2a7f268d53762c70e6eb8c8d04ed07e7dcf5536cf185d"
        );
    }
}
