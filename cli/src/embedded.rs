//! A relay and a broker inside this process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use culvert_broker_api::Broker;
use culvert_broker_api::live::memory::MemoryLive;
use culvert_relay::Relay;
use culvert_relay::bus::memory::Hub;
use culvert_relay::config::{Config, Tls};
use culvert_service_kit::metric_set::Registry;
use culvert_service_kit::tls::Files;
use culvert_service_kit::{Clock, Shutdown};
use tokio::task::JoinSet;

/// How long a relay may take to stop when it is told to stop at once.
const STOP: Duration = Duration::from_secs(5);

/// A relay that runs until it is stopped or dropped.
pub(crate) struct Embedded {
    address: SocketAddr,
    registry: Registry,
    shutdown: Shutdown,
    task: JoinSet<()>,
}

impl Embedded {
    /// Settings of a relay with TLS that admits anybody.
    pub(crate) fn config(listen: SocketAddr, tls: Files) -> Config {
        Config { tls: Tls::Files(tls), ..Config::embedded(listen) }
    }

    /// Opens the port and serves.
    pub(crate) async fn start(config: Config) -> Result<Self> {
        let listen = config.listen;
        let relay = Relay::bind(config).await.with_context(|| format!("no relay at {listen}"))?;
        Self::serve(relay)
    }

    /// The same on a bus that a broker of this process can reach.
    pub(crate) async fn start_on(hub: &Arc<Hub>, config: Config) -> Result<Self> {
        let listen = config.listen;
        let relay = Relay::bind_to(config, Arc::new(hub.bus()), Clock::system()).await;
        Self::serve(relay.with_context(|| format!("no relay at {listen}"))?)
    }

    fn serve(relay: Relay) -> Result<Self> {
        let (address, registry) = (relay.local_addr()?, relay.registry());
        let shutdown = Shutdown::new();
        let mut task = JoinSet::new();
        let until = shutdown.clone();
        task.spawn(async move {
            relay.run(until).await;
        });
        Ok(Self { address, registry, shutdown, task })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The sum of a series over all its labels.
    pub(crate) fn counted(&self, series: &str) -> u64 {
        let text = self.registry.render();
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(series)?;
            let rest = match rest.strip_prefix('{') {
                Some(labels) => labels.split_once("} ")?.1,
                None => rest.strip_prefix(' ')?,
            };
            rest.trim().parse::<u64>().ok()
        });
        values.sum()
    }

    /// Completes when the relay has ended by itself.
    pub(crate) async fn ended(&mut self) {
        self.task.join_next().await;
    }

    /// Stops at once, as a crash would.
    pub(crate) async fn kill(mut self) {
        self.shutdown.kill();
        let _ = tokio::time::timeout(STOP, self.task.join_next()).await;
    }
}

/// A broker that runs until it is stopped or dropped.
pub(crate) struct EmbeddedBroker {
    shutdown: Shutdown,
    task: JoinSet<Result<()>>,
}

impl EmbeddedBroker {
    /// Opens the port, and serves once the database is open; revocations reach the relays on `hub`.
    pub(crate) async fn start(config: culvert_broker_api::Config, hub: Arc<Hub>) -> Result<Self> {
        let (listen, clock) = (config.listen, Clock::system());
        let live = Arc::new(MemoryLive::new(clock.clone()).with_relays(hub));
        let broker =
            Broker::bind_on(config, clock, Some(live)).with_context(|| format!("no broker at {listen}"))?;
        let (mut core, shutdown) = (broker.core(), Shutdown::new());
        let mut task = JoinSet::new();
        let until = shutdown.clone();
        task.spawn(async move {
            broker.run(until).await?;
            Ok(())
        });
        let mut this = Self { shutdown, task };
        let opened = tokio::select! {
            opened = core.wait_for(Option::is_some) => opened.is_ok(),
            ended = this.ended() => return Err(ended),
        };
        if !opened {
            return Err(this.ended().await);
        }
        Ok(this)
    }

    /// Completes when the broker has ended by itself, with the reason.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        let reason = match self.task.join_next().await {
            Some(Ok(Err(error))) => error,
            _ => anyhow!("its log says why"),
        };
        reason.context("the broker has ended by itself")
    }

    /// Stops at once, as a crash would.
    pub(crate) async fn kill(mut self) {
        self.shutdown.kill();
        let _ = tokio::time::timeout(STOP, self.task.join_next()).await;
    }
}
