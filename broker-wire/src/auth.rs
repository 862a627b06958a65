//! What is signed or keyed to prove who is there.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use culvert_wire::PeerId;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};

/// An account's password has at least so many bytes (NIST SP 800-63B, 3.1.1.2, for one that is not the only
/// factor; guesses are limited).
pub const MIN_PASSWORD: usize = 8;
/// What an API key begins with.
pub const API_KEY_PREFIX: &str = "rpa_";
/// What an API secret begins with.
pub const API_SECRET_PREFIX: &str = "rps_";
/// What a session token begins with.
pub const SESSION_PREFIX: &str = "cst_";
/// How far the timestamp of a keyed request may be from the broker's clock, in seconds, either way.
pub const MAX_SKEW: u64 = 300;
/// Header with the API key.
pub const API_KEY_HEADER: &str = "X-Api-Key";
/// Header with the e-mail address or user id that the credential belongs to.
pub const EMAIL_HEADER: &str = "X-Api-Email";
/// Header with the seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "X-Api-Timestamp";
/// Header with [`signature`].
pub const SIGNATURE_HEADER: &str = "X-Api-Signature";

/// Separates device proofs from everything else that the same key signs.
const DEVICE_CONTEXT: &[u8] = b"culvert broker device proof v1";

/// Signature of a request with API credentials: hexadecimal HMAC-SHA256, keyed with the whole secret
/// including its prefix, over `timestamp.email.api_key.body`.
pub fn signature(secret: &str, timestamp: u64, email: &str, api_key: &str, body: &[u8]) -> String {
    HEXLOWER_PERMISSIVE.encode(keyed(secret, timestamp, email, api_key, body).sign().as_ref())
}

/// Whether a [`signature`] is right, in constant time.
pub fn verify_signature(
    secret: &str,
    timestamp: u64,
    email: &str,
    api_key: &str,
    body: &[u8],
    signature: &str,
) -> bool {
    let Ok(given) = HEXLOWER_PERMISSIVE.decode(signature.as_bytes()) else { return false };
    let right = keyed(secret, timestamp, email, api_key, body).sign();
    aws_lc_rs::constant_time::verify_slices_are_equal(right.as_ref(), &given).is_ok()
}

fn keyed(secret: &str, timestamp: u64, email: &str, api_key: &str, body: &[u8]) -> hmac::Context {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{timestamp}.{email}.{api_key}.").as_bytes());
    context.update(body);
    context
}

/// A device proves its key over a challenge of the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceProof {
    /// The device's key.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub key: PeerId,
    /// The broker's challenge, as it came.
    pub challenge: String,
    /// The host that the client dialled; the broker refuses names that are not its own, so that nobody can
    /// pass a proof on.
    pub host: String,
    /// Ed25519 signature (RFC 8032) of [`device_transcript`], base64url.
    pub signature: String,
}

impl DeviceProof {
    /// Whether the key signed this for that user. Says nothing about challenge and host.
    pub fn is_signed_for(&self, user_id: &str) -> bool {
        let Ok(signature) = BASE64URL_NOPAD.decode(self.signature.as_bytes()) else { return false };
        let transcript = device_transcript(&self.key, user_id, &self.host, &self.challenge);
        UnparsedPublicKey::new(&ED25519, self.key.0).verify(&transcript, &signature).is_ok()
    }
}

/// What a device signs: context, key, and each of the texts behind its length (4 bytes, big endian).
pub fn device_transcript(key: &PeerId, user_id: &str, host: &str, challenge: &str) -> Vec<u8> {
    let mut bytes = DEVICE_CONTEXT.to_vec();
    bytes.extend_from_slice(&key.0);
    for text in [user_id, host, challenge] {
        bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    #[test]
    fn a_keyed_request_is_verified_and_everything_in_it_counts() {
        let sign = |body: &[u8]| signature("rps_secret", 1_736_525_432, "a@b.c", "rpa_key", body);
        let right = sign(b"");
        let check = |secret, timestamp, email, key, body: &[u8]| {
            verify_signature(secret, timestamp, email, key, body, &right)
        };
        assert!(check("rps_secret", 1_736_525_432, "a@b.c", "rpa_key", b""));
        assert!(!check("rps_secreT", 1_736_525_432, "a@b.c", "rpa_key", b""));
        assert!(!check("rps_secret", 1_736_525_433, "a@b.c", "rpa_key", b""));
        assert!(!check("rps_secret", 1_736_525_432, "a@b.d", "rpa_key", b""));
        assert!(!check("rps_secret", 1_736_525_432, "a@b.c", "rpa_kez", b""));
        assert!(!check("rps_secret", 1_736_525_432, "a@b.c", "rpa_key", b"x"));
        assert!(!verify_signature("rps_secret", 1_736_525_432, "a@b.c", "rpa_key", b"", "zz"));
    }

    #[test]
    fn a_device_proof_holds_for_its_user_host_and_challenge_only() {
        let pair = Ed25519KeyPair::generate().unwrap();
        let key = PeerId(pair.public_key().as_ref().try_into().unwrap());
        let transcript = device_transcript(&key, "alice", "broker.example", "c");
        let signature = BASE64URL_NOPAD.encode(pair.sign(&transcript).as_ref());
        let proof = DeviceProof { key, challenge: "c".into(), host: "broker.example".into(), signature };
        assert!(proof.is_signed_for("alice") && !proof.is_signed_for("bob"));
        assert!(!DeviceProof { host: "other.example".into(), ..proof.clone() }.is_signed_for("alice"));
        assert!(!DeviceProof { challenge: "d".into(), ..proof }.is_signed_for("alice"));
    }
}
