//! Several brokers on one Postgres and one Redis, behind one balancer.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};

use super::server::{BrokerPlan, BrokerProcess};
use crate::haproxy::{Backend, Balance, Balancer, BalancerPlan, SOURCE};
use crate::process::Program;
use crate::redis::Reach;

/// What replicas are started with.
pub struct BrokerReplicasPlan {
    plans: Vec<BrokerPlan>,
}

/// Replicas that share their stores, and the balancer in front of them; killed when dropped.
///
/// A replica keeps its ports over restarts, so the balancer finds it again.
pub struct BrokerReplicas {
    balancer: Balancer,
    replicas: Vec<Replica>,
}

#[expect(clippy::large_enum_variant, reason = "there are a few of them")]
enum Replica {
    Running(BrokerProcess),
    Stopped(BrokerPlan),
    /// An attempt to start or to stop it failed, and the test with it.
    Lost,
}

impl BrokerReplicasPlan {
    /// So many on this database and Redis.
    ///
    /// # Errors
    /// No port is free.
    pub fn new(program: &Program, count: usize, database: &str, redis: &Reach, prefix: &str) -> Result<Self> {
        let plan = || {
            let plan = BrokerPlan::postgres(program.clone(), database)?.redis(redis, prefix);
            anyhow::Ok(plan.set("proxy-protocol-from", SOURCE.to_string()))
        };
        Ok(Self { plans: (0..count).map(|_| plan()).collect::<Result<_>>()? })
    }

    /// Changes what every replica is started with.
    #[must_use]
    pub fn each(mut self, change: impl Fn(BrokerPlan) -> BrokerPlan) -> Self {
        self.plans = self.plans.into_iter().map(change).collect();
        self
    }

    /// Starts all replicas and the balancer, and waits until each is ready and used.
    ///
    /// # Errors
    /// One does not start; the error shows what it printed.
    pub async fn start(self) -> Result<BrokerReplicas> {
        let backends: Vec<Backend> =
            self.plans.iter().map(|plan| Backend { addr: plan.addr(), health: plan.admin_addr() }).collect();
        let balancer = BalancerPlan::default().balance(Balance::RoundRobin).start(&backends).await?;
        let replicas = self.plans.into_iter().map(Replica::Stopped).collect();
        let mut replicas = BrokerReplicas { balancer, replicas };
        for index in 0..backends.len() {
            replicas.start(index).await?;
        }
        Ok(replicas)
    }
}

impl BrokerReplicas {
    /// Where clients connect, through the balancer.
    pub fn addr(&self) -> SocketAddr {
        self.balancer.addr()
    }

    /// The balancer.
    pub fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    /// One replica, which clients can also reach directly.
    ///
    /// # Errors
    /// It does not run.
    pub fn replica(&self, index: usize) -> Result<&BrokerProcess> {
        match self.replicas.get(index) {
            Some(Replica::Running(broker)) => Ok(broker),
            _ => bail!("replica {index} does not run"),
        }
    }

    /// `kill -9` of a replica.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&mut self, index: usize) -> Result<()> {
        let Replica::Running(broker) = self.take(index)? else { bail!("replica {index} does not run") };
        self.replicas[index] = Replica::Stopped(broker.kill().await?);
        Ok(())
    }

    /// Starts a replica that does not run, on its old ports; returns when it is ready and used.
    ///
    /// # Errors
    /// It runs already, or does not become ready; the error shows its output.
    pub async fn start(&mut self, index: usize) -> Result<()> {
        let Replica::Stopped(plan) = self.take(index)? else { bail!("replica {index} runs already") };
        self.replicas[index] = Replica::Running(plan.start().await?);
        self.balancer.sees(index, true).await
    }

    fn take(&mut self, index: usize) -> Result<Replica> {
        let place = self.replicas.get_mut(index).with_context(|| format!("there is no replica {index}"))?;
        Ok(std::mem::replace(place, Replica::Lost))
    }
}
