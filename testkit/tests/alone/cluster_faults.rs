//! What a cluster survives: real relays on a real Redis behind a real balancer, while parts of it die,
//! hang, are cut off, deafened and flooded.
//!
//! In every test sessions of the client library go through the balancer, and bare frames go between the
//! nodes on lanes. After the fault the cluster heals by itself, every session has delivered every message
//! once and in order, the ledger of frames balances, and no process has taken more memory than
//! [`world::MOST_MEMORY`]. The tests run one at a time: they measure, and each wants the machine for itself.

mod load;
mod nodes;
mod numbers;
mod partition;
mod redis;
mod saturation;
mod soak;
mod world;
