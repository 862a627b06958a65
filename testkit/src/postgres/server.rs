//! One `postgres`.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::binaries::Missing;
use crate::process::{Plan, Process, Program, Signal, Source, free_port};

/// Where Debian puts the programs of a major version, and the package that brings them.
const VERSIONS: &str = "/usr/lib/postgresql";
const PACKAGE: &str = "postgresql";
/// `nobody`: the server refuses to run as root.
const NOBODY: u32 = 65_534;
/// Making a cluster takes 2 s on an idle machine, recovery after a crash a second.
const READY: Duration = Duration::from_secs(60);
/// One administrative command, such as `createdb`.
const COMMAND: Duration = Duration::from_secs(60);

/// What a `postgres` is started with.
pub struct PostgresPlan {
    programs: PathBuf,
    folder: TempDir,
    port: u16,
    settings: Vec<(String, String)>,
}

/// A running `postgres`, or one that was stopped and can be started again; killed when dropped.
pub struct PostgresServer {
    plan: PostgresPlan,
    process: Option<Process>,
    databases: AtomicU32,
}

impl PostgresPlan {
    /// A server that asks nobody who they are.
    ///
    /// # Errors
    /// It is not installed, or no port is free.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("culvert-postgres-").tempdir()?;
        if is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY))?;
        }
        let plan = Self { programs: programs()?, folder, port: free_port()?, settings: Vec::new() };
        let sockets = plan.folder.path().display().to_string();
        Ok(plan
            .set("listen_addresses", "127.0.0.1")
            .set("unix_socket_directories", &sockets)
            .set("max_connections", "300")
            .set("fsync", "off")
            .set("full_page_writes", "off"))
    }

    /// One more setting, as in `postgresql.conf`.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Where it will listen.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Makes its cluster, starts it and waits until it answers.
    ///
    /// # Errors
    /// It does not start; the error shows what it printed.
    pub async fn start(self) -> Result<PostgresServer> {
        let plan = Plan::new("initdb", self.program("initdb"))
            .arg("--pgdata")
            .arg(self.data())
            .args(["--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--no-locale"])
            .current_dir(self.folder.path());
        plan.start()?.succeeds(READY).await?;
        let mut server = PostgresServer { plan: self, process: None, databases: AtomicU32::new(0) };
        server.start_again().await?;
        Ok(server)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn program(&self, name: &str) -> Program {
        let program = Program::from(self.programs.join(name));
        if !is_root() {
            return program;
        }
        let nobody = NOBODY.to_string();
        let starter = Program::from("/usr/bin/setpriv").arg("--reuid").arg(&nobody).arg("--regid");
        program.started_by(&starter.arg(&nobody).arg("--clear-groups"))
    }

    async fn spawn(&self) -> Result<Process> {
        let mut plan = Plan::new("postgres", self.program("postgres"))
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string()])
            .current_dir(self.folder.path());
        for (name, value) in &self.settings {
            plan = plan.args(["-c", &format!("{name}={value}")]);
        }
        let process = plan.start()?;
        // It listens before it has recovered, so that its port says nothing.
        let ready =
            |line: &str| line.contains("database system is ready to accept connections").then_some(());
        process.line(READY, ready).await?;
        Ok(process)
    }
}

impl PostgresServer {
    /// A server that tests of this process share; the last one to let go of it ends it.
    ///
    /// # Errors
    /// It is not installed or does not start.
    pub async fn shared() -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<PostgresServer>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(server) = shared.upgrade() {
            return Ok(server);
        }
        let server = Arc::new(PostgresPlan::new()?.start().await?);
        *shared = Arc::downgrade(&server);
        Ok(server)
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.plan.addr()
    }

    /// A new, empty database: its URL.
    ///
    /// # Errors
    /// The server does not run, or refuses.
    pub async fn create_database(&self) -> Result<String> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let plan = Plan::new("createdb", self.plan.program("createdb"))
            .args(["-h", "127.0.0.1", "-U", "postgres", "-p", &self.plan.port.to_string(), &name])
            .current_dir(self.plan.folder.path());
        plan.start()?.succeeds(COMMAND).await?;
        Ok(format!("postgres://postgres@{}/{name}", self.addr()))
    }

    /// Says in SQL what the server is to do, as its superuser, and gives what `psql` prints: the fields of a
    /// row separated by `|`, one row per line.
    ///
    /// # Errors
    /// It does not run, or refuses.
    pub async fn ask(&self, url: &str, sql: &str) -> Result<String> {
        let plan = Plan::new("psql", self.plan.program("psql"))
            .args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql, url])
            .current_dir(self.plan.folder.path());
        let mut psql = plan.start()?;
        psql.succeeds(COMMAND).await?;
        Ok(psql.output().text(Source::Stdout).trim_end().to_owned())
    }

    /// Everything that is in a database, as `pg_dump` writes it: what somebody has who stole it.
    ///
    /// # Errors
    /// The server does not run, or refuses.
    pub async fn dump(&self, url: &str) -> Result<String> {
        let plan = Plan::new("pg_dump", self.plan.program("pg_dump"))
            .args(["--inserts", url])
            .current_dir(self.plan.folder.path());
        let mut dump = plan.start()?;
        dump.succeeds(COMMAND).await?;
        Ok(dump.output().text(Source::Stdout))
    }

    /// `kill -9` of the server and every process it has started: as when the power goes.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub async fn kill(&mut self) -> Result<()> {
        let Some(process) = self.process.take() else { return Ok(()) };
        let backends = backends(&process);
        process.kill().await?;
        for backend in &backends {
            signal(*backend, Signal::KILL);
        }
        // A new server refuses to start while a process of the old one holds its memory.
        let until = tokio::time::Instant::now() + COMMAND;
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        while backends.iter().any(|pid| is_alive(*pid)) {
            ensure!(tokio::time::Instant::now() < until, "processes of postgres survive kill -9");
            ticks.tick().await;
        }
        Ok(())
    }

    /// Ends it in order: connections are cut off, transactions rolled back.
    ///
    /// # Errors
    /// It does not end.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.signal(Signal::INT)?;
        process.succeeds(COMMAND).await
    }

    /// Starts it on the same port, with what was committed, after it was stopped or killed.
    ///
    /// # Errors
    /// It runs, or does not start.
    pub async fn start_again(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "postgres on {} runs", self.addr());
        self.process = Some(self.plan.spawn().await?);
        Ok(())
    }

    /// `SIGSTOP`: its connections stay up, and nothing answers.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> Result<()> {
        self.process()?.signal(Signal::STOP)?;
        backends(self.process()?).into_iter().for_each(|pid| signal(pid, Signal::STOP));
        Ok(())
    }

    /// `SIGCONT`: it goes on where it was paused.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> Result<()> {
        backends(self.process()?).into_iter().for_each(|pid| signal(pid, Signal::CONT));
        self.process()?.signal(Signal::CONT)
    }

    /// The process, for its pid and output.
    ///
    /// # Errors
    /// It was stopped.
    pub fn process(&self) -> Result<&Process> {
        self.process.as_ref().with_context(|| format!("postgres on {} was stopped", self.addr()))
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // Nobody else resumes what was paused, and a stopped process does not notice that its parent died.
        if let Some(process) = &self.process {
            backends(process).into_iter().for_each(|pid| signal(pid, Signal::CONT));
        }
    }
}

/// The programs of the newest version that is installed.
fn programs() -> Result<PathBuf, Missing> {
    let versions = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let whole = versions.filter(|version| version.path().join("bin/initdb").is_file());
    let newest =
        whole.max_by_key(|version| version.file_name().to_string_lossy().parse::<u32>().unwrap_or(0));
    let missing = || Missing { program: format!("{VERSIONS}/*/bin/initdb"), package: PACKAGE };
    Ok(newest.ok_or_else(missing)?.path().join("bin"))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The processes that the server has started: one for each connection, and some for itself.
fn backends(server: &Process) -> Vec<u32> {
    let pid = server.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// One that has ended meanwhile needs no signal.
fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Whether a process still holds memory; an orphan that nobody has waited for does not.
fn is_alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    status
        .is_ok_and(|status| !status.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}
