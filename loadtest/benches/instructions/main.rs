//! Instructions of the hot path, counted by callgrind and held against the counts of the last commit.
//!
//! Time wobbles with whatever else a machine does; instructions do not. Each case runs in a process of its
//! own under `valgrind --tool=callgrind`, which counts between the beginning and the end of
//! [`meter::callgrind_counts_this`] only. The counts of user space are all that is seen: a system call costs
//! what the program does for it, not what the kernel does.
//!
//! ```text
//! cargo bench -p culvert-loadtest --bench instructions               # fails where a count has grown by 5 %
//! cargo bench -p culvert-loadtest --bench instructions -- --refresh  # writes the counts as they are now
//! ```
//!
//! The counts are in `instructions.txt` beside this folder. They are those of x86-64 and of one compiler:
//! a new toolchain, or a C library with other copying loops, may move them by more, and then they are
//! written anew in a commit of their own.
#![allow(clippy::print_stdout, reason = "its result is what it prints")]

mod cases;
mod counts;
mod meter;
mod path;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use tempfile::TempDir;

use crate::counts::Counts;
use crate::meter::Meter;

/// What a count may grow by before the check fails, in percent.
const TOLERANCE: f64 = 5.0;
/// Cases that run at the same time.
const AT_ONCE: usize = 2;

#[derive(Parser)]
struct Args {
    /// Writes the counts as they are now, instead of checking them.
    #[arg(long)]
    refresh: bool,
    /// Runs one case, as a process of its own.
    #[arg(long, hide = true)]
    case: Option<String>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    /// Only cases whose name contains this.
    filter: Option<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(name) = &args.case {
        let mut meter = Meter::default();
        cases::run(name, &mut meter)?;
        println!("{}", meter.operations());
        return Ok(());
    }
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the counts are those of x86-64; on other processors they mean nothing"
    );
    let valgrind = Path::new("/usr/bin/valgrind");
    ensure!(valgrind.is_file(), "valgrind is missing; run: apt-get install --no-install-recommends valgrind");
    let counted = count(valgrind, args.filter.as_deref())?;
    let file = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt"));
    if args.refresh {
        ensure!(args.filter.is_none(), "all counts are written, or none");
        return counted.write(&file);
    }
    check(&Counts::read(&file)?, &counted)
}

/// Runs every case.
fn count(valgrind: &Path, filter: Option<&str>) -> Result<Counts> {
    let names: Vec<&str> =
        cases::names().filter(|name| filter.is_none_or(|part| name.contains(part))).collect();
    ensure!(!names.is_empty(), "no case has such a name");
    let mut counted = Counts::default();
    for some in names.chunks(AT_ONCE) {
        let running: Vec<Result<u64>> = std::thread::scope(|scope| {
            let threads: Vec<_> = some.iter().map(|name| scope.spawn(|| count_one(valgrind, name))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
                .collect()
        });
        for (name, count) in some.iter().zip(running) {
            counted.add(name, count.with_context(|| format!("the case {name:?}"))?);
        }
    }
    Ok(counted)
}

/// Instructions of one operation.
fn count_one(valgrind: &Path, name: &str) -> Result<u64> {
    let files = TempDir::new()?;
    let out = files.path().join("callgrind.out");
    let run = Command::new(valgrind)
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*callgrind_counts_this*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["--case", name])
        .stdin(Stdio::null())
        .output()?;
    ensure!(run.status.success(), "it failed:\n{}", String::from_utf8_lossy(&run.stderr));
    let operations: u64 =
        String::from_utf8(run.stdout)?.trim().parse().context("it did not say how often")?;
    ensure!(operations > 0, "it counted nothing");
    let text = std::fs::read_to_string(&out)?;
    let total =
        text.lines().find_map(|line| line.strip_prefix("totals: ")).context("callgrind gave no total")?;
    let total: u64 = total.trim().parse()?;
    ensure!(total > 0, "callgrind saw no instruction: is the counted function inlined?");
    Ok(total / operations)
}

fn check(kept: &Counts, counted: &Counts) -> Result<()> {
    let (mut grown, mut shrunk) = (Vec::new(), false);
    println!("{:<44} {:>12} {:>12}", "instructions", "kept", "now");
    for (name, now) in counted.iter() {
        let Some(before) = kept.get(name) else {
            println!("{name:<44} {:>12} {now:>12}  new", "-");
            grown.push(name);
            continue;
        };
        let change = 100.0 * (now as f64 / before as f64 - 1.0);
        println!("{name:<44} {before:>12} {now:>12}  {change:+.1} %");
        if change > TOLERANCE {
            grown.push(name);
        }
        shrunk |= change < -TOLERANCE;
    }
    if shrunk {
        println!("some need less than was kept; --refresh keeps the gain");
    }
    ensure!(
        grown.is_empty(),
        "more instructions than was kept, by more than {TOLERANCE} %, or not known: {}.\nWhere that is meant: \
         cargo bench -p culvert-loadtest --bench instructions -- --refresh, and commit what it writes",
        grown.join("; ")
    );
    Ok(())
}
