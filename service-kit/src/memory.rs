//! Gives back to the system what a burst has left free.
//!
//! The C library keeps freed memory for the next time: without this, a process that was held up once for a quarter
//! of a second stays as large as what waited for it then made it.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use crate::process::resident;

/// How often the memory is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// What is worth giving back: this part of the resident memory.
const WORTH: u64 = 64;
/// Rest after giving back, in times of what it took. All threads that allocate wait meanwhile.
const REST: u32 = 1000;

/// Gives back what was freed whenever the process has grown and grows no more. Never completes; cancel safe.
///
/// Where the C library is not glibc, or there is no `/proc`, it waits and does nothing.
pub async fn give_back_what_is_free() -> Infallible {
    // What was resident after the last time, and at the last look.
    let (mut kept, mut before) = (0, 0);
    let mut rest = LOOK;
    loop {
        tokio::time::sleep(rest).await;
        rest = LOOK;
        let Some(now) = resident() else { continue };
        kept = kept.min(now);
        if now > kept + kept / WORTH && now <= before {
            let start = Instant::now();
            give_back();
            let took = start.elapsed();
            rest = LOOK.max(took * REST);
            kept = resident().unwrap_or(now);
            tracing::debug!(bytes = now.saturating_sub(kept), ?took, "gave back free memory");
        }
        before = now;
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "no crate offers malloc_trim(3) as a safe function")]
fn give_back() {
    // SAFETY: it takes no pointer, locks each arena itself and may be called by any thread at any time.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}
