//! `culvert-relay` as a process of its own.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;
use tokio::time::{Instant, interval};

use super::metrics::{Metrics, get};
use crate::certs::{Leaf, TestCa};
use crate::identity::Identity;
use crate::process::{Plan, Process, Program, Resources, Signal, free_port};
use crate::raw::RawOptions;

/// It only binds its ports.
const STARTED: Duration = Duration::from_secs(30);
/// From a start to readiness: one lease is claimed.
const READY: Duration = Duration::from_secs(60);
/// How often a condition is asked for.
const POLL: Duration = Duration::from_millis(50);

/// What a relay is started with.
///
/// The ports are chosen when the plan is made and stay the same over restarts.
pub struct RelayPlan {
    program: Program,
    folder: TempDir,
    port: u16,
    admin: u16,
    flags: Vec<OsString>,
    environment: Vec<(String, String)>,
    raw: RawOptions,
}

impl RelayPlan {
    /// An open relay in clear text on loopback, with the defaults of `culvert-relay`. The program is that,
    /// or another one that takes the same arguments after its own.
    ///
    /// # Errors
    /// No port is free.
    pub fn open(program: impl Into<Program>) -> Result<Self> {
        Ok(Self::closed(program)?.flag("open"))
    }

    /// A relay in clear text that admits nobody yet; give it a token or keys.
    ///
    /// # Errors
    /// No port is free.
    pub fn closed(program: impl Into<Program>) -> Result<Self> {
        let plan = Self {
            program: program.into(),
            folder: tempfile::Builder::new().prefix("culvert-relay-").tempdir()?,
            port: free_port()?,
            admin: free_port()?,
            flags: Vec::new(),
            environment: Vec::new(),
            raw: RawOptions::plain("localhost"),
        };
        let (listen, admin) = (plan.addr().to_string(), plan.admin_addr().to_string());
        Ok(plan.set("listen", listen).set("admin-listen", admin).flag("plain-text"))
    }

    /// Speaks TLS with this certificate, which raw peers trust by `ca`.
    ///
    /// # Errors
    /// The authority's certificate does not read.
    pub fn tls(mut self, leaf: &Leaf, ca: &TestCa) -> Result<Self> {
        self.flags.retain(|flag| flag != "--plain-text");
        self.raw = RawOptions::tls("localhost", ca.client_config()?);
        Ok(self.set("tls-certificate", leaf.cert_path()).set("tls-key", leaf.key_path()))
    }

    /// Admits whoever knows this token.
    #[must_use]
    pub fn access_token(self, token: &str) -> Self {
        self.env("CULVERT_RELAY_ACCESS_TOKEN", token)
    }

    /// Admits tickets signed by this issuer.
    ///
    /// # Errors
    /// Its key file cannot be written.
    pub fn tickets_by(self, issuer: &Identity) -> Result<Self> {
        let path = self.folder.path().join(format!("{}.pem", issuer.peer().short()));
        std::fs::write(&path, issuer.public_pem())?;
        Ok(self.set("ticket-keys", path))
    }

    /// One environment variable, for settings that are secrets.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.into(), value.into()));
        self
    }

    /// One setting of `culvert-relay`, by its name.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Into<OsString>) -> Self {
        let mut flag = OsString::from(format!("--{name}="));
        flag.push(value.into());
        self.flags.push(flag);
        self
    }

    /// One setting that is given without a value.
    #[must_use]
    pub fn flag(mut self, name: &str) -> Self {
        self.flags.push(format!("--{name}").into());
        self
    }

    /// Where it will listen.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The scheme of its URL.
    pub(super) fn scheme(&self) -> &'static str {
        if self.raw.tls.is_some() { "wss" } else { "ws" }
    }

    /// Where operators will look.
    pub fn admin_addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.admin).into()
    }

    /// Starts it and waits until it accepts peers.
    ///
    /// # Errors
    /// It does not start; the error shows what it printed.
    pub async fn start(self) -> Result<RelayProcess> {
        let process = self.spawn().await?;
        Ok(RelayProcess { plan: self, process })
    }

    async fn spawn(&self) -> Result<Process> {
        let mut plan = Plan::new("culvert-relay", self.program.clone()).args(&self.flags);
        for (key, value) in &self.environment {
            plan = plan.env(key, value);
        }
        let mut process = plan.start()?;
        process.answers(self.admin_addr(), STARTED).await?;
        process.answers(self.addr(), STARTED).await?;
        Ok(process)
    }
}

/// A running `culvert-relay`; killed when dropped.
pub struct RelayProcess {
    plan: RelayPlan,
    process: Process,
}

impl RelayProcess {
    /// Where peers connect.
    pub fn addr(&self) -> SocketAddr {
        self.plan.addr()
    }

    /// Where operators look.
    pub fn admin_addr(&self) -> SocketAddr {
        self.plan.admin_addr()
    }

    /// Its URL for clients.
    pub fn url(&self) -> String {
        format!("{}://localhost:{}", self.scheme(), self.plan.port)
    }

    pub(super) fn scheme(&self) -> &'static str {
        self.plan.scheme()
    }

    /// How raw peers reach it.
    pub fn raw(&self) -> RawOptions {
        self.plan.raw.clone()
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// `kill -9`, and nothing listens any more.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub async fn kill(self) -> Result<RelayPlan> {
        self.process.kill().await?;
        Ok(self.plan)
    }

    /// `kill -9`, then the same again on the same port.
    ///
    /// # Errors
    /// It does not come back.
    pub async fn restart(self) -> Result<Self> {
        self.kill().await?.start().await
    }

    /// Asks it to drain, as an operator's SIGTERM does.
    ///
    /// # Errors
    /// It has ended.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends a signal to it.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// `SIGTERM`, and waits until it has drained and ended with success.
    ///
    /// # Errors
    /// It does not end within `deadline`, or ends otherwise; the error shows its output.
    pub async fn drain(mut self, deadline: Duration) -> Result<RelayPlan> {
        self.terminate()?;
        self.process.succeeds(deadline).await?;
        Ok(self.plan)
    }

    /// Memory and processor time up to now.
    ///
    /// # Errors
    /// It has ended.
    pub fn resources(&self) -> Result<Resources> {
        self.process.resources()
    }

    /// Its series at this moment.
    ///
    /// # Errors
    /// Its admin port does not answer.
    pub async fn metrics(&self) -> Result<Metrics> {
        Metrics::scrape(self.plan.admin_addr()).await
    }

    /// Status and body of a path on the admin port.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn admin(&self, path: &str) -> Result<(u16, String)> {
        get(self.plan.admin_addr(), path).await
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// It does not within 60 s; the error shows its output.
    pub async fn ready(&self) -> Result<()> {
        let end = Instant::now() + READY;
        let mut ticks = interval(POLL);
        loop {
            ticks.tick().await;
            let asked = self.admin("/readyz").await;
            let (status, reason) = asked.map_err(|error| self.failure(&format!("{error:#}")))?;
            if status == 200 {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(self.failure(&format!("is not ready after {READY:?}: {}", reason.trim())));
            }
        }
    }

    /// An error that shows its output.
    pub fn failure(&self, what: &str) -> anyhow::Error {
        self.process.failure(what)
    }

    /// The process, for signals and output.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
