//! Brokers in this process, their users, and clients that are connected to them by hand.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: what fails here fails the test")]

mod http;
mod socket;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use culvert_broker_api::Broker;
use culvert_broker_api::config::{Config, Database};
use culvert_broker_api::core::Core;
use culvert_broker_api::server::OpenError;
use culvert_broker_api::store::{Admitted, NewUser, Role, Session, Store, Way};
use culvert_broker_wire::Timestamp;
use culvert_relay::bus::redis::settings::{Mode, Settings};
use culvert_service_kit::lifecycle::Drained;
use culvert_service_kit::metric_set::Registry;
use culvert_service_kit::{Clock, Shutdown};
use culvert_testkit::postgres::PostgresServer;
use culvert_testkit::redis::RedisServer;
use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::task::JoinSet;

pub(crate) use http::{Answer, Request};
#[allow(unused_imports, reason = "each test file uses a part of it")]
pub(crate) use socket::{Socket, SocketError};

/// Longest wait for anything that has to happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A broker of this process; killed when dropped.
pub(crate) struct Running {
    addr: SocketAddr,
    admin: SocketAddr,
    core: Arc<Core>,
    registry: Registry,
    shutdown: Shutdown,
    running: JoinSet<Result<Drained, OpenError>>,
    /// Holds the database file.
    _folder: Option<TempDir>,
}

impl Running {
    /// One on a SQLite file of its own, with presence in memory, at the machine's time.
    pub(crate) async fn sqlite() -> Self {
        Self::sqlite_with(Clock::system(), |_| {}).await
    }

    /// The same with another clock or other settings.
    pub(crate) async fn sqlite_with(clock: Clock, change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder.path().join("broker.db"));
        change(&mut config);
        let mut running = Self::start(config, clock).await;
        running._folder = Some(folder);
        running
    }

    /// So many replicas on one new database and one prefix in Redis, at the machine's time.
    pub(crate) async fn replicas(count: usize, postgres: &PostgresServer, redis: &RedisServer) -> Vec<Self> {
        Self::replicas_with(count, postgres, redis, &Clock::system(), |_| {}).await
    }

    /// The same with another clock or other settings.
    pub(crate) async fn replicas_with(
        count: usize,
        postgres: &PostgresServer,
        redis: &RedisServer,
        clock: &Clock,
        change: impl Fn(&mut Config),
    ) -> Vec<Self> {
        let url = postgres.create_database().await.unwrap();
        let prefix = format!("test-{:016x}", rand::random::<u64>());
        let mut replicas = Vec::new();
        for _ in 0..count {
            let mut config = config(Path::new("unused"));
            config.database = Database::Postgres(url.clone().into());
            config.redis = Some(settings(redis, &prefix));
            change(&mut config);
            replicas.push(Self::start(config, clock.clone()).await);
        }
        replicas
    }

    /// One with these settings, once its stores have answered.
    pub(crate) async fn start(config: Config, clock: Clock) -> Self {
        let mut broker = Starting::new(config, clock);
        let core = broker.opened().await;
        let Starting { addr, admin, registry, shutdown, running, .. } = broker;
        Self { addr, admin, core, registry, shutdown, running, _folder: None }
    }

    /// Where clients connect.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where operators look.
    pub(crate) fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// What its requests work with.
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The value of a series, the sum over the labels that contain `label`.
    pub(crate) fn counted(&self, series: &str, label: &str) -> f64 {
        let text = self.registry.render();
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(series)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.split_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            labels.contains(label).then(|| value.trim().parse::<f64>().unwrap())
        });
        values.sum()
    }

    /// A user without a password, to be called once for each.
    pub(crate) async fn user(&self, id: &str) {
        self.user_as(id, Role::User).await;
    }

    /// The same with a role.
    pub(crate) async fn user_as(&self, id: &str, role: Role) {
        admit(self.core.store.as_ref(), &self.core.clock, id, role).await;
    }

    /// A session of an existing user, as after a login; gives its token.
    pub(crate) async fn session(&self, user: &str) -> String {
        session(self.core.store.as_ref(), &self.core.clock, user).await
    }

    /// A new user with a session; gives its token.
    pub(crate) async fn signed_in(&self, user: &str) -> String {
        self.user(user).await;
        self.session(user).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, request: Request) -> Answer {
        request.send(self.addr).await
    }

    /// A WebSocket on which nobody has said yet who is there.
    pub(crate) async fn socket(&self) -> Socket {
        Socket::open(self.addr, None).await.unwrap()
    }

    /// A WebSocket that a session's token was presented for at the upgrade.
    pub(crate) async fn socket_of(&self, token: &str) -> Socket {
        Socket::open(self.addr, Some(token)).await.unwrap()
    }

    /// The same, with its user registered and so online.
    pub(crate) async fn online(&self, user: &str, token: &str) -> Socket {
        let mut socket = self.socket_of(token).await;
        socket.register(user, "http://192.0.2.1:3001").await;
        socket
    }

    /// Asks it to drain, and waits until it has ended.
    pub(crate) async fn drain(self) -> Result<Drained, OpenError> {
        let Self { shutdown, mut running, core, .. } = self;
        drop(core);
        shutdown.request_drain();
        let ended = tokio::time::timeout(DEADLINE, running.join_next()).await;
        ended.expect("the broker drains in time").expect("it runs").expect("it does not panic")
    }

    /// Ends it at once: its ports are closed and its connections break. A process that is killed also says
    /// nothing to its stores; for that, see `culvert_testkit::broker`.
    pub(crate) async fn crash(self) {
        let Self { shutdown, mut running, core, .. } = self;
        drop(core);
        running.shutdown().await;
        // Connections are tasks of their own.
        shutdown.kill();
    }
}

/// A broker that may still wait for its stores; killed when dropped.
pub(crate) struct Starting {
    addr: SocketAddr,
    admin: SocketAddr,
    registry: Registry,
    shutdown: Shutdown,
    core: tokio::sync::watch::Receiver<Option<Arc<Core>>>,
    running: JoinSet<Result<Drained, OpenError>>,
}

impl Starting {
    /// One with these settings.
    pub(crate) fn new(config: Config, clock: Clock) -> Self {
        let broker = Broker::bind_at(config, clock).unwrap();
        let (addr, admin) = (broker.local_addr().unwrap(), broker.admin_addr().unwrap().unwrap());
        let (registry, core, shutdown) = (broker.registry(), broker.core(), Shutdown::new());
        let mut running = JoinSet::new();
        running.spawn(broker.run(shutdown.clone()));
        Self { addr, admin, registry, shutdown, core, running }
    }

    /// Where clients connect.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where operators look.
    pub(crate) fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// Waits until the stores have answered.
    pub(crate) async fn opened(&mut self) -> Arc<Core> {
        let opened = async {
            tokio::select! {
                opened = self.core.wait_for(Option::is_some) => opened.ok().and_then(|core| core.clone()),
                Some(ended) = self.running.join_next() => panic!("the broker ended: {ended:?}"),
            }
        };
        let core = tokio::time::timeout(DEADLINE, opened).await.expect("the stores answer in time");
        core.expect("the broker runs")
    }

    /// Waits until it has given up by itself.
    pub(crate) async fn given_up(mut self) -> OpenError {
        let ended = tokio::time::timeout(DEADLINE, self.running.join_next()).await;
        ended.expect("it ends in time").expect("it runs").expect("it does not panic").unwrap_err()
    }
}

/// Makes a user without a password.
pub(crate) async fn admit(store: &dyn Store, clock: &Clock, id: &str, role: Role) {
    let new = NewUser { id: id.to_owned(), role, password_hash: None, device: None };
    let now = Timestamp::from_unix_seconds(clock.unix_seconds());
    assert_eq!(store.admit(new, now).await.unwrap(), Admitted::New, "{id} exists");
}

/// Makes a session of a user, as a login does; gives its token.
pub(crate) async fn session(store: &dyn Store, clock: &Clock, user: &str) -> String {
    let token = format!("cst_{}", BASE64URL_NOPAD.encode(&rand::random::<[u8; 32]>()));
    let now = clock.unix_seconds();
    let session = Session {
        hash: Sha256::digest(token.as_bytes()).into(),
        user: user.to_owned(),
        device: None,
        way: Way::Account,
        created_at: Timestamp::from_unix_seconds(now),
        expires_at: Timestamp::from_unix_seconds(now + 12 * 3600),
    };
    store.create_session(session).await.unwrap();
    token
}

/// Settings of a broker on this file: loopback without TLS, as behind a balancer that terminates it, with
/// an admin port, and quick to end.
pub(crate) fn config(database: &Path) -> Config {
    let mut config = Config::embedded((Ipv4Addr::LOCALHOST, 0).into(), database, vec![7; 32].into());
    config.admin_listen = Some((Ipv4Addr::LOCALHOST, 0).into());
    config.behind_tls = true;
    config.drain.delay = Duration::ZERO;
    config.drain.window = Duration::ZERO;
    config.drain.grace = Duration::from_secs(10);
    config
}

/// Every byte of the database in this folder, of a broker that has ended.
pub(crate) fn stolen(folder: &Path) -> Vec<u8> {
    let read = || -> io::Result<Vec<u8>> {
        let files: io::Result<Vec<_>> =
            std::fs::read_dir(folder).unwrap().map(|file| std::fs::read(file?.path())).collect();
        Ok(files?.concat())
    };
    // SQLite's log goes with the last connection, and what was in it is in another file then.
    (0..10).find_map(|_| read().ok()).expect("files that stay")
}

/// How a Redis is reached, with keys of its own.
pub(crate) fn settings(redis: &RedisServer, prefix: &str) -> Settings {
    let servers = Settings::parse_servers(&redis.reach().url()).unwrap();
    Settings { prefix: prefix.to_owned(), ..Settings::new(servers, Mode::Standalone) }
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + DEADLINE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < end, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
