//! Files passed from peer to peer, as `culvert send` and `culvert receive` pass them.
//!
//! Each lane is two peers in conversation: one offers a file, the other writes it, over and over. The files
//! are made from the seed before the run. A transfer verifies what it writes piece by piece; here the whole
//! file is hashed once more and compared with what was made.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use bytesize::ByteSize;
use clap::Args;
use culvert_client::RelayConnection;
use culvert_client::transfer::{Event, Offer, Progress, ReceiveOptions, ignore, receive};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::frames::nanos;
use crate::measure::{Count, Recorder, Series};
use crate::plan::Plan;
use crate::sessions::{Door, Pair};
use crate::stage::{Ending, Stage};

/// Bytes that are made, or hashed, at a time.
const BLOCK: usize = 1 << 20;
/// What the file system keeps beside the files themselves: journals, lists of hashes.
const SPARE: u64 = 16 << 20;

/// Settings of `files`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
pub struct Files {
    /// Transfers at a time, each between two peers of its own.
    #[arg(long, default_value_t = 4)]
    pub transfers: usize,
    /// Sizes of the files, by turns.
    #[arg(long, value_name = "SIZE", value_delimiter = ',', default_value = "16MiB")]
    pub sizes: Vec<ByteSize>,
    /// Folder for the files; a temporary one is made in it and removed.
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
}

/// A file to be sent.
struct Made {
    path: PathBuf,
    hash: blake3::Hash,
}

/// Two peers, what the one sends and where the other writes it.
struct Lane {
    pair: Pair,
    ends: [RelayConnection; 2],
    made: Made,
    out: PathBuf,
}

impl Files {
    /// See [`crate::scenario::Scenario::check`].
    pub(super) fn check(&self, plan: &Plan) -> Result<()> {
        let workers = plan.share.of;
        ensure!(self.transfers >= workers, "--transfers must be at least {workers}, one for each worker");
        ensure!(!self.sizes.is_empty(), "--sizes must name at least one size");
        let empty = self.sizes.iter().any(|size| size.0 == 0);
        ensure!(!empty, "--sizes must not contain 0: an empty file is no load");
        Ok(())
    }

    fn size(&self, number: usize) -> u64 {
        self.sizes[number % self.sizes.len()].0
    }
}

pub(super) async fn run(settings: &Files, stage: &Stage) -> Result<Ending> {
    let parent = settings.folder.clone().unwrap_or_else(std::env::temp_dir);
    let share = stage.share();
    // Numbers of this worker: every `of`th of all.
    let numbers: Vec<usize> = (share.index..settings.transfers).step_by(share.of.max(1)).collect();
    let needed: u64 = numbers.iter().map(|number| 2 * settings.size(*number)).sum::<u64>() + SPARE;
    has_room(&parent, needed)?;
    let folder = TempDir::with_prefix_in("culvert-loadtest-", &parent).with_context(|| {
        format!("no folder can be made in {}: choose another by --folder", parent.display())
    })?;

    let door = Door::new(stage.reach())?;
    let mut lanes = Vec::new();
    for number in numbers {
        let path = folder.path().join(format!("{number}.bin"));
        let (size, seed) = (settings.size(number), stage.plan().seed.wrapping_add(number as u64));
        let made = spawn_blocking(move || make(path, size, seed)).await.context("a file was not made")??;
        let (pair, ends) = Pair::connect(&door, number, stage.recorder()).await?;
        let out = folder.path().join(format!("{number}.out"));
        lanes.push(Lane { pair, ends, made, out });
    }
    stage.recorder().set_connections(2 * lanes.len() as u64);
    stage.ready().await;

    let (mut passing, over) = (JoinSet::new(), CancellationToken::new());
    for lane in lanes {
        let (recorder, over) = (stage.recorder().clone(), over.clone());
        passing.spawn_local(async move { lane.pass(&recorder, &over).await });
    }
    tokio::select! {
        () = stage.over() => {}
        // Before the end a lane ends only because it failed.
        Some(failed) = passing.join_next() => {
            failed.context("a transfer broke")??;
            bail!("a transfer ended before the run was over");
        }
    }
    over.cancel();
    let mut files = 0;
    while let Some(passed) = passing.join_next().await {
        files += passed.context("a transfer broke")??;
    }
    let mut ending = Ending::default();
    if files == 0 {
        ending.failures.push(
            "no file arrived whole in the time that was given: choose smaller --sizes or a longer --duration"
                .to_owned(),
        );
    }
    ending.notes.push(format!("{files} files arrived, each with the hash that it was sent with"));
    // What is on the disk is removed even if removing takes a while.
    spawn_blocking(move || drop(folder)).await.context("the temporary folder was not removed")?;
    Ok(ending)
}

impl Lane {
    /// Passes the file until the end, and gives how often it arrived whole.
    async fn pass(self, recorder: &Rc<Recorder>, over: &CancellationToken) -> Result<u64> {
        let Lane { mut pair, mut ends, made, out } = self;
        let name = pair.name();
        let mut files = 0;
        while !over.is_cancelled() {
            let began = Instant::now();
            let whole = once(&mut ends, &made, &out, recorder, over).await;
            match whole.with_context(|| format!("{name} could not pass its file"))? {
                true => {
                    recorder.record(Series::Transfer, nanos(began.elapsed()));
                    recorder.add(Count::Files, 1);
                    files += 1;
                    let (copy, hash) = (out.join(file_name(&made.path)), made.hash);
                    spawn_blocking(move || compare(&copy, hash)).await.context("a file was not read")??;
                }
                false => break,
            }
        }
        pair.leave().await;
        Ok(files)
    }
}

/// Passes the file once; false if the run ended in the middle of it.
async fn once(
    ends: &mut [RelayConnection; 2],
    made: &Made,
    out: &Path,
    recorder: &Rc<Recorder>,
    over: &CancellationToken,
) -> Result<bool> {
    let [sender, receiver] = ends;
    let offer = Offer::paths(&[&made.path], ignore())?;
    let options = ReceiveOptions { out: out.to_owned(), overwrite: true };
    let have = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&have);
    let progress: Progress = Arc::new(move |event| {
        if let Event::Advanced { have } = event {
            seen.fetch_max(have, Ordering::Relaxed);
        }
    });
    let (quiet, mut counted) = (ignore(), 0);
    let both = async {
        tokio::join!(offer.serve(sender, &quiet, over), receive(receiver, &options, &progress, over))
    };
    let mut both = std::pin::pin!(both);
    let mut ticks = tokio::time::interval(crate::stage::SAMPLED / 4);
    let mut count = || {
        let now = have.load(Ordering::Relaxed);
        recorder.add(Count::DeliveredBytes, now - counted);
        counted = now;
    };
    let (served, received) = loop {
        tokio::select! {
            both = &mut both => break both,
            _ = ticks.tick() => count(),
        }
    };
    count();
    if over.is_cancelled() {
        return Ok(false);
    }
    // Why the receiver stopped says more than that the sender was told.
    let received = received?;
    served?;
    if let Some(problem) = received.problems.first() {
        bail!("{} was not received: {}", problem.path, problem.reason);
    }
    ensure!(received.kept == 1, "{} files arrived where one was sent", received.kept);
    Ok(true)
}

fn has_room(folder: &Path, needed: u64) -> Result<()> {
    let room = rustix::fs::statvfs(folder)
        .with_context(|| format!("{} cannot be used: choose another by --folder", folder.display()))?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    ensure!(
        free >= needed,
        "no room in {}: the files of this worker need {}, {} are free; choose another by --folder, smaller \
         --sizes or fewer --transfers",
        folder.display(),
        ByteSize(needed),
        ByteSize(free)
    );
    Ok(())
}

/// Writes a file that the seed decides.
fn make(path: PathBuf, size: u64, seed: u64) -> Result<Made> {
    use std::io::Write;
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut hasher, mut block, mut left) = (blake3::Hasher::new(), vec![0; BLOCK], size);
    let mut write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&path)?;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
            random.fill_bytes(&mut block[..part]);
            hasher.update(&block[..part]);
            file.write_all(&block[..part])?;
            left -= part as u64;
        }
        Ok(())
    };
    write().with_context(|| {
        format!("{} cannot be written: choose another --folder, or smaller --sizes", path.display())
    })?;
    Ok(Made { path, hash: hasher.finalize() })
}

/// Reads what arrived and holds it against what was sent, then removes it.
fn compare(copy: &Path, sent: blake3::Hash) -> Result<()> {
    let mut hasher = blake3::Hasher::new();
    let read = std::fs::File::open(copy).and_then(|mut file| std::io::copy(&mut file, &mut hasher));
    read.with_context(|| format!("{} cannot be read", copy.display()))?;
    let arrived = hasher.finalize();
    ensure!(arrived == sent, "{} arrived with the hash {arrived}, sent with {sent}", copy.display());
    std::fs::remove_file(copy).with_context(|| format!("{} cannot be removed", copy.display()))
}

fn file_name(path: &Path) -> &std::ffi::OsStr {
    path.file_name().unwrap_or_default()
}
