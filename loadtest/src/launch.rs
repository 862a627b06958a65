//! How every child of a run is started: `culvert-loadtest launch … PROGRAM ARGUMENTS`, which becomes the
//! program (execve) once it has bound itself to
//!
//! - the life of the coordinator: the kernel kills it when that ends, however it ends (prctl(2),
//!   `PR_SET_PDEATHSIG`, which an execve keeps);
//! - a process group of its own, so that a Ctrl-C reaches the coordinator alone and the run ends in order;
//! - its cores, with `--pin`.
//!
//! The signal is sent when the *thread* ends that started the child, so the coordinator starts all of them
//! from its main thread, on which its whole runtime is.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use culvert_testkit::process::Program;
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal, setpgid};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The name of the hidden command.
pub const COMMAND: &str = "launch";
/// Stands for all cores.
const ANY_CORE: &str = "any";

/// Which cores a child may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cores {
    /// Those that the coordinator may use.
    Any,
    /// These.
    These(Vec<usize>),
}

/// This program itself, as it was started.
///
/// # Errors
/// The system does not say which file it is.
pub fn itself() -> Result<Program> {
    let path = std::env::current_exe().context("this program does not know its own file")?;
    Ok(Program::from(path))
}

/// What starts a child of this process on these cores.
///
/// # Errors
/// As for [`itself`].
pub fn starter(cores: &Cores) -> Result<Program> {
    let cores = match cores {
        Cores::Any => ANY_CORE.to_owned(),
        Cores::These(cores) => cores.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
    };
    let own = getpid().as_raw_nonzero().to_string();
    Ok(itself()?.arg(COMMAND).arg(own).arg(cores))
}

/// The first core of this process for the target, the others for the load.
///
/// # Errors
/// There is only one core.
pub fn pinned() -> Result<(Cores, Cores)> {
    let mine = sched_getaffinity(None).context("the cores of this process are not known")?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| mine.is_set(*core));
    let first = cores.next().context("this process has no core")?;
    let rest: Vec<usize> = cores.collect();
    ensure!(!rest.is_empty(), "--pin needs two cores, and this process may use one");
    Ok((Cores::These(vec![first]), Cores::These(rest)))
}

/// Becomes the program that the arguments name; returns only why it could not.
///
/// # Errors
/// The arguments are wrong, whoever started it is gone, or the program does not start.
pub fn main(mut args: impl Iterator<Item = OsString>) -> Result<()> {
    let mut next = || args.next().and_then(|arg| arg.into_string().ok()).context("an argument is missing");
    let (parent, cores, program) = (next()?.parse::<i32>()?, next()?, next()?);
    set_parent_process_death_signal(Some(Signal::KILL)).context("no signal at the coordinator's end")?;
    // It may have ended before the line above.
    ensure!(getppid() == Pid::from_raw(parent), "the coordinator has ended");
    setpgid(None, None).context("no process group of its own")?;
    if cores != ANY_CORE {
        let mut set = CpuSet::new();
        for core in cores.split(',') {
            set.set(core.parse().context("not a core")?);
        }
        sched_setaffinity(None, &set).with_context(|| format!("cannot be bound to the cores {cores}"))?;
    }
    let error = Command::new(&program).args(args).exec();
    bail!("{program} does not start: {error}")
}
