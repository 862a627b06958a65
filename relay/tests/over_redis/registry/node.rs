//! A node as far as its lease goes, and a Redis to go with it.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use culvert_relay::bus::Load;
use culvert_relay::bus::redis::incarnation::Incarnation;
use culvert_relay::bus::redis::lease::{Event, Lease};
use culvert_relay::bus::redis::metrics::Metrics;
use culvert_relay::bus::redis::nodes::NodeLease;
use culvert_relay::bus::redis::reach::Reach;
use culvert_relay::bus::redis::settings::{Mode, Server, Settings};
use culvert_service_kit::Clock;
use culvert_service_kit::metric_set::Registry;
use culvert_testkit::redis::{RedisPlan, RedisServer};
use culvert_wire::NodeId;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

/// The shortest lease there is, so that tests wait for its end.
pub(crate) const LEASE: Duration = Settings::MIN_LEASE;
/// Longer than anything here takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
pub(crate) const LOAD: Load = Load { connections: 3, memberships: 4 };

pub(crate) async fn redis() -> RedisServer {
    RedisPlan::new().unwrap().start().await.unwrap()
}

pub(crate) fn settings(redis: &RedisServer) -> Settings {
    settings_of(&[redis.addr()], Mode::Standalone)
}

pub(crate) fn settings_of(servers: &[SocketAddr], mode: Mode) -> Settings {
    let server = |addr: &SocketAddr| Server { host: addr.ip().to_string(), port: addr.port(), tls: false };
    let mut settings = Settings::new(servers.iter().map(server).collect(), mode);
    (settings.lease, settings.timeout) = (LEASE, LEASE / 4);
    settings
}

/// A lease that ticks, or one that has paused as a process under SIGSTOP would.
pub(crate) struct Node {
    pub(crate) lease: Arc<Lease>,
    pub(crate) registry: Registry,
    events: mpsc::UnboundedReceiver<Event>,
    tell: mpsc::UnboundedSender<Event>,
    task: JoinSet<()>,
}

impl Node {
    /// Not ticking yet.
    pub(crate) fn prepare(settings: &Settings, clock: Clock) -> Self {
        let registry = Registry::new();
        let metrics = Arc::new(Metrics::register(registry.recorder()));
        let reach = Arc::new(Reach::new(settings).unwrap());
        let lease = Arc::new(Lease::new(reach, settings, clock, metrics));
        let (tell, events) = mpsc::unbounded_channel();
        Self { lease, registry, events, tell, task: JoinSet::new() }
    }

    /// With a number, and ticking.
    pub(crate) async fn start(settings: &Settings) -> Self {
        let mut node = Self::prepare(settings, Clock::system());
        node.lease.first(LOAD, DEADLINE).await.unwrap();
        node.resume();
        node.until(|event| matches!(event, Event::Placed { .. })).await;
        node
    }

    pub(crate) fn resume(&mut self) {
        let (lease, tell) = (Arc::clone(&self.lease), self.tell.clone());
        self.task.spawn(async move {
            lease.run(|| LOAD, |event| tell.send(event).unwrap()).await;
        });
    }

    pub(crate) async fn pause(&mut self) {
        self.task.shutdown().await;
    }

    pub(crate) fn own(&self) -> (NodeId, Incarnation) {
        self.lease.own().unwrap()
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> Event {
        timeout(DEADLINE, self.events.recv()).await.expect("an event in time").unwrap()
    }

    /// Everything that is told up to the wanted event, with it.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut told = Vec::new();
        loop {
            let event = self.event().await;
            let found = wanted(&event);
            told.push(event);
            if found {
                return told;
            }
        }
    }

    /// What has been told and not been asked for.
    pub(crate) fn told(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    pub(crate) fn metric(&self, line: &str) -> f64 {
        let text = self.registry.render();
        let value = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {line} in\n{text}")).parse().unwrap()
    }
}

/// Waits until something is so.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let wait = async {
        let mut ticks = interval(Duration::from_millis(5));
        loop {
            ticks.tick().await;
            if holds().await {
                return;
            }
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// The lease under a number, as Redis has it.
pub(crate) async fn lease_of(redis: &RedisServer, node: NodeId) -> Option<NodeLease> {
    let number = node.0.to_string();
    let text: Option<String> = redis.ask(&["HGET", "{culvert}:nodes", &number]).await.unwrap();
    text.map(|text| NodeLease::parse(&text).unwrap())
}

/// Writes a lease as another process would.
pub(crate) async fn write_lease(redis: &RedisServer, node: NodeId, lease: &NodeLease) {
    let Incarnation { instance, term } = lease.incarnation;
    let about = serde_json::to_string(&lease.about).unwrap();
    let text = format!("{instance:016x} {term} {} {about}", lease.expires);
    let () = redis.ask(&["HSET", "{culvert}:nodes", &node.0.to_string(), &text]).await.unwrap();
}
