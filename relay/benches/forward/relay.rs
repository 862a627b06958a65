//! The relay's process: started on core 0, measured through `/proc`, traced by strace.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// Ticks a second in `/proc/PID/stat`; fixed on Linux for user space.
const TICKS: u64 = 100;

/// With or without TLS.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Security {
    /// Plain text.
    Clear,
    /// TLS 1.3.
    Tls,
}

impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Security::Clear => "clear",
            Security::Tls => "TLS",
        })
    }
}

/// A running relay.
pub(crate) struct Relay {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// The name it is known by.
    pub(crate) host: &'static str,
    /// Trust in its certificate; `None` in clear text.
    pub(crate) trust: Option<Arc<ClientConfig>>,
    process: Child,
    _files: TempDir,
}

/// CPU time of a process.
#[derive(Clone, Copy)]
pub(crate) struct Cpu {
    /// By the scheduler's clock, in nanoseconds.
    pub(crate) total: Duration,
    /// In user space, by ticks.
    pub(crate) user: Duration,
    /// In the kernel, by ticks.
    pub(crate) system: Duration,
}

impl Cpu {
    /// CPU time of all threads of a process so far.
    pub(crate) fn of(process: u32) -> Result<Cpu> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{process}/task"))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            nanoseconds += text.split(' ').next().context("schedstat")?.parse::<u64>()?;
        }
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The name in parentheses may hold blanks; user and system time are the 14th and 15th field.
        let fields: Vec<&str> = stat.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
        let ticks = |field: usize| -> Result<Duration> {
            let ticks: u64 = fields.get(field - 3).context("stat")?.parse()?;
            Ok(Duration::from_millis(ticks * 1000 / TICKS))
        };
        Ok(Cpu { total: Duration::from_nanos(nanoseconds), user: ticks(14)?, system: ticks(15)? })
    }

    /// What was used since.
    pub(crate) fn since(self, before: Cpu) -> Cpu {
        Cpu {
            total: self.total - before.total,
            user: self.user - before.user,
            system: self.system - before.system,
        }
    }
}

/// System calls that strace counted.
pub(crate) struct Syscalls {
    /// In all.
    pub(crate) total: u64,
    /// By name, the most frequent first.
    pub(crate) most: Vec<(String, u64)>,
}

/// strace, attached to the relay.
pub(crate) struct Tracer {
    process: Child,
    files: TempDir,
}

impl Relay {
    /// Starts it and waits until it accepts connections.
    pub(crate) async fn start(binary: &Path, security: Security, more: &[String]) -> Result<Self> {
        let files = TempDir::new()?;
        let addr = free_port()?;
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(binary).args(["--listen", &addr.to_string()]);
        let trust = match security {
            Security::Clear => {
                command.arg("--plain-text");
                None
            }
            Security::Tls => Some(certificate(files.path(), &mut command)?),
        };
        command
            .args(["--open", "--names", "localhost", "--admin-listen", "none", "--log", "error"])
            .args(more);
        let process = command.stdin(Stdio::null()).spawn().context("taskset (package util-linux)")?;
        let mut relay = Self { addr, host: "localhost", trust, process, _files: files };
        while TcpStream::connect(addr).await.is_err() {
            if let Some(status) = relay.process.try_wait()? {
                bail!("the relay ended at once: {status}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(relay)
    }

    fn read(&self, file: &str) -> Result<String> {
        Ok(fs::read_to_string(format!("/proc/{}/{file}", self.process.id()))?)
    }

    /// CPU time of all its threads so far.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        Cpu::of(self.process.id())
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// Attaches strace to all its threads.
    pub(crate) async fn trace(&self) -> Result<Tracer> {
        let files = TempDir::new()?;
        let process = Command::new("strace")
            .args(["-c", "-f", "-qq", "-o"])
            .arg(files.path().join("counts"))
            .args(["-p", &self.process.id().to_string()])
            .spawn()
            .context("strace (package strace)")?;
        let tracer = Tracer { process, files };
        while self.read("status")?.lines().any(|line| line == "TracerPid:\t0") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(tracer)
    }

    /// Ends it.
    pub(crate) fn stop(mut self) -> Result<()> {
        ensure!(self.process.try_wait()?.is_none(), "the relay ended under load");
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

/// A benchmark that fails leaves no relay behind.
impl Drop for Relay {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _gone = self.process.kill();
            let _reaped = self.process.wait();
        }
    }
}

impl Tracer {
    /// Detaches and gives what was counted.
    pub(crate) async fn finish(mut self) -> Result<Syscalls> {
        Command::new("kill").args(["-INT", &self.process.id().to_string()]).status()?;
        while self.process.try_wait()?.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let text = fs::read_to_string(self.files.path().join("counts"))?;
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
        syscalls.most.truncate(6);
        Ok(syscalls)
    }
}

fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn certificate(folder: &Path, command: &mut Command) -> Result<Arc<ClientConfig>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let (chain, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    fs::write(&chain, made.cert.pem())?;
    fs::write(&key, made.signing_key.serialize_pem())?;
    command.arg("--tls-certificate").arg(chain).arg("--tls-key").arg(key);
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone())?;
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    // A session ticket per handshake would be kept for connections that never come back.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}
