//! The requester's key signs for a grant that travels over HTTP, where no session proves the key.
//!
//! The idea is that of RFC 9449 (DPoP): the signature covers the grant, the path and the time, so that it
//! fits nothing else and not for long.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use culvert_wire::PeerId;
use data_encoding::BASE64URL_NOPAD;

use crate::identity::Identity;

/// HTTP header with the proof.
pub const PROOF_HEADER: &str = "X-Share-Proof";
/// Separates these signatures from everything else that the same key signs.
const CONTEXT: &[u8] = b"culvert share request v1";
/// How far the time in a proof may be from the owner's clock, in seconds, either way.
const MAX_SKEW: u64 = 60;

/// A proof for one request, at `now` in seconds since 1970.
pub fn prove_http(identity: &Identity, grant: &str, path: &str, now: u64) -> String {
    let signature = identity.sign(&transcript(&identity.peer_id(), grant, path, now));
    format!("{}.{now}.{}", identity.peer_id(), BASE64URL_NOPAD.encode(&signature))
}

/// The key that a proof proves, if it is right for this request at `now`.
pub fn proven_http(proof: &str, grant: &str, path: &str, now: u64) -> Option<PeerId> {
    let mut parts = proof.splitn(3, '.');
    let key: PeerId = parts.next()?.parse().ok()?;
    let time: u64 = parts.next()?.parse().ok()?;
    let signature = BASE64URL_NOPAD.decode(parts.next()?.as_bytes()).ok()?;
    if time.abs_diff(now) > MAX_SKEW {
        return None;
    }
    UnparsedPublicKey::new(&ED25519, key.0).verify(&transcript(&key, grant, path, time), &signature).ok()?;
    Some(key)
}

/// Context, key, hash of the grant, time, path: all but the last of a fixed length.
fn transcript(key: &PeerId, grant: &str, path: &str, time: u64) -> Vec<u8> {
    let hash = digest(&SHA256, grant.as_bytes());
    [CONTEXT, &key.0, hash.as_ref(), &time.to_be_bytes(), path.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_grant_path_and_minute_only() {
        let identity = Identity::from_seed(&[3; 32]);
        let proof = prove_http(&identity, "grant", "/api/results/r", 1_000_000);
        let check = |grant, path, now| proven_http(&proof, grant, path, now);
        assert_eq!(check("grant", "/api/results/r", 1_000_060), Some(identity.peer_id()));
        assert_eq!(check("grant", "/api/results/r", 1_000_061), None);
        assert_eq!(check("grant", "/api/results/r", 999_939), None);
        assert_eq!(check("other", "/api/results/r", 1_000_000), None);
        assert_eq!(check("grant", "/api/results/s", 1_000_000), None);
        let other = Identity::from_seed(&[4; 32]).peer_id();
        let forged = proof.replacen(&identity.peer_id().to_string(), &other.to_string(), 1);
        assert_eq!(proven_http(&forged, "grant", "/api/results/r", 1_000_000), None);
        for bad in ["", "..", "a.b.c", &proof[..80]] {
            assert_eq!(proven_http(bad, "grant", "/api/results/r", 1_000_000), None, "{bad}");
        }
    }
}
