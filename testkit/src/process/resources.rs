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

/// One thread of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Its id; the first thread has the pid of its process.
    pub id: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Its processor time, in user and in kernel mode, to the nanosecond (`schedstat`).
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

/// The threads that a process has now, the first one first. What ended threads used is not in them.
///
/// # Errors
/// It does not run.
pub fn threads(pid: u32) -> Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/task")).context("the process has ended")? {
        let entry = entry?;
        let id = entry.file_name().to_string_lossy().parse().context("not a thread id")?;
        // A thread that ended since the folder was read is left out.
        let read = |file: &str| std::fs::read_to_string(entry.path().join(file));
        let (Ok(name), Ok(schedstat)) = (read("comm"), read("schedstat")) else { continue };
        let nanoseconds = schedstat.split(' ').next().and_then(|first| first.parse().ok());
        let cpu = Duration::from_nanos(nanoseconds.context("no processor time in schedstat")?);
        threads.push(Thread { id, name: name.trim_end().to_owned(), cpu });
    }
    threads.sort_by_key(|thread| thread.id);
    Ok(threads)
}
