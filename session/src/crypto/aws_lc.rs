//! The native provider: aws-lc.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::{Aead, Crypto, Rng, TAG_LEN};

/// The primitives of aws-lc, and the operating system's random numbers.
#[derive(Clone, Copy, Default, Debug)]
pub struct AwsLc;

/// The provider that native builds use everywhere.
pub static AWS_LC: AwsLc = AwsLc;

impl Crypto for AwsLc {
    fn aead(&self, key: &[u8; 32]) -> Box<dyn Aead> {
        // aws-lc wipes the key schedule when the context is freed.
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("a key of 32 bytes is valid");
        Box::new(ChaCha(LessSafeKey::new(key)))
    }

    fn derive(&self, key: &[u8; 32], label: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        Prk::new_less_safe(HKDF_SHA256, key)
            .expand(&[label], HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut out))
            .expect("one block can always be expanded");
        out
    }

    fn digest(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(part);
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        out
    }

    fn public_key(&self, seed: &[u8; 32]) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(pair(seed).public_key().as_ref());
        out
    }

    fn sign(&self, seed: &[u8; 32], message: &[u8]) -> [u8; 64] {
        let mut out = [0; 64];
        out.copy_from_slice(pair(seed).sign(message).as_ref());
        out
    }

    fn verify(&self, public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, public).verify(message, signature).is_ok()
    }
}

impl Rng for AwsLc {
    fn fill(&mut self, out: &mut [u8]) {
        use aws_lc_rs::rand::SecureRandom;
        SystemRandom::new().fill(out).expect("the operating system has random numbers");
    }
}

struct ChaCha(LessSafeKey);

impl Aead for ChaCha {
    fn seal(&self, number: u64, header: &[u8], in_out: &mut [u8]) -> [u8; TAG_LEN] {
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce(number), Aad::from(header), in_out)
            .expect("a packet is far below the cipher's limit");
        let mut out = [0; TAG_LEN];
        out.copy_from_slice(tag.as_ref());
        out
    }

    fn open<'a>(&self, number: u64, header: &[u8], in_out: &'a mut [u8]) -> Option<&'a mut [u8]> {
        self.0.open_in_place(nonce(number), Aad::from(header), in_out).ok()
    }
}

/// The packet number as in Noise for ChaChaPoly: 32 zero bits, then 64 bits little-endian.
fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn pair(seed: &[u8; 32]) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(seed).expect("every 32 bytes are a seed")
}
