//! What a cluster survives when its Redis is more than one server: a master that Sentinels replace, slots
//! that move between the masters of a Redis Cluster.
//!
//! In every test sessions of the client library and bare frames go between the nodes while it happens.
//! Afterwards the cluster has healed by itself, every session has delivered every message once and in order,
//! the ledger of frames balances, and peers that come new find each other. The tests run one at a time:
//! Sentinels that do not get the processor vote for nobody.

mod masters;
mod sentinel;
mod slots;
mod world;
