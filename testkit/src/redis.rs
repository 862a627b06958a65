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

pub use cluster::{RedisCluster, SLOTS};
pub use latency::{Latency, LatencyProbe};
pub use reach::{Mode, Reach};
pub use sentinels::{MASTER, RedisSentinels};
pub use server::{RedisClient, RedisPlan, RedisServer};

/// What the user of a relay with the default prefix may do, and nothing else (redis.io, "ACL").
///
/// Keys and channels begin with the prefix. Of the administrative commands it has only those that read
/// what Redis is: version, limits and topology.
pub const RELAY_RIGHTS: &str = "~culvert:* ~{culvert}:* resetchannels &culvert:in:* -@all \
    +@connection +@pubsub +@transaction +eval +evalsha +script|load +time \
    +get +set +incr +del +unlink +exists +pexpire +expire +pttl \
    +hset +hget +hmget +hgetall +hkeys +hlen +hdel +hexists +hscan +hrandfield \
    +sadd +srem +scard +sscan +smembers +spop +srandmember +sismember \
    +info +role +config|get +command|info +cluster|info +cluster|shards +cluster|slots +cluster|myid \
    -client|kill -client|pause -client|unpause -client|list -client|no-evict";

#[cfg(test)]
mod tests;
