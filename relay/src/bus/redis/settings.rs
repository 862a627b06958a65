//! What an operator says about the Redis that connects the nodes.
//!
//! Plain data, checked: [`Settings::problems`] names everything that is wrong with it, each in a sentence
//! that says what to do.

use std::fmt;
use std::time::Duration;

use culvert_service_kit::Secret;
use redis::{ConnectionAddr, IntoConnectionInfo};

use super::message::VERSIONS;

/// Where Redis is, how to speak to it, and what it is asked to bear.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to begin: the server, the Sentinels, or some masters of the cluster.
    pub servers: Vec<Server>,
    /// What answers there.
    pub mode: Mode,
    /// The ACL user; `None` is the default user.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret<String>>,
    /// The user of the Sentinels themselves, which know none of the servers' users.
    pub sentinel_user: Option<String>,
    /// Its password.
    pub sentinel_password: Option<Secret<String>>,
    /// Certificates in PEM form that are trusted instead of the system's.
    pub ca: Option<Vec<u8>>,
    /// How all keys and channels begin; clusters that share a Redis differ in it.
    pub prefix: String,
    /// Channels, and connections, of each node's inbox; the same on every node of a cluster.
    ///
    /// Redis writes at most 64 KiB to one client per turn but reads 16 KiB from each publisher. With one
    /// publisher per node, 4 keep up with 16 nodes that all publish at full speed to one.
    pub shards: u8,
    /// Silence after which the others hold a node to be dead.
    pub lease: Duration,
    /// Longest wait for a connection, and for each answer.
    pub timeout: Duration,
    /// Bytes of letters that wait for one other node, sent and unconfirmed ones included.
    pub queue_bytes: usize,
    /// Registrations a second while a node registers everything anew, as after Redis came back empty. One
    /// costs Redis about 3 µs: at the default, four nodes that do so at once take 6 % of a core.
    pub registrations: u32,
    /// Newest version of the bus to speak, for a cluster that is being updated.
    pub newest_bus_version: u8,
}

/// One address to begin at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// Name or IP address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether TLS is spoken there.
    pub tls: bool,
}

/// What kind of Redis it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One server.
    Standalone,
    /// Sentinels that know which server is the master.
    Sentinel {
        /// The name they know it by.
        master: String,
    },
    /// A Redis Cluster; channels and keys are spread over its masters.
    Cluster,
}

impl Settings {
    /// What a lease lasts, unless told otherwise: peers of a dead node are told within this plus 1 s.
    pub const LEASE: Duration = Duration::from_secs(7);
    /// Longer than a busy Redis or one retransmission takes, and short enough for several attempts before
    /// a lease of [`Settings::LEASE`] is lost.
    pub const TIMEOUT: Duration = Duration::from_secs(1);
    /// Shards of an inbox; see [`Settings::shards`].
    pub const SHARDS: u8 = 4;
    /// What two nodes exchange in 4 ms at 1 GB/s, or in 35 ms over a link of 1 Gbit/s.
    pub const QUEUE_BYTES: usize = 4 << 20;
    /// See [`Settings::registrations`].
    pub const REGISTRATIONS: u32 = 5_000;
    /// More shards than this are connections without use.
    pub const MAX_SHARDS: u8 = 32;
    /// Shorter ones are lost whenever a machine pauses for a moment.
    pub const MIN_LEASE: Duration = Duration::from_secs(2);
    /// Longer ones leave peers waiting for the dead.
    pub const MAX_LEASE: Duration = Duration::from_secs(60);
    /// A prefix is part of every key and message.
    pub const MAX_PREFIX: usize = 64;

    /// Everything at its default, for these servers.
    pub fn new(servers: Vec<Server>, mode: Mode) -> Self {
        Self {
            servers,
            mode,
            user: None,
            password: None,
            sentinel_user: None,
            sentinel_password: None,
            ca: None,
            prefix: "culvert".to_owned(),
            shards: Self::SHARDS,
            lease: Self::LEASE,
            timeout: Self::TIMEOUT,
            queue_bytes: Self::QUEUE_BYTES,
            registrations: Self::REGISTRATIONS,
            newest_bus_version: *VERSIONS.end(),
        }
    }

    /// Reads addresses such as `redis://10.0.0.1:6379,rediss://redis.internal`.
    ///
    /// # Errors
    /// What is wrong with them, a sentence each. None repeats an address that may hold a password.
    pub fn parse_servers(text: &str) -> Result<Vec<Server>, Vec<String>> {
        let (mut servers, mut problems) = (Vec::new(), Vec::new());
        for (index, url) in text.split(',').map(str::trim).enumerate() {
            match Server::parse(url) {
                Ok(server) => servers.push(server),
                Err(problem) => problems.push(format!("address {} of redis: {problem}", index + 1)),
            }
        }
        if problems.is_empty() { Ok(servers) } else { Err(problems) }
    }

    /// What is wrong with the settings, a sentence each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut require = |good: bool, problem: String| {
            if !good {
                problems.push(problem);
            }
        };
        require(!self.servers.is_empty(), "redis needs at least one address".to_owned());
        require(
            self.mode != Mode::Standalone || self.servers.len() < 2,
            "redis has several addresses and redis-mode is standalone; name one server, or choose sentinel \
             or cluster"
                .to_owned(),
        );
        require(
            self.servers.windows(2).all(|pair| pair[0].tls == pair[1].tls),
            "redis mixes redis:// and rediss://; use the same for all addresses".to_owned(),
        );
        require(
            self.ca.is_none() || self.servers.iter().all(|server| server.tls),
            "redis-ca is given and redis:// speaks no TLS; use rediss://".to_owned(),
        );
        if let Mode::Sentinel { master } = &self.mode {
            require(
                !master.is_empty(),
                "redis-mode is sentinel; say in redis-sentinel-master what the Sentinels call the master"
                    .to_owned(),
            );
        }
        for (user, password, of) in [
            (&self.user, &self.password, "redis"),
            (&self.sentinel_user, &self.sentinel_password, "redis-sentinel"),
        ] {
            require(
                user.is_none() || password.is_some(),
                format!("{of}-user is given without {of}-password; give it by file or environment"),
            );
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-');
        require(
            (1..=Self::MAX_PREFIX).contains(&self.prefix.len()) && self.prefix.chars().all(plain),
            format!("redis-prefix must be 1 to {} of A-Z a-z 0-9 : _ -", Self::MAX_PREFIX),
        );
        require(
            (1..=Self::MAX_SHARDS).contains(&self.shards),
            format!("redis-shards must be 1 to {}", Self::MAX_SHARDS),
        );
        require(
            (Self::MIN_LEASE..=Self::MAX_LEASE).contains(&self.lease),
            format!("redis-lease must be {:?} to {:?}", Self::MIN_LEASE, Self::MAX_LEASE),
        );
        require(
            !self.timeout.is_zero() && self.timeout * 3 <= self.lease,
            "redis-timeout must be more than 0 and at most a third of redis-lease, so that one lost answer \
             does not cost the lease"
                .to_owned(),
        );
        require(self.queue_bytes >= 1 << 20, "redis-queue-bytes must be at least 1MiB".to_owned());
        require(self.registrations > 0, "redis-registrations must be at least 1".to_owned());
        require(
            VERSIONS.contains(&self.newest_bus_version),
            format!("redis-newest-bus-version must be {} to {}", VERSIONS.start(), VERSIONS.end()),
        );
        problems
    }
}

impl Server {
    fn parse(url: &str) -> Result<Self, &'static str> {
        const FORM: &str = "must be an address such as redis://10.0.0.1:6379, or rediss:// for TLS";
        let parsed = redis::parse_redis_url(url).ok_or(FORM)?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err("must not hold a user or a password; use redis-user, and give the password by file \
                        or environment");
        }
        if !matches!(parsed.path(), "" | "/") {
            return Err(
                "must not name a database: channels are shared by all of them, so clusters are kept \
                        apart by redis-prefix",
            );
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err("must end after the port");
        }
        match parsed.into_connection_info().map_err(|_| FORM)?.addr() {
            ConnectionAddr::Tcp(host, port) => Ok(Self { host: host.clone(), port: *port, tls: false }),
            ConnectionAddr::TcpTls { host, port, .. } => {
                Ok(Self { host: host.clone(), port: *port, tls: true })
            }
            _ => Err("must be reached over TCP"),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests;
