//! Rounds, and the table of their medians.

use std::fmt;
use std::time::Duration;

use crate::relay::{Cpu, Security, Syscalls};

/// What one round measured.
pub(crate) struct Round {
    /// The relay's CPU time.
    pub(crate) cpu: Cpu,
    /// Data frames that arrived.
    pub(crate) frames: u64,
    /// How long it took.
    pub(crate) took: Duration,
    /// The relay's system calls, where they were counted.
    pub(crate) syscalls: Option<Syscalls>,
    /// Data frames that the relay refused since the pairs began.
    pub(crate) undelivered: u64,
}

impl Round {
    fn micros_per_frame(&self) -> f64 {
        self.cpu.total.as_secs_f64() * 1e6 / self.frames as f64
    }

    fn frames_per_second(&self) -> f64 {
        self.frames as f64 / self.took.as_secs_f64()
    }

    fn busy(&self) -> f64 {
        100.0 * self.cpu.total.as_secs_f64() / self.took.as_secs_f64()
    }

    fn in_kernel(&self) -> f64 {
        let (user, system) = (self.cpu.user.as_secs_f64(), self.cpu.system.as_secs_f64());
        100.0 * system / (user + system)
    }

    fn syscalls_per_frame(&self) -> Option<f64> {
        self.syscalls.as_ref().map(|syscalls| syscalls.total as f64 / self.frames as f64)
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} frames/s, {:.2} µs each, relay busy {:.0} %, {:.0} % of that in the kernel",
            self.frames_per_second(),
            self.micros_per_frame(),
            self.busy(),
            self.in_kernel(),
        )?;
        if self.undelivered > 0 {
            write!(f, ", {} undelivered", self.undelivered)?;
        }
        if let Some(syscalls) = &self.syscalls {
            for (name, calls) in &syscalls.most {
                write!(f, "\n    {name:<16} {:.4} per frame", *calls as f64 / self.frames as f64)?;
            }
        }
        Ok(())
    }
}

/// The rounds of one run.
pub(crate) struct Table {
    title: String,
    rounds: Vec<(Security, Round)>,
}

impl Table {
    /// No rounds yet.
    pub(crate) fn new(title: String) -> Self {
        Self { title, rounds: Vec::new() }
    }

    /// Adds a round.
    pub(crate) fn add(&mut self, security: Security, round: Round) {
        self.rounds.push((security, round));
    }

    fn median(&self, security: Security, figure: impl Fn(&Round) -> f64) -> Option<f64> {
        let mine = self.rounds.iter().filter(|(of, _)| *of == security);
        let mut figures: Vec<f64> = mine.map(|(_, round)| figure(round)).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        writeln!(f, "         frames/s   µs CPU per frame   in kernel   syscalls per frame")?;
        for security in [Security::Clear, Security::Tls] {
            let Some(rate) = self.median(security, Round::frames_per_second) else { continue };
            let micros = self.median(security, Round::micros_per_frame).unwrap_or_default();
            let kernel = self.median(security, Round::in_kernel).unwrap_or_default();
            let counted = self.rounds.iter().any(|(_, round)| round.syscalls.is_some());
            let syscalls = self.median(security, |round| round.syscalls_per_frame().unwrap_or_default());
            let syscalls = syscalls.filter(|_| counted).map_or("-".to_owned(), |each| format!("{each:.3}"));
            // Under strace the CPU time is not the relay's own.
            let micros = if counted { "-".to_owned() } else { format!("{micros:.2}") };
            writeln!(f, "{security:>6} {rate:>10.0} {micros:>18} {kernel:>9.0} % {syscalls:>20}")?;
        }
        Ok(())
    }
}
