//! haproxy as the balancer in front of relays: TCP, with the PROXY protocol, by readiness.
//!
//! It forwards bytes and never looks into them, as an operator's balancer on port 443 does. Relays that
//! are not ready get no new connections; those they have stay.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, interval};

use crate::binaries::installed;
use crate::process::{Plan, Process, Program, free_port};

/// It only binds its port.
const READY: Duration = Duration::from_secs(30);
/// Longest wait for it to notice a backend's health, which it asks for every 200 ms.
const NOTICED: Duration = Duration::from_secs(60);
/// Longest wait for the answer of its socket.
const ANSWER: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);
/// Connections at a time that tests come along with.
const CONNECTIONS: usize = 8000;
/// Open files of haproxy beside those of connections: listeners, checks, its socket.
const OTHER_FILES: usize = 100;

/// The address from which it connects to backends. Relays that believe the PROXY header of this address
/// alone can also be reached directly, from the loopback address that everybody else has.
pub const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 100, 1);

/// One server behind the balancer. It need not run yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// Where it accepts peers behind a PROXY header of version 2.
    pub addr: SocketAddr,
    /// Where it answers `GET /readyz` with 200 when it wants new peers.
    pub health: SocketAddr,
}

/// Which backend gets a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// The one that has the fewest. Peers that look for a way around a node that is cut off come back to
    /// it as long as it has fewer than the others.
    #[default]
    LeastConnections,
    /// One after the other.
    RoundRobin,
}

/// What the balancer knows of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Whether it is given new connections.
    pub up: bool,
    /// Its connections now.
    pub connections: u64,
    /// Its connections since the balancer's start.
    pub connections_so_far: u64,
}

/// How haproxy is started.
#[derive(Debug, Clone)]
pub struct BalancerPlan {
    balance: Balance,
    connections: usize,
    starter: Option<Program>,
}

/// A running haproxy; killed when dropped.
pub struct Balancer {
    port: u16,
    folder: TempDir,
    process: Process,
}

impl Default for BalancerPlan {
    fn default() -> Self {
        Self { balance: Balance::default(), connections: CONNECTIONS, starter: None }
    }
}

impl BalancerPlan {
    /// With this rule.
    #[must_use]
    pub fn balance(mut self, balance: Balance) -> Self {
        self.balance = balance;
        self
    }

    /// For so many connections at a time instead of 8,000; more wait until some end.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// By another program. See [`Program::started_by`].
    #[must_use]
    pub fn started_by(mut self, starter: Program) -> Self {
        self.starter = Some(starter);
        self
    }

    /// The open files that haproxy needs for its connections: two for each, and some of its own.
    pub fn open_files(&self) -> usize {
        2 * self.connections + OTHER_FILES
    }

    /// Starts it in front of these.
    ///
    /// # Errors
    /// haproxy is not installed or does not start; the error shows what it printed.
    pub async fn start(&self, backends: &[Backend]) -> Result<Balancer> {
        let folder = tempfile::Builder::new().prefix("culvert-haproxy-").tempdir()?;
        let port = free_port()?;
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, self.configuration(port, &socket(folder.path()), backends))?;
        let mut haproxy = Program::from(installed(&["/usr/sbin/haproxy"], "haproxy")?);
        if let Some(starter) = &self.starter {
            haproxy = haproxy.started_by(starter);
        }
        let mut process = Plan::new("haproxy", haproxy).args(["-db", "-f"]).arg(&file).start()?;
        process.answers((Ipv4Addr::LOCALHOST, port).into(), READY).await?;
        Ok(Balancer { port, folder, process })
    }

    fn configuration(&self, port: u16, socket: &Path, backends: &[Backend]) -> String {
        let (socket, connections) = (socket.display(), self.connections);
        let balance = match self.balance {
            Balance::LeastConnections => "leastconn",
            Balance::RoundRobin => "roundrobin",
        };
        let mut text = format!(
            "global\n    nbthread 1\n    maxconn {connections}\n    \
                 stats socket {socket} mode 600 level admin\n    \
                 log stdout format raw local0 notice\n\
             defaults\n    mode tcp\n    log global\n    timeout connect 2s\n    timeout client 1h\n    \
                 timeout server 1h\n    timeout check 2s\n    option redispatch 1\n    retries 3\n\
             frontend peers\n    bind 127.0.0.1:{port}\n    default_backend relays\n\
             backend relays\n    balance {balance}\n    source {SOURCE}\n    option httpchk GET /readyz\n    \
                 http-check expect status 200\n    \
                 default-server check inter 200ms fastinter 100ms fall 2 rise 1 send-proxy-v2\n"
        );
        for (index, Backend { addr, health }) in backends.iter().enumerate() {
            // Checks carry no PROXY header, because they go to another port. Writing to a string cannot fail.
            let (ip, port) = (health.ip(), health.port());
            let _ = writeln!(text, "    server relay{index} {addr} addr {ip} port {port}");
        }
        text
    }
}

impl Balancer {
    /// Starts it in front of these. New connections go to the backend that has the fewest.
    ///
    /// # Errors
    /// As for [`BalancerPlan::start`].
    pub async fn start(backends: &[Backend]) -> Result<Self> {
        BalancerPlan::default().start(backends).await
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where peers connect.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// What it knows of each backend, in the order in which they were given.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn backends(&self) -> Result<Vec<Served>> {
        let asked = async {
            let mut stream = UnixStream::connect(socket(self.folder.path())).await?;
            stream.write_all(b"show stat\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            anyhow::Ok(answer)
        };
        let answer = tokio::time::timeout(ANSWER, asked).await.context("haproxy does not answer")??;
        parse(&answer)
    }

    /// Waits until it gives new connections to a backend, or no longer does.
    ///
    /// # Errors
    /// It has not come to see it so within 60 s.
    pub async fn sees(&self, backend: usize, up: bool) -> Result<()> {
        let end = Instant::now() + NOTICED;
        let mut ticks = interval(POLL);
        loop {
            ticks.tick().await;
            let backends = self.backends().await?;
            let served = backends.get(backend).with_context(|| format!("there is no backend {backend}"))?;
            if served.up == up {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "haproxy holds for {NOTICED:?} that backend {backend} is {served:?}"
            );
        }
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("admin.sock")
}

/// The table of `show stat`: a line of names after `# `, then one line for each part (haproxy management
/// guide, section 9.1).
fn parse(table: &str) -> Result<Vec<Served>> {
    let mut lines = table.lines();
    let names: Vec<&str> =
        lines.next().and_then(|line| line.strip_prefix("# ")).context("no table")?.split(',').collect();
    let column = |name: &str| names.iter().position(|n| *n == name).with_context(|| format!("no {name}"));
    let (part, server, status) = (column("pxname")?, column("svname")?, column("status")?);
    let (now, total) = (column("scur")?, column("stot")?);
    let mut backends = Vec::new();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let cell = |index: usize| cells.get(index).copied().unwrap_or_default();
        if cell(part) == "relays" && cell(server) != "BACKEND" {
            backends.push(Served {
                up: cell(status).starts_with("UP"),
                connections: cell(now).parse()?,
                connections_so_far: cell(total).parse()?,
            });
        }
    }
    Ok(backends)
}

#[cfg(test)]
mod tests;
