//! What the broker's keys and its channel in Redis are called.
//!
//! All begin with the prefix of the settings and `b`, beside those of the relays. In a Redis Cluster, what
//! stands in braces decides the slot: what one script touches together shares it. Users are spread over
//! [`SHARDS`]; rates, and nonces, share one slot each, because one script checks several at once.

use aws_lc_rs::digest::{SHA256, digest};

/// Parts that users are spread over. More would be asked for nothing at every sweep; fewer could not use
/// the masters of a large cluster. Replicas must agree on it.
pub(super) const SHARDS: usize = 16;

/// Names under one prefix.
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: format!("{prefix}:b") }
    }

    /// Which part a user is in.
    pub(super) fn shard(&self, user: &str) -> usize {
        let hash = digest(&SHA256, user.as_bytes());
        hash.as_ref().first().map_or(0, |byte| usize::from(*byte) % SHARDS)
    }

    /// Connections of a user: a hash from their ids to what is known of them.
    pub(super) fn user(&self, user: &str) -> String {
        format!("{}:{{{}}}:u:{user}", self.prefix, self.shard(user))
    }

    /// When the connections of a shard's users end: a sorted set, in milliseconds since 1970.
    pub(super) fn due(&self, shard: usize) -> String {
        format!("{}:{{{shard}}}:due", self.prefix)
    }

    /// Drawn at random when it is absent: another value means that everything was lost meanwhile.
    pub(super) fn born(&self) -> String {
        format!("{}:born", self.prefix)
    }

    /// A value that is taken once.
    pub(super) fn kept(&self, key: &str) -> String {
        format!("{}:k:{key}", self.prefix)
    }

    /// When a bucket is full again.
    pub(super) fn bucket(&self, name: &str) -> String {
        format!("{}:{{rate}}:{name}", self.prefix)
    }

    /// Up to which timestamp nonces are not remembered, and by which process of Redis.
    pub(super) fn floor(&self) -> String {
        format!("{}:{{nonce}}:floor", self.prefix)
    }

    /// A nonce that was used.
    pub(super) fn nonce(&self, nonce: &str) -> String {
        format!("{}:{{nonce}}:n:{nonce}", self.prefix)
    }

    /// The channel on which replicas tell each other what happens.
    pub(super) fn events(&self) -> String {
        format!("{}:events", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_documented() {
        let keys = Keys::new("culvert");
        let shard = keys.shard("alice");
        assert_eq!(keys.user("alice"), format!("culvert:b:{{{shard}}}:u:alice"));
        assert_eq!(keys.due(3), "culvert:b:{3}:due");
        assert_eq!(keys.born(), "culvert:b:born");
        assert_eq!(keys.kept("c:x"), "culvert:b:k:c:x");
        assert_eq!(keys.bucket("guess:all"), "culvert:b:{rate}:guess:all");
        assert_eq!(keys.floor(), "culvert:b:{nonce}:floor");
        assert_eq!(keys.nonce("n"), "culvert:b:{nonce}:n:n");
        assert_eq!(keys.events(), "culvert:b:events");
    }

    #[test]
    fn a_user_stays_in_the_slot_of_their_shard_whatever_they_are_called() {
        let keys = Keys::new("culvert");
        for user in ["alice", "{}", "{0}", "}{", "a b", "ä"] {
            let tag = format!("{{{}}}", keys.shard(user));
            let key = keys.user(user);
            assert_eq!(key.find('{'), key.find(&tag), "{key}");
        }
        let shards: std::collections::HashSet<_> = (0..500).map(|n| keys.shard(&format!("u{n}"))).collect();
        assert_eq!(shards.len(), SHARDS);
    }
}
