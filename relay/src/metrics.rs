//! The series of a relay node. A doc comment is the help text; `docs/metrics.md` is generated from it.

use culvert_wire::frame::Kind;
use culvert_wire::{Class, Close, Verdict};

/// Why a connection never got as far as a welcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The node is draining.
    Draining,
    /// The node has as many connections, or pending handshakes, as it may.
    NodeFull,
    /// The source address connects too often or has too many connections.
    Source,
    /// The PROXY protocol header is missing or malformed.
    ProxyProtocol,
    /// The TLS handshake ended with an error.
    Tls,
    /// The HTTP request is malformed or asks for something that is not here.
    Http,
    /// The handshake was not finished in time.
    Timeout,
    /// The hello was refused; see the close reasons.
    Hello,
    /// The peer went away before the end of the handshake.
    Disconnected,
}

impl Refusal {
    /// Every reason.
    pub const ALL: &'static [Refusal] = &[
        Refusal::Draining,
        Refusal::NodeFull,
        Refusal::Source,
        Refusal::ProxyProtocol,
        Refusal::Tls,
        Refusal::Http,
        Refusal::Timeout,
        Refusal::Hello,
        Refusal::Disconnected,
    ];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            Refusal::Draining => "draining",
            Refusal::NodeFull => "node_full",
            Refusal::Source => "source",
            Refusal::ProxyProtocol => "proxy_protocol",
            Refusal::Tls => "tls",
            Refusal::Http => "http",
            Refusal::Timeout => "timeout",
            Refusal::Hello => "hello",
            Refusal::Disconnected => "disconnected",
        }
    }
}

/// Where a frame was handed to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// A connection of this node.
    Local,
    /// Another node.
    Remote,
}

impl Route {
    /// Both.
    pub const ALL: &'static [Route] = &[Route::Local, Route::Remote];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            Route::Local => "local",
            Route::Remote => "remote",
        }
    }
}

/// What came of fetching a set of ticket keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    /// It is in use.
    Done,
    /// It did not come, or is of no use.
    Failed,
}

impl Fetched {
    /// Both outcomes.
    pub const ALL: &'static [Fetched] = &[Fetched::Done, Fetched::Failed];

    /// Name of the outcome in the label.
    pub const fn name(self) -> &'static str {
        match self {
            Fetched::Done => "done",
            Fetched::Failed => "failed",
        }
    }
}

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// One connection's.
    Connection,
    /// A source address's.
    Source,
    /// A peer's, over all its connections.
    Peer,
    /// A tenant's.
    Tenant,
    /// That of the guests whom the holder of one ticket invited.
    Guests,
}

impl Whose {
    /// Those with rates, which pause whoever is over them.
    pub const RATED: &'static [Whose] = &[Whose::Connection, Whose::Source, Whose::Peer, Whose::Tenant];
    /// Those with a number of connections, which close a newcomer as overloaded.
    pub const SEATED: &'static [Whose] = &[Whose::Peer, Whose::Tenant, Whose::Guests];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            Whose::Connection => "connection",
            Whose::Source => "source",
            Whose::Peer => "peer",
            Whose::Tenant => "tenant",
            Whose::Guests => "guests",
        }
    }
}

culvert_service_kit::metric_set! {
    /// Series of one relay node.
    pub struct Metrics {
        /// TCP connections accepted.
        pub accepted: counter "culvert_relay_accepted_total",
        /// Connections that ended before the welcome, by reason.
        pub refused: counter "culvert_relay_refused_total" { reason: Refusal = Refusal::ALL, Refusal::name },
        /// Times the accept loop paused because the process was out of file descriptors.
        pub accept_pauses: counter "culvert_relay_accept_pauses_total",
        /// Attempts to fetch a set of ticket keys; after a failed one the old keys stay in use.
        pub key_fetches: counter "culvert_relay_ticket_key_fetches_total" { outcome: Fetched = Fetched::ALL, Fetched::name },
        /// Connections whose handshake is under way.
        pub handshakes: gauge "culvert_relay_handshakes",
        /// Most of them at a time, of max-handshakes.
        pub most_handshakes: gauge "culvert_relay_handshakes_limit",
        /// Seconds from accept to welcome, of admitted connections.
        pub handshake_seconds: histogram "culvert_relay_handshake_seconds",
        /// Connections of admitted peers.
        pub connections: gauge "culvert_relay_connections",
        /// Most connections of the node, of max-connections.
        pub most_connections: gauge "culvert_relay_connections_limit",
        /// Connections closed as overloaded because there were as many as there may be, by whose limit it is.
        pub seats_refused: counter "culvert_relay_seats_refused_total" { whose: Whose = Whose::SEATED, Whose::name },
        /// Connections that ended after the upgrade, by close reason.
        pub closed: counter "culvert_relay_closed_total" { close: Close = Close::ALL, Close::name },
        /// Topic memberships of this node's connections.
        pub memberships: gauge "culvert_relay_memberships",
        /// Most memberships of the node, of max-memberships.
        pub most_memberships: gauge "culvert_relay_memberships_limit",
        /// Frames read from peers, by kind; unknown kinds are not counted here.
        pub frames_received: counter "culvert_relay_frames_received_total" { kind: Kind = Kind::ALL, Kind::name },
        /// Frames of kinds that this version does not know, which were skipped.
        pub frames_skipped: counter "culvert_relay_frames_skipped_total",
        /// Payload frames handed to a connection's queue or to another node.
        pub frames_forwarded: counter "culvert_relay_frames_forwarded_total" { route: Route = Route::ALL, Route::name },
        /// Payload bytes handed to a connection's queue or to another node.
        pub bytes_forwarded: counter "culvert_relay_bytes_forwarded_total" { class: Class = Class::ALL, Class::name },
        /// Payload frames that were not delivered, by the verdict their sender got.
        pub undeliverable: counter "culvert_relay_undeliverable_total" { verdict: Verdict = Verdict::ALL, Verdict::name },
        /// Payload frames of which nobody could be told that they were not delivered, because their sender was gone.
        pub verdicts_orphaned: counter "culvert_relay_verdicts_orphaned_total",
        /// Payload frames taken from a connection's queue to be written to its socket: what counts as delivered.
        pub frames_delivered: counter "culvert_relay_frames_delivered_total",
        /// Frames written to peers, the relay's own included.
        pub frames_written: counter "culvert_relay_frames_written_total",
        /// Times the queues of a connection were drained into one write.
        pub flushes: counter "culvert_relay_flushes_total",
        /// Bytes read from peers' sockets, TLS included.
        pub bytes_read: counter "culvert_relay_socket_read_bytes_total",
        /// Bytes written to peers' sockets, TLS included.
        pub bytes_written: counter "culvert_relay_socket_written_bytes_total",
        /// Times a connection's reading was paused because it was over a rate, by whose rate it is.
        pub throttled: counter "culvert_relay_throttled_total" { whose: Whose = Whose::RATED, Whose::name },
        /// Joins and lookups refused, by reason.
        pub joins_refused: counter "culvert_relay_joins_refused_total" { refusal: culvert_wire::JoinRefusal = culvert_wire::JoinRefusal::ALL, culvert_wire::JoinRefusal::name },
        /// Gaps announced to connections because the bus lost frames.
        pub gaps: counter "culvert_relay_gaps_total",
        /// Bytes that the queues of all connections hold, in pieces of 32 KiB, of at most node-queue-bytes.
        pub queued_bytes: gauge "culvert_relay_queued_bytes",
        /// Most bytes that they may hold, of node-queue-bytes.
        pub most_queued_bytes: gauge "culvert_relay_queued_bytes_limit",
        /// 1 while the node has no number in its cluster, so that it admits nobody, 0 otherwise.
        pub unplaced: gauge "culvert_relay_unplaced",
        /// 1 while the rest of the cluster is out of reach, 0 otherwise.
        pub degraded: gauge "culvert_relay_degraded",
    }
}
