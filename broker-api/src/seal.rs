//! What the database must not know: sealed before it gets there, and opened when it comes back.
//!
//! AES-256-GCM with a random nonce under one of the operator's data keys. The first key seals, all of them
//! open, so that a key is replaced by putting the new one before it. What something is sealed for (its
//! context) is authenticated: a sealed value that was moved to another row does not open there.
//!
//! A sealed value is one byte that tells keys apart, 12 bytes of nonce, the ciphertext and 16 bytes of tag.
//! Random nonces allow 2^32 values under one key (NIST SP 800-38D, 8.3).

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use culvert_service_kit::Secret;
use zeroize::Zeroizing;

/// Bytes of a data key.
pub const KEY_BYTES: usize = 32;
/// Bytes before the ciphertext.
const HEAD: usize = 1 + NONCE_LEN;

/// Seals what the database must not know.
pub struct Sealer {
    /// The first one seals.
    keys: Vec<DataKey>,
}

struct DataKey {
    /// Part of a hash of the key: tells keys apart, and says next to nothing about 256 random bits.
    id: u8,
    key: LessSafeKey,
}

/// Keys that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// None.
    #[error("at least one data key is needed")]
    None,
    /// Of the wrong length.
    #[error("data key {number} has {length} bytes instead of {KEY_BYTES}")]
    Length {
        /// Which, counted from one.
        number: usize,
        /// Its bytes.
        length: usize,
    },
}

/// A value that does not open: damaged, moved, or sealed with a key that is not configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed value does not open with any of the configured data keys")]
pub struct OpenError;

/// A value that could not be sealed: longer than AES-GCM can do, or the machine has no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a value could not be sealed")]
pub struct SealError;

impl Sealer {
    /// With these data keys, the first of which seals.
    ///
    /// # Errors
    /// No key, or one that does not have [`KEY_BYTES`].
    pub fn new(keys: &[Secret<Vec<u8>>]) -> Result<Self, KeyError> {
        let keys = keys.iter().enumerate().map(|(index, secret)| {
            let bytes = secret.expose();
            let wrong = KeyError::Length { number: index + 1, length: bytes.len() };
            let key = UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| wrong)?;
            Ok(DataKey { id: digest(&SHA256, bytes).as_ref()[0], key: LessSafeKey::new(key) })
        });
        let keys = keys.collect::<Result<Vec<_>, KeyError>>()?;
        if keys.is_empty() { Err(KeyError::None) } else { Ok(Self { keys }) }
    }

    /// Seals a value for a context.
    ///
    /// # Errors
    /// See [`SealError`]; nothing that another attempt would cure.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let DataKey { id, key } = self.keys.first().ok_or(SealError)?;
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| SealError)?;
        let mut sealed = Vec::with_capacity(HEAD + plain.len() + AES_256_GCM.tag_len());
        sealed.push(*id);
        sealed.extend_from_slice(&nonce);
        let mut text = plain.to_vec();
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(context.as_bytes()),
            &mut text,
        )
        .map_err(|_| SealError)?;
        sealed.append(&mut text);
        Ok(sealed)
    }

    /// Opens what was sealed for this context.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (head, text) = sealed.split_at_checked(HEAD).ok_or(OpenError)?;
        let nonce: [u8; NONCE_LEN] = head[1..].try_into().map_err(|_| OpenError)?;
        for DataKey { key, .. } in self.keys.iter().filter(|key| key.id == head[0]) {
            let mut text = Zeroizing::new(text.to_vec());
            let (nonce, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(context.as_bytes()));
            let Ok(length) = key.open_in_place(nonce, aad, &mut text).map(|plain| plain.len()) else {
                continue;
            };
            text.truncate(length);
            return Ok(text);
        }
        Err(OpenError)
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("keys", &self.keys.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(keys: &[u8]) -> Sealer {
        let keys: Vec<_> = keys.iter().map(|byte| Secret::new(vec![*byte; KEY_BYTES])).collect();
        Sealer::new(&keys).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_in_its_context_only_and_never_looks_the_same_twice() {
        let sealer = sealer(&[1]);
        let sealed = sealer.seal("share a", b"token").unwrap();
        assert_eq!(sealer.open("share a", &sealed).unwrap().as_slice(), b"token");
        assert_eq!(sealer.open("share b", &sealed), Err(OpenError));
        assert_ne!(sealer.seal("share a", b"token").unwrap(), sealed);
        assert!(!sealed.windows(5).any(|window| window == b"token"));
        let empty = sealer.seal("", b"").unwrap();
        assert!(sealer.open("", &empty).unwrap().is_empty());
    }

    #[test]
    fn every_changed_bit_and_every_missing_byte_is_noticed() {
        let sealer = sealer(&[1]);
        let sealed = sealer.seal("c", b"v").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(sealer.open("c", &changed), Err(OpenError), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert_eq!(sealer.open("c", &sealed[..length]), Err(OpenError), "{length} bytes");
        }
    }

    #[test]
    fn a_key_is_replaced_by_putting_the_new_one_first() {
        let (old, both, new) = (sealer(&[1]), sealer(&[2, 1]), sealer(&[2]));
        let before = old.seal("c", b"v").unwrap();
        assert_eq!(both.open("c", &before).unwrap().as_slice(), b"v");
        let after = both.seal("c", b"v").unwrap();
        assert_eq!(new.open("c", &after).unwrap().as_slice(), b"v");
        assert_eq!(old.open("c", &after), Err(OpenError));
        assert_eq!(new.open("c", &before), Err(OpenError));
    }

    #[test]
    fn a_key_that_is_missing_or_of_another_length_is_refused() {
        assert_eq!(Sealer::new(&[]).unwrap_err(), KeyError::None);
        let keys = [Secret::new(vec![1; 32]), Secret::new(vec![1; 16])];
        assert_eq!(Sealer::new(&keys).unwrap_err(), KeyError::Length { number: 2, length: 16 });
        assert_eq!(format!("{:?}", sealer(&[7])), "Sealer { keys: 1 }");
    }
}
