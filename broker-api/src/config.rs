//! What a broker was told to do: every setting, checked and with its meaning.
//!
//! Flags, environment and file become a [`Config`] in [`crate::args`]; nothing below it reads the
//! environment. Embedding programs build one themselves, starting from [`Config::embedded`].

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use culvert_relay::bus::redis::settings::Settings;
use culvert_relay::config::Tls;
use culvert_service_kit::Secret;
use culvert_service_kit::proxy_protocol::TrustedSources;

use crate::live::Rate;

/// Everything one broker needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where operators look; `None` is no admin port.
    pub admin_listen: Option<SocketAddr>,
    /// Encryption towards clients.
    pub tls: Tls,
    /// Whether whoever stands before this broker terminates TLS, so that passwords may pass.
    pub behind_tls: bool,
    /// The URL by which clients reach it, such as `https://broker.example.org`: issuer of grants, base of
    /// links, and its host is the name that device proofs must name.
    pub public_url: String,
    /// Host names, beside that of the public URL, that a device proof may name.
    pub names: Vec<String>,
    /// Balancers whose PROXY protocol v2 header is required and believed.
    pub proxy_protocol_from: TrustedSources,
    /// Origins whose pages may call the API; empty is none.
    pub cors_origins: Vec<String>,
    /// Where what lasts is kept.
    pub database: Database,
    /// Whether tables are made or changed at start.
    pub migrate: bool,
    /// Redis, for any number of replicas; `None` keeps presence in this process, which is then the only one.
    pub redis: Option<Settings>,
    /// What is sealed in the database is sealed with the first of these; the others only open. Without one,
    /// a key file is made beside a SQLite file.
    pub data_keys: Vec<Secret<Vec<u8>>>,
    /// Name of the institution, shown to clients.
    pub institution: String,
    /// The password that admits new users; `None` admits nobody by password.
    pub institution_password: Option<Secret<String>>,
    /// The relays of this institution, `wss://…`, the first to be preferred.
    pub relays: Vec<String>,
    /// The tenant in relay tickets.
    pub tenant: String,
    /// How long things last.
    pub timing: Timing,
    /// How much may be done.
    pub limits: Limits,
    /// Whether the broker is announced on the local network.
    pub announce: bool,
    /// Where to look for newer versions; `None` is nowhere.
    pub update_url: Option<String>,
    /// How the broker goes away.
    pub drain: culvert_relay::config::Drain,
}

/// Where what lasts is kept.
#[derive(Clone, Debug)]
pub enum Database {
    /// A Postgres server, by its URL.
    Postgres(Secret<String>),
    /// A file of this machine.
    Sqlite(PathBuf),
}

/// How long things last.
#[derive(Clone, Debug)]
pub struct Timing {
    /// TCP, PROXY header, TLS and the head of the first request together.
    pub handshake: Duration,
    /// One request, from its head to the answer's head.
    pub request: Duration,
    /// A connection without a request.
    pub keep_alive: Duration,
    /// Silence after which a connection's user counts as offline and it is closed.
    pub heartbeat_timeout: Duration,
    /// How long a client may take nothing of what is written to it.
    pub write: Duration,
    /// A session, from login.
    pub session: Duration,
    /// A grant to download.
    pub grant: Duration,
    /// A relay ticket, at most.
    pub ticket: Duration,
    /// How long a signing key signs before the next one does.
    pub key_rotation: Duration,
    /// Answers kept for repeated requests.
    pub idempotency: Duration,
    /// One answer of the database or of Redis.
    pub backend: Duration,
}

/// How much may be done.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// WebSocket connections of one user.
    pub connections_per_user: u32,
    /// Bytes of a request's body, except backups.
    pub body_bytes: usize,
    /// Bytes of a backup.
    pub backup_bytes: u64,
    /// Versions of a backup that are kept.
    pub backup_versions: u32,
    /// Messages that wait to be written to one WebSocket before it is closed as slow.
    pub queue: usize,
    /// Messages of one WebSocket.
    pub messages: Rate,
    /// Requests of one user, or of one source address without a user.
    pub requests: Rate,
    /// Failed proofs of identity from one source address (IPv4 address, IPv6 /64).
    pub guesses_per_source: Rate,
    /// Failed proofs of identity for one user.
    pub guesses_per_user: Rate,
    /// Failed proofs of identity in all.
    pub guesses: Rate,
    /// Password hashes computed at a time; others wait.
    pub hashes_at_once: usize,
    /// Connections to the database.
    pub database_connections: u32,
    /// Topics that one relay ticket may name.
    pub topics_per_ticket: usize,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            request: Duration::from_secs(30),
            // Longer than balancers keep connections that they use again.
            keep_alive: Duration::from_secs(75),
            heartbeat_timeout: Duration::from_secs(300),
            write: Duration::from_secs(10),
            session: Duration::from_secs(12 * 3600),
            grant: Duration::from_secs(300),
            ticket: Duration::from_secs(8 * 3600),
            key_rotation: Duration::from_secs(30 * 86_400),
            idempotency: Duration::from_secs(86_400),
            backend: Duration::from_secs(5),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_user: 16,
            body_bytes: 1 << 20,
            backup_bytes: 64 << 20,
            backup_versions: 5,
            queue: 256,
            messages: Rate { per_second: 20.0, burst: 100 },
            requests: Rate { per_second: 50.0, burst: 200 },
            guesses_per_source: Rate { per_second: 1.0 / 6.0, burst: 10 },
            guesses_per_user: Rate { per_second: 1.0 / 2.0, burst: 30 },
            guesses: Rate { per_second: 20.0, burst: 100 },
            hashes_at_once: 2,
            database_connections: 10,
            topics_per_ticket: 64,
        }
    }
}

impl Config {
    /// One broker alone on this address, with a database file and nothing else.
    pub fn embedded(listen: SocketAddr, database: &Path, data_key: Secret<Vec<u8>>) -> Self {
        Self {
            listen,
            admin_listen: None,
            tls: Tls::PlainText,
            behind_tls: false,
            public_url: format!("http://{listen}"),
            names: Vec::new(),
            proxy_protocol_from: TrustedSources::default(),
            cors_origins: Vec::new(),
            database: Database::Sqlite(database.to_owned()),
            migrate: true,
            redis: None,
            data_keys: vec![data_key],
            institution: "Default Institution".to_owned(),
            institution_password: None,
            relays: Vec::new(),
            tenant: "default".to_owned(),
            timing: Timing::default(),
            limits: Limits::default(),
            announce: false,
            update_url: None,
            drain: culvert_relay::config::Config::embedded((Ipv4Addr::LOCALHOST, 0).into()).drain,
        }
    }
}

/// The host of a URL such as a configuration's public one, without its port; IPv6 addresses in brackets.
pub(crate) fn host_of(url: &str) -> Option<String> {
    let url: hyper::Uri = url.parse().ok()?;
    url.host().map(str::to_owned)
}
