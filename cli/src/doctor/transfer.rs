//! `culvert doctor --transfer`: a file from one peer of this process to another, through the relay.
//!
//! The two have a connection each, which a balancer may lead to different nodes, and meet as two users of
//! `culvert send` and `culvert receive` do.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use culvert_client::link::Entry;
use culvert_client::transfer::ignore;
use culvert_client::{Identity, RelayOptions, SystemRng};
use serde::Serialize;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::cli::DoctorArgs;
use crate::failure::Code;
use crate::pair::{give, take, verify};
use crate::report::summary;
use crate::{id, invitation};

/// Where containers whose root is read-only and that have no folder for temporary files can write.
const SHARED_MEMORY: &str = "/dev/shm";

/// A file that arrived as it was sent.
#[derive(Debug, Serialize)]
pub(super) struct Passed {
    bytes: u64,
    millis: u64,
    blake3: String,
    sender: String,
    receiver: String,
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = summary(self.bytes, Duration::from_millis(self.millis));
        writeln!(f, "{} passed a file to {}: {how}.", self.sender, self.receiver)?;
        write!(f, "BLAKE3 {} on both sides.", self.blake3)
    }
}

/// Passes a file as the arguments say.
pub(super) async fn pass(args: &DoctorArgs) -> Result<Passed> {
    let limit = Duration::from_secs(args.transfer_timeout.max(1));
    let passed = tokio::time::timeout(limit, try_to_pass(args)).await;
    passed.map_err(|_| {
        Code::Failed.because(format!(
            "it took longer than {} s: look at the relay's log, at its link to Redis if it has one, or allow more \
             (--transfer-timeout)",
            limit.as_secs()
        ))
    })?
}

async fn try_to_pass(args: &DoctorArgs) -> Result<Passed> {
    let folder = folder()?;
    let (file, out) = (folder.path().join("sent"), folder.path().join("received"));
    let bytes = args.transfer_size.as_u64();
    let path = file.clone();
    tokio::task::spawn_blocking(move || write_random(&path, bytes)).await??;

    let identity = match args.network.ticket {
        // The ticket is for this machine's key.
        Some(_) => id::identity()?,
        None => Identity::generate(&mut SystemRng),
    };
    let (link, _) = invitation::link(args.relay.clone(), &identity, &args.network)?;
    if args.network.ticket.is_some() && link.entry == Entry::Open {
        return Err(Code::Usage.because(
            "the ticket lets one peer in, and a transfer needs two: ask for one that allows an invitation (culvert \
             ticket issue --invites 1)",
        ));
    }
    let guest = link.identity().unwrap_or_else(|| Identity::generate(&mut SystemRng));
    let (sender, receiver) = (identity.peer_id().short(), guest.peer_id().short());
    let (sender, receiver) = (sender.to_string(), receiver.to_string());
    let options = args.network.options()?;
    let giving = RelayOptions { admission: args.network.admission()?, ..options.clone() };
    let (never, silent, started) = (CancellationToken::new(), ignore(), Instant::now());
    let (served, received) = tokio::try_join!(
        give(&file, &link, identity, giving, &never),
        take(&out, &link, guest, options, &silent, &never)
    )?;
    let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let blake3 = verify(&file, served, &received).await?.to_string();
    Ok(Passed { bytes, millis, blake3, sender, receiver })
}

/// A folder for both files.
fn folder() -> Result<TempDir> {
    let new = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("culvert-doctor-");
        builder
    };
    let folder = new().tempdir().or_else(|_| {
        // For what the transfer itself keeps as well. Only a second call could fail.
        let _ = tempfile::env::override_temp_dir(Path::new(SHARED_MEMORY));
        new().tempdir()
    });
    folder.with_context(|| {
        format!("neither {} nor {SHARED_MEMORY} can be written: set TMPDIR", std::env::temp_dir().display())
    })
}

/// Writes a file that nobody can guess and nothing can compress.
fn write_random(path: &Path, bytes: u64) -> Result<()> {
    let mut chunk = vec![0; 64 * 1024];
    let mut write = || -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        let mut left = bytes;
        while left > 0 {
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            rand::fill(&mut chunk[..len]);
            file.write_all(&chunk[..len])?;
            left -= len as u64;
        }
        file.flush()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
