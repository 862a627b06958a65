//! The inbox of one node, and somebody who publishes to it.

use std::sync::Arc;
use std::time::Duration;

use culvert_relay::bus::redis::inboxes::Inboxes;
use culvert_relay::bus::redis::metrics::{Metrics, Resubscription};
use culvert_relay::bus::redis::reach::Reach;
use culvert_relay::bus::redis::settings::{Mode, Server, Settings};
use culvert_service_kit::metric_set::Registry;
use culvert_testkit::redis as testkit;
use culvert_wire::NodeId;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Longest wait for anything here; a test that needs it all has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// How often a condition is asked for that nothing announces.
const POLL: Duration = Duration::from_millis(20);
pub(crate) const NODE: NodeId = NodeId(0x1234);
pub(crate) const SHARDS: u8 = 4;

/// Settings for a Redis of the testkit, without user and TLS.
pub(crate) fn settings(reach: &testkit::Reach) -> Settings {
    let mode = match reach.mode() {
        testkit::Mode::Standalone => Mode::Standalone,
        testkit::Mode::Sentinel => Mode::Sentinel { master: testkit::MASTER.to_owned() },
        testkit::Mode::Cluster => Mode::Cluster,
    };
    let server = |addr: &std::net::SocketAddr| Server {
        host: addr.ip().to_string(),
        port: addr.port(),
        tls: reach.url().starts_with("rediss:"),
    };
    Settings::new(reach.servers().iter().map(server).collect(), mode)
}

/// From which shard, and what.
type Message = (u8, Vec<u8>);

/// A running inbox; stops when dropped.
pub(crate) struct Listener {
    pub(crate) reach: Arc<Reach>,
    registry: Registry,
    live: watch::Receiver<bool>,
    received: watch::Receiver<usize>,
    messages: Arc<Mutex<Vec<Message>>>,
    _task: JoinSet<()>,
}

impl Listener {
    /// Starts it and waits until all shards are subscribed.
    pub(crate) async fn start(settings: &Settings) -> Self {
        let reach = Arc::new(Reach::new(settings).unwrap());
        let registry = Registry::new();
        let metrics = Metrics::register(registry.recorder());
        let (live, is_live) = watch::channel(false);
        let (count, received) = watch::channel(0);
        let messages = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&messages);
        let deliver = Arc::new(move |shard: u8, message: Vec<u8>| {
            taken.lock().push((shard, message));
            count.send_modify(|count| *count += 1);
        });
        let inboxes = Inboxes::new(Arc::clone(&reach), NODE, SHARDS, deliver, live, metrics);
        let mut task = JoinSet::new();
        task.spawn(async move { inboxes.run().await });
        let mut listener = Self { reach, registry, live: is_live, received, messages, _task: task };
        listener.becomes(true).await;
        listener
    }

    /// Waits until all shards are subscribed, or one is not.
    pub(crate) async fn becomes(&mut self, live: bool) {
        let waited = timeout(LIMIT, self.live.wait_for(|now| *now == live)).await;
        waited.unwrap_or_else(|_| panic!("the inbox did not become live={live} within {LIMIT:?}")).unwrap();
    }

    /// Publishes through a connection of its own; how many received it.
    pub(crate) async fn publish(&self, shard: u8, message: &[u8]) -> u64 {
        let channel = self.reach.keys().inbox(NODE, shard);
        let place = self.reach.place(&channel).await.unwrap();
        let mut publisher = self.reach.publisher(&place).await.unwrap();
        let command = if self.reach.is_cluster() { "SPUBLISH" } else { "PUBLISH" };
        redis::cmd(command).arg(channel).arg(message).query_async(&mut publisher).await.unwrap()
    }

    /// Publishes to every shard until it has its one receiver, and expects each message once.
    pub(crate) async fn hears_all_shards(&mut self) {
        let before = *self.received.borrow();
        let deadline = Instant::now() + LIMIT;
        for shard in 0..SHARDS {
            loop {
                match self.publish(shard, &[1, shard]).await {
                    // Not subscribed again yet; what nobody received is not delivered later either.
                    0 => assert!(Instant::now() < deadline, "nobody receives shard {shard}"),
                    receivers => break assert_eq!(receivers, 1, "receivers of shard {shard}"),
                }
                sleep(POLL).await;
            }
        }
        self.has(before + usize::from(SHARDS)).await;
        let mut last = self.messages.lock()[before..].to_vec();
        last.sort();
        assert_eq!(last, (0..SHARDS).map(|shard| (shard, vec![1, shard])).collect::<Vec<_>>());
    }

    /// Waits until so many messages have been delivered since the start.
    pub(crate) async fn has(&mut self, count: usize) {
        let waited = timeout(LIMIT, self.received.wait_for(|received| *received >= count)).await;
        let received = self.messages.lock().len();
        waited.unwrap_or_else(|_| panic!("{received} of {count} messages within {LIMIT:?}")).unwrap();
    }

    /// Everything delivered so far, by shard.
    pub(crate) fn of_shard(&self, shard: u8) -> Vec<Vec<u8>> {
        let messages = self.messages.lock();
        messages.iter().filter(|(of, _)| *of == shard).map(|(_, message)| message.clone()).collect()
    }

    /// How often a subscription ended for this reason.
    pub(crate) fn resubscriptions(&self, reason: Resubscription) -> u64 {
        self.number(&format!("culvert_relay_bus_resubscriptions_total{{reason=\"{}\"}}", reason.name()))
    }

    /// The value of a series.
    pub(crate) fn number(&self, series: &str) -> u64 {
        let text = self.registry.render();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{series} not in\n{text}")).parse().unwrap()
    }
}
