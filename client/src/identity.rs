//! Who this process is: an Ed25519 key pair (RFC 8032).
//!
//! The public half is the `PeerId` by which others know and pin it. The same key signs the hello to
//! the relay and certifies the end-to-end session; each use has its own label, so a signature made
//! for one is worthless for the other.

use aws_lc_rs::rand::SecureRandom;
use culvert_session::Rng;

pub use culvert_session::Identity;

/// The operating system's random numbers: `Identity::generate(&mut SystemRng)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    /// # Panics
    /// When the operating system has no random numbers to give.
    fn fill(&mut self, out: &mut [u8]) {
        aws_lc_rs::rand::SystemRandom::new().fill(out).expect("the operating system gives random numbers");
    }
}

/// 64 random bits.
pub(crate) fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    SystemRng.fill(&mut bytes);
    u64::from_be_bytes(bytes)
}
