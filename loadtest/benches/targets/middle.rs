//! What stands between the two peers of a pair, on a core of its own: the relay, or something that does
//! less than a relay must.
//!
//! The relay has two sockets for a pair and forwards what comes from one to the other. To hold haproxy and
//! the copying loop against it they get exactly that work: the sender connects to them as a client, and they
//! connect to the load itself, which accepts the connection as the receiver. So there are again two sockets
//! for a pair, the same messages in the same batches, the same acknowledgements the other way, and the same
//! load generator on the other core; only what is decided about a frame in between is missing. With TLS both
//! sides are encrypted, as at the relay, with the same certificate and the suite that the relay chose.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use culvert_loadtest::frames::{Dialer, Link, Socket};
use culvert_loadtest::plan::{Admission, Reach};
use culvert_testkit::certs::{Leaf, TestCa};
use culvert_testkit::process::{Plan, Process, free_port};
use culvert_testkit::relay::{RelayPlan, RelayProcess};
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::machine;

/// Everything here only binds its port.
const READY: Duration = Duration::from_secs(30);
/// Longest wait for one connection through haproxy or the loop.
const CONNECTED: Duration = Duration::from_secs(10);
/// Whatever a benchmark does comes from one address at a high rate; the limits that keep attackers out cost
/// the same when they are high.
const UNLIMITED: &[(&str, &str)] = &[
    ("handshakes-per-source", "unlimited"),
    ("max-connections-per-source", "18000"),
    ("max-topics-per-connection", "4000"),
];

/// With or without TLS.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub(crate) enum Security {
    /// Plain text.
    Clear,
    /// TLS 1.3.
    Tls,
}

/// What stands in the middle.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    /// `culvert-relay`.
    Relay(Security),
    /// haproxy in TCP mode; with TLS it terminates it on both sides.
    Haproxy(Security),
    /// The loop of [`crate::copier`], reading at most so many KiB at once.
    Copier(u16),
    /// The same, applying a mask to all that it copies.
    Masker(u16),
}

/// What all of them need.
pub(crate) struct Surroundings {
    /// The relay's binary.
    pub(crate) relay: PathBuf,
    /// More settings of the relay, as on its command line.
    pub(crate) settings: Vec<String>,
    /// The authority of every certificate here.
    pub(crate) authority: TestCa,
    leaf: Leaf,
}

/// One of them, running; killed when dropped.
pub(crate) struct Middle {
    kind: Kind,
    running: Running,
}

#[expect(clippy::large_enum_variant, reason = "there are a few at a time")]
enum Running {
    Relay { process: Box<RelayProcess>, dialer: Box<Dialer> },
    Stitched { process: Process, addr: SocketAddr, listener: TcpListener, tls: Option<Tls>, _files: TempDir },
}

/// Both sides of TLS around haproxy.
struct Tls {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
}

impl Security {
    /// Both, or the one that was asked for.
    pub(crate) fn kinds(only: Option<Self>) -> Vec<Self> {
        only.map_or_else(|| vec![Security::Clear, Security::Tls], |only| vec![only])
    }

    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Security::Clear => "clear",
            Security::Tls => "TLS",
        }
    }
}

impl Kind {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Relay(Security::Clear) => "relay, clear",
            Kind::Relay(Security::Tls) => "relay, TLS",
            Kind::Haproxy(Security::Clear) => "haproxy, TCP",
            Kind::Haproxy(Security::Tls) => "haproxy, TLS",
            Kind::Copier(16) => "loop, 16 KiB",
            Kind::Copier(_) => "loop, 64 KiB",
            Kind::Masker(_) => "loop that masks",
        }
    }
}

impl Surroundings {
    /// With a certificate for `localhost`, ECDSA on P-256.
    pub(crate) fn new(relay: PathBuf, settings: Vec<String>) -> Result<Self> {
        let authority = TestCa::new("culvert benchmark")?;
        let leaf = authority.issue(&["localhost"])?;
        Ok(Self { relay, settings, authority, leaf })
    }

    /// Starts one, and waits until it answers.
    pub(crate) async fn start(&self, kind: Kind) -> Result<Middle> {
        self.start_with(kind, &[]).await
    }

    /// The same with more settings for a relay, which the others do not have.
    pub(crate) async fn start_with(&self, kind: Kind, settings: &[(&str, &str)]) -> Result<Middle> {
        let running = match kind {
            Kind::Relay(security) => self.relay(security, settings).await?,
            Kind::Haproxy(security) => self.haproxy(security).await?,
            Kind::Copier(kib) | Kind::Masker(kib) => {
                let (listener, addr) = stitched().await?;
                let files = TempDir::new()?;
                let program = std::env::current_exe()?;
                let plan = Plan::new("the copying loop", program)
                    .args(["copy", "--listen", &addr.to_string()])
                    .args(["--to", &listener.local_addr()?.to_string()])
                    .args(["--buffer", &(usize::from(kib) << 10).to_string()])
                    .args(matches!(kind, Kind::Masker(_)).then_some("--mask"));
                let process = started(plan, addr, &listener).await?;
                Running::Stitched { process, addr, listener, tls: None, _files: files }
            }
        };
        Ok(Middle { kind, running })
    }

    async fn relay(&self, security: Security, settings: &[(&str, &str)]) -> Result<Running> {
        let mut plan = RelayPlan::open(&self.relay)?.set("log", "error").set("names", "localhost");
        if security == Security::Tls {
            plan = plan.tls(&self.leaf, &self.authority)?;
        }
        for (name, value) in UNLIMITED.iter().chain(settings) {
            plan = plan.set(name, value);
        }
        for setting in &self.settings {
            let setting = setting.trim_start_matches("--");
            plan = match setting.split_once('=') {
                Some((name, value)) => plan.set(name, value),
                None => plan.flag(setting),
            };
        }
        let process = Box::new(machine::beside(plan.start()).await?);
        let reach = Reach {
            urls: vec![process.url().parse()?],
            admission: Admission::Open,
            authority: Some(std::fs::read_to_string(self.authority.path())?),
        };
        let dialer = Box::new(Dialer::new(&reach).await?);
        Ok(Running::Relay { process, dialer })
    }

    async fn haproxy(&self, security: Security) -> Result<Running> {
        let (listener, addr) = stitched().await?;
        let to = listener.local_addr()?;
        let files = TempDir::new()?;
        let (front, back, tls) = match security {
            Security::Clear => (String::new(), String::new(), None),
            Security::Tls => {
                let suite = self.suite().await?;
                let both = files.path().join("both.pem");
                let mut pem = std::fs::read(self.leaf.cert_path())?;
                pem.extend(std::fs::read(self.leaf.key_path())?);
                std::fs::write(&both, pem)?;
                let wanted = format!("ssl-min-ver TLSv1.3 ciphersuites {suite}");
                let front = format!(" ssl crt {} {wanted}", both.display());
                let authority = self.authority.path();
                let back = format!(
                    " ssl verify required verifyhost localhost sni str(localhost) ca-file {} {wanted}",
                    authority.display()
                );
                let tls = Tls {
                    connector: TlsConnector::from(self.authority.client_config()?),
                    acceptor: TlsAcceptor::from(self.leaf.server_config()?),
                };
                (front, back, Some(tls))
            }
        };
        let configuration = format!(
            "global\n    nbthread 1\n    maxconn 9000\n\
             defaults\n    mode tcp\n    timeout connect 10s\n    timeout client 1h\n    timeout server 1h\n\
             listen pairs\n    bind {addr}{front}\n    server load {to}{back}\n"
        );
        let file = files.path().join("haproxy.cfg");
        std::fs::write(&file, configuration)?;
        let program = PathBuf::from("/usr/sbin/haproxy");
        ensure!(
            program.is_file(),
            "haproxy is missing; run: apt-get install --no-install-recommends haproxy"
        );
        let plan = Plan::new("haproxy", program).args(["-db", "-f"]).arg(&file);
        let process = started(plan, addr, &listener).await?;
        Ok(Running::Stitched { process, addr, listener, tls, _files: files })
    }

    /// The suite that a relay agrees on with a client of rustls, by OpenSSL's name.
    async fn suite(&self) -> Result<&'static str> {
        let Running::Relay { process, .. } = self.relay(Security::Tls, &[]).await? else {
            bail!("a relay is started");
        };
        let connector = TlsConnector::from(self.authority.client_config()?);
        let tcp = TcpStream::connect(process.addr()).await?;
        let stream = connector.connect(ServerName::try_from("localhost")?, tcp).await?;
        let suite = stream.get_ref().1.negotiated_cipher_suite().context("no suite")?.suite();
        Ok(match suite {
            rustls::CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
            rustls::CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
            other => bail!("the relay chose {other:?}; haproxy is only held against AES-GCM"),
        })
    }
}

/// Where the load will accept the other side, and a port for whoever is in the middle.
async fn stitched() -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    Ok((listener, (Ipv4Addr::LOCALHOST, free_port()?).into()))
}

/// Starts it; the connection by which it is found out that it answers is thrown away.
async fn started(plan: Plan, addr: SocketAddr, listener: &TcpListener) -> Result<Process> {
    let mut process = machine::beside(async { plan.start() }).await?;
    process.answers(addr, READY).await?;
    // In clear text it has connected to the load by then, or will; with TLS it never does.
    let _probe = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
    Ok(process)
}

impl Middle {
    /// Which one it is.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        match &self.running {
            Running::Relay { process, .. } => process.pid(),
            Running::Stitched { process, .. } => process.pid(),
        }
    }

    /// Its processor time so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        machine::cpu(self.pid())
    }

    /// Its resident memory in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        Ok(culvert_testkit::process::resources(self.pid())?.resident)
    }

    /// The relay's dialer.
    pub(crate) fn dialer(&self) -> Result<&Dialer> {
        match &self.running {
            Running::Relay { dialer, .. } => Ok(dialer),
            Running::Stitched { .. } => bail!("{} is no relay", self.kind.name()),
        }
    }

    /// The relay's URL.
    pub(crate) fn url(&self) -> Result<String> {
        match &self.running {
            Running::Relay { process, .. } => Ok(process.url()),
            Running::Stitched { .. } => bail!("{} is no relay", self.kind.name()),
        }
    }

    /// Connects the two ends of a pair that goes through haproxy or the loop.
    pub(crate) async fn stitch(&self) -> Result<(Link, Link)> {
        let Running::Stitched { addr, listener, tls, .. } = &self.running else {
            bail!("peers of a relay are connected by its dialer");
        };
        let connected = async {
            let near = async {
                let tcp = TcpStream::connect(addr).await?;
                tcp.set_nodelay(true)?;
                Ok(Link::new(match tls {
                    None => Socket::Plain(tcp),
                    Some(tls) => {
                        let name = ServerName::try_from("localhost")?;
                        Socket::Tls(Box::new(tls.connector.connect(name, tcp).await?.into()))
                    }
                }))
            };
            let far = async {
                let (tcp, _) = listener.accept().await?;
                tcp.set_nodelay(true)?;
                anyhow::Ok(Link::new(match tls {
                    None => Socket::Plain(tcp),
                    Some(tls) => Socket::Tls(Box::new(tls.acceptor.accept(tcp).await?.into())),
                }))
            };
            tokio::try_join!(near, far)
        };
        let connected = tokio::time::timeout(CONNECTED, connected).await;
        connected.with_context(|| format!("{} connects nothing", self.kind.name()))?
    }

    /// Ends it; an error says that it had ended before.
    pub(crate) async fn stop(self) -> Result<()> {
        match self.running {
            Running::Relay { mut process, .. } => {
                ensure!(process.process().is_running(), process.failure("ended under load"));
                process.kill().await?;
            }
            Running::Stitched { mut process, .. } => {
                ensure!(process.is_running(), process.failure("ended under load"));
                process.kill().await?;
            }
        }
        Ok(())
    }
}

/// So that a relay's certificate need not be looked up in the system's store.
pub(crate) fn use_provider() -> Result<()> {
    let installed = Arc::unwrap_or_clone(culvert_testkit::certs::provider()).install_default();
    installed.map_err(|_| anyhow::anyhow!("another crypto provider is installed"))
}
