//! What a run found, as it is kept and compared.
//!
//! The JSON file is the [`Report`] itself; everything else is a view of it: [`figures()`], the [`table()`] in
//! the terminal, the [`page()`] with plots, [`Threshold`]s, and the comparison of two ([`compare()`]). A view
//! makes up nothing: what was not measured is absent, not zero.

mod compare;
#[cfg(test)]
mod example;
mod figures;
mod file;
mod page;
mod spans;
mod table;
mod threshold;
mod unit;
mod usage;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::measure::Sample;
use crate::scenario::Scenario;

pub use self::compare::compare;
pub use self::figures::{Better, Figure, Group, figure, figures, known, markdown};
pub use self::file::write_atomically;
pub use self::page::page;
pub use self::table::{table, table_in};
pub use self::threshold::Threshold;
pub use self::unit::Unit;

/// Changes when a reader of older files would go wrong.
pub const SCHEMA: u32 = 1;

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`] of the writer.
    pub schema: u32,
    /// Where, when and how.
    pub run: Run,
    /// The load.
    pub scenario: Scenario,
    /// Everything that was counted, by all workers in the whole time that was measured.
    pub total: Sample,
    /// The same, a second each.
    pub timeline: Vec<Sample>,
    /// What the processes used, relays first.
    pub processes: Vec<ProcessUse>,
    /// What was done to the relays and to Redis on purpose.
    pub faults: Vec<Fault>,
    /// Why the run failed, a sentence each; empty when it did not.
    pub failures: Vec<String>,
    /// What a reader should know, a sentence each.
    pub notes: Vec<String>,
}

/// Where, when and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Beginning, in seconds since 1970.
    pub started_at: u64,
    /// The command, secrets masked.
    pub command: String,
    /// Version of this program.
    pub version: String,
    /// Commit that it was built from, if the build knew it.
    pub commit: Option<String>,
    /// Processor, cores, memory, kernel.
    pub machine: String,
    /// What was loaded, in a line: 3 relays with Redis behind haproxy, or the URLs.
    pub target: String,
    /// Worker processes.
    pub workers: usize,
    /// What was not counted.
    pub warm_up: Duration,
    /// What was counted.
    pub measured: Duration,
}

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A relay.
    Relay,
    /// Redis.
    Redis,
    /// haproxy.
    Balancer,
    /// A worker of the load test.
    Load,
}

impl Role {
    /// All of them, in the order in which reports show them.
    pub const ALL: [Role; 4] = [Role::Relay, Role::Redis, Role::Balancer, Role::Load];

    /// Its name in figures.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Relay => "relay",
            Role::Redis => "redis",
            Role::Balancer => "balancer",
            Role::Load => "load",
        }
    }

    /// All processes of it, in a sentence.
    pub const fn plural(self) -> &'static str {
        match self {
            Role::Relay => "all relays",
            Role::Redis => "Redis",
            Role::Balancer => "the balancer",
            Role::Load => "all workers of the load test",
        }
    }
}

/// What one process used while it was measured, from `/proc` or from its own metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessUse {
    /// What it is for.
    pub role: Role,
    /// Its name: relay 1.
    pub name: String,
    /// Resident bytes before the first peer connected.
    pub resident_before: u64,
    /// Its use over time, a second each, from the beginning of what is measured.
    pub points: Vec<UsePoint>,
}

/// What a process used in a span.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct UsePoint {
    /// The end of the span, from the beginning of what is measured.
    pub at: Duration,
    /// Processor time in it; less than in the span before when the process was restarted.
    pub cpu: Duration,
    /// Resident bytes at its end.
    pub resident: u64,
}

/// Something done on purpose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// From the beginning of what is measured.
    pub at: Duration,
    /// How long it lasted, until everything was as before.
    pub lasted: Duration,
    /// A sentence: relay 2 was killed and started again.
    pub what: String,
}

/// Figures that thresholds, comparisons and tables name, in base units (seconds, bytes, 1).
pub type Figures = BTreeMap<String, f64>;
