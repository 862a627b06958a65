//! Large files of tests, and what processes need to pass them on.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use culvert_testkit::process::peak_resident;
use culvert_testkit::report::{full, measured, mib};
use tokio::task::JoinSet;

pub(crate) const MIB: u64 = 1024 * 1024;
/// The bound on each process.
const MOST_RESIDENT: u64 = 64 * MIB;

/// Bytes of the file: `CULVERT_TRANSFER_BYTES`, or 1 GiB in a full run and 128 MiB otherwise.
pub(crate) fn size() -> u64 {
    let given =
        std::env::var("CULVERT_TRANSFER_BYTES").ok().map(|size| size.parse().expect("a number of bytes"));
    given.unwrap_or(if full() { 1024 * MIB } else { 128 * MIB })
}

/// Generous for a slow disk and two busy cores: 4 MiB a second.
pub(crate) fn patience(size: u64) -> Duration {
    Duration::from_secs(60 + size / (4 * MIB))
}

/// Writes a file that does not compress, and gives its hash.
pub(crate) fn write_random(path: &Path, size: u64) -> blake3::Hash {
    let mut file = BufWriter::new(File::create(path).unwrap());
    let (mut hasher, mut chunk) = (blake3::Hasher::new(), vec![0; 1 << 20]);
    let mut left = size;
    while left > 0 {
        let len = usize::try_from(left.min(1 << 20)).unwrap();
        aws_lc_rs::rand::fill(&mut chunk[..len]).unwrap();
        hasher.update(&chunk[..len]);
        file.write_all(&chunk[..len]).unwrap();
        left -= len as u64;
    }
    file.flush().unwrap();
    hasher.finalize()
}

pub(crate) fn hash(path: &Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut File::open(path).unwrap(), &mut hasher).unwrap();
    hasher.finalize()
}

/// Peaks of processes by what they are; a killed one counts up to its end.
#[derive(Default)]
pub(crate) struct Peaks {
    watches: JoinSet<(&'static str, u64)>,
}

impl Peaks {
    /// Watches a process until it ends.
    pub(crate) fn watch(&mut self, what: &'static str, pid: u32) {
        self.watches.spawn(async move { (what, peak_resident(pid).await) });
    }

    /// Reports them, and holds each against the bound. All processes have ended.
    pub(crate) async fn judge(self) {
        for (what, peak) in self.watches.join_all().await {
            measured(&format!("peak resident memory of {what}: {} of {}", mib(peak), mib(MOST_RESIDENT)));
            assert!(peak > 0 && peak < MOST_RESIDENT, "{what}: {}", mib(peak));
        }
    }
}
