//! Memory and processor time of a process, as the kernel counts them (proc(5)).

use std::time::Duration;

use anyhow::{Context, Result};

/// What a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Resident bytes now (`VmRSS`).
    pub resident: u64,
    /// Most resident bytes so far (`VmHWM`).
    pub peak_resident: u64,
    /// Processor time of all its threads, in user and in kernel mode.
    pub cpu: Duration,
}

/// Reads them for a process of this machine.
///
/// # Errors
/// It does not run.
pub fn resources(pid: u32) -> Result<Resources> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let number =
            line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|n| n.parse::<u64>().ok());
        number.map(|kib| kib * 1024).with_context(|| format!("no {key} of a process that has ended"))
    };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the process has ended")?;
    // The name, in parentheses, may hold spaces; utime and stime are fields 14 and 15 (proc_pid_stat(5)).
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|n| n.parse::<u64>().ok());
    let ticks = ticks(14).zip(ticks(15)).map(|(user, system)| user + system).context("no times in stat")?;
    let cpu = Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second())?;
    Ok(Resources { resident: kib("VmRSS:")?, peak_resident: kib("VmHWM:")?, cpu })
}
