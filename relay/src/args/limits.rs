//! How much may be done.

use bytesize::ByteSize;
use culvert_service_kit::config::{Given, Problems};
use culvert_wire::limits::{MAX_FRAME, MAX_MEMBERS};

use super::ByteRate;
use crate::config::{Limits, TenantScope};
use crate::quota::Rate;

/// Settings of [`Limits`].
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Connections of the whole node.
    #[arg(long, env = "CULVERT_RELAY_MAX_CONNECTIONS", value_name = "NUMBER", default_value = "18000")]
    pub max_connections: Given<usize>,
    /// Connections that have not finished the handshake.
    #[arg(long, env = "CULVERT_RELAY_MAX_HANDSHAKES", value_name = "NUMBER", default_value = "2000")]
    pub max_handshakes: Given<usize>,
    /// Connections of one source address (IPv4 address or IPv6 /64). A company behind one address is normal.
    #[arg(long, env = "CULVERT_RELAY_MAX_CONNECTIONS_PER_SOURCE", value_name = "NUMBER")]
    #[arg(default_value = "10000")]
    pub max_connections_per_source: Given<u32>,
    /// Connections of one peer.
    #[arg(long, env = "CULVERT_RELAY_MAX_CONNECTIONS_PER_PEER", value_name = "NUMBER", default_value = "32")]
    pub max_connections_per_peer: Given<u32>,
    /// Connections of one tenant.
    #[arg(long, env = "CULVERT_RELAY_MAX_CONNECTIONS_PER_TENANT", value_name = "NUMBER")]
    #[arg(default_value = "20000")]
    pub max_connections_per_tenant: Given<u32>,
    /// Whether the limits of a tenant hold on each node, or in the whole cluster; then each node allows
    /// an equal part of them, at least 1: node or cluster.
    #[arg(long, env = "CULVERT_RELAY_TENANT_LIMITS", value_name = "WHERE", default_value = "node")]
    pub tenant_limits: Given<TenantScope>,
    /// New connections a second from one source address.
    #[arg(
        long,
        env = "CULVERT_RELAY_HANDSHAKES_PER_SOURCE",
        value_name = "RATE",
        default_value = "500:5000"
    )]
    pub handshakes_per_source: Given<Rate>,
    /// Topics that one connection may be in.
    #[arg(
        long,
        env = "CULVERT_RELAY_MAX_TOPICS_PER_CONNECTION",
        value_name = "NUMBER",
        default_value = "64"
    )]
    pub max_topics_per_connection: Given<u16>,
    /// Topic memberships of the whole node.
    #[arg(long, env = "CULVERT_RELAY_MAX_MEMBERSHIPS", value_name = "NUMBER", default_value = "1000000")]
    pub max_memberships: Given<usize>,
    /// Members of one topic, on all nodes together; who joins at the same moment as others may be refused
    /// one too early.
    #[arg(long, env = "CULVERT_RELAY_MEMBERS_PER_TOPIC", value_name = "NUMBER", default_value = "4096")]
    pub members_per_topic: Given<usize>,
    /// Frames a second from one connection. Whoever is over a rate is not read from until it is met again.
    #[arg(long, env = "CULVERT_RELAY_CONNECTION_FRAMES", value_name = "RATE", default_value = "1000000")]
    pub connection_frames: Given<Rate>,
    /// Payload bytes a second from one connection.
    #[arg(long, env = "CULVERT_RELAY_CONNECTION_BYTES", value_name = "BYTE RATE", default_value = "2GiB")]
    pub connection_bytes: Given<ByteRate>,
    /// Frames a second from all connections of one peer.
    #[arg(long, env = "CULVERT_RELAY_PEER_FRAMES", value_name = "RATE", default_value = "unlimited")]
    pub peer_frames: Given<Rate>,
    /// Payload bytes a second from all connections of one peer.
    #[arg(long, env = "CULVERT_RELAY_PEER_BYTES", value_name = "BYTE RATE", default_value = "unlimited")]
    pub peer_bytes: Given<ByteRate>,
    /// Frames a second from all connections of one tenant.
    #[arg(long, env = "CULVERT_RELAY_TENANT_FRAMES", value_name = "RATE", default_value = "unlimited")]
    pub tenant_frames: Given<Rate>,
    /// Payload bytes a second from all connections of one tenant.
    #[arg(long, env = "CULVERT_RELAY_TENANT_BYTES", value_name = "BYTE RATE", default_value = "unlimited")]
    pub tenant_bytes: Given<ByteRate>,
    /// Frames a second from one source address.
    #[arg(long, env = "CULVERT_RELAY_SOURCE_FRAMES", value_name = "RATE", default_value = "unlimited")]
    pub source_frames: Given<Rate>,
    /// Payload bytes a second from one source address.
    #[arg(long, env = "CULVERT_RELAY_SOURCE_BYTES", value_name = "BYTE RATE", default_value = "unlimited")]
    pub source_bytes: Given<ByteRate>,
    /// Frames that one join, leave or lookup counts as.
    #[arg(long, env = "CULVERT_RELAY_MEMBERSHIP_COST", value_name = "NUMBER", default_value = "100")]
    pub membership_cost: Given<u64>,
    /// Bytes that wait for one connection before frames to it are refused as full.
    #[arg(long, env = "CULVERT_RELAY_QUEUE_BYTES", value_name = "SIZE", default_value = "1MiB")]
    pub queue_bytes: Given<ByteSize>,
    /// Bytes that wait for all connections together before frames to any of them are refused as full: the
    /// memory that peers who do not read can take.
    #[arg(long, env = "CULVERT_RELAY_NODE_QUEUE_BYTES", value_name = "SIZE", default_value = "1GiB")]
    pub node_queue_bytes: Given<ByteSize>,
    /// Different verdicts that wait for one connection before it is not read from.
    #[arg(long, env = "CULVERT_RELAY_VERDICT_BACKLOG", value_name = "NUMBER", default_value = "256")]
    pub verdict_backlog: Given<usize>,
    /// Members that the answer to one join or lookup lists; larger topics are sampled.
    #[arg(long, env = "CULVERT_RELAY_MEMBERS_LISTED", value_name = "NUMBER", default_value = "256")]
    pub members_listed: Given<usize>,
    /// Bytes read from a socket at once; half as much with TLS, where each byte takes twice as long. Each
    /// thread holds one such buffer.
    #[arg(long, env = "CULVERT_RELAY_READ_BUFFER", value_name = "SIZE", default_value = "256KiB")]
    pub read_buffer: Given<ByteSize>,
    /// Bytes written to a socket at once.
    #[arg(long, env = "CULVERT_RELAY_WRITE_BUFFER", value_name = "SIZE", default_value = "64KiB")]
    pub write_buffer: Given<ByteSize>,
}

/// Smallest queue: a few of the largest frames, or bulk data would hardly move.
const LEAST_QUEUE: u64 = 4 * MAX_FRAME as u64;
/// Smallest memory for all queues of a node.
const LEAST_NODE_QUEUE: u64 = 1 << 20;
/// Buffers below this cost more system calls than they save memory.
const LEAST_BUFFER: u64 = 1024;
/// Sizes that are counted in 32 bits on the wire, or held per connection, end here.
const LARGEST: u64 = 1 << 30;

impl LimitArgs {
    pub(super) fn limits(&self, problems: &mut Problems) -> Option<Limits> {
        let max_connections = at_least_one(problems, &self.max_connections);
        let max_handshakes = at_least_one(problems, &self.max_handshakes);
        let per_source = at_least_one(problems, &self.max_connections_per_source);
        let per_peer = at_least_one(problems, &self.max_connections_per_peer);
        let per_tenant = at_least_one(problems, &self.max_connections_per_tenant);
        let topics = at_least_one(problems, &self.max_topics_per_connection);
        let memberships = at_least_one(problems, &self.max_memberships);
        let members_per_topic = at_least_one(problems, &self.members_per_topic);
        let tenant_scope = problems.read(&self.tenant_limits);
        let verdict_backlog = at_least_one(problems, &self.verdict_backlog);
        let membership_cost = problems.read(&self.membership_cost);
        let members_listed =
            problems.read_checked(&self.members_listed, "from 1 to 256", |&n| (1..=MAX_MEMBERS).contains(&n));
        let handshakes_per_source = problems.read(&self.handshakes_per_source);
        let connection_frames = problems.read(&self.connection_frames);
        let connection_bytes = problems.read(&self.connection_bytes);
        let peer_frames = problems.read(&self.peer_frames);
        let peer_bytes = problems.read(&self.peer_bytes);
        let tenant_frames = problems.read(&self.tenant_frames);
        let tenant_bytes = problems.read(&self.tenant_bytes);
        let source_frames = problems.read(&self.source_frames);
        let source_bytes = problems.read(&self.source_bytes);
        let queue_bytes = size(problems, &self.queue_bytes, LEAST_QUEUE);
        let node_queue_bytes = problems
            .read_checked(&self.node_queue_bytes, "at least 1MiB", |size| size.as_u64() >= LEAST_NODE_QUEUE);
        let read_buffer = size(problems, &self.read_buffer, LEAST_BUFFER);
        let write_buffer = size(problems, &self.write_buffer, LEAST_BUFFER);
        Some(Limits {
            connections: max_connections?,
            handshakes_pending: max_handshakes?,
            connections_per_source: per_source?,
            connections_per_peer: per_peer?,
            connections_per_tenant: per_tenant?,
            tenant_scope: tenant_scope?,
            handshakes_per_source: handshakes_per_source?,
            topics_per_connection: topics?,
            memberships: memberships?,
            members_per_topic: members_per_topic?,
            connection_frames: connection_frames?,
            connection_bytes: connection_bytes?.0,
            peer_frames: peer_frames?,
            peer_bytes: peer_bytes?.0,
            tenant_frames: tenant_frames?,
            tenant_bytes: tenant_bytes?.0,
            source_frames: source_frames?,
            source_bytes: source_bytes?.0,
            membership_cost: membership_cost?,
            node_queue_bytes: usize::try_from(node_queue_bytes?.as_u64()).unwrap_or(usize::MAX),
            queue_bytes: queue_bytes?,
            verdict_backlog: verdict_backlog?,
            members_listed: members_listed?,
            read_buffer: read_buffer?,
            write_buffer: write_buffer?,
        })
    }
}

/// A count; none at all would be a relay that does nothing.
fn at_least_one<T>(problems: &mut Problems, given: &Given<T>) -> Option<T>
where
    T: culvert_service_kit::config::Setting + PartialOrd + From<u8>,
{
    problems.read_checked(given, "at least 1", |number| *number >= T::from(1))
}

fn size(problems: &mut Problems, given: &Given<ByteSize>, least: u64) -> Option<usize> {
    let must_be = format!("from {} to {}", ByteSize(least), ByteSize(LARGEST));
    let size = problems.read_checked(given, &must_be, |size| (least..=LARGEST).contains(&size.as_u64()))?;
    usize::try_from(size.as_u64()).ok()
}
