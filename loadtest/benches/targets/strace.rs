//! System calls of a process, counted by strace.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use culvert_testkit::process::{Plan, Process, Signal};
use tempfile::TempDir;

/// Longest wait for strace to attach or to end.
const SOON: Duration = Duration::from_secs(10);
/// Names that are listed.
const LISTED: usize = 5;

/// System calls that were counted.
pub(crate) struct Syscalls {
    /// In all.
    pub(crate) total: u64,
    /// By name, the most frequent first.
    pub(crate) most: Vec<(String, u64)>,
}

/// strace, attached to a process.
pub(crate) struct Tracer {
    process: Process,
    files: TempDir,
}

/// Attaches it to all threads of a process.
pub(crate) async fn trace(pid: u32) -> Result<Tracer> {
    let files = TempDir::new()?;
    let program = PathBuf::from("/usr/bin/strace");
    ensure!(program.is_file(), "strace is missing; run: apt-get install --no-install-recommends strace");
    let process = Plan::new("strace", program)
        .args(["-c", "-f", "-qq", "-o"])
        .arg(files.path().join("counts"))
        .args(["-p", &pid.to_string()])
        .start()?;
    let attached = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        loop {
            ticks.tick().await;
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            if !status.lines().any(|line| line == "TracerPid:\t0") {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(SOON, attached).await.map_err(|_| process.failure("does not attach"))??;
    Ok(Tracer { process, files })
}

impl Tracer {
    /// Detaches and gives what was counted.
    pub(crate) async fn finish(mut self) -> Result<Syscalls> {
        self.process.signal(Signal::INT)?;
        self.process.wait(SOON).await?;
        let text = std::fs::read_to_string(self.files.path().join("counts"))?;
        let mut syscalls = Syscalls { total: 0, most: Vec::new() };
        for line in text.lines() {
            // % time, seconds, µs a call, calls, perhaps errors, name.
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (Some(calls), Some(name)) = (fields.get(3), fields.last()) else { continue };
            let Ok(calls) = calls.parse::<u64>() else { continue };
            if *name == "total" {
                syscalls.total = calls;
            } else {
                syscalls.most.push(((*name).to_owned(), calls));
            }
        }
        ensure!(syscalls.total > 0, "strace counted nothing:\n{text}");
        syscalls.most.sort_by_key(|(_, calls)| std::cmp::Reverse(*calls));
        syscalls.most.truncate(LISTED);
        Ok(syscalls)
    }
}
