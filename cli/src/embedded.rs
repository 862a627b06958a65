//! A relay inside this process.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use culvert_relay::Relay;
use culvert_relay::config::{Config, Tls};
use culvert_service_kit::Shutdown;
use culvert_service_kit::metric_set::Registry;
use culvert_service_kit::tls::Files;
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
