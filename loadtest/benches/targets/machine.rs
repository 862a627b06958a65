//! The two cores, processor time and memory.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use culvert_testkit::process::threads;
use rustix::thread::{CpuSet, sched_setaffinity};

/// The core of what is measured.
pub(crate) const MEASURED: usize = 0;
/// The core of the load.
pub(crate) const LOAD: usize = 1;

/// Keeps this thread, and every process that it starts from now on, on a core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("core {core} cannot be used"))
}

/// Starts something on the core of what is measured. Nothing else may run in this thread meanwhile.
pub(crate) async fn beside<T>(start: impl Future<Output = Result<T>>) -> Result<T> {
    pin(MEASURED)?;
    let started = start.await;
    pin(LOAD)?;
    started
}

/// Whether there are two cores.
pub(crate) fn check() -> Result<()> {
    let cores = rustix::thread::sched_getaffinity(None)?;
    ensure!(
        cores.is_set(MEASURED) && cores.is_set(LOAD),
        "this benchmark needs cores {MEASURED} and {LOAD}: one for what is measured, one for the load"
    );
    Ok(())
}

/// Processor time of all threads of a process so far, by the scheduler's clock.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    Ok(threads(pid)?.iter().map(|thread| thread.cpu).sum())
}

/// The middle one, or the lower of the two middle ones.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

/// The value below which this part of sorted values is.
pub(crate) fn quantile(sorted: &[f64], part: f64) -> f64 {
    let rank = (part * sorted.len() as f64).ceil().max(1.0);
    // Ranks are small whole numbers.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and the length")]
    let rank = rank as usize;
    sorted.get(rank.min(sorted.len()).saturating_sub(1)).copied().unwrap_or_default()
}
