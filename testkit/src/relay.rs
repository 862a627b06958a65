//! Relays under test: the real server as a process, and real nodes inside the test's own process.
//!
//! [`RelayProcess`] is what users run: it is killed, restarted on the same port, measured by the kernel.
//! [`RelayCluster`] is several of them on one Redis behind a balancer. [`Embedded`] is one node of the
//! library; [`Cluster`] is several, on the in-process bus.

mod cluster;
mod embedded;
mod metrics;
mod node;
mod server;

pub use cluster::{RelayCluster, RelayClusterPlan};
pub use embedded::{Cluster, Embedded};
pub use metrics::Metrics;
pub(crate) use metrics::get;
pub use node::RelayNode;
pub use server::{RelayPlan, RelayProcess};
