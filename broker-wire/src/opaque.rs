//! The suite of OPAQUE (RFC 9807) that clients and broker use for the institution's password.
//!
//! Ristretto255 with SHA-512, and Argon2id on the client: neither the network nor a broker that only
//! pretends to be one learns anything that passwords could be tried against.

use argon2::Argon2;
use opaque_ke::{CipherSuite, Ristretto255, TripleDh};

/// The suite. Its Argon2id runs with [`stretching`].
pub struct Suite;

impl CipherSuite for Suite {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, sha2::Sha512>;
    type Ksf = Argon2<'static>;
}

/// Under what name the institution's password is registered.
pub const INSTITUTION: &[u8] = b"culvert institution v1";

/// Argon2id as the client runs it: 19 MiB, two passes (OWASP's first choice).
pub fn stretching() -> Argon2<'static> {
    Argon2::default()
}
