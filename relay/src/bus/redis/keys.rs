//! What the keys and channels in Redis are called.
//!
//! All begin with the prefix, so that clusters which share a Redis do not meet and an ACL can fence them.
//! In a Redis Cluster, what stands in braces decides the slot: what one script touches together shares it,
//! everything else is spread.

use culvert_wire::{NodeId, TopicId};

use super::incarnation::Incarnation;

/// Names under one prefix.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
    nodes: String,
    revoked: String,
    revision: String,
}

impl Keys {
    /// Names that begin with `prefix`, which [`Settings`](super::settings::Settings) has checked.
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            nodes: format!("{{{prefix}}}:nodes"),
            revoked: format!("{{{prefix}}}:revoked"),
            revision: format!("{{{prefix}}}:revision"),
        }
    }

    /// The leases of all nodes; shares its slot with [`Keys::revoked`] and [`Keys::revision`].
    pub fn nodes(&self) -> &str {
        &self.nodes
    }

    /// What is revoked, and until when that is worth remembering.
    pub fn revoked(&self) -> &str {
        &self.revoked
    }

    /// Changes with every change of what is revoked.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The members of a topic. The topic is in it as it is: 32 bytes instead of 64 characters.
    pub fn topic(&self, topic: &TopicId) -> Vec<u8> {
        let id = &topic.0;
        let mut key = Vec::with_capacity(self.prefix.len() + 3 + id.len());
        key.extend_from_slice(self.prefix.as_bytes());
        key.extend_from_slice(b":t:");
        key.extend_from_slice(id);
        key
    }

    /// What one incarnation of a node has registered, for whoever sweeps it.
    pub fn memberships(&self, node: NodeId, incarnation: Incarnation) -> String {
        format!("{}:m:{{{}.{incarnation}}}", self.prefix, node.0)
    }

    /// Held by the node that sweeps what this incarnation has registered; in the slot of
    /// [`Keys::memberships`].
    pub fn sweep(&self, node: NodeId, incarnation: Incarnation) -> String {
        format!("{}:sweep:{{{}.{incarnation}}}", self.prefix, node.0)
    }

    /// The channel of one shard of a node's inbox. The braces let shards fall on different masters.
    pub fn inbox(&self, node: NodeId, shard: u8) -> String {
        format!("{}:in:{{{}.{shard}}}", self.prefix, node.0)
    }

    /// Patterns that cover every key, as an ACL spells them after `~`.
    pub fn key_patterns(&self) -> [String; 2] {
        [format!("{}:*", self.prefix), format!("{{{}}}:*", self.prefix)]
    }

    /// The pattern that covers every channel, as an ACL spells it after `&`.
    pub fn channel_pattern(&self) -> String {
        format!("{}:in:*", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Incarnation = Incarnation { instance: 0xabc, term: 7 };

    #[test]
    fn names_are_as_documented() {
        let keys = Keys::new("culvert");
        assert_eq!(keys.nodes(), "{culvert}:nodes");
        assert_eq!(keys.revoked(), "{culvert}:revoked");
        assert_eq!(keys.revision(), "{culvert}:revision");
        let topic = TopicId([0x7b; 32]);
        assert_eq!(keys.topic(&topic), [b"culvert:t:".as_slice(), &[0x7b; 32]].concat());
        assert_eq!(keys.memberships(NodeId(65535), LIFE), "culvert:m:{65535.0000000000000abc.7}");
        assert_eq!(keys.sweep(NodeId(65535), LIFE), "culvert:sweep:{65535.0000000000000abc.7}");
        assert_eq!(keys.inbox(NodeId(12), 3), "culvert:in:{12.3}");
    }

    #[test]
    fn every_key_is_covered_by_the_patterns() {
        let keys = Keys::new("a-b_c:d");
        let [plain, braced] = keys.key_patterns();
        let (plain, braced) = (plain.trim_end_matches('*'), braced.trim_end_matches('*'));
        for key in [keys.nodes(), keys.revoked(), keys.revision()] {
            assert!(key.starts_with(braced), "{key}");
        }
        assert!(keys.topic(&TopicId([0; 32])).starts_with(plain.as_bytes()));
        for key in [keys.memberships(NodeId(1), LIFE), keys.sweep(NodeId(1), LIFE)] {
            assert!(key.starts_with(plain), "{key}");
        }
        assert!(keys.inbox(NodeId(1), 0).starts_with(keys.channel_pattern().trim_end_matches('*')));
    }
}
