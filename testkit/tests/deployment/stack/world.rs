//! The services, started as the compose file starts them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use culvert_testkit::binaries;
use culvert_testkit::postgres::PostgresServer;
use culvert_testkit::process::{Plan, Process, free_port};
use culvert_testkit::redis::{RedisPlan, RedisServer};
use culvert_testkit::relay::Metrics;
use culvert_testkit::user::User;
use tempfile::TempDir;

use super::tunnel::Tunnel;
use super::until;
use crate::compose::Compose;
use crate::{LONG, file, installed, run, text};

/// Bytes a second from one connection, so that a transfer can be interrupted.
pub(super) const PACE: u64 = 1 << 20;
const RELAY_HOST: &str = "relay.culvert.test";
/// Resolves everywhere, so that the relays find the broker's keys through the balancer.
const BROKER_HOST: &str = "localhost";

pub(super) struct World {
    pub(super) relays: Vec<Server>,
    _brokers: Vec<Server>,
    _haproxy: Process,
    tunnel: Tunnel,
    port: u16,
    redis: RedisServer,
    _postgres: Arc<PostgresServer>,
    folder: TempDir,
}

/// A relay or broker.
pub(super) struct Server {
    pub(super) process: Process,
    ports: Ports,
    program: PathBuf,
    environment: Vec<(String, String)>,
}

#[derive(Clone, Copy)]
struct Ports {
    listen: u16,
    admin: u16,
}

impl Ports {
    fn free() -> Result<Self> {
        Ok(Self { listen: free_port()?, admin: free_port()? })
    }

    fn admin(self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.admin).into()
    }
}

impl World {
    pub(super) async fn start() -> Result<Self> {
        let (folder, compose) =
            (tempfile::Builder::new().prefix("culvert-stack-").tempdir()?, Compose::read());
        secrets(folder.path()).await?;
        let redis = redis(folder.path()).await?;
        let postgres = PostgresServer::shared().await?;
        std::fs::write(folder.path().join("secrets/database-url"), postgres.create_database().await?)?;
        let (port, metrics) = (free_port()?, free_port()?);

        let place = |environment: Vec<(String, String)>, ports: Ports| -> Vec<(String, String)> {
            let secrets = format!("{}/", folder.path().join("secrets").display());
            let broker = format!("https://{BROKER_HOST}:{port}");
            let placed = environment.into_iter().map(|(name, value)| {
                let value = value
                    .replace("https://${BROKER_HOST:?run deploy/secrets.sh first}", &broker)
                    .replace("${RELAY_HOST:?run deploy/secrets.sh first}", RELAY_HOST)
                    .replace("${INSTITUTION:-Evaluation}", "Evaluation")
                    .replace("/run/secrets/", &secrets)
                    .replace("redis://redis:6379", &redis.reach().url())
                    .replace("172.28.0.10", "127.0.0.1");
                (name, value)
            });
            let mut placed: Vec<_> = placed.collect();
            let prefix =
                if placed[0].0.starts_with("CULVERT_RELAY_") { "CULVERT_RELAY_" } else { "CULVERT_BROKER_" };
            placed.push((format!("{prefix}LISTEN"), format!("127.0.0.1:{}", ports.listen)));
            placed.push((format!("{prefix}ADMIN_LISTEN"), ports.admin().to_string()));
            placed
        };
        let mut placed = Vec::new();
        for service in ["relay1", "relay2", "relay3", "broker1", "broker2"] {
            let ports = Ports::free()?;
            let mut environment = place(compose.environment(service), ports);
            if service.starts_with("relay") {
                environment.extend(for_the_test());
            }
            assert!(!environment.iter().any(|(_, value)| value.contains("${")), "{environment:?}");
            placed.push((service, ports, environment));
        }

        let haproxy = haproxy(folder.path(), port, metrics, &placed).await?;
        let (relay, broker) = (binaries::relay().await?, binaries::broker().await?);
        let migrate = placed[3].2.iter().fold(Plan::new("migrate", &broker).arg("migrate"), with);
        run(migrate).await;
        let (mut relays, mut brokers) = (Vec::new(), Vec::new());
        for (service, ports, environment) in placed {
            if service.starts_with("broker") {
                brokers.push(Server::start(&broker, ports, environment).await?);
            } else {
                relays.push(Server::start(&relay, ports, environment).await?);
            }
        }
        let tunnel = Tunnel::to((Ipv4Addr::LOCALHOST, port).into()).await?;
        let world = Self {
            relays,
            _brokers: brokers,
            _haproxy: haproxy,
            tunnel,
            port,
            redis,
            _postgres: postgres,
            folder,
        };
        let exporter = (Ipv4Addr::LOCALHOST, metrics).into();
        until("the balancer uses all servers", async || {
            let metrics = Metrics::scrape(exporter).await?;
            Ok(metrics.sum("haproxy_server_status", &[("state", "UP")]) == 5.0)
        })
        .await?;
        // Those who have read the broker's keys let its users in.
        for relay in &world.relays {
            until("the relays have the broker's keys", async || {
                let metrics = Metrics::scrape(relay.ports.admin()).await?;
                Ok(metrics.sum("culvert_relay_ticket_key_fetches_total", &[("outcome", "done")]) >= 1.0)
            })
            .await?;
        }
        Ok(world)
    }

    pub(super) fn relay_url(&self) -> String {
        format!("wss://{RELAY_HOST}")
    }

    fn secret(&self, name: &str) -> PathBuf {
        self.folder.path().join("secrets").join(name)
    }

    /// A command of somebody who sees the world through a proxy.
    pub(super) fn culvert(&self, who: &User, subcommand: &str) -> Plan {
        let plan = who.culvert(subcommand).env("CULVERT_CA_FILE", self.secret("ca.pem"));
        plan.env("CULVERT_PROXY", self.tunnel.url())
    }

    /// A ticket that lets in the user and one guest at a time, in a file.
    pub(super) async fn ticket(&self, who: &User) -> Result<PathBuf> {
        let peer = run(who.culvert("id")).await;
        let peer = peer.split_whitespace().last().context("an id")?.to_owned();
        let issue = who.culvert("ticket").args(["issue", "--peer", &peer, "--invites", "1", "--key"]);
        let mut issue = issue.arg(self.secret("tickets.key")).start()?;
        issue.succeeds(LONG).await?;
        let path = who.home().join("ticket");
        std::fs::write(&path, issue.output().text(culvert_testkit::process::Source::Stdout))?;
        Ok(path)
    }

    /// `culvert login` with the institution's password.
    pub(super) async fn log_in(&self, who: &User, name: &str) -> Result<()> {
        let broker = format!("https://{BROKER_HOST}:{}", self.port);
        let plan =
            self.culvert(who, "login").args(["--broker", &broker, "--user", name, "--by", "institution"]);
        run(plan.arg("--password-file").arg(self.secret("institution-password"))).await;
        Ok(())
    }

    /// The relay with the most connections now.
    pub(super) async fn busiest_relay(&self) -> Result<usize> {
        let mut busiest = (0, 0.0);
        for (index, relay) in self.relays.iter().enumerate() {
            let connections =
                Metrics::scrape(relay.ports.admin()).await?.sum("culvert_relay_connections", &[]);
            if connections > busiest.1 {
                busiest = (index, connections);
            }
        }
        ensure!(busiest.1 >= 1.0, "nobody is connected");
        Ok(busiest.0)
    }

    pub(super) async fn start_relay_again(&mut self, index: usize) -> Result<()> {
        let Server { ports, program, environment, .. } = self.relays.remove(index);
        self.relays.insert(index, Server::start(&program, ports, environment).await?);
        Ok(())
    }

    /// What Redis refused anybody since its start, as it tells.
    pub(super) async fn refused_by_redis(&self) -> Result<Vec<String>> {
        let refused: Vec<redis::Value> = self.redis.ask(&["ACL", "LOG"]).await?;
        Ok(refused.iter().map(|entry| format!("{entry:?}")).collect())
    }
}

impl Server {
    async fn start(program: &Path, ports: Ports, environment: Vec<(String, String)>) -> Result<Self> {
        let name = program.file_name().context("a name")?.to_string_lossy().into_owned();
        let mut process = environment.iter().fold(Plan::new(&name, program), with).start()?;
        process.answers(ports.admin(), LONG).await?;
        Ok(Self { process, ports, program: program.to_owned(), environment })
    }
}

fn with(plan: Plan, (name, value): &(String, String)) -> Plan {
    plan.env(name, value)
}

/// What the test changes: less haste of the data, more of the drain.
fn for_the_test() -> Vec<(String, String)> {
    let settings = [
        ("CONNECTION_BYTES", format!("{PACE}")),
        ("DRAIN_DELAY", "3s".to_owned()),
        ("DRAIN_WINDOW", "2s".to_owned()),
        ("DRAIN_GRACE", "2s".to_owned()),
    ];
    settings.map(|(name, value)| (format!("CULVERT_RELAY_{name}"), value)).to_vec()
}

/// What the script makes for these names, in a folder of its own.
async fn secrets(folder: &Path) -> Result<()> {
    std::fs::copy(file("deploy/secrets.sh"), folder.join("secrets.sh"))?;
    let script = || Plan::new("secrets.sh", "/bin/bash").arg(folder.join("secrets.sh"));
    let made = script().args(["--relay-host", RELAY_HOST, "--broker-host", BROKER_HOST]);
    run(made).await;
    let read = |name: &str| std::fs::read(folder.join("secrets").join(name));
    let before = (read("tls.key")?, read("data-keys")?, read("redis-users.acl")?);
    // What is there is kept, whatever is asked for.
    run(script()).await;
    ensure!(
        before == (read("tls.key")?, read("data-keys")?, read("redis-users.acl")?),
        "secrets were replaced"
    );
    Ok(())
}

/// With the users that the script makes, and one for this test to look.
async fn redis(folder: &Path) -> Result<RedisServer> {
    let users = std::fs::read_to_string(folder.join("secrets/redis-users.acl"))?;
    let rights = culvert_testkit::redis::relay_rights(culvert_testkit::redis::Mode::Standalone);
    ensure!(users.contains(&format!(" {rights}\n")), "the relay's user is to have these rights: {rights}");
    ensure!(users.contains("user default off\n"), "nobody in particular must not be let in");
    let path = folder.join("users.acl");
    std::fs::write(&path, users.replace("user default off", "user default on nopass ~* &* +@all"))?;
    RedisPlan::new()?.set("aclfile", &path.display().to_string()).start().await
}

/// A service of the compose file, its ports here, and its environment.
type Placed<'a> = (&'a str, Ports, Vec<(String, String)>);

/// The balancer, with these servers in the places of the containers.
async fn haproxy(folder: &Path, port: u16, metrics: u16, placed: &[Placed<'_>]) -> Result<Process> {
    let mut configuration = text("deploy/haproxy.cfg");
    let mut put = |from: &str, to: String| {
        assert!(configuration.contains(from), "haproxy.cfg has no {from:?}");
        configuration = configuration.replace(from, &to);
    };
    put("bind :443\n", format!("bind 127.0.0.1:{port}\n"));
    put("bind :8404\n", format!("bind 127.0.0.1:{metrics}\n"));
    put("/run/haproxy/", format!("{}/", folder.display()));
    for (service, ports, _) in placed {
        put(&format!(" {service}:8443\n"), format!(" 127.0.0.1:{} port {}\n", ports.listen, ports.admin));
    }
    let path = folder.join("haproxy.cfg");
    std::fs::write(&path, configuration)?;
    let haproxy =
        Plan::new("haproxy", installed("/usr/sbin/haproxy", "haproxy")).args(["-db", "-f"]).arg(&path);
    let mut haproxy = haproxy.env("RELAY_HOST", RELAY_HOST).env("BROKER_HOST", BROKER_HOST).start()?;
    haproxy.answers((Ipv4Addr::LOCALHOST, port).into(), LONG).await?;
    Ok(haproxy)
}

/// A file of so many random bytes, called `file`.
pub(super) fn random_file(folder: &Path, size: u64) -> Result<PathBuf> {
    let mut bytes = vec![0; usize::try_from(size)?];
    aws_lc_rs::rand::fill(&mut bytes).ok().context("no random bytes")?;
    let path = folder.join("file");
    std::fs::write(&path, bytes)?;
    Ok(path)
}
