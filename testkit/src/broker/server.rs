//! The broker as a process.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use data_encoding::BASE64;
use tempfile::TempDir;
use tokio::time::{Instant, interval};

use crate::process::{Plan, Process, Program, Resources, Signal, free_port};
use crate::redis::Reach;
use crate::relay::{Metrics, get};

/// It binds its ports and no more before it answers.
const STARTED: Duration = Duration::from_secs(60);
/// It opens its stores, changes tables perhaps, and takes its keys.
const READY: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// The data key of every broker under test, so that replicas have the same.
const DATA_KEY: [u8; 32] = [7; 32];

/// What a broker is started with.
///
/// The ports are chosen when the plan is made and stay the same over restarts.
pub struct BrokerPlan {
    program: Program,
    folder: TempDir,
    port: u16,
    admin: u16,
    flags: Vec<OsString>,
    environment: Vec<(String, String)>,
}

impl BrokerPlan {
    /// A broker on loopback without TLS, as behind a balancer that terminates it, on a SQLite file of its
    /// own. The program is `culvert-broker-api`, or another one that takes the same settings after its own
    /// arguments.
    ///
    /// # Errors
    /// No port is free.
    pub fn sqlite(program: impl Into<Program>) -> Result<Self> {
        let plan = Self::bare(program)?;
        let file = plan.folder.path().join("broker.db");
        Ok(plan.set("database-file", file))
    }

    /// The same on a Postgres database, whose tables it makes.
    ///
    /// # Errors
    /// No port is free.
    pub fn postgres(program: impl Into<Program>, url: &str) -> Result<Self> {
        let plan = Self::bare(program)?.env("CULVERT_BROKER_DATABASE_URL", url);
        Ok(plan.env("CULVERT_BROKER_DATA_KEYS", &BASE64.encode(&DATA_KEY)).flag("migrate"))
    }

    fn bare(program: impl Into<Program>) -> Result<Self> {
        let plan = Self {
            program: program.into(),
            folder: tempfile::Builder::new().prefix("culvert-broker-").tempdir()?,
            port: free_port()?,
            admin: free_port()?,
            flags: Vec::new(),
            environment: Vec::new(),
        };
        let (listen, admin) = (plan.addr().to_string(), plan.admin_addr().to_string());
        Ok(plan.set("listen", listen).set("admin-listen", admin).flag("behind-tls"))
    }

    /// With this Redis, as one of the replicas that use the prefix.
    #[must_use]
    pub fn redis(self, reach: &Reach, prefix: &str) -> Self {
        self.set("redis", reach.url()).set("redis-prefix", prefix)
    }

    /// One environment variable, for settings that are secrets.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.into(), value.into()));
        self
    }

    /// One setting, by its name.
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

    /// Where operators will look.
    pub fn admin_addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.admin).into()
    }

    /// A folder of its own, for as long as the plan or the process is there.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it and waits until its ports answer; it may still wait for its stores.
    ///
    /// # Errors
    /// It does not start; the error shows what it printed.
    pub async fn launch(self) -> Result<BrokerProcess> {
        let mut plan = Plan::new("culvert-broker-api", self.program.clone())
            .args(&self.flags)
            .current_dir(self.folder.path());
        for (key, value) in &self.environment {
            plan = plan.env(key, value);
        }
        let mut process = plan.start()?;
        process.answers(self.admin_addr(), STARTED).await?;
        process.answers(self.addr(), STARTED).await?;
        Ok(BrokerProcess { plan: self, process })
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// It does not start or get ready; the error shows what it printed.
    pub async fn start(self) -> Result<BrokerProcess> {
        let broker = self.launch().await?;
        broker.ready().await?;
        Ok(broker)
    }
}

/// A running broker; killed when dropped.
pub struct BrokerProcess {
    plan: BrokerPlan,
    process: Process,
}

impl BrokerProcess {
    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.plan.addr()
    }

    /// Where operators look.
    pub fn admin_addr(&self) -> SocketAddr {
        self.plan.admin_addr()
    }

    /// Its URL for clients.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// `kill -9`, and nothing listens any more.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub async fn kill(self) -> Result<BrokerPlan> {
        self.process.kill().await?;
        Ok(self.plan)
    }

    /// `SIGTERM`, and waits until it has drained and ended with success.
    ///
    /// # Errors
    /// It does not end within `deadline`, or ends otherwise; the error shows its output.
    pub async fn drain(mut self, deadline: Duration) -> Result<BrokerPlan> {
        self.process.signal(Signal::TERM)?;
        self.process.succeeds(deadline).await?;
        Ok(self.plan)
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
            let (status, reason) = asked.map_err(|error| self.process.failure(&format!("{error:#}")))?;
            if status == 200 {
                return Ok(());
            }
            if Instant::now() >= end {
                let what = format!("is not ready after {READY:?}: {}", reason.trim());
                return Err(self.process.failure(&what));
            }
        }
    }

    /// Status and body of a path on the admin port.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn admin(&self, path: &str) -> Result<(u16, String)> {
        get(self.plan.admin_addr(), path).await
    }

    /// Its series at this moment.
    ///
    /// # Errors
    /// Its admin port does not answer.
    pub async fn metrics(&self) -> Result<Metrics> {
        Metrics::scrape(self.plan.admin_addr()).await
    }

    /// Memory and processor time up to now.
    ///
    /// # Errors
    /// It has ended.
    pub fn resources(&self) -> Result<Resources> {
        self.process.resources()
    }

    /// The process, for signals and output.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
