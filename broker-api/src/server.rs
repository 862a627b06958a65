//! A broker from its configuration to its end.
//!
//! [`Broker::bind`] opens the ports; [`Broker::run`] serves them. Until the stores have answered once the
//! API says that it is starting and readiness is red; the process waits for them instead of ending, so that
//! a database that comes up later than the broker is no reason to restart it in circles. What waiting does
//! not mend (a wrong key, tables of another version, a second broker where one may be) ends it.

mod backends;
mod key_file;
mod open;
mod sole;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use culvert_relay::config::Tls;
use culvert_service_kit::admin::{About, Admin};
use culvert_service_kit::lifecycle::{self, Drained};
use culvert_service_kit::metric_set::Registry;
use culvert_service_kit::tls::{self, Certificates, TlsError};
use culvert_service_kit::{Clock, Readiness, Shutdown};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::core::Core;
use crate::listener::{Front, Listener, closed};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::{announce, domain, rest, update, ws};

pub use key_file::{KeyFileError, with_keys};
pub use open::{OpenError, migrate, open_store};
pub use sole::SoleError;

/// A broker that could not open its ports.
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
    /// There is no key to seal with, and none can be made.
    #[error(transparent)]
    Key(#[from] KeyFileError),
}

/// A broker whose ports are open; [`Broker::run`] serves them.
pub struct Broker {
    config: Config,
    clock: Clock,
    live: Option<Arc<dyn Live>>,
    listener: TcpListener,
    admin: Option<TcpListener>,
    certificates: Option<Arc<Certificates>>,
    tls: Option<Arc<ServerConfig>>,
    registry: Registry,
    metrics: Metrics,
    readiness: Readiness,
    core: watch::Sender<Option<Arc<Core>>>,
}

impl Broker {
    /// Opens the ports.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn bind(config: Config) -> Result<Self, StartError> {
        Self::bind_at(config, Clock::system())
    }

    /// Opens the ports of a broker that reads the time from this clock.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn bind_at(config: Config, clock: Clock) -> Result<Self, StartError> {
        Self::bind_on(config, clock, None)
    }

    /// The same with presence that the caller has made, instead of what the configuration says: in the
    /// process of a relay, which is then told of revocations.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn bind_on(config: Config, clock: Clock, live: Option<Arc<dyn Live>>) -> Result<Self, StartError> {
        let mut config = with_keys(config)?;
        let registry = Registry::new();
        let metrics = Metrics::register(registry.recorder());
        let tls_metrics = tls::Metrics::register(registry.recorder());
        let certificates = match &config.tls {
            Tls::Files(files) => Some(Certificates::load(files.clone(), tls_metrics)?),
            Tls::PlainText => None,
        };
        let tls = certificates.as_ref().map(Certificates::server_config).transpose()?;
        let listen = |address| {
            culvert_relay::listener::bind(address).map_err(|source| StartError::Listen { address, source })
        };
        let listener = listen(config.listen)?;
        let admin = config.admin_listen.map(listen).transpose()?;
        if let Ok(address) = listener.local_addr() {
            config.public_url = settled(&config, address);
        }
        let (core, readiness) = (watch::Sender::new(None), Readiness::new());
        Ok(Self {
            config,
            clock,
            live,
            listener,
            admin,
            certificates,
            tls,
            registry,
            metrics,
            readiness,
            core,
        })
    }

    /// Where clients connect.
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

    /// The broker's series.
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// What its requests work with, once the stores have answered.
    pub fn core(&self) -> watch::Receiver<Option<Arc<Core>>> {
        self.core.subscribe()
    }

    /// Serves until `shutdown` asks to drain, then drains, step by step, and returns when all is over.
    ///
    /// # Errors
    /// The stores cannot be used, and waiting does not mend it; see [`OpenError`].
    pub fn run(self, shutdown: Shutdown) -> BoxFuture<'static, Result<Drained, OpenError>> {
        // Boxed, so that it is compiled here, and not once more in every program that awaits it.
        self.serve(shutdown).boxed()
    }

    async fn serve(self, shutdown: Shutdown) -> Result<Drained, OpenError> {
        let Self {
            config,
            clock,
            live,
            listener,
            admin,
            certificates,
            tls,
            registry,
            metrics,
            readiness,
            core,
        } = self;
        let (connections, helpers) = (TaskTracker::new(), TaskTracker::new());
        let stop_admin = CancellationToken::new();
        if let Some(listener) = admin {
            let admin = Admin { about: about(), readiness: readiness.clone(), registry: registry.clone() };
            let (guard, stop) = (shutdown.guard("admin port"), stop_admin.clone().cancelled_owned());
            helpers.spawn(async move {
                let _guard = guard;
                admin.serve(listener, stop).await;
            });
        }
        let address = listener.local_addr().ok();
        let front: Front = Arc::new(ArcSwap::from_pointee(closed("the broker waits for its stores")));
        let door = Listener::new(config.clone(), front.clone(), tls, metrics.clone(), shutdown.clone());
        let ports = async {
            let _guard = shutdown.guard("accept loop");
            tokio::join!(
                door.accept(listener, &connections),
                watch_certificates(certificates.clone()),
                registry.upkeep(),
                update::watch(&config),
            );
        };
        let serve = async {
            let opened = open::patiently(&config, &clock, live.as_ref(), &metrics, &readiness).await;
            // What ends the broker with a reason is no task that ended by itself.
            let (opened, sole) = opened.inspect_err(|_| shutdown.kill())?;
            core.send_replace(Some(opened.clone()));
            front.store(Arc::new(rest::router(opened.clone())));
            readiness.set(true, "serving");
            tracing::info!("the stores answer, the broker serves");
            let _guard = shutdown.guard("upkeep");
            tokio::select! {
                lost = sole.keep(&config) => {
                    shutdown.kill();
                    Err(OpenError::Sole(lost))
                }
                () = upkeep(&opened, &readiness) => Ok(()),
                // Without them nothing may be granted: better drained and started again.
                () = opened.audit.ended() => Ok(()),
                () = opened.desk.closed() => Ok(()),
            }
        };
        let announced = announce::while_serving(&config, address, certificates.as_deref(), &shutdown);
        let ended = tokio::select! {
            () = ports => Ok(Drained::CutOff),
            // The stores fail for good, or a task that never ends did.
            ended = serve => ended.map(|()| Drained::CutOff),
            drained = drain(&config, &readiness, &shutdown, announced, &core, &door, &connections) => {
                Ok(drained)
            }
        };
        shutdown.kill();
        connections.close();
        connections.wait().await;
        front.store(Arc::new(closed("the broker ends")));
        // The last one that holds it: what is still to be written down is.
        if let Some(core) = core.send_replace(None).and_then(Arc::into_inner) {
            core.desk.close().await;
            core.audit.close().await;
        }
        stop_admin.cancel();
        helpers.close();
        helpers.wait().await;
        ended
    }
}

fn about() -> About {
    About {
        name: "culvert-broker-api",
        version: env!("CARGO_PKG_VERSION"),
        commit: culvert_service_kit::admin::COMMIT,
        protocols: &[1],
    }
}

/// The public URL with the port that the system chose, where the configuration left it to it.
fn settled(config: &Config, address: SocketAddr) -> String {
    if config.listen.port() != 0 {
        return config.public_url.clone();
    }
    config.public_url.replace(&config.listen.to_string(), &address.to_string())
}

/// Does what nobody asks for, until dropped.
async fn upkeep(core: &Arc<Core>, readiness: &Readiness) {
    tokio::join!(
        ws::run(core),
        domain::upkeep::run(core.clone()),
        backends::watch(core.clone(), readiness.clone()),
    );
}

/// Announces the broker until it is asked to drain, then closes the WebSockets, lets requests finish and closes the rest.
///
/// The port stays open: until the balancer has had its delay, newcomers are served as ever.
async fn drain(
    config: &Config,
    readiness: &Readiness,
    shutdown: &Shutdown,
    announced: impl Future<Output = ()>,
    core: &watch::Sender<Option<Arc<Core>>>,
    door: &Listener,
    connections: &TaskTracker,
) -> Drained {
    announced.await;
    let steps = &config.drain;
    let limits =
        lifecycle::Limits { delay: steps.delay, drain: steps.window + steps.grace, close: steps.grace };
    let move_clients = async {
        let core = core.borrow().clone();
        if let Some(core) = core {
            core.sockets.drain().await;
        }
        door.leave();
        connections.close();
        connections.wait().await;
    };
    // What is left after that is cut off with everything else.
    lifecycle::drain(shutdown, readiness, limits, move_clients, std::future::ready(())).await
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
