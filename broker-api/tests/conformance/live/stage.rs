//! Replicas to hold the rules against.

use std::sync::Arc;
use std::time::Duration;

use culvert_broker_api::live::memory::MemoryLive;
use culvert_broker_api::live::redis::RedisLive;
use culvert_broker_api::live::{Event, Live, Presence};
use culvert_broker_wire::Timestamp;
use culvert_relay::bus::redis::settings::{Mode, Server, Settings};
use culvert_service_kit::Clock;
use culvert_testkit::redis::{MASTER, Reach, RedisCluster, RedisPlan, RedisServer};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

/// The moment at which every stage begins, in seconds since 1970.
pub(super) const START: u64 = 1_800_000_000;
/// How long a connection lasts.
pub(super) const TTL: Duration = Duration::from_secs(300);
/// Longest wait for anything that has to happen.
const DEADLINE: Duration = Duration::from_secs(20);

/// One or two replicas.
pub(super) struct Stage {
    pub(super) clock: Clock,
    pub(super) replicas: Vec<Arc<dyn Live>>,
    /// What each replica hears.
    pub(super) ears: Vec<broadcast::Receiver<Event>>,
    pub(super) server: Option<RedisServer>,
    pub(super) settings: Option<Settings>,
    _listening: JoinSet<()>,
}

impl Stage {
    pub(super) fn memory() -> Self {
        let clock = Clock::manual(START);
        let live: Arc<dyn Live> = Arc::new(MemoryLive::new(clock.clone()));
        let ears = vec![live.events()];
        let listening = JoinSet::new();
        Self { clock, replicas: vec![live], ears, server: None, settings: None, _listening: listening }
    }

    /// Two replicas on one Redis of their own.
    pub(super) async fn redis() -> Self {
        let server = RedisPlan::new().unwrap().start().await.unwrap();
        let mut stage = Self::on(settings(&server.reach(), Mode::Standalone)).await;
        stage.server = Some(server);
        stage
    }

    /// Two replicas on a cluster, under a name of their own.
    pub(super) async fn cluster(cluster: &RedisCluster, name: &str) -> Self {
        let mut settings = settings(&cluster.reach(), Mode::Cluster);
        // All rules run here at once with those of the other stages, and none is about a slow answer.
        settings.timeout = Settings::LEASE / 3;
        settings.prefix = name.chars().take(Settings::MAX_PREFIX).collect();
        Self::on(settings).await
    }

    /// Two replicas that hear each other.
    pub(super) async fn on(settings: Settings) -> Self {
        let clock = Clock::manual(START);
        let (mut replicas, mut ears, mut listening) = (Vec::new(), Vec::new(), JoinSet::new());
        for _ in 0..2 {
            let live: Arc<dyn Live> = Arc::new(RedisLive::new(&settings, clock.clone()).unwrap());
            let mut ear = live.events();
            let listener = Arc::clone(&live);
            listening.spawn(async move { listener.run().await });
            // Said once it listens.
            assert_eq!(heard(&mut ear).await, Event::Missed);
            replicas.push(live);
            ears.push(ear);
        }
        Self { clock, replicas, ears, server: None, settings: Some(settings), _listening: listening }
    }

    pub(super) fn first(&self) -> &Arc<dyn Live> {
        &self.replicas[0]
    }

    pub(super) fn last(&self) -> &Arc<dyn Live> {
        &self.replicas[self.replicas.len() - 1]
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_unix_seconds(self.clock.unix_seconds())
    }

    /// Asserts that each replica hears these turns, each user's in this order, and nothing else before a
    /// mark that is published once they were heard.
    pub(super) async fn heard(&mut self, turns: &[(&str, bool)]) {
        let mut turns = turns.to_vec();
        turns.sort_by_key(|(user, _)| *user);
        let mut heard = vec![Vec::new(); self.ears.len()];
        for (ear, heard) in self.ears.iter_mut().zip(&mut heard) {
            while heard.len() < turns.len() {
                heard.extend(turn(ear).await);
            }
        }
        self.last().publish(&Event::Keys).await.unwrap();
        for (ear, mut heard) in self.ears.iter_mut().zip(heard) {
            while let Some(more) = turn(ear).await {
                heard.push(more);
            }
            heard.sort_by(|(a, _), (b, _)| a.cmp(b));
            let heard: Vec<(&str, bool)> = heard.iter().map(|(user, online)| (&**user, *online)).collect();
            assert_eq!(heard, turns);
        }
    }
}

/// The next turn that is heard, or `None` at the mark.
async fn turn(ear: &mut broadcast::Receiver<Event>) -> Option<(String, bool)> {
    loop {
        match heard(ear).await {
            Event::Presence { user, online, .. } => return Some((user, online)),
            Event::Keys => return None,
            Event::Missed => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A connection of a user, `age` seconds before [`START`].
pub(super) fn presence(user: &str, connection: u8, age: u64) -> Presence {
    Presence {
        connection: format!("{connection:032x}"),
        user: user.to_owned(),
        device: Some("laptop".to_owned()),
        endpoint: "http://192.168.1.50:3001".to_owned(),
        relay: None,
        since: Timestamp::from_unix_seconds(START - age),
    }
}

pub(super) async fn heard(ear: &mut broadcast::Receiver<Event>) -> Event {
    tokio::time::timeout(DEADLINE, ear.recv()).await.expect("nothing is heard").unwrap()
}

/// Settings for what the testkit started.
pub(super) fn settings(reach: &Reach, mode: Mode) -> Settings {
    let server =
        |addr: &std::net::SocketAddr| Server { host: addr.ip().to_string(), port: addr.port(), tls: false };
    Settings::new(reach.servers().iter().map(server).collect(), mode)
}

pub(super) fn sentinel_mode() -> Mode {
    Mode::Sentinel { master: MASTER.to_owned() }
}

/// No test takes longer.
pub(super) async fn within(test: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(120), test).await.expect("the test takes too long");
}

/// Asks until it is so.
pub(super) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let asked = async {
        loop {
            ticks.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    };
    tokio::time::timeout(DEADLINE, asked).await.unwrap_or_else(|_| panic!("{what}"))
}
