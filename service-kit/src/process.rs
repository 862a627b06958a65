//! What the process uses, as every Prometheus client library reports it, and how many descriptors it may open.
//!
//! The numbers are those of the whole process, read from the kernel when they are asked for. Where there is
//! no `/proc`, those from it stay 0.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

crate::metric_set! {
    /// Series of the process; their names and meanings are those of Prometheus' client libraries.
    pub struct Metrics {
        /// Total user and system CPU time spent in seconds.
        cpu: seconds "process_cpu_seconds_total",
        /// Resident memory size in bytes.
        resident: gauge "process_resident_memory_bytes",
        /// Number of open file descriptors.
        open_files: gauge "process_open_fds",
        /// Maximum number of open file descriptors.
        most_files: gauge "process_max_fds",
        /// Start time of the process since unix epoch in seconds.
        started: gauge "process_start_time_seconds",
    }
}

/// Raises the limit of open descriptors as far as the system lets it, and says if that is not enough for
/// `connections` and the `others`.
///
/// The usual soft limit of 1,024 is for programs that use `select`, not for servers.
pub fn raise_descriptor_limit(connections: usize, others: usize) {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit of open descriptors cannot be raised");
    }
    let needed = u64::try_from(connections.saturating_add(others)).unwrap_or(u64::MAX);
    if let Some(limit) = getrlimit(Resource::Nofile).current
        && limit < needed
    {
        tracing::warn!(
            limit,
            needed,
            "fewer descriptors may be opened than max-connections needs; raise LimitNOFILE or ulimit -n"
        );
    }
}

impl Metrics {
    /// Reads all of them anew.
    pub fn refresh(&self) {
        // Every thread's time by the scheduler's clock, those that have ended included.
        self.cpu.absolute(Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default());
        self.most_files.set(getrlimit(Resource::Nofile).current.map_or(f64::INFINITY, float));
        if let Some(resident) = resident() {
            self.resident.set(float(resident));
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            // The listing itself is one of them.
            self.open_files.set(float(files.count().saturating_sub(1) as u64));
        }
        if let Some(started) = *STARTED {
            self.started.set(started);
        }
    }
}

/// Resident bytes of this process, where there is `/proc`: the second number of statm, in pages
/// (proc_pid_statm(5)).
pub fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Reckoned once: the two clocks never say quite the same, and whoever counts restarts takes every difference for one.
static STARTED: LazyLock<Option<f64>> = LazyLock::new(started);

/// Seconds since 1970 at which the process began: field 22 of stat, in clock ticks since the system's start
/// (proc_pid_stat(5)).
fn started() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the name in parentheses, which may hold blanks.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(22 - 3)?.parse().ok()?;
    let after = float(ticks) / float(rustix::param::clock_ticks_per_second());
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    Some(now - uptime + after)
}

#[expect(clippy::cast_precision_loss, reason = "no process uses 2^53 of anything")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Instant;

    use super::*;
    use crate::metric_set::Registry;

    fn value(registry: &Registry, series: &str) -> f64 {
        let text = registry.render();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
    }

    #[test]
    fn every_series_moves_with_what_the_process_does() {
        let registry = Registry::new();
        let metrics = Metrics::register(registry.recorder());
        metrics.refresh();
        let read = || Metrics::SERIES.iter().map(|series| value(&registry, series.name)).collect::<Vec<_>>();
        let before = read();

        let files: Vec<File> = (0..50).map(|_| File::open("/dev/null").unwrap()).collect();
        let memory = std::hint::black_box(vec![1u8; 64 << 20]);
        let spent = || Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap();
        let (began, until) = (spent(), Instant::now() + Duration::from_secs(60));
        while spent() < began + Duration::from_millis(50) {
            assert!(Instant::now() < until, "this process gets no processor time");
        }
        metrics.refresh();
        let after = read();
        drop((files, memory));

        let moved: Vec<f64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
        assert!(moved[0] >= 0.05, "processor time: {before:?} {after:?}");
        // Other tests of this process may free some meanwhile.
        assert!(moved[1] > f64::from(32 << 20), "resident: {before:?} {after:?}");
        assert!(moved[2] > 25.0, "open files: {before:?} {after:?}");
        assert!(after[3] >= after[2], "most open files: {after:?}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert_eq!(after[4].to_bits(), before[4].to_bits(), "the process began once: {before:?} {after:?}");
        assert!(after[4] <= now + 1.0 && after[4] > now - 3600.0, "started {} before {now}", after[4]);
    }
}
