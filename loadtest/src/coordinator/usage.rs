//! Processor time and memory of everything that takes part, second by second.
//!
//! Here the kernel is asked: the scheduler's clock of each thread, to the nanosecond. Relays elsewhere are
//! asked for their metrics, and workers say it themselves.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use culvert_testkit::process::{resources, threads};
use culvert_testkit::relay::Metrics;
use futures_util::future::join_all;
use tokio::time::timeout;

use crate::args::Admin;
use crate::control::Used;
use crate::report::{ProcessUse, Role, UsePoint};
use crate::target::Member;

/// For one scrape while measuring: what comes later belongs to another second.
const SCRAPE: Duration = Duration::from_millis(900);
/// Series of every admin port, in seconds and bytes.
const SERIES: (&str, &str) = ("process_cpu_seconds_total", "process_resident_memory_bytes");

/// All meters of a run.
pub(super) struct Meters {
    meters: Vec<Meter>,
    per_point: u32,
}

struct Meter {
    source: Source,
    process: ProcessUse,
    /// Scrapes that brought nothing.
    missed: u32,
}

enum Source {
    /// A process of this machine: its pid and the processor time of each of its threads.
    Kernel { pid: Option<u32>, threads: HashMap<u32, Duration> },
    /// An admin port, and the processor time when it was last asked.
    Metrics { admin: Admin, cpu: Duration },
    /// A worker, and its processor time when it last said it.
    Worker { index: usize, cpu: Duration },
}

impl Meters {
    /// Meters for these; what they hold now is what they hold without peers.
    pub(super) async fn new(
        members: &[Member],
        admins: &[Admin],
        workers: impl Iterator<Item = (String, Used)>,
        per_point: u32,
    ) -> Result<Self> {
        let mut meters = Vec::new();
        for member in members {
            let source = Source::Kernel { pid: None, threads: HashMap::new() };
            let resident = member.pid.and_then(|pid| resources(pid).ok()).map_or(0, |now| now.resident);
            meters.push(Meter::new(source, member.role, member.name.clone(), resident));
        }
        for (index, admin) in admins.iter().enumerate() {
            let used = scrape(admin).await.with_context(|| format!("--metrics http://{}", admin.host))?;
            let source = Source::Metrics { admin: admin.clone(), cpu: used.cpu };
            let name = format!("relay {} ({})", index + 1, admin.host);
            meters.push(Meter::new(source, Role::Relay, name, used.resident));
        }
        for (index, (name, used)) in workers.enumerate() {
            let source = Source::Worker { index, cpu: used.cpu };
            meters.push(Meter::new(source, Role::Load, name, used.resident));
        }
        Ok(Self { meters, per_point })
    }

    /// Reads all but the workers: `number` seconds of what is measured have passed, `at` exactly; 0 begins
    /// it. Gives the processor time of the relays since the last time.
    pub(super) async fn read(&mut self, members: &[Member], number: u32, at: Duration) -> Duration {
        let per_point = self.per_point;
        let reads = self.meters.iter_mut().map(|meter| async move {
            let member = members.iter().find(|member| member.name == meter.process.name);
            let Some((cpu, resident)) = meter.source.read(member).await else {
                meter.missed += u32::from(matches!(meter.source, Source::Metrics { .. }));
                return Duration::ZERO;
            };
            if number > 0 {
                meter.point(number, per_point, UsePoint { at, cpu, resident });
            }
            if meter.process.role == Role::Relay { cpu } else { Duration::ZERO }
        });
        join_all(reads).await.into_iter().sum()
    }

    /// A worker says what it has used so far; `second` of what is measured, if it is one.
    pub(super) fn worker(&mut self, worker: usize, used: Used, second: Option<(u32, Duration)>) {
        let per_point = self.per_point;
        for meter in &mut self.meters {
            let Source::Worker { index, cpu } = &mut meter.source else { continue };
            if *index == worker {
                let spent = used.cpu.saturating_sub(std::mem::replace(cpu, used.cpu));
                if let Some((number, at)) = second {
                    meter.point(number, per_point, UsePoint { at, cpu: spent, resident: used.resident });
                }
            }
        }
    }

    /// What all of them used, and notes about what is not known.
    pub(super) fn end(self) -> (Vec<ProcessUse>, Vec<String>) {
        let missed = self.meters.iter().filter(|meter| meter.missed > 0);
        let notes = missed.map(|meter| {
            format!("the metrics of {} did not come {} times", meter.process.name, meter.missed)
        });
        let notes = notes.collect();
        (self.meters.into_iter().map(|meter| meter.process).collect(), notes)
    }
}

impl Meter {
    fn new(source: Source, role: Role, name: String, resident_before: u64) -> Self {
        let process = ProcessUse { role, name, resident_before, points: Vec::new() };
        Self { source, process, missed: 0 }
    }

    /// Adds a second; of long runs several become one point, which has the highest memory of them.
    fn point(&mut self, number: u32, per_point: u32, point: UsePoint) {
        let is_new = (number - 1).is_multiple_of(per_point) || self.process.points.is_empty();
        match self.process.points.last_mut().filter(|_| !is_new) {
            Some(last) => {
                last.at = point.at;
                last.cpu += point.cpu;
                last.resident = last.resident.max(point.resident);
            }
            None => self.process.points.push(point),
        }
    }
}

impl Source {
    /// Processor time since the last reading, and resident bytes; `None` if they are not to be had.
    async fn read(&mut self, member: Option<&Member>) -> Option<(Duration, u64)> {
        match self {
            Source::Kernel { pid, threads: known } => {
                let now = member?.pid?;
                if *pid != Some(now) {
                    // Another process since then: all that it has used is new.
                    known.clear();
                }
                let is_first = pid.replace(now).is_none();
                let mut spent = Duration::ZERO;
                for thread in threads(now).ok()? {
                    // A thread with less than before is another one with the same id.
                    let before = known.insert(thread.id, thread.cpu).filter(|before| *before <= thread.cpu);
                    spent += thread.cpu - before.unwrap_or_default();
                }
                let resident = resources(now).ok()?.resident;
                Some((if is_first { Duration::ZERO } else { spent }, resident))
            }
            Source::Metrics { admin, cpu } => {
                let used = timeout(SCRAPE, scrape(admin)).await.ok()?.ok()?;
                let before = std::mem::replace(cpu, used.cpu);
                // A relay that was restarted counts from 0 again.
                let spent = if used.cpu < before { used.cpu } else { used.cpu - before };
                Some((spent, used.resident))
            }
            Source::Worker { .. } => None,
        }
    }
}

async fn scrape(admin: &Admin) -> Result<Used> {
    let address = tokio::net::lookup_host(&admin.host).await?.next().context("it has no address")?;
    let metrics = Metrics::scrape(address).await?;
    for name in [SERIES.0, SERIES.1] {
        ensure!(metrics.text().contains(name), "its /metrics have no {name}: is it an older relay?");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes are whole")]
    let resident = metrics.sum(SERIES.1, &[]).max(0.0) as u64;
    let cpu = Duration::try_from_secs_f64(metrics.sum(SERIES.0, &[])).context("no processor time")?;
    Ok(Used { cpu, resident })
}
