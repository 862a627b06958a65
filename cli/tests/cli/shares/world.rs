//! A broker and a relay that admits by the broker's tickets only, and users who log in by `culvert login`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use culvert_broker_api::Broker;
use culvert_broker_api::config::Config;
use culvert_broker_api::server::OpenError;
use culvert_broker_api::store::{Session, Way};
use culvert_broker_wire::Timestamp;
use culvert_client::broker::{Credentials, SyncClient};
use culvert_client::{Identity, ProxyChoice, RelayOptions};
use culvert_relay::config::{AdmissionPolicy, TicketPolicy};
use culvert_service_kit::lifecycle::Drained;
use culvert_service_kit::{Clock, Shutdown};
use culvert_testkit::process::{Plan, Process, free_port};
use culvert_testkit::relay::Embedded;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::log_in;
use crate::support::{Home, LONG, ended};

/// The institution's password.
pub(super) const PASSWORD: &str = "correct horse battery staple";

pub(super) struct World {
    addr: SocketAddr,
    core: std::sync::Arc<culvert_broker_api::core::Core>,
    relay: Embedded,
    _folder: TempDir,
    _broker: JoinSet<Result<Drained, OpenError>>,
}

impl World {
    pub(super) async fn new() -> Result<Self> {
        Self::with(|_| {}).await
    }

    /// The same with other settings of the broker.
    pub(super) async fn with(change: impl FnOnce(&mut Config)) -> Result<Self> {
        Self::made(change, |tickets| AdmissionPolicy {
            open: false,
            access_token: None,
            tickets: Some(tickets),
        })
        .await
    }

    /// The same with a relay that admits everybody and knows no tickets.
    pub(super) async fn open() -> Result<Self> {
        Self::made(|_| {}, |_| Embedded::config().admission).await
    }

    async fn made(
        change: impl FnOnce(&mut Config),
        admission: impl FnOnce(TicketPolicy) -> AdmissionPolicy,
    ) -> Result<Self> {
        let folder = TempDir::new()?;
        let addr = (Ipv4Addr::LOCALHOST, free_port()?).into();
        let relay_port = free_port()?;
        let mut config = Config::embedded(addr, &folder.path().join("broker.db"), vec![7; 32].into());
        config.institution_password = Some(PASSWORD.to_owned().into());
        config.behind_tls = true;
        config.relays = vec![format!("ws://localhost:{relay_port}")];
        change(&mut config);
        let broker = Broker::bind_at(config, Clock::system())?;
        let mut opened = broker.core();
        let mut task = JoinSet::new();
        task.spawn(broker.run(Shutdown::new()));
        let core = tokio::time::timeout(LONG, opened.wait_for(Option::is_some)).await??.clone();
        let core = core.context("the broker is open")?;
        let (status, keys) = get(&format!("http://{addr}/.well-known/jwks.json"), &[]).await?;
        ensure!(status == 200, "no keys: {status}");
        let file = folder.path().join("jwks.json");
        std::fs::write(&file, keys)?;
        let tickets = TicketPolicy::files([file], Duration::from_secs(86_400));
        let mut config = Embedded::config();
        config.listen = (Ipv4Addr::LOCALHOST, relay_port).into();
        config.admission = admission(tickets);
        let relay = Embedded::start(config).await?;
        Ok(Self { addr, core, relay, _folder: folder, _broker: task })
    }

    /// Peers that the relay turned away for want of an admission that it accepts.
    pub(super) fn not_admitted(&self) -> f64 {
        self.relay.metrics().sum("culvert_relay_closed_total", &[("close", "not_admitted")])
    }

    pub(super) fn broker_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// `culvert login`, waiting for the institution's password.
    pub(super) fn login(&self, home: &Home, user: &str) -> Plan {
        home.culvert(["login", "--broker", &self.broker_url(), "--user", user, "--by", "institution"])
    }

    /// A user's home, logged in.
    pub(super) async fn user(&self, user: &str) -> Result<Home> {
        let home = Home::new()?;
        std::fs::create_dir(home.path("shared"))?;
        let mut login = self.login(&home, user).with_stdin().start()?;
        login.feed(format!("{PASSWORD}\n").as_bytes()).await?;
        login.end_stdin();
        let (code, _, err) = ended(&mut login).await?;
        ensure!(code == 0, "{user} cannot log in: {err}");
        Ok(home)
    }

    /// `culvert serve shared`, when others can fetch.
    pub(super) async fn serve(&self, home: &Home, args: &[&str]) -> Result<Process> {
        let process = home.culvert(["serve", "shared"]).args(args).start()?;
        process.line(LONG, |line| line.starts_with("Serving ").then_some(())).await?;
        ensure!(self.relay.addr().port() != 0, "the relay runs");
        Ok(process)
    }

    pub(super) fn share<'a>(&self, args: &[&'a str]) -> Vec<&'a str> {
        [&["share"], args].concat()
    }

    pub(super) fn fetch(&self, home: &Home, link: &str, args: &[&str]) -> Plan {
        home.culvert(["fetch", link, "--out", "out"]).args(args)
    }

    /// A member by the library, whose grants are bound to a device.
    pub(super) async fn member(&self, user: &str) -> Result<(SyncClient, Identity)> {
        let (login, identity) = log_in(self, user).await?;
        Ok((self.connect(user, login.credentials()).await?, identity))
    }

    /// The same with a session that no device proved, as older applications have it.
    pub(super) async fn member_without_device(&self, user: &str) -> Result<(SyncClient, Identity)> {
        let (_, identity) = log_in(self, user).await?;
        let token = format!("cst_{}", data_encoding::BASE64URL_NOPAD.encode(&rand::random::<[u8; 32]>()));
        let now = self.core.clock.unix_seconds();
        let session = Session {
            hash: Sha256::digest(token.as_bytes()).into(),
            user: user.to_owned(),
            device: None,
            way: Way::Account,
            created_at: Timestamp::from_unix_seconds(now),
            expires_at: Timestamp::from_unix_seconds(now + 3600),
        };
        self.core.store.create_session(session).await?;
        Ok((self.connect(user, Credentials::Session(Zeroizing::new(token))).await?, identity))
    }

    async fn connect(&self, user: &str, credentials: Credentials) -> Result<SyncClient> {
        let options = RelayOptions { proxy: ProxyChoice::Direct, ..Default::default() };
        let builder = SyncClient::builder(self.broker_url(), user).credentials(credentials).network(options);
        Ok(builder.connect().await?)
    }
}

/// `GET` in clear text: status and body.
pub(super) async fn get(url: &str, headers: &[(&str, &str)]) -> Result<(u16, String)> {
    let rest = url.strip_prefix("http://").context("clear text")?;
    let (authority, path) = rest.split_once('/').context("a path")?;
    let mut request = format!("GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    let mut stream = tokio::net::TcpStream::connect(authority).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    tokio::time::timeout(LONG, stream.read_to_string(&mut answer)).await??;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer")?;
    let status = head.split(' ').nth(1).context("a status")?.parse()?;
    Ok((status, body.to_owned()))
}
