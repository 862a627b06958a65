//! What a relay was told to do: every setting, checked and with its meaning.
//!
//! Flags, environment and file become a [`Config`] in [`crate::args`]; nothing below it reads the
//! environment. Embedding programs build one themselves, starting from [`Config::embedded`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use culvert_service_kit::Secret;
use culvert_service_kit::proxy_protocol::TrustedSources;
use culvert_service_kit::tls::Files;
use url::Url;

use crate::bus::redis::settings::Settings;
use crate::quota::Rate;

/// Everything one relay node needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where peers connect.
    pub listen: SocketAddr,
    /// Where operators look; `None` is no admin port.
    pub admin_listen: Option<SocketAddr>,
    /// Encryption towards peers.
    pub tls: Tls,
    /// Host names, beside those in the certificate, that a hello may name.
    pub names: Vec<String>,
    /// Balancers whose PROXY protocol v2 header is required and believed.
    pub proxy_protocol_from: TrustedSources,
    /// Who may come in.
    pub admission: AdmissionPolicy,
    /// The Redis that connects this node with others; `None` is a node that is alone.
    pub redis: Option<Settings>,
    /// How much a connection, peer, tenant, source address and the node may do.
    pub limits: Limits,
    /// How long things may take.
    pub timing: Timing,
    /// How the node goes away.
    pub drain: Drain,
}

/// Encryption towards peers.
#[derive(Clone, Debug)]
pub enum Tls {
    /// TLS 1.2 and 1.3 with this certificate chain and key, read again when the files change.
    Files(Files),
    /// None: only behind a balancer that terminates TLS, or on loopback.
    PlainText,
}

/// Who may come in. A hello must satisfy one of the ways that are configured.
#[derive(Clone, Debug, Default)]
pub struct AdmissionPolicy {
    /// Anyone may: for embedded relays and whoever asks for it in so many words.
    pub open: bool,
    /// Whoever proves to know this token may.
    pub access_token: Option<Secret<String>>,
    /// Whoever has a ticket, or an invitation under one, signed by one of these keys may.
    pub tickets: Option<TicketPolicy>,
}

/// Which tickets are believed.
#[derive(Clone, Debug)]
pub struct TicketPolicy {
    /// Files with Ed25519 public keys, PEM or JSON Web Key Set, read again when they change, and URLs of
    /// JSON Web Key Sets, fetched again and again.
    pub keys: Vec<KeySource>,
    /// Certificates (PEM) that such URLs may be signed by, beside the system's authorities.
    pub authorities: Option<PathBuf>,
    /// How often key sets are fetched.
    pub refresh: Duration,
    /// Tickets that are valid for longer than this from now are refused.
    pub longest_life: Duration,
}

impl TicketPolicy {
    /// Keys from files only.
    pub fn files(keys: impl IntoIterator<Item = PathBuf>, longest_life: Duration) -> Self {
        let keys = keys.into_iter().map(KeySource::File).collect();
        Self { keys, longest_life, authorities: None, refresh: Duration::from_secs(60) }
    }
}

/// Where ticket keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file of this machine.
    File(PathBuf),
    /// A JSON Web Key Set of a service that issues tickets.
    Url(Url),
}

/// How much may be done. Rates are charged per batch of frames; going over one pauses reading.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections of the whole node.
    pub connections: usize,
    /// Connections that have not finished the handshake.
    pub handshakes_pending: usize,
    /// Connections of one source address (IPv4 address, IPv6 /64).
    pub connections_per_source: u32,
    /// Connections of one peer.
    pub connections_per_peer: u32,
    /// Connections of one tenant.
    pub connections_per_tenant: u32,
    /// Where the limits of a tenant hold.
    pub tenant_scope: TenantScope,
    /// New connections a second from one source address.
    pub handshakes_per_source: Rate,
    /// Topics that one connection may be in.
    pub topics_per_connection: u16,
    /// Topic memberships of the whole node.
    pub memberships: usize,
    /// Members of one topic, on all nodes together.
    pub members_per_topic: usize,
    /// Frames a second from one connection.
    pub connection_frames: Rate,
    /// Payload bytes a second from one connection.
    pub connection_bytes: Rate,
    /// Frames a second from all connections of one peer.
    pub peer_frames: Rate,
    /// Payload bytes a second from all connections of one peer.
    pub peer_bytes: Rate,
    /// Frames a second from all connections of one tenant.
    pub tenant_frames: Rate,
    /// Payload bytes a second from all connections of one tenant.
    pub tenant_bytes: Rate,
    /// Frames a second from one source address.
    pub source_frames: Rate,
    /// Payload bytes a second from one source address.
    pub source_bytes: Rate,
    /// Frames that one `Join`, `Leave` or `Lookup` counts as.
    pub membership_cost: u64,
    /// Bytes that wait for one connection before frames to it are refused as `full`.
    pub queue_bytes: usize,
    /// Bytes that wait for all connections of the node together before frames are refused as `full`.
    pub node_queue_bytes: usize,
    /// Different verdicts that wait for one connection before its reading pauses.
    pub verdict_backlog: usize,
    /// Members that one `Joined` or `Peers` lists; at most [`culvert_wire::limits::MAX_MEMBERS`].
    pub members_listed: usize,
    /// Bytes read from a connection's socket at once, half as many with TLS; each thread has one such buffer.
    pub read_buffer: usize,
    /// Bytes written to a connection's socket at once.
    pub write_buffer: usize,
}

/// Where the limits of a tenant hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TenantScope {
    /// On each node.
    #[default]
    Node,
    /// In the whole cluster: each node allows an equal part.
    Cluster,
}

/// How long things may take.
#[derive(Clone, Debug)]
pub struct Timing {
    /// TCP, PROXY header, TLS, upgrade and hello together.
    pub handshake: Duration,
    /// Silence after which a peer should send a `Ping`.
    pub keepalive: Duration,
    /// Silence after which a peer is closed as `idle`.
    pub idle: Duration,
    /// How long a peer may take nothing of what is written to it.
    pub write: Duration,
    /// How long before the end of an admission the peer is told.
    pub expiry_notice: Duration,
}

/// How the node goes away, step by step.
#[derive(Clone, Debug)]
pub struct Drain {
    /// From readiness red to the first `Drain` frame: balancers notice.
    pub delay: Duration,
    /// Over which the peers' departures are smeared.
    pub window: Duration,
    /// From the end of the window, or from the close, to the next step.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 18_000,
            handshakes_pending: 2_000,
            // A whole company behind one NAT address is normal here.
            connections_per_source: 10_000,
            connections_per_peer: 32,
            connections_per_tenant: 20_000,
            tenant_scope: TenantScope::Node,
            handshakes_per_source: Rate { per_second: 500, burst: 5_000 },
            topics_per_connection: 64,
            memberships: 1_000_000,
            members_per_topic: 4096,
            connection_frames: Rate { per_second: 1_000_000, burst: 1_000_000 },
            connection_bytes: Rate { per_second: 2 << 30, burst: 2 << 30 },
            peer_frames: Rate::UNLIMITED,
            peer_bytes: Rate::UNLIMITED,
            tenant_frames: Rate::UNLIMITED,
            tenant_bytes: Rate::UNLIMITED,
            source_frames: Rate::UNLIMITED,
            source_bytes: Rate::UNLIMITED,
            membership_cost: 100,
            queue_bytes: 1 << 20,
            node_queue_bytes: 1 << 30,
            verdict_backlog: 256,
            members_listed: culvert_wire::limits::MAX_MEMBERS,
            read_buffer: 256 << 10,
            write_buffer: 64 << 10,
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            // Some balancers cut at 30 s and count data frames only.
            keepalive: Duration::from_secs(15),
            idle: Duration::from_secs(45),
            write: Duration::from_secs(30),
            expiry_notice: Duration::from_mins(5),
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { delay: Duration::from_secs(5), window: Duration::from_secs(20), grace: Duration::from_secs(5) }
    }
}

impl Config {
    /// A relay inside another program: loopback, open, plain text, no admin port.
    pub fn embedded(listen: SocketAddr) -> Self {
        Self {
            listen,
            admin_listen: None,
            tls: Tls::PlainText,
            names: Vec::new(),
            proxy_protocol_from: TrustedSources::default(),
            admission: AdmissionPolicy { open: true, ..AdmissionPolicy::default() },
            redis: None,
            limits: Limits::default(),
            timing: Timing::default(),
            drain: Drain::default(),
        }
    }
}
