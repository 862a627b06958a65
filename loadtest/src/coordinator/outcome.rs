//! What is left of a run: the table, the files, and whether it went as it should.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use culvert_service_kit::admin::COMMIT;

use super::machine;
use super::run::Measured;
use crate::args::{Output, Settings};
use crate::report::{self, ProcessUse, Report, Role, SCHEMA};
use crate::target::Target;

/// Part of a core from which on a worker's thread is what limits a run.
const BUSY: f64 = 0.9;

/// The files of a report, which can be written as far as that can be known before there is anything to write.
pub(super) struct Files {
    json: Option<PathBuf>,
    html: Option<PathBuf>,
}

impl Files {
    /// Checks that they can be written.
    pub(super) fn of(output: &Output) -> Result<Self> {
        for path in [&output.json, &output.html].into_iter().flatten() {
            ensure_writable(path)?;
        }
        Ok(Self { json: output.json.clone(), html: output.html.clone() })
    }
}

/// Makes a file beside this one, as the writing will, and takes it away again.
fn ensure_writable(path: &Path) -> Result<()> {
    ensure!(!path.is_dir(), "{} is a folder: name a file in it", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let tried = tempfile::tempfile_in(folder).and_then(|mut file| file.write_all(b"culvert"));
    tried.with_context(|| format!("no report can be written to {}", path.display()))
}

/// Everything that is known about a run.
pub(super) fn report(
    settings: &Settings,
    target: &Target,
    started_at: SystemTime,
    measured: Measured,
) -> Result<Report> {
    let Measured { sum, processes, faults, failures, mut notes } = measured;
    notes.extend(processes.iter().filter_map(busy));
    let run = report::Run {
        started_at: started_at.duration_since(UNIX_EPOCH)?.as_secs(),
        command: settings.command.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: COMMIT.map(str::to_owned),
        machine: machine::description(),
        target: target.description().to_owned(),
        workers: settings.crew.size(),
        warm_up: settings.warm_up,
        measured: sum.total.span,
    };
    let scenario = settings.scenario.clone();
    let (total, timeline) = (sum.total, sum.timeline);
    let mut report =
        Report { schema: SCHEMA, run, scenario, total, timeline, processes, faults, failures, notes };
    let judged = report.scenario.judge(&report);
    report.failures.extend(judged);
    Ok(report)
}

/// A note about a worker that was itself the limit.
fn busy(process: &ProcessUse) -> Option<String> {
    let last = process.points.last().filter(|_| process.role == Role::Load)?;
    let cpu: Duration = process.points.iter().map(|point| point.cpu).sum();
    let share = cpu.as_secs_f64() / last.at.as_secs_f64().max(f64::MIN_POSITIVE);
    (share > BUSY).then(|| {
        format!(
            "{} used {:.0} % of a core: the load itself may have been the limit, so that rates are at least \
             these (--workers spreads it)",
            process.name,
            share * 100.0
        )
    })
}

/// Prints the table, writes the files, checks the thresholds; says whether all is well.
pub(super) fn publish(settings: &Settings, files: &Files, mut report: Report) -> Result<bool> {
    let figures = report::figures(&report);
    let broken = settings.output.thresholds.iter().filter_map(|threshold| threshold.check(&figures));
    report.failures.extend(broken.collect::<Vec<_>>());
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", report::table(&report)).context("nobody reads the table")?;
    // One that cannot be written does not keep the other from being written.
    let json = files.json.as_ref().map_or(Ok(()), |path| report.write(path));
    let html = files
        .html
        .as_ref()
        .map_or(Ok(()), |path| report::write_atomically(path, report::page(&report)?.as_bytes()));
    json.and(html)?;
    for path in [&files.json, &files.html].into_iter().flatten() {
        writeln!(out, "{}", path.display()).context("nobody reads the names of the files")?;
    }
    Ok(report.failures.is_empty())
}
