//! The rules for every bus, over Redis: one server, a master watched by Sentinels, a Redis Cluster.
//!
//! The server and the cluster know the nodes as a user with the rights that a relay asks for and no others;
//! a command that is not among them fails the rule in which it was sent.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use culvert_relay::Config;
use culvert_relay::admission::Revoked;
use culvert_relay::bus::redis::RedisBus;
use culvert_relay::bus::redis::reach::Reach;
use culvert_relay::bus::redis::settings::{Mode, Server, Settings};
use culvert_relay::bus::redis::{nodes::NodeLease, revocation};
use culvert_service_kit::{Clock, Secret};
use culvert_testkit::chaos::{ChaosProxy, Cut};
use culvert_testkit::redis as testkit;
use culvert_testkit::redis::{RedisCluster, RedisPlan, RedisSentinels, RedisServer, relay_rights};
use culvert_testkit::relay::Embedded;
use parking_lot::Mutex;

use crate::conformance::{World, conformance};

const USER: &str = "relay";
const PASSWORD: &str = "secret";

/// Settings for these servers.
fn settings(servers: &[SocketAddr], mode: Mode) -> Settings {
    let server = |addr: &SocketAddr| Server { host: addr.ip().to_string(), port: addr.port(), tls: false };
    Settings::new(servers.iter().map(server).collect(), mode)
}

/// The same as a user that is no operator.
fn restricted(mut settings: Settings) -> Settings {
    settings.user = Some(USER.to_owned());
    settings.password = Some(Secret::new(PASSWORD.to_owned()));
    settings
}

/// Panics if a server refused anything that its clients tried.
async fn refused_nothing(server: &RedisServer) {
    let refused: Vec<redis::Value> = server.ask(&["ACL", "LOG"]).await.unwrap();
    assert_eq!(refused, [], "a relay needs a right that it does not say it needs");
}

async fn start(settings: &Settings, config: Config) -> Embedded {
    let bus = RedisBus::new(settings.clone(), Clock::system()).unwrap();
    Embedded::start_on(Arc::new(bus), config, Clock::system()).await.unwrap()
}

async fn revoke(settings: &Settings, revoked: Revoked, until: u64) {
    let reach = Reach::new(settings).unwrap();
    let mut connection = reach.ask().await.unwrap();
    revocation::add(&mut connection, reach.keys(), &[(revoked, until)]).await.unwrap();
}

/// Puts another instance's lease in the place of the node's.
async fn fence(settings: &Settings, node: &Embedded) {
    let reach = Reach::new(settings).unwrap();
    let mut connection = reach.ask().await.unwrap();
    let (key, field) = (reach.keys().nodes(), node.id().0.to_string());
    let lease: String = redis::cmd("HGET").arg(key).arg(&field).query_async(&mut connection).await.unwrap();
    let (instance, rest) = lease.split_once(' ').unwrap();
    let other = u64::from_str_radix(instance, 16).unwrap() ^ 1;
    let lease = format!("{other:016x} {rest}");
    assert_eq!(NodeLease::parse(&lease).unwrap().incarnation.instance, other);
    let () = redis::cmd("HSET").arg(key).arg(&field).arg(lease).query_async(&mut connection).await.unwrap();
}

/// One server, which each node reaches through a proxy of its own.
struct Alone {
    server: RedisServer,
    proxies: Mutex<HashMap<SocketAddr, ChaosProxy>>,
}

impl Alone {
    async fn start() -> Self {
        let plan = RedisPlan::new().unwrap().user(USER, PASSWORD, &relay_rights(testkit::Mode::Standalone));
        let server = plan.start().await.unwrap();
        Self { server, proxies: Mutex::default() }
    }

    fn settings(&self) -> Settings {
        restricted(settings(&[self.server.addr()], Mode::Standalone))
    }

    fn take(&self, node: &Embedded) -> ChaosProxy {
        self.proxies.lock().remove(&node.addr()).unwrap()
    }
}

#[async_trait(?Send)]
impl World for Alone {
    async fn node_with(&self, config: Config) -> Embedded {
        let proxy = ChaosProxy::start(self.server.addr()).await.unwrap();
        let node = start(&restricted(settings(&[proxy.addr()], Mode::Standalone)), config).await;
        self.proxies.lock().insert(node.addr(), proxy);
        node
    }

    async fn cut(&self, node: &Embedded) {
        self.proxies.lock()[&node.addr()].stall();
    }

    async fn heal(&self, node: &Embedded) {
        let proxy = self.take(node);
        proxy.cut(Cut::Reset).await;
        proxy.pass();
        self.proxies.lock().insert(node.addr(), proxy);
    }

    async fn revoke(&self, revoked: Revoked, until: u64) {
        revoke(&self.settings(), revoked, until).await;
    }

    async fn fence(&self, node: &Embedded) {
        fence(&self.settings(), node).await;
    }

    async fn ended(&self) {
        refused_nothing(&self.server).await;
    }
}

/// A master, its replica and three Sentinels. A cut stops the master, so it cuts everybody off, and the
/// Sentinels, which would find another one.
struct Watched(RedisSentinels);

impl Watched {
    async fn start() -> Self {
        Self(RedisSentinels::start().await.unwrap())
    }

    fn settings(&self) -> Settings {
        let master = testkit::MASTER.to_owned();
        settings(self.0.reach().servers(), Mode::Sentinel { master })
    }
}

#[async_trait(?Send)]
impl World for Watched {
    async fn node_with(&self, config: Config) -> Embedded {
        start(&self.settings(), config).await
    }

    async fn cut(&self, _: &Embedded) {
        for sentinel in self.0.sentinels() {
            sentinel.pause().unwrap();
        }
        self.0.master().pause().unwrap();
    }

    async fn heal(&self, _: &Embedded) {
        self.0.master().resume().unwrap();
        for sentinel in self.0.sentinels() {
            sentinel.resume().unwrap();
        }
    }

    async fn revoke(&self, revoked: Revoked, until: u64) {
        revoke(&self.settings(), revoked, until).await;
    }

    async fn fence(&self, node: &Embedded) {
        fence(&self.settings(), node).await;
    }
}

/// Three masters that share the slots. A cut stops all of them, so it cuts everybody off.
struct Spread(RedisCluster);

impl Spread {
    async fn start() -> Self {
        let user = format!("{USER} on >{PASSWORD} {}", relay_rights(testkit::Mode::Cluster));
        Self(RedisCluster::start_with(&[("user", &user)]).await.unwrap())
    }

    fn settings(&self) -> Settings {
        restricted(settings(self.0.reach().servers(), Mode::Cluster))
    }
}

#[async_trait(?Send)]
impl World for Spread {
    async fn node_with(&self, config: Config) -> Embedded {
        start(&self.settings(), config).await
    }

    async fn cut(&self, _: &Embedded) {
        for master in self.0.masters() {
            master.pause().unwrap();
        }
    }

    async fn heal(&self, _: &Embedded) {
        for master in self.0.masters() {
            master.resume().unwrap();
        }
        self.0.healthy().await.unwrap();
    }

    async fn revoke(&self, revoked: Revoked, until: u64) {
        revoke(&self.settings(), revoked, until).await;
    }

    async fn fence(&self, node: &Embedded) {
        fence(&self.settings(), node).await;
    }

    async fn ended(&self) {
        for master in self.0.masters() {
            refused_nothing(master).await;
        }
    }
}

mod standalone {
    use super::*;

    conformance!(Alone::start().await);
}

mod sentinel {
    use super::*;

    conformance!(Watched::start().await);
}

mod cluster {
    use super::*;

    conformance!(Spread::start().await);
}
