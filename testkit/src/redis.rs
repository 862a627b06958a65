//! Real Redis on loopback: alone, watched by Sentinels, and as a cluster.
//!
//! Every server is a child process on ports of its own, in a folder of its own, without persistence: a
//! server that was killed and is started again is empty, on the same port. [`RedisServer`] is one;
//! [`RedisSentinels`] is a master, a replica and three Sentinels; [`RedisCluster`] is three masters that
//! share the slots. [`Reach`] says how a relay reaches either of them. [`LatencyProbe`] is
//! `redis-cli --latency`, for tests that compare how long Redis was busy with something else.

mod cluster;
mod latency;
mod reach;
mod sentinels;
mod server;

use culvert_relay::bus::redis::check::rule;
use culvert_relay::bus::redis::keys::Keys;

pub use cluster::{RedisCluster, SLOTS};
pub use latency::{Latency, LatencyProbe};
pub use reach::{Mode, Reach};
pub use sentinels::{MASTER, RedisSentinels};
pub use server::{RedisClient, RedisPlan, RedisServer};

/// What the user of a relay with the default prefix may do, spelled as for `ACL SETUSER`: what the relay
/// itself says that it needs, and nothing else.
pub fn relay_rights(mode: Mode) -> String {
    rule(&Keys::new("culvert"), mode == Mode::Cluster)
}

#[cfg(test)]
mod tests;
