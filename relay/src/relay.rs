//! A node from its configuration to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use culvert_service_kit::admin::{About, Admin};
use culvert_service_kit::lifecycle::{self, Drained};
use culvert_service_kit::metric_set::Registry;
use culvert_service_kit::tls::{self, Certificates, TlsError};
use culvert_service_kit::{Clock, Readiness, Shutdown};
use culvert_wire::{Close, Frame, NodeId, VERSIONS};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::admission::{Gate, KeyError, KeySet, KeySetError, name_matches};
use crate::args::chain;
use crate::bus::memory::MemoryBus;
use crate::bus::redis::RedisBus;
use crate::bus::redis::reach::ReachError;
use crate::bus::{AttachError, Bus};
use crate::config::{Config, Tls};
use crate::listener::{self, Listener};
use crate::metrics::{Fetched, Metrics};
use crate::node::{Local, Node};

/// How often ticket keys are compared with their files.
const KEYS_POLL: Duration = Duration::from_secs(5);
/// Pause before a key set that could not be fetched is asked for again; grows up to the usual one.
const KEYS_RETRY: Duration = Duration::from_secs(1);

/// A node that could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port could not be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Ticket keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The settings for Redis make no connection.
    #[error(transparent)]
    Redis(#[from] ReachError),
    /// The cluster does not take the node.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// A relay node whose ports are open; [`Relay::run`] serves them.
pub struct Relay {
    node: Arc<Node>,
    listener: TcpListener,
    admin: Option<TcpListener>,
    certificates: Option<Arc<Certificates>>,
    tls: Option<Arc<ServerConfig>>,
    registry: Registry,
    readiness: Readiness,
}

impl Relay {
    /// Opens the ports of a node that reaches others through the Redis of its configuration, or is alone.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let clock = Clock::system();
        let bus: Arc<dyn Bus> = match config.redis.clone() {
            Some(settings) => Arc::new(RedisBus::new(settings, clock.clone())?),
            None => Arc::new(MemoryBus::alone()),
        };
        Self::bind_to(config, bus, clock).await
    }

    /// Opens the ports of a node that reaches others through `bus`.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn bind_to(config: Config, bus: Arc<dyn Bus>, clock: Clock) -> Result<Self, StartError> {
        let registry = Registry::new();
        let metrics = Metrics::register(registry.recorder());
        let tls_metrics = tls::Metrics::register(registry.recorder());
        let certificates = match &config.tls {
            Tls::Files(files) => Some(Certificates::load(files.clone(), tls_metrics)?),
            Tls::PlainText => None,
        };
        let tls = certificates.as_ref().map(Certificates::server_config).transpose()?;
        let listen =
            |address| listener::bind(address).map_err(|source| StartError::Listen { address, source });
        let listener = listen(config.listen)?;
        let admin = config.admin_listen.map(listen).transpose()?;
        let local = Local::new(&config.limits, metrics, clock.clone());
        let names = names(&config, certificates.clone());
        let gate = Gate::new(&config.admission, names, clock.clone(), local.revocations())?;
        bus.attach(local.clone(), &registry).await?;
        let node = Arc::new(Node::new(config, gate, clock, bus, local));
        Ok(Self { node, listener, admin, certificates, tls, registry, readiness: Readiness::new() })
    }

    /// Where peers connect.
    ///
    /// # Errors
    /// The system does not know.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where operators look.
    ///
    /// # Errors
    /// The system does not know.
    pub fn admin_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.admin.as_ref().map(TcpListener::local_addr).transpose()
    }

    /// The node's series.
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// The node's number in its cluster, and every change of it.
    pub fn placements(&self) -> watch::Receiver<Option<NodeId>> {
        self.node.local().placements()
    }

    /// Serves until `shutdown` asks to drain, then drains, step by step, and returns when all is over.
    pub fn run(self, shutdown: Shutdown) -> BoxFuture<'static, Drained> {
        // Boxed, so that it is compiled here, and not once more in every program that awaits it.
        self.serve(shutdown).boxed()
    }

    async fn serve(self, shutdown: Shutdown) -> Drained {
        let Relay { node, listener, admin, certificates, tls, registry, readiness } = self;
        let peers = TaskTracker::new();
        let helpers = TaskTracker::new();
        let stop_admin = tokio_util::sync::CancellationToken::new();
        if let Some(listener) = admin {
            let about = About {
                name: "culvert-relay",
                version: env!("CARGO_PKG_VERSION"),
                commit: culvert_service_kit::admin::COMMIT,
                protocols: VERSIONS,
            };
            let guard = shutdown.guard("admin port");
            let admin = Admin { about, readiness: readiness.clone(), registry: registry.clone() };
            let stop = stop_admin.clone().cancelled_owned();
            helpers.spawn(async move {
                let _guard = guard;
                admin.serve(listener, stop).await;
            });
        }
        let door = Listener::new(node.clone(), tls, shutdown.clone());
        let guard = shutdown.guard("accept loop");
        let work = async {
            let _guard = guard;
            tokio::join!(
                door.accept(listener, &peers),
                watch_placement(&node, &readiness),
                node.sweep(),
                watch_keys(&node),
                fetch_keys(&node),
                watch_certificates(certificates),
                registry.upkeep()
            )
        };
        let drained = tokio::select! {
            _ = work => Drained::CutOff,
            // The guard goes with the branch that is dropped: a node without its bus drains.
            () = node.bus.failed() => drain(&node, &readiness, &shutdown, &peers).await,
            drained = drain(&node, &readiness, &shutdown, &peers) => drained,
        };
        shutdown.kill();
        peers.close();
        peers.wait().await;
        node.bus.detach().await;
        stop_admin.cancel();
        helpers.close();
        helpers.wait().await;
        drained
    }
}

/// Waits for the request to drain, then sends the peers away smeared over the window.
///
/// The port stays open. Until the balancer has had its delay, newcomers are served as ever; after it they
/// are told to come back, which brings them to another node.
async fn drain(node: &Node, readiness: &Readiness, shutdown: &Shutdown, peers: &TaskTracker) -> Drained {
    shutdown.drain_requested().await;
    let steps = &node.config.drain;
    let limits =
        lifecycle::Limits { delay: steps.delay, drain: steps.window + steps.grace, close: steps.grace };
    let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    let move_peers = async {
        node.leave();
        for link in node.local().links() {
            let reconnect_in_ms = rand::random_range(0..=millis(steps.window));
            let close_in_ms = millis(steps.window + steps.grace);
            link.outbox.push_own(&Frame::Drain { reconnect_in_ms, close_in_ms });
        }
        peers.close();
        peers.wait().await;
    };
    let close_rest = async {
        node.close_all(Close::Drained);
        peers.wait().await;
    };
    lifecycle::drain(shutdown, readiness, limits, move_peers, close_rest).await
}

/// The host names that a hello may name: those configured, those of the certificate, and on a plain-text
/// loopback port, where no other host can be meant, the loopback names.
fn names(
    config: &Config,
    certificates: Option<Arc<Certificates>>,
) -> impl Fn(&str) -> bool + Send + Sync + 'static {
    let names = config.names.clone();
    let loopback = certificates.is_none() && config.listen.ip().is_loopback();
    move |host| {
        names.iter().any(|name| name_matches(name, host))
            || certificates.as_ref().is_some_and(|certificates| certificates.covers(host))
            || (loopback && matches!(host, "localhost" | "127.0.0.1" | "::1"))
    }
}

/// Ready as long as the node has a number: without one it has no addresses to give.
async fn watch_placement(node: &Node, readiness: &Readiness) {
    let mut placements = node.local().placements();
    loop {
        match *placements.borrow_and_update() {
            Some(node) => {
                tracing::info!(%node, "the node has a place in the cluster");
                readiness.set(true, "serving");
            }
            None => readiness.set(false, "without a place in the cluster"),
        }
        if placements.changed().await.is_err() {
            return;
        }
    }
}

/// Reads the certificate again on SIGHUP and when its files change. Without one, SIGHUP means nothing; it
/// must not end the process, which is what it does where nobody handles it.
async fn watch_certificates(certificates: Option<Arc<Certificates>>) {
    if let Some(certificates) = certificates {
        return certificates.watch().await;
    }
    let Ok(mut hangups) = signal(SignalKind::hangup()) else { return std::future::pending().await };
    while hangups.recv().await.is_some() {
        tracing::info!("SIGHUP: there is no certificate to read again");
    }
}

/// Fetches the sets of ticket keys, each again and again.
async fn fetch_keys(node: &Node) {
    let Some(keys) = node.gate.tickets() else { return std::future::pending().await };
    let each = keys.sets().iter().map(|set| fetch_set(node, set, keys.refresh()));
    join_all(each).await;
    // There are none: the rest of the node goes on without this.
    std::future::pending::<()>().await;
}

async fn fetch_set(node: &Node, set: &KeySet, refresh: Duration) {
    let fetches = &node.metrics.key_fetches;
    let mut known = 0;
    loop {
        let mut said = false;
        let failed = |error: &KeySetError, _| {
            fetches[Fetched::Failed].increment(1);
            // Said when it begins, not with every attempt.
            if !std::mem::replace(&mut said, true) {
                tracing::error!(error = chain(error), url = %set.url(), in_use = known, "ticket keys not fetched");
            }
        };
        let again = ExponentialBuilder::default()
            .with_min_delay(KEYS_RETRY.min(refresh))
            .with_max_delay(refresh)
            .with_jitter()
            .without_max_times();
        // Without a limit of attempts it ends in success only.
        if let Ok(count) = (|| set.fetch()).retry(again).notify(failed).await {
            fetches[Fetched::Done].increment(1);
            if said || count != known {
                tracing::info!(url = %set.url(), count, "ticket keys fetched");
            }
            known = count;
        }
        // Spread, so that the nodes of a cluster do not all ask at once.
        tokio::time::sleep(refresh.mul_f64(rand::random_range(0.8..1.0))).await;
    }
}

/// Reads the ticket keys again when their files change.
async fn watch_keys(node: &Node) {
    let Some(keys) = node.gate.tickets() else { return std::future::pending().await };
    let stamps = || -> Vec<_> {
        keys.files()
            .iter()
            .map(|file| std::fs::metadata(file).and_then(|meta| meta.modified()).ok())
            .collect()
    };
    let mut seen = stamps();
    let mut ticks = tokio::time::interval(KEYS_POLL);
    loop {
        ticks.tick().await;
        let now = stamps();
        if now == seen {
            continue;
        }
        seen = now;
        match keys.reload() {
            Ok(()) => tracing::info!("ticket keys read again"),
            Err(error) => tracing::error!(%error, "ticket keys not read again, the old ones stay in use"),
        }
    }
}
