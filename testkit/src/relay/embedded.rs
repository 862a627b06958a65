//! Relay nodes inside the test's own process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use culvert_relay::bus::Bus;
use culvert_relay::bus::memory::Hub;
use culvert_relay::{Config, Relay};
use culvert_service_kit::lifecycle::Drained;
use culvert_service_kit::metric_set::Registry;
use culvert_service_kit::{Clock, Shutdown};
use culvert_wire::NodeId;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Metrics;
use crate::raw::RawOptions;

/// Longest wait for a node to get its number.
const PLACED: Duration = Duration::from_secs(30);
/// Longest wait for a node to end once it is killed.
const END: Duration = Duration::from_secs(30);

/// One node of the library; killed when dropped.
pub struct Embedded {
    addr: SocketAddr,
    admin: Option<SocketAddr>,
    placements: watch::Receiver<Option<NodeId>>,
    shutdown: Shutdown,
    registry: Registry,
    running: JoinSet<Drained>,
}

impl Embedded {
    /// An open node in clear text on a free port of loopback.
    ///
    /// # Errors
    /// It does not start.
    pub async fn open() -> Result<Self> {
        Self::start(Self::config()).await
    }

    /// The configuration of [`Embedded::open`], to be changed before [`Embedded::start`].
    pub fn config() -> Config {
        Config::embedded((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// A node with this configuration, alone.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(config: Config) -> Result<Self> {
        Self::serve(Relay::bind(config).await?).await
    }

    /// A node with this configuration on a bus and with a clock of the test's.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_on(bus: Arc<dyn Bus>, config: Config, clock: Clock) -> Result<Self> {
        Self::serve(Relay::bind_to(config, bus, clock).await?).await
    }

    /// Waits for the node's number, so that it admits peers when this returns.
    async fn serve(relay: Relay) -> Result<Self> {
        let (addr, admin, placements) = (relay.local_addr()?, relay.admin_addr()?, relay.placements());
        let (shutdown, registry) = (Shutdown::new(), relay.registry());
        let mut running = JoinSet::new();
        running.spawn(relay.run(shutdown.clone()));
        let mut placed = placements.clone();
        let placed = tokio::time::timeout(PLACED, placed.wait_for(Option::is_some)).await;
        placed.context("the node got no number in time")?.context("the node has ended")?;
        Ok(Self { addr, admin, placements, shutdown, registry, running })
    }

    /// Where peers connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where operators look, if the configuration says so.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Its number in its cluster.
    ///
    /// # Panics
    /// It has none at the moment.
    pub fn id(&self) -> NodeId {
        self.number().expect("the node has a number")
    }

    /// Its number in its cluster, while it has one.
    pub fn number(&self) -> Option<NodeId> {
        *self.placements.borrow()
    }

    /// Its URL for clients, in clear text.
    pub fn url(&self) -> String {
        format!("ws://localhost:{}", self.addr.port())
    }

    /// How raw peers reach it, in clear text.
    pub fn raw(&self) -> RawOptions {
        RawOptions::plain("localhost")
    }

    /// Its two tokens.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Its series at this moment.
    pub fn metrics(&self) -> Metrics {
        Metrics::of(self.registry.render())
    }

    /// Waits for its end after a drain was requested.
    ///
    /// # Errors
    /// It has not ended after `deadline`, or it panicked.
    pub async fn ended(mut self, deadline: Duration) -> Result<Drained> {
        let ended = tokio::time::timeout(deadline, self.running.join_next());
        let ended = ended.await.with_context(|| format!("the node still runs after {deadline:?}"))?;
        ended.context("the node was awaited before")?.context("the node panicked")
    }

    /// Stops it at once, so that its port is free again.
    ///
    /// # Errors
    /// It does not stop.
    pub async fn kill(self) -> Result<()> {
        self.shutdown.kill();
        self.ended(END).await?;
        Ok(())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.shutdown.kill();
    }
}

/// Several nodes that reach each other through the in-process bus.
pub struct Cluster {
    hub: Arc<Hub>,
    nodes: Vec<Embedded>,
}

impl Cluster {
    /// So many open nodes in clear text.
    ///
    /// # Errors
    /// One does not start.
    pub async fn open(nodes: usize) -> Result<Self> {
        let mut cluster = Self { hub: Hub::new(), nodes: Vec::new() };
        for _ in 0..nodes {
            cluster.add(Embedded::config()).await?;
        }
        Ok(cluster)
    }

    /// One more node.
    ///
    /// # Errors
    /// It does not start.
    pub async fn add(&mut self, config: Config) -> Result<&Embedded> {
        let node = Embedded::start_on(Arc::new(self.hub.bus()), config, Clock::system()).await?;
        self.nodes.push(node);
        self.nodes.last().context("a node was just added")
    }

    /// The nodes, in the order in which they were added.
    pub fn nodes(&self) -> &[Embedded] {
        &self.nodes
    }

    /// Takes a node out, to be killed or drained.
    pub fn take(&mut self, index: usize) -> Embedded {
        self.nodes.remove(index)
    }

    /// The bus between them, to be cut and healed.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }
}
