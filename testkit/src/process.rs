//! Child processes that never outlive their test, and whose last words are shown when it fails.
//!
//! A process is ready when it says so (a line of output) or when its port answers, never after a guess
//! of time. What it prints is kept, is part of every error of this module, and is printed when the test
//! panics while the process runs.

mod output;
mod ports;
mod program;
mod resources;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

pub use output::{Line, Output, Source};
pub use ports::free_port;
pub use program::Program;
pub use resources::{Resources, Thread, resources, threads};
pub use rustix::process::Signal;

/// How often a port is tried and a process' memory is read.
const POLL: Duration = Duration::from_millis(20);

/// A running child; killed, by its pid, when dropped.
pub struct Process {
    name: String,
    child: Child,
    pid: u32,
    stdin: Option<ChildStdin>,
    output: Output,
    /// Readers of its output and the watch over its memory.
    _tasks: JoinSet<()>,
}

/// What to start, with the environment reduced to what tests state.
pub struct Plan {
    name: String,
    command: Command,
    stdin: Stdio,
}

impl Plan {
    /// A program with no arguments yet but its own. Proxy and Culvert settings of the caller's environment do not
    /// reach it.
    pub fn new(name: &str, program: impl Into<Program>) -> Self {
        let program = program.into();
        let mut command = Command::new(program.path());
        command.args(program.args());
        for (key, _) in std::env::vars_os() {
            let name = key.to_string_lossy().to_ascii_uppercase();
            if name.ends_with("_PROXY") || name.starts_with("CULVERT_") || name.starts_with("SSL_CERT_") {
                command.env_remove(&key);
            }
        }
        Self { name: name.to_owned(), command, stdin: Stdio::null() }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// One more environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// The folder it runs in.
    #[must_use]
    pub fn current_dir(mut self, folder: impl AsRef<Path>) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Keeps its standard input open, for [`Process::feed`]. Otherwise it has none.
    #[must_use]
    pub fn with_stdin(mut self) -> Self {
        self.stdin = Stdio::piped();
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// The program is missing or may not be run.
    pub fn start(mut self) -> Result<Process> {
        self.command.stdin(self.stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = self.command.spawn().with_context(|| format!("{} does not start", self.name))?;
        let pid = child.id().context("a process that was just started has a pid")?;
        let (output, mut tasks) = (Output::default(), JoinSet::new());
        if let Some(stdout) = child.stdout.take() {
            tasks.spawn(output.clone().collect(Source::Stdout, stdout));
        }
        if let Some(stderr) = child.stderr.take() {
            tasks.spawn(output.clone().collect(Source::Stderr, stderr));
        }
        let stdin = child.stdin.take();
        Ok(Process { name: self.name, child, pid, stdin, output, _tasks: tasks })
    }
}

impl Process {
    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it has printed so far.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Waits for a line on which `wanted` gives something; lines printed before the call count.
    ///
    /// # Errors
    /// None came within `deadline`, or the process ended first. The error shows the output.
    pub async fn line<T>(&self, deadline: Duration, wanted: impl Fn(&str) -> Option<T>) -> Result<T> {
        match tokio::time::timeout(deadline, self.output.find(wanted)).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(self.failure("ended before it printed the expected line")),
            Err(_) => Err(self.failure(&format!("did not print the expected line within {deadline:?}"))),
        }
    }

    /// Waits until something accepts connections on its port.
    ///
    /// # Errors
    /// Nothing does within `deadline`, or the process ended first. The error shows the output.
    pub async fn answers(&mut self, addr: SocketAddr, deadline: Duration) -> Result<()> {
        let until = Instant::now() + deadline;
        let mut ticks = interval(POLL);
        while Instant::now() < until {
            ticks.tick().await;
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failure(&format!("ended with {status} before {addr} answered")));
            }
            if TcpStream::connect(addr).await.is_ok() {
                return Ok(());
            }
        }
        Err(self.failure(&format!("does not answer on {addr} after {deadline:?}")))
    }

    /// Writes to its standard input.
    ///
    /// # Errors
    /// It was started without one, or has closed it.
    pub async fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        let stdin = self.stdin.as_mut().context("started without standard input")?;
        stdin.write_all(bytes).await?;
        stdin.flush().await?;
        Ok(())
    }

    /// Ends its standard input.
    pub fn end_stdin(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal to it.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let running = self.child.id().context("the process has ended")?;
        let pid = i32::try_from(running).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.context("not a pid")?, signal)?;
        Ok(())
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await?;
        Ok(())
    }

    /// Waits for its end by itself; its whole output is there then.
    ///
    /// # Errors
    /// It still runs after `deadline`. The error shows the output.
    pub async fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let ended = async {
            let status = self.child.wait().await?;
            self.output.ended().await;
            Ok(status)
        };
        match tokio::time::timeout(deadline, ended).await {
            Ok(status) => status,
            Err(_) => Err(self.failure(&format!("still runs after {deadline:?}"))),
        }
    }

    /// Waits for its end by itself, which must be a success.
    ///
    /// # Errors
    /// It fails, or still runs after `deadline`. The error shows the output.
    pub async fn succeeds(&mut self, deadline: Duration) -> Result<()> {
        let status = self.wait(deadline).await?;
        if !status.success() {
            bail!(self.failure(&format!("ended with {status}")));
        }
        Ok(())
    }

    /// Memory and processor time up to now.
    ///
    /// # Errors
    /// It has ended.
    pub fn resources(&self) -> Result<Resources> {
        resources(self.pid)
    }

    /// The threads that it has now, with the processor time of each.
    ///
    /// # Errors
    /// It has ended.
    pub fn threads(&self) -> Result<Vec<Thread>> {
        threads(self.pid)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// An error that shows the output.
    pub fn failure(&self, what: &str) -> anyhow::Error {
        anyhow!("{} {what}; it printed:\n{}", self.name, self.output.tail())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "the test harness shows it with the failed test")]
            {
                eprintln!("--- {} ({}) printed:\n{}---", self.name, self.pid, self.output.tail());
            }
        }
    }
}

/// The peak memory of a process that will end by itself: reads it until the end.
///
/// The kernel forgets it when the process is gone, so the last reading is up to 20 ms old.
pub async fn peak_resident(pid: u32) -> u64 {
    let mut peak = 0;
    let mut ticks = interval(POLL);
    loop {
        ticks.tick().await;
        match resources(pid) {
            Ok(now) => peak = peak.max(now.peak_resident),
            Err(_) => return peak,
        }
    }
}

/// Lets this process open so many files and sockets beside the usual ones.
///
/// # Errors
/// The system's hard limit is lower; the error says how to raise it.
pub fn allow_open_files(count: u64) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = count + 256;
    if limit.current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit })
            .with_context(|| format!("cannot open {wanted} files; raise the hard limit, see ulimit -Hn"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
