//! Brokers under test: the real server as a process, and several as replicas behind a balancer.
//!
//! [`BrokerProcess`] is what users run: it is killed, restarted on the same ports, measured by the kernel.
//! [`BrokerReplicas`] are several of them on one Postgres and one Redis behind haproxy.

mod replicas;
mod server;

pub use replicas::{BrokerReplicas, BrokerReplicasPlan};
pub use server::{BrokerPlan, BrokerProcess};
