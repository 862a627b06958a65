//! The bus through Redis: for a cluster of any number of nodes.
//!
//! Redis carries and remembers nothing that matters: frames travel through one inbox per node (pub/sub,
//! coalesced), who is where is registered under leases, and all of it is registered anew by the nodes
//! when Redis comes back empty.

pub mod incarnation;
pub mod message;
