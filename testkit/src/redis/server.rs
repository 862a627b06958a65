//! One `redis-server`.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, FromRedisValue, IntoConnectionInfo, TlsCertificates, ToRedisArgs,
};
use tempfile::TempDir;
use tokio::time::{Instant, interval};

use super::reach::{Mode, Reach};
use crate::binaries::installed;
use crate::certs::{Leaf, TestCa};
use crate::process::{Plan, Process, Program, Resources, Signal, free_port};

/// It only binds its port.
const READY: Duration = Duration::from_secs(30);
/// Longest wait for the answer to one command of a test.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// How often a condition is asked for.
const POLL: Duration = Duration::from_millis(50);

/// What a `redis-server` is started with.
///
/// The port is chosen when the plan is made and stays the same over restarts.
pub struct RedisPlan {
    folder: TempDir,
    port: u16,
    sentinel: bool,
    configuration: String,
    password: Option<String>,
    /// Name and password of a user for relays.
    user: Option<(String, String)>,
    ca: Option<PathBuf>,
    starter: Option<Program>,
}

/// A running `redis-server`, or one that was killed and can be started again; killed when dropped.
pub struct RedisServer {
    plan: RedisPlan,
    process: Option<Process>,
}

/// One client of a server, as `CLIENT LIST` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisClient {
    /// Its address as the server sees it.
    pub addr: SocketAddr,
    /// The name it gave itself.
    pub name: String,
    /// The user it is.
    pub user: String,
    /// To how many channels and shard channels it is subscribed.
    pub subscriptions: u64,
    /// Its command of last.
    pub command: String,
    /// Bytes that wait for it in the server.
    pub output: u64,
}

impl RedisPlan {
    /// A standalone server that asks nobody who they are and writes nothing to disk.
    ///
    /// # Errors
    /// No port is free.
    pub fn new() -> Result<Self> {
        let plan = Self::bare(false)?;
        let port = plan.port.to_string();
        Ok(plan.set("port", &port).set("save", "\"\"").set("appendonly", "no"))
    }

    /// A Sentinel that watches nobody yet.
    pub(super) fn sentinel() -> Result<Self> {
        let plan = Self::bare(true)?;
        let port = plan.port.to_string();
        Ok(plan.set("port", &port))
    }

    fn bare(sentinel: bool) -> Result<Self> {
        let plan = Self {
            folder: tempfile::Builder::new().prefix("culvert-redis-").tempdir()?,
            port: free_port()?,
            sentinel,
            configuration: String::new(),
            password: None,
            user: None,
            ca: None,
            starter: None,
        };
        let folder = plan.folder.path().display().to_string();
        Ok(plan.set("bind", "127.0.0.1").set("dir", &folder).set("daemonize", "no"))
    }

    /// One more line of its configuration, spelled as in `redis.conf`.
    #[must_use]
    pub fn set(mut self, directive: &str, value: &str) -> Self {
        // Writing to a string cannot fail.
        let _ = writeln!(self.configuration, "{directive} {value}");
        self
    }

    /// Asks the default user, who may do everything, for this password.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.set("requirepass", &quoted(password))
    }

    /// A user with these rights, spelled as for `ACL SETUSER`, such as [`relay_rights`](super::relay_rights).
    /// [`RedisServer::reach`] names this user; the helpers here stay the default user.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str, rights: &str) -> Self {
        self.user = Some((name.to_owned(), password.to_owned()));
        let password = quoted(&format!(">{password}"));
        self.set("user", &format!("{name} on {password} {rights}"))
    }

    /// Speaks TLS with this certificate, and nothing else on any port.
    #[must_use]
    pub fn tls(mut self, leaf: &Leaf, ca: &TestCa) -> Self {
        self.ca = Some(ca.path());
        let port = self.port.to_string();
        let path = |path: PathBuf| quoted(&path.display().to_string());
        self.set("port", "0")
            .set("tls-port", &port)
            .set("tls-cert-file", &path(leaf.cert_path()))
            .set("tls-key-file", &path(leaf.key_path()))
            .set("tls-ca-cert-file", &path(ca.path()))
            .set("tls-auth-clients", "no")
    }

    /// Started by another program. See [`Program::started_by`].
    #[must_use]
    pub fn started_by(mut self, starter: Program) -> Self {
        self.starter = Some(starter);
        self
    }

    /// Where it will listen.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Starts it and waits until it answers commands.
    ///
    /// # Errors
    /// It is not installed or does not start; the error shows what it printed.
    pub async fn start(self) -> Result<RedisServer> {
        let mut server = RedisServer { plan: self, process: None };
        server.start_again().await?;
        Ok(server)
    }

    async fn spawn(&self) -> Result<Process> {
        let file = self.folder.path().join("redis.conf");
        // Sentinels, and servers that a Sentinel or a cluster has configured, keep their state in it.
        if !file.exists() {
            std::fs::write(&file, &self.configuration)?;
        }
        let name = if self.sentinel { "redis-sentinel" } else { "redis-server" };
        let mut program = Program::from(installed(&["/usr/bin/redis-server"], "redis-server")?);
        if let Some(starter) = &self.starter {
            program = program.started_by(starter);
        }
        let plan = Plan::new(name, program).arg(&file);
        let mut process = if self.sentinel { plan.arg("--sentinel") } else { plan }.start()?;
        process.answers(self.addr(), READY).await?;
        Ok(process)
    }
}

impl RedisServer {
    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.plan.addr()
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.plan.port
    }

    /// How a relay reaches it.
    pub fn reach(&self) -> Reach {
        let mut reach = Reach::new(Mode::Standalone, vec![self.addr()]);
        match &self.plan.user {
            Some((user, password)) => reach = reach.user(user).password(password),
            None => reach.password.clone_from(&self.plan.password),
        }
        reach.ca.clone_from(&self.plan.ca);
        reach
    }

    /// Answers one command, such as `["CONFIG", "SET", "maxmemory", "1mb"]`, as the default user.
    ///
    /// # Errors
    /// It does not answer within 10 s, answers with an error, or with something that is no `T`.
    pub async fn ask<T: FromRedisValue>(&self, words: &[impl ToRedisArgs]) -> Result<T> {
        let asked = async {
            let mut connection = self.connect().await?;
            let mut command = redis::Cmd::new();
            for word in words {
                command.arg(word);
            }
            command.query_async(&mut connection).await.context("redis refuses the command")
        };
        let answer = tokio::time::timeout(ANSWER, asked).await;
        answer.with_context(|| format!("redis on {} does not answer within {ANSWER:?}", self.addr()))?
    }

    /// A connection of the default user.
    ///
    /// # Errors
    /// It does not accept it within 10 s.
    pub async fn connect(&self) -> Result<MultiplexedConnection> {
        let scheme = if self.plan.ca.is_some() { "rediss" } else { "redis" };
        let mut info = format!("{scheme}://{}", self.addr()).into_connection_info()?;
        if let Some(password) = &self.plan.password {
            let settings = info.redis_settings().clone().set_password(password);
            info = info.set_redis_settings(settings);
        }
        let client = match &self.plan.ca {
            None => Client::open(info)?,
            Some(ca) => {
                let roots = TlsCertificates { client_tls: None, root_cert: Some(std::fs::read(ca)?) };
                Client::build_with_tls(info, roots)?
            }
        };
        let connection = client.get_multiplexed_async_connection_with_config(&patient()).await;
        connection.with_context(|| format!("redis on {} accepts no connection", self.addr()))
    }

    /// One field of `INFO`, such as `used_memory` or `total_commands_processed`.
    ///
    /// # Errors
    /// It does not answer, or has no such field.
    pub async fn info(&self, field: &str) -> Result<String> {
        let info: String = self.ask(&["INFO", "everything"]).await?;
        let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.map(|value| value.trim().to_owned()).with_context(|| format!("INFO has no {field}"))
    }

    /// All clients that are connected, the one that asks included.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn clients(&self) -> Result<Vec<RedisClient>> {
        let list: String = self.ask(&["CLIENT", "LIST"]).await?;
        list.lines().filter(|line| !line.is_empty()).map(RedisClient::parse).collect()
    }

    /// Waits until `INFO` holds this value in this field.
    ///
    /// # Errors
    /// It does not within `deadline`.
    pub async fn reports(&self, field: &str, value: &str, deadline: Duration) -> Result<()> {
        until(deadline, &format!("{field} of redis on {} is not {value}", self.addr()), async || {
            Ok(self.info(field).await? == value)
        })
        .await
    }

    /// `kill -9`, and nothing listens any more. A server that does not run stays so.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub async fn kill(&mut self) -> Result<()> {
        match self.process.take() {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// Starts it on the same port, with no data, after it was killed.
    ///
    /// # Errors
    /// It runs, or does not start.
    pub async fn start_again(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "redis on {} runs", self.addr());
        self.process = Some(self.plan.spawn().await?);
        Ok(())
    }

    /// `SIGSTOP`: its connections stay up, and nothing answers.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> Result<()> {
        self.process()?.signal(Signal::STOP)
    }

    /// `SIGCONT`: it goes on where it was paused.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> Result<()> {
        self.process()?.signal(Signal::CONT)
    }

    /// Memory and processor time up to now.
    ///
    /// # Errors
    /// It does not run.
    pub fn resources(&self) -> Result<Resources> {
        self.process()?.resources()
    }

    /// The process, for its pid, signals and output.
    ///
    /// # Errors
    /// It was killed.
    pub fn process(&self) -> Result<&Process> {
        self.process.as_ref().with_context(|| format!("redis on {} was killed", self.addr()))
    }
}

impl RedisClient {
    fn parse(line: &str) -> Result<Self> {
        let field = |name: &str| {
            let value = line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            value.with_context(|| format!("no {name} in {line}"))
        };
        Ok(Self {
            addr: field("addr")?.parse()?,
            name: field("name")?.to_owned(),
            user: field("user")?.to_owned(),
            subscriptions: field("sub")?.parse::<u64>()? + field("ssub")?.parse::<u64>()?,
            command: field("cmd")?.to_owned(),
            output: field("omem")?.parse()?,
        })
    }
}

/// The library's own limit of 500 ms is short for a machine that is busy.
pub(super) fn patient() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(ANSWER)).set_response_timeout(Some(ANSWER))
}

/// Waits until a condition holds. Asking may fail in the meantime: servers of tests come and go.
pub(super) async fn until(
    deadline: Duration,
    complaint: &str,
    holds: impl AsyncFn() -> Result<bool>,
) -> Result<()> {
    let end = Instant::now() + deadline;
    let mut ticks = interval(POLL);
    loop {
        ticks.tick().await;
        let last = holds().await;
        if matches!(last, Ok(true)) {
            return Ok(());
        }
        if Instant::now() >= end {
            let complaint = format!("{complaint} after {deadline:?}");
            return Err(last.err().unwrap_or_else(|| anyhow::anyhow!("it is not so")).context(complaint));
        }
    }
}

/// As one word of a configuration file.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}
