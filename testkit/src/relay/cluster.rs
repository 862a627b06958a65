//! Several `culvert-relay` processes on one Redis, behind one balancer.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, interval};

use super::server::{RelayPlan, RelayProcess};
use crate::binaries;
use crate::chaos::{ChaosConnection, ChaosProxy};
use crate::haproxy::{Backend, Balance, Balancer, SOURCE};
use crate::process::Signal;
use crate::redis::{Mode, Reach, RedisServer};

/// From a start to readiness: one lease is claimed.
const READY: Duration = Duration::from_secs(60);
/// How often a condition is asked for.
const POLL: Duration = Duration::from_millis(50);

/// What a cluster is started with.
pub struct RelayClusterPlan {
    relays: Vec<RelayPlan>,
    reach: Reach,
    balance: Balance,
    through_chaos: bool,
    recorded: bool,
}

/// Relays that share a Redis, and the balancer in front of them; killed when dropped.
///
/// A node keeps its ports over restarts, so the balancer finds it again.
pub struct RelayCluster {
    balancer: Balancer,
    nodes: Vec<Node>,
}

struct Node {
    relay: State,
    /// Between it and Redis.
    chaos: Option<ChaosProxy>,
}

#[expect(clippy::large_enum_variant, reason = "there is one for each node")]
enum State {
    Running(RelayProcess),
    Stopped(RelayPlan),
    /// An attempt to start or to stop it failed, and the test with it.
    Lost,
}

impl RelayClusterPlan {
    /// So many open relays in clear text, with the defaults of `culvert-relay`.
    ///
    /// # Errors
    /// The binary does not build, or no port is free.
    pub async fn open(nodes: usize, redis: Reach) -> Result<Self> {
        let binary = binaries::relay().await?;
        let relay = || {
            let plan = RelayPlan::open(&binary)?.set("proxy-protocol-from", SOURCE.to_string());
            anyhow::Ok(plan)
        };
        let relays = (0..nodes).map(|_| relay()).collect::<Result<_>>()?;
        let balance = Balance::default();
        Ok(Self { relays, reach: redis, balance, through_chaos: false, recorded: false })
    }

    /// Changes what every node is started with, such as TLS and limits, by its index.
    ///
    /// # Errors
    /// What `change` gives.
    pub fn each(mut self, change: impl Fn(usize, RelayPlan) -> Result<RelayPlan>) -> Result<Self> {
        let relays = self.relays.into_iter().enumerate();
        self.relays = relays.map(|(index, plan)| change(index, plan)).collect::<Result<_>>()?;
        Ok(self)
    }

    /// Puts another rule into the balancer.
    #[must_use]
    pub fn balance(mut self, balance: Balance) -> Self {
        self.balance = balance;
        self
    }

    /// Puts a chaos proxy between each node and a standalone Redis. Sentinels and cluster masters name
    /// the real servers, past any proxy.
    ///
    /// # Errors
    /// The Redis is not a standalone one.
    pub fn through_chaos(mut self) -> Result<Self> {
        ensure!(self.reach.mode() == Mode::Standalone, "only a standalone Redis can be behind a proxy");
        self.through_chaos = true;
        Ok(self)
    }

    /// Puts proxies there that record what they carry, from the first byte. See [`ChaosProxy::record`].
    ///
    /// # Errors
    /// As for [`RelayClusterPlan::through_chaos`].
    pub fn recorded(mut self) -> Result<Self> {
        self.recorded = true;
        self.through_chaos()
    }

    /// Starts all nodes and the balancer, and waits until every node is ready and used.
    ///
    /// # Errors
    /// One does not start; the error shows what it printed.
    pub async fn start(self) -> Result<RelayCluster> {
        let backends: Vec<Backend> =
            self.relays.iter().map(|plan| Backend { addr: plan.addr(), health: plan.admin_addr() }).collect();
        let mut nodes = Vec::new();
        for plan in self.relays {
            let mut reach = self.reach.clone();
            let mut chaos = None;
            if self.through_chaos {
                let server = reach.servers().first().copied().context("no Redis")?;
                let proxy = ChaosProxy::start(server).await?;
                if self.recorded {
                    proxy.record();
                }
                reach = reach.through(proxy.addr());
                chaos = Some(proxy);
            }
            nodes.push(Node { relay: State::Stopped(reach.apply(plan)), chaos });
        }
        let mut cluster =
            RelayCluster { balancer: Balancer::start_with(&backends, self.balance).await?, nodes };
        for index in 0..cluster.nodes.len() {
            cluster.launch(index).await?;
        }
        for index in 0..cluster.nodes.len() {
            cluster.used(index).await?;
        }
        Ok(cluster)
    }
}

impl RelayCluster {
    /// The URL for clients, through the balancer.
    ///
    /// # Panics
    /// There is no node.
    pub fn url(&self) -> String {
        let scheme = match &self.nodes[0].relay {
            State::Running(relay) => relay.scheme(),
            State::Stopped(plan) => plan.scheme(),
            State::Lost => "ws",
        };
        format!("{scheme}://localhost:{}", self.balancer.addr().port())
    }

    /// The balancer.
    pub fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    /// How many nodes there are, running or not.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// One node, which peers can also reach directly.
    ///
    /// # Errors
    /// It does not run.
    pub fn node(&self, index: usize) -> Result<&RelayProcess> {
        match self.nodes.get(index).map(|node| &node.relay) {
            Some(State::Running(relay)) => Ok(relay),
            _ => anyhow::bail!("node {index} does not run"),
        }
    }

    /// One node, to wait for what it prints.
    ///
    /// # Errors
    /// It does not run.
    pub fn node_mut(&mut self, index: usize) -> Result<&mut RelayProcess> {
        match self.nodes.get_mut(index).map(|node| &mut node.relay) {
            Some(State::Running(relay)) => Ok(relay),
            _ => anyhow::bail!("node {index} does not run"),
        }
    }

    /// The proxy between a node and Redis, to cut it off, stall it and slow it down.
    ///
    /// # Errors
    /// The cluster was not started through chaos.
    pub fn to_redis(&self, index: usize) -> Result<&ChaosProxy> {
        let node = self.nodes.get(index).with_context(|| format!("there is no node {index}"))?;
        node.chaos.as_ref().context("the cluster was started without chaos proxies")
    }

    /// Those connections of a node to Redis that are subscribed to something now. What is stalled or
    /// thrown away on their way down makes the node deaf and leaves it able to speak.
    ///
    /// # Errors
    /// The cluster was not started through chaos, or Redis does not answer.
    pub async fn subscriptions(&self, index: usize, redis: &RedisServer) -> Result<Vec<ChaosConnection>> {
        let proxy = self.to_redis(index)?;
        let clients = redis.clients().await?;
        let subscribed =
            |source| clients.iter().any(|client| client.addr == source && client.subscriptions > 0);
        Ok(proxy.connections().into_iter().filter(|connection| subscribed(connection.source())).collect())
    }

    /// `kill -9` of a node.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&mut self, index: usize) -> Result<()> {
        let plan = self.take(index)?.kill().await?;
        self.nodes[index].relay = State::Stopped(plan);
        Ok(())
    }

    /// `SIGTERM` to a node; returns when it has drained and ended with success.
    ///
    /// # Errors
    /// It does not run, does not end within `deadline`, or ends otherwise; the error shows its output.
    pub async fn drain(&mut self, index: usize, deadline: Duration) -> Result<()> {
        let plan = self.take(index)?.drain(deadline).await?;
        self.nodes[index].relay = State::Stopped(plan);
        Ok(())
    }

    /// Starts a node that was killed or drained, on its old ports; returns when it is ready and used.
    ///
    /// # Errors
    /// It runs already, or does not become ready; the error shows its output.
    pub async fn start(&mut self, index: usize) -> Result<()> {
        self.launch(index).await?;
        self.used(index).await
    }

    /// `SIGSTOP` to a node: its connections stay up, and nothing answers.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self, index: usize) -> Result<()> {
        self.node(index)?.signal(Signal::STOP)
    }

    /// `SIGCONT` to a node.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self, index: usize) -> Result<()> {
        self.node(index)?.signal(Signal::CONT)
    }

    async fn launch(&mut self, index: usize) -> Result<()> {
        let state = std::mem::replace(&mut self.nodes[index].relay, State::Lost);
        let State::Stopped(plan) = state else {
            self.nodes[index].relay = state;
            anyhow::bail!("node {index} runs already");
        };
        self.nodes[index].relay = State::Running(plan.start().await?);
        Ok(())
    }

    /// Waits until a node says that it is ready, and until the balancer knows.
    async fn used(&self, index: usize) -> Result<()> {
        let relay = self.node(index)?;
        let end = Instant::now() + READY;
        let mut ticks = interval(POLL);
        loop {
            ticks.tick().await;
            let (status, reason) =
                relay.admin("/readyz").await.map_err(|error| relay.failure(&format!("{error:#}")))?;
            if status == 200 {
                break;
            }
            if Instant::now() >= end {
                return Err(relay.failure(&format!("is not ready after {READY:?}: {}", reason.trim())));
            }
        }
        self.balancer.sees(index, true).await
    }

    fn take(&mut self, index: usize) -> Result<RelayProcess> {
        let state = std::mem::replace(&mut self.nodes[index].relay, State::Lost);
        let State::Running(relay) = state else {
            self.nodes[index].relay = state;
            anyhow::bail!("node {index} does not run");
        };
        Ok(relay)
    }
}
