//! A broker in this process that can be stopped and started again, and its users.

#![allow(clippy::unwrap_used, reason = "helpers of tests: what fails here fails the test")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use culvert_broker_api::config::Config;
use culvert_broker_api::core::Core;
use culvert_broker_api::store::{Admitted, NewUser, Role, Session, Store, Way};
use culvert_broker_api::{Broker, server::OpenError};
use culvert_broker_wire::Timestamp;
use culvert_client::broker::{BrokerEvent, Credentials, SyncClient, SyncClientBuilder};
use culvert_client::{ProxyChoice, ReconnectPolicy, RelayOptions};
use culvert_service_kit::lifecycle::Drained;
use culvert_service_kit::{Clock, Shutdown};
use culvert_testkit::process::free_port;
use data_encoding::BASE64URL_NOPAD;
use tempfile::TempDir;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

/// Longest wait for anything that has to happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A broker on one port and one database file, running or not.
pub(crate) struct World {
    pub(crate) addr: SocketAddr,
    folder: TempDir,
    running: Option<Running>,
}

struct Running {
    core: Arc<Core>,
    _task: JoinSet<Result<Drained, OpenError>>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let addr = (Ipv4Addr::LOCALHOST, free_port().unwrap()).into();
        let mut world = Self { addr, folder: tempfile::tempdir().unwrap(), running: None };
        world.start().await;
        world
    }

    pub(crate) async fn start(&mut self) {
        let database = self.path("broker.db");
        let mut config = Config::embedded(self.addr, &database, vec![7; 32].into());
        config.behind_tls = true;
        config.drain.delay = Duration::ZERO;
        config.drain.window = Duration::ZERO;
        let broker = Broker::bind_at(config, Clock::system()).unwrap();
        let mut opened = broker.core();
        let mut task = JoinSet::new();
        task.spawn(broker.run(Shutdown::new()));
        let core = async {
            tokio::select! {
                core = opened.wait_for(Option::is_some) => core.unwrap().clone().unwrap(),
                Some(ended) = task.join_next() => panic!("the broker ended: {ended:?}"),
            }
        };
        let core = tokio::time::timeout(DEADLINE, core).await.expect("the broker starts in time");
        self.running = Some(Running { core, _task: task });
    }

    /// As a crash: nobody is told, and nothing listens any more.
    pub(crate) async fn crash(&mut self) {
        let Running { core, _task: mut task } = self.running.take().expect("it runs");
        drop(core);
        task.shutdown().await;
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.running.as_ref().expect("it runs").core
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/ws", self.addr)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A new user with a session.
    pub(crate) async fn user(&self, id: &str) -> Credentials {
        let store = self.core().store.as_ref();
        let now = self.core().clock.unix_seconds();
        let new = NewUser { id: id.to_owned(), role: Role::User, password_hash: None, device: None };
        assert_eq!(store.admit(new, Timestamp::from_unix_seconds(now)).await.unwrap(), Admitted::New);
        session(store, id, now).await
    }

    /// A client of a new user, ready to be changed.
    pub(crate) async fn builder(&self, user: &str) -> SyncClientBuilder {
        let credentials = self.user(user).await;
        builder(&self.url(), user).credentials(credentials)
    }

    pub(crate) async fn client(&self, user: &str) -> SyncClient {
        self.builder(user).await.connect().await.unwrap()
    }
}

/// A session as after a login.
async fn session(store: &dyn Store, user: &str, now: u64) -> Credentials {
    let token =
        format!("cst_{}", BASE64URL_NOPAD.encode(&culvert_client::TopicSecret::generate().as_bytes()[..]));
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    let session = Session {
        hash: hash.as_ref().try_into().unwrap(),
        user: user.to_owned(),
        device: None,
        way: Way::Account,
        created_at: Timestamp::from_unix_seconds(now),
        expires_at: Timestamp::from_unix_seconds(now + 12 * 3600),
    };
    store.create_session(session).await.unwrap();
    Credentials::Session(Zeroizing::new(token))
}

/// A client that comes back quickly and uses no proxy.
pub(crate) fn builder(url: &str, user: &str) -> SyncClientBuilder {
    let reconnect = ReconnectPolicy { longest: Duration::from_millis(500), ..Default::default() };
    let options = RelayOptions { proxy: ProxyChoice::Direct, reconnect, ..Default::default() };
    SyncClient::builder(url, user).network(options)
}

/// The next event that fits.
pub(crate) async fn event<T>(
    events: &mut broadcast::Receiver<BrokerEvent>,
    mut fits: impl FnMut(BrokerEvent) -> Option<T>,
) -> T {
    let next = async {
        loop {
            if let Some(found) = fits(events.recv().await.expect("the client goes on")) {
                return found;
            }
        }
    };
    tokio::time::timeout(DEADLINE, next).await.expect("it happens in time")
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + DEADLINE;
    while !holds() {
        assert!(tokio::time::Instant::now() < end, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
