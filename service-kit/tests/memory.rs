//! What is given back to the system, in a process in which nothing else allocates.

#![cfg(all(target_os = "linux", target_env = "gnu"))]

use std::time::Duration;

use culvert_service_kit::memory::give_back_what_is_free;
use culvert_service_kit::process::resident;

const MIB: u64 = 1024 * 1024;

#[tokio::test(start_paused = true)]
async fn pages_between_what_is_still_used_are_given_back() {
    let before = resident().unwrap();
    let pieces: Vec<Vec<u8>> = (0..16_384).map(|_| vec![1; 4096]).collect();
    assert!(resident().unwrap() > before + 60 * MIB);
    // One in 64 stays, so that no end of the heap is free.
    let _used: Vec<Vec<u8>> = pieces.into_iter().step_by(64).collect();
    let giving = tokio::time::timeout(Duration::from_secs(10), give_back_what_is_free());
    assert!(giving.await.is_err(), "it goes on for as long as it is awaited");
    let kept = resident().unwrap().saturating_sub(before);
    assert!(kept < 16 * MIB, "{} MiB are still resident", kept / MIB);
}
