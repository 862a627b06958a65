//! Several `culvert-relay` processes on one Redis, behind one balancer.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::node::RelayNode;
use super::server::{RelayPlan, RelayProcess};
use crate::binaries;
use crate::chaos::{ChaosConnection, ChaosProxy};
use crate::haproxy::{Backend, Balance, Balancer, BalancerPlan, SOURCE};
use crate::process::{Program, Signal};
use crate::redis::{Mode, Reach, RedisServer};

/// What a cluster is started with.
pub struct RelayClusterPlan {
    relays: Vec<RelayPlan>,
    reach: Reach,
    balancer: BalancerPlan,
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
    relay: RelayNode,
    /// Between it and Redis.
    chaos: Option<ChaosProxy>,
}

impl RelayClusterPlan {
    /// So many open relays in clear text, with the defaults of `culvert-relay`.
    ///
    /// # Errors
    /// The binary does not build, or no port is free.
    pub async fn open(nodes: usize, redis: Reach) -> Result<Self> {
        Self::of(&binaries::relay().await?.into(), nodes, redis)?.each(|_, relay| Ok(relay.flag("open")))
    }

    /// The same of any program that takes the arguments of `culvert-relay`, admitting nobody yet.
    ///
    /// # Errors
    /// No port is free.
    pub fn of(program: &Program, nodes: usize, redis: Reach) -> Result<Self> {
        let relay = || {
            let plan = RelayPlan::closed(program.clone())?.set("proxy-protocol-from", SOURCE.to_string());
            anyhow::Ok(plan)
        };
        let relays = (0..nodes).map(|_| relay()).collect::<Result<_>>()?;
        let balancer = BalancerPlan::default();
        Ok(Self { relays, reach: redis, balancer, through_chaos: false, recorded: false })
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
        self.balancer = self.balancer.balance(balance);
        self
    }

    /// Starts the balancer in another way.
    #[must_use]
    pub fn balancer(mut self, balancer: BalancerPlan) -> Self {
        self.balancer = balancer;
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
            nodes.push(Node { relay: RelayNode::new(reach.apply(plan)), chaos });
        }
        let mut cluster = RelayCluster { balancer: self.balancer.start(&backends).await?, nodes };
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
        format!("{}://localhost:{}", self.nodes[0].relay.scheme(), self.balancer.addr().port())
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
        let node = self.nodes.get(index).with_context(|| format!("there is no node {index}"))?;
        node.relay.running().with_context(|| format!("node {index}"))
    }

    /// One node, to wait for what it prints.
    ///
    /// # Errors
    /// It does not run.
    pub fn node_mut(&mut self, index: usize) -> Result<&mut RelayProcess> {
        self.relay(index)?.running_mut().with_context(|| format!("node {index}"))
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
        self.relay(index)?.kill().await
    }

    /// `SIGTERM` to a node; returns when it has drained and ended with success.
    ///
    /// # Errors
    /// It does not run, does not end within `deadline`, or ends otherwise; the error shows its output.
    pub async fn drain(&mut self, index: usize, deadline: Duration) -> Result<()> {
        self.relay(index)?.drain(deadline).await
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
        self.relay(index)?.start().await.with_context(|| format!("node {index}"))
    }

    fn relay(&mut self, index: usize) -> Result<&mut RelayNode> {
        let node = self.nodes.get_mut(index).with_context(|| format!("there is no node {index}"))?;
        Ok(&mut node.relay)
    }

    /// Waits until a node says that it is ready, and until the balancer knows.
    async fn used(&self, index: usize) -> Result<()> {
        self.node(index)?.ready().await?;
        self.balancer.sees(index, true).await
    }
}
