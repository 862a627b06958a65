//! The bus through Redis: for a cluster of any number of nodes.
//!
//! Redis carries and remembers nothing that matters: frames travel through one inbox per node (pub/sub,
//! coalesced), who is where is registered under leases, and all of it is registered anew by the nodes
//! when Redis comes back empty.

pub mod check;
pub mod flow;
pub mod flows;
pub mod incarnation;
pub mod keys;
pub mod lease;
pub mod message;
pub mod nodes;
pub mod pace;
pub mod metrics;
pub mod publisher;
pub mod inboxes;
pub mod reach;
pub mod revocation;
pub mod settings;
