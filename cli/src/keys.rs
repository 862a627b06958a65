//! Ed25519 keys in files: PEM, as openssl writes and reads it.
//!
//! RFC 8410 fixes every byte around the 32 of the key, so there is nothing to parse but them.

use std::path::Path;

use anyhow::{Context, Result, bail};
use culvert_client::Identity;
use culvert_wire::PeerId;
use data_encoding::BASE64;
use zeroize::Zeroizing;

/// `PrivateKeyInfo` of version 1 up to the seed.
const PRIVATE_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// `SubjectPublicKeyInfo` up to the key.
const PUBLIC_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// The private key, DER.
pub(crate) fn private_der(identity: &Identity) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([&PRIVATE_PREFIX[..], identity.seed()].concat())
}

/// The private key, PEM.
pub(crate) fn private_pem(identity: &Identity) -> Zeroizing<String> {
    Zeroizing::new(pem("PRIVATE KEY", &private_der(identity)))
}

/// The public key, PEM.
pub(crate) fn public_pem(peer: &PeerId) -> String {
    pem("PUBLIC KEY", &[&PUBLIC_PREFIX[..], &peer.0].concat())
}

/// Reads a private key from a file.
pub(crate) fn read_private(path: &Path) -> Result<Identity> {
    let text = Zeroizing::new(
        std::fs::read_to_string(path).with_context(|| format!("cannot read the key {}", path.display()))?,
    );
    let der = Zeroizing::new(unpem("PRIVATE KEY", &text).unwrap_or_default());
    // Version 2, which some tools write, has another number in front and the public key behind.
    let fits = der.get(5..PRIVATE_PREFIX.len()) == Some(&PRIVATE_PREFIX[5..]);
    match der.get(PRIVATE_PREFIX.len()..).and_then(<[u8]>::first_chunk) {
        Some(seed) if fits => Ok(Identity::from_seed(seed)),
        _ => bail!("{} holds no Ed25519 private key (PEM, BEGIN PRIVATE KEY)", path.display()),
    }
}

/// Reads a public key from a file.
pub(crate) fn read_public(path: &Path) -> Result<PeerId> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the key {}", path.display()))?;
    let der = unpem("PUBLIC KEY", &text).unwrap_or_default();
    match der.strip_prefix(&PUBLIC_PREFIX).map(<[u8; 32]>::try_from) {
        Some(Ok(key)) => Ok(PeerId(key)),
        _ => bail!("{} holds no Ed25519 public key (PEM, BEGIN PUBLIC KEY)", path.display()),
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(der))
}

fn unpem(label: &str, text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: Zeroizing<String> = Zeroizing::new(body.split_whitespace().collect());
    BASE64.decode(body.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_and_match_the_standards_example() {
        // RFC 8410, section 10.3.
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        std::fs::write(&path, pem).unwrap();
        let key = read_private(&path).unwrap();
        assert_eq!(*private_pem(&key), pem);
        let public = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
        assert!(public_pem(&key.peer_id()).contains(public));
        std::fs::write(&path, public_pem(&key.peer_id())).unwrap();
        assert_eq!(read_public(&path).unwrap(), key.peer_id());
        assert!(read_private(&path).is_err());
    }
}
