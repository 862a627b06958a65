//! How to reach Redis: one server, the master that Sentinels name, or the masters of a cluster.
//!
//! Three kinds of connections, because they fail and wait differently: [`Reach::ask`] lends one for
//! registry work; [`Reach::publisher`] and [`Reach::subscriber`] open one that carries traffic and belongs
//! to whoever opened it. Which server serves a channel is learned, kept ([`Reach::watch`]) and learned
//! anew when something went wrong ([`Reach::refresh`]); [`Reach::moved`] says when it changes.
//!
//! Every wait here ends within the setting `redis-timeout`.

mod asking;
mod link;
mod masters;
mod seeds;
mod sentinels;
mod topology;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use culvert_service_kit::Secret;
use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, RedisError};
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

pub use asking::Asking;
pub use masters::run_id;

use super::keys::Keys;
use super::settings::{Mode, Server, Settings};
use asking::{MasterPool, SharedCluster};
use link::Link;
use masters::Masters;
use seeds::Seeds;
use sentinels::Sentinels;
use topology::Topology;

/// How often Sentinels are asked for the master: a failover takes them seconds, noticing it less.
const SENTINEL_PERIOD: Duration = Duration::from_secs(1);
/// How often a cluster is asked for its slots. Moves are noticed at once by whoever they concern; this is
/// for those that nobody noticed.
const CLUSTER_PERIOD: Duration = Duration::from_secs(5);

/// A server that serves channels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place(Arc<Server>);

impl From<Server> for Place {
    fn from(server: Server) -> Self {
        Self(Arc::new(server))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Redis could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// The settings make no connection; trying again would not help.
    #[error("the settings for redis are not usable: {0}")]
    Unusable(String),
    /// The server knows neither user nor password; trying again helps once it does.
    #[error("redis at {server} refuses the user or the password: {source}")]
    Refused {
        /// Which.
        server: String,
        /// What it said.
        source: RedisError,
    },
    /// No connection, or it broke.
    #[error("redis at {server} cannot be reached: {source}")]
    Unreachable {
        /// Which.
        server: String,
        /// Why.
        source: RedisError,
    },
    /// Not in time.
    #[error("redis at {server} did not answer within {limit:?}")]
    Timeout {
        /// Which.
        server: String,
        /// How long it had.
        limit: Duration,
    },
    /// No Sentinel answers, or none knows the master.
    #[error("no Sentinel names the master {master}: {reason}")]
    NoMaster {
        /// The name it was asked by.
        master: String,
        /// What the last of them said.
        reason: String,
    },
    /// Nobody in the cluster says who serves the slot.
    #[error("no server of the redis cluster serves slot {0}")]
    Unserved(u16),
}

/// The way to Redis. See the module.
pub struct Reach {
    keys: Keys,
    timeout: Duration,
    user: Option<String>,
    given: Vec<Place>,
    /// To the given addresses; Sentinels know other users.
    seed_link: Arc<Link>,
    /// To the servers themselves.
    link: Arc<Link>,
    mode: Mode,
    learner: Mutex<Learner>,
    topology: watch::Sender<Option<Arc<Topology>>>,
    lender: Lender,
    /// Processes of the cluster, whose changes are counted below.
    masters: Mutex<Masters>,
    replaced: AtomicU64,
    /// Something is odd, so they may have changed.
    odd: Notify,
    /// A connection of [`Reach::ask`] met an error that another master, or a dead connection, would explain.
    doubt: Arc<AtomicBool>,
}

/// Finds out which server serves what; one at a time.
struct Learner {
    from: Source,
    /// When an attempt last ended.
    tried: Option<Instant>,
}

enum Lender {
    Master(MasterPool),
    Cluster(Box<SharedCluster>),
}

enum Source {
    Fixed(Place),
    Sentinels(Sentinels),
    Seeds(Seeds),
}

impl Reach {
    /// Prepares the way; nothing is connected yet.
    ///
    /// # Errors
    /// [`ReachError::Unusable`].
    pub fn new(settings: &Settings) -> Result<Self, ReachError> {
        if let Some(problem) = settings.problems().into_iter().next() {
            return Err(ReachError::Unusable(problem));
        }
        let password =
            |secret: &Option<Secret<String>>| secret.as_ref().map(|secret| secret.expose().clone());
        let limit = settings.timeout;
        let link = Link::new(
            settings.user.as_deref(),
            password(&settings.password).as_deref(),
            settings.ca.as_deref(),
            limit,
        )?;
        // What would make every connection fail is found now.
        for server in &settings.servers {
            link.client(server, redis::ProtocolVersion::RESP3)?;
        }
        let link = Arc::new(link);
        let given: Vec<Place> = settings.servers.iter().cloned().map(Place::from).collect();
        let mut seed_link = Arc::clone(&link);
        let from = match &settings.mode {
            Mode::Standalone => Source::Fixed(given[0].clone()),
            Mode::Sentinel { master } => {
                let (user, secret) = (&settings.sentinel_user, password(&settings.sentinel_password));
                let ca = settings.ca.as_deref();
                seed_link = Arc::new(Link::new(user.as_deref(), secret.as_deref(), ca, limit)?);
                Source::Sentinels(Sentinels::new(
                    master.clone(),
                    settings.servers.clone(),
                    Arc::clone(&seed_link),
                ))
            }
            Mode::Cluster => Source::Seeds(Seeds::new(settings.servers.clone(), Arc::clone(&link))),
        };
        let lender = match settings.mode {
            Mode::Cluster => {
                let client = link.cluster(&settings.servers)?;
                Lender::Cluster(Box::new(SharedCluster::new(client, Arc::clone(&link), given[0].clone())))
            }
            Mode::Standalone | Mode::Sentinel { .. } => Lender::Master(MasterPool::new(Arc::clone(&link))),
        };
        Ok(Self {
            keys: Keys::new(&settings.prefix),
            masters: Mutex::new(Masters::new(Arc::clone(&link))),
            replaced: AtomicU64::new(0),
            odd: Notify::new(),
            timeout: limit,
            user: settings.user.clone(),
            given,
            seed_link,
            link,
            mode: settings.mode.clone(),
            learner: Mutex::new(Learner { from, tried: None }),
            topology: watch::Sender::new(None),
            lender,
            doubt: Arc::new(AtomicBool::new(false)),
        })
    }

    /// The names of keys and channels.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Whether keys and channels are spread over slots, so that one command or pipeline to one server
    /// cannot touch all of them.
    pub fn is_cluster(&self) -> bool {
        self.mode == Mode::Cluster
    }

    /// What the settings say is there.
    pub fn mode(&self) -> &Mode {
        &self.mode
    }

    /// Longest wait for a connection, and for each answer.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Lends a connection for registry work, which speaks RESP2.
    ///
    /// Costs a round trip of its own, so it is borrowed once per batch. Cancel safe.
    ///
    /// # Errors
    /// Redis could not be reached in time.
    pub async fn ask(&self) -> Result<Asking, ReachError> {
        let doubted = self.doubt.swap(false, Ordering::Relaxed);
        let borrowed = async {
            match &self.lender {
                Lender::Cluster(cluster) => cluster.borrow().await,
                Lender::Master(pool) => {
                    if doubted {
                        pool.forget().await;
                        self.refresh().await;
                    }
                    match &*self.topology().await? {
                        Topology::One(master) => pool.borrow(master).await,
                        Topology::Slots(_) => Err(ReachError::Unserved(0)),
                    }
                }
            }
        };
        let Ok(connection) = timeout(self.timeout, borrowed).await else {
            self.doubt.store(true, Ordering::Relaxed);
            return Err(self.late());
        };
        let connection = connection?;
        Ok(Asking::new(connection, Arc::clone(&self.doubt)))
    }

    /// Which server serves a channel. Cancel safe.
    ///
    /// # Errors
    /// Nobody could be asked, or nobody serves it.
    pub async fn place(&self, channel: &str) -> Result<Place, ReachError> {
        let topology = timeout(self.timeout, self.topology()).await.map_err(|_| self.late())??;
        topology.place(channel).ok_or_else(|| ReachError::Unserved(topology::slot(channel)))
    }

    /// Completes when a channel is served by another server than this. Cancel safe.
    pub async fn moved(&self, channel: &str, from: &Place) {
        let mut topology = self.topology.subscribe();
        let moved = |known: &Option<Arc<Topology>>| {
            known.as_ref().and_then(|known| known.place(channel)).is_some_and(|place| place != *from)
        };
        if topology.wait_for(moved).await.is_err() {
            // The sender lives as long as `self`.
            std::future::pending::<()>().await;
        }
    }

    /// Opens a connection for publishing at a server.
    ///
    /// # Errors
    /// It could not be reached in time.
    pub async fn publisher(&self, place: &Place) -> Result<MultiplexedConnection, ReachError> {
        self.link.open(&place.0, None).await
    }

    /// Opens a connection for subscriptions at a server.
    ///
    /// `push` is called inline for whatever the server pushes, in order, and with
    /// [`PushKind::Disconnection`](redis::PushKind) when the connection ends; it must not wait.
    ///
    /// # Errors
    /// It could not be reached in time.
    pub async fn subscriber(
        &self,
        place: &Place,
        push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<MultiplexedConnection, ReachError> {
        self.link.open(&place.0, Some(Box::new(push))).await
    }

    /// Learns anew which server serves what, because something speaks against what is known.
    ///
    /// What is known stays if nobody can be asked. Whoever comes together shares one answer.
    pub async fn refresh(&self) {
        self.odd.notify_one();
        let asked = Instant::now();
        let learned = timeout(self.timeout, async {
            let mut learner = self.learner.lock().await;
            if learner.tried.is_some_and(|tried| tried > asked) {
                return Ok(());
            }
            if let Source::Seeds(seeds) = &mut learner.from {
                // It may be the one that is wrong.
                seeds.distrust();
            }
            self.learn(&mut learner).await.map(drop)
        });
        if let Err(error) = learned.await.unwrap_or_else(|_| Err(self.late())) {
            tracing::debug!(%error, "could not ask again which redis server serves what");
        }
    }

    /// Learns from the answer to a command of a publisher or subscriber: a cluster that says where a slot
    /// is now is believed at once, anything else is asked about.
    pub async fn note(&self, error: &RedisError) {
        let Some((address, slot)) = error.redirect_node() else { return self.refresh().await };
        self.topology.send_if_modified(|known| {
            let Some(changed) = known.as_ref().and_then(|known| known.redirected(slot, address)) else {
                return false;
            };
            *known = Some(Arc::new(changed));
            true
        });
    }

    /// Counts the processes that came to serve a part of the cluster: they lack what was last, or ever,
    /// registered with whoever did before.
    pub fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Acquire)
    }

    /// Keeps what is known current, until dropped.
    pub async fn watch(&self) {
        match self.mode {
            Mode::Standalone => std::future::pending().await,
            Mode::Sentinel { .. } => self.watch_topology(SENTINEL_PERIOD).await,
            Mode::Cluster => {
                tokio::join!(self.watch_topology(CLUSTER_PERIOD), self.watch_masters());
            }
        }
    }

    async fn watch_topology(&self, period: Duration) {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut learner = self.learner.lock().await;
            if let Err(error) = self.learn(&mut learner).await {
                tracing::debug!(%error, "could not ask whether the same redis servers serve");
            }
        }
    }

    async fn watch_masters(&self) {
        let mut masters = self.masters.lock().await;
        let mut ticks = interval(CLUSTER_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.odd.notified() => {}
            }
            let Ok(places) = self.places().await else { continue };
            let new = masters.look(places).await;
            if new > 0 {
                tracing::info!(new, "other processes serve the redis cluster; they may lack registrations");
                self.replaced.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    /// The ACL user, if not the default one.
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Opens a connection to each of the given addresses, whatever is there.
    pub(super) async fn given(&self) -> Vec<(Place, Result<MultiplexedConnection, ReachError>)> {
        join_all(self.given.iter().map(|place| async {
            let opened = self.seed_link.open(&place.0, None).await;
            (place.clone(), opened)
        }))
        .await
    }

    /// Says what an error of a server means.
    pub(super) fn error(&self, place: &Place, error: RedisError) -> ReachError {
        self.link.error(&place.0, error)
    }

    /// Every server that serves something.
    pub(super) async fn places(&self) -> Result<Vec<Place>, ReachError> {
        let topology = timeout(self.timeout, self.topology()).await.map_err(|_| self.late())??;
        Ok(topology.places())
    }

    async fn topology(&self) -> Result<Arc<Topology>, ReachError> {
        let known = self.topology.borrow().clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let mut learner = self.learner.lock().await;
        let known = self.topology.borrow().clone();
        match known {
            Some(known) => Ok(known),
            None => self.learn(&mut learner).await,
        }
    }

    async fn learn(&self, learner: &mut Learner) -> Result<Arc<Topology>, ReachError> {
        // Half, so that whoever waits for this has time left to use what was known before.
        let limit = self.timeout / 2;
        let learned = match &mut learner.from {
            Source::Fixed(place) => Ok(Topology::One(place.clone())),
            Source::Sentinels(sentinels) => {
                sentinels.master(limit).await.map(|master| Topology::One(master.into()))
            }
            Source::Seeds(seeds) => seeds.slots(limit).await.map(Topology::Slots),
        };
        learner.tried = Some(Instant::now());
        let topology = Arc::new(learned?);
        self.topology.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&topology);
            if changed {
                *known = Some(Arc::clone(&topology));
            }
            changed
        });
        Ok(topology)
    }

    fn late(&self) -> ReachError {
        let servers = match self.topology.borrow().as_ref() {
            Some(topology) => topology.places().iter().map(Place::to_string).collect::<Vec<_>>().join(", "),
            None => "the given address".to_owned(),
        };
        ReachError::Timeout { server: servers, limit: self.timeout }
    }
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reach").field("mode", &self.mode).finish_non_exhaustive()
    }
}
