//! The Redis that connects the nodes.
//!
//! Two parts: how it is reached, which commands that look at a cluster share with the relay, and what the
//! relay asks of it. Without `redis` a relay is alone.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use culvert_service_kit::Secret;
use culvert_service_kit::config::{Given, Problems, Setting};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::bus::redis::settings::{Mode, Settings};

/// How a Redis is reached.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Redis")]
pub struct RedisArgs {
    /// Redis that connects this node with the others of its cluster: redis:// addresses, rediss:// for TLS;
    /// of the server, of the Sentinels, or of some masters of a Redis Cluster. Without it the relay is alone.
    #[arg(long, env = "CULVERT_RELAY_REDIS", value_name = "LIST")]
    pub redis: Option<Given<Vec<String>>>,
    /// What answers there: standalone, sentinel or cluster.
    #[arg(long, env = "CULVERT_RELAY_REDIS_MODE", value_name = "MODE", default_value = "standalone")]
    pub redis_mode: Given<RedisMode>,
    /// What the Sentinels call the master.
    #[arg(long, env = "CULVERT_RELAY_REDIS_SENTINEL_MASTER", value_name = "NAME")]
    pub redis_sentinel_master: Option<Given<String>>,
    /// The user of Redis' access control list; without it, the default user.
    #[arg(long, env = "CULVERT_RELAY_REDIS_USER", value_name = "NAME")]
    pub redis_user: Option<Given<String>>,
    /// File with the user's password.
    #[arg(long, env = "CULVERT_RELAY_REDIS_PASSWORD_FILE", value_name = "FILE")]
    pub redis_password_file: Option<Given<PathBuf>>,
    /// The password itself, from its environment variable only.
    #[arg(long, env = "CULVERT_RELAY_REDIS_PASSWORD", value_name = "SECRET")]
    #[arg(hide = true, hide_env_values = true)]
    pub redis_password: Option<Given<Secret<String>>>,
    /// The user of the Sentinels themselves, which know none of the servers' users.
    #[arg(long, env = "CULVERT_RELAY_REDIS_SENTINEL_USER", value_name = "NAME")]
    pub redis_sentinel_user: Option<Given<String>>,
    /// File with the password for the Sentinels.
    #[arg(long, env = "CULVERT_RELAY_REDIS_SENTINEL_PASSWORD_FILE", value_name = "FILE")]
    pub redis_sentinel_password_file: Option<Given<PathBuf>>,
    /// The Sentinels' password itself, from its environment variable only.
    #[arg(long, env = "CULVERT_RELAY_REDIS_SENTINEL_PASSWORD", value_name = "SECRET")]
    #[arg(hide = true, hide_env_values = true)]
    pub redis_sentinel_password: Option<Given<Secret<String>>>,
    /// PEM file with the authorities that are trusted for rediss://, instead of the system's.
    #[arg(long, env = "CULVERT_RELAY_REDIS_CA", value_name = "FILE")]
    pub redis_ca: Option<Given<PathBuf>>,
    /// How all keys and channels begin; clusters that share a Redis differ in it.
    #[arg(long, env = "CULVERT_RELAY_REDIS_PREFIX", value_name = "TEXT", default_value = "culvert")]
    pub redis_prefix: Given<String>,
    /// Longest wait for a connection to Redis, and for each answer; at most a third of redis-lease.
    #[arg(long, env = "CULVERT_RELAY_REDIS_TIMEOUT", value_name = "DURATION", default_value = "1s")]
    pub redis_timeout: Given<Duration>,
}

/// What a relay asks of its Redis.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub struct BusArgs {
    /// Silence after which the other nodes hold this one to be dead: its peers are gone for theirs within
    /// this and a second. The same on every node.
    #[arg(long, env = "CULVERT_RELAY_REDIS_LEASE", value_name = "DURATION", default_value = "7s")]
    pub redis_lease: Given<Duration>,
    /// Channels of each node's inbox, a connection each; the same on every node.
    #[arg(long, env = "CULVERT_RELAY_REDIS_SHARDS", value_name = "NUMBER", default_value = "4")]
    pub redis_shards: Given<u16>,
    /// Bytes that wait for one other node, those under way included, before frames to it are refused as
    /// full.
    #[arg(long, env = "CULVERT_RELAY_REDIS_QUEUE_BYTES", value_name = "SIZE", default_value = "4MiB")]
    pub redis_queue_bytes: Given<ByteSize>,
    /// Memberships registered a second when all of them have to be anew, as after Redis lost its data.
    #[arg(long, env = "CULVERT_RELAY_REDIS_REGISTRATIONS", value_name = "NUMBER", default_value = "5000")]
    pub redis_registrations: Given<u32>,
    /// Newest version of the bus to speak, while a cluster is updated to a new one; without it the newest
    /// that this program knows.
    #[arg(long, env = "CULVERT_RELAY_REDIS_NEWEST_BUS_VERSION", value_name = "NUMBER")]
    pub redis_newest_bus_version: Option<Given<u16>>,
}

/// What kind of Redis it is, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisMode {
    /// One server.
    Standalone,
    /// A master that Sentinels name.
    Sentinel,
    /// Masters that share the slots.
    Cluster,
}

impl Setting for RedisMode {
    const FORM: &'static str = "standalone, sentinel or cluster";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "standalone" => Some(Self::Standalone),
            "sentinel" => Some(Self::Sentinel),
            "cluster" => Some(Self::Cluster),
            _ => None,
        }
    }
}

impl RedisArgs {
    /// How Redis is reached; `None` if `redis` is not given, or if something is wrong, which is then noted.
    ///
    /// Reads the files that are named.
    pub fn settings(&self, problems: &mut Problems) -> Option<Settings> {
        let settings = self.read(problems)?;
        note(problems, &settings);
        Some(settings)
    }

    /// The same for a relay, with what it asks of Redis.
    pub fn settings_with(&self, bus: &BusArgs, problems: &mut Problems) -> Option<Settings> {
        let settings = self.read(problems);
        let lease = problems.read(&bus.redis_lease);
        let shards = problems.read(&bus.redis_shards);
        let queue_bytes = problems.read(&bus.redis_queue_bytes);
        let registrations = problems.read(&bus.redis_registrations);
        let newest = bus.redis_newest_bus_version.as_ref().map(|given| problems.read(given));
        let mut settings = settings?;
        // What does not fit into a byte is far outside of what is accepted, and so is the largest byte.
        let byte = |number: u16| u8::try_from(number).unwrap_or(u8::MAX);
        settings.lease = lease?;
        settings.shards = byte(shards?);
        settings.queue_bytes = usize::try_from(queue_bytes?.as_u64()).unwrap_or(usize::MAX);
        settings.registrations = registrations?;
        if let Some(newest) = newest {
            settings.newest_bus_version = byte(newest?);
        }
        note(problems, &settings);
        Some(settings)
    }

    fn read(&self, problems: &mut Problems) -> Option<Settings> {
        let password = problems.read_secret(&self.redis_password, &self.redis_password_file);
        let sentinel_password =
            problems.read_secret(&self.redis_sentinel_password, &self.redis_sentinel_password_file);
        let ca = self.redis_ca.as_ref().map(|file| certificates(problems, file));
        let prefix = problems.read(&self.redis_prefix);
        let timeout = problems.read(&self.redis_timeout);
        let mode = problems.read(&self.redis_mode).map(|mode| match mode {
            RedisMode::Standalone => Mode::Standalone,
            RedisMode::Sentinel => {
                let master = problems.read_optional(&self.redis_sentinel_master).unwrap_or_default();
                Mode::Sentinel { master }
            }
            RedisMode::Cluster => Mode::Cluster,
        });
        let Some(redis) = &self.redis else {
            self.nothing_without_redis(problems);
            return None;
        };
        let servers = Settings::parse_servers(redis.text())
            .map_err(|wrong| wrong.into_iter().for_each(|sentence| problems.push("redis", sentence)))
            .ok()?;
        if matches!(mode, Some(Mode::Standalone | Mode::Cluster)) && self.redis_sentinel_master.is_some() {
            problems.push("redis-sentinel-master", "is for redis-mode sentinel only");
        }
        Some(Settings {
            user: problems.read_optional(&self.redis_user),
            password,
            sentinel_user: problems.read_optional(&self.redis_sentinel_user),
            sentinel_password,
            ca: ca.flatten(),
            prefix: prefix?,
            timeout: timeout?,
            ..Settings::new(servers, mode?)
        })
    }

    /// Whoever says how to speak to Redis means to have one.
    fn nothing_without_redis(&self, problems: &mut Problems) {
        let given = [
            ("redis-sentinel-master", self.redis_sentinel_master.is_some()),
            ("redis-user", self.redis_user.is_some()),
            ("redis-password-file", self.redis_password_file.is_some()),
            ("redis-password", self.redis_password.is_some()),
            ("redis-ca", self.redis_ca.is_some()),
        ];
        if let Some((key, _)) = given.iter().find(|(_, given)| *given) {
            problems.push("redis", format!("is missing beside {key}"));
        }
    }
}

/// Each sentence about settings begins with the name of one.
fn note(problems: &mut Problems, settings: &Settings) {
    for problem in settings.problems() {
        match problem.split_once(' ') {
            Some((key, sentence)) => problems.push(key, sentence),
            None => problems.push("redis", problem),
        }
    }
}

/// The text of a file that holds certificates and nothing that cannot be read.
fn certificates(problems: &mut Problems, file: &Given<PathBuf>) -> Option<Vec<u8>> {
    let path = problems.read(file)?;
    let checked = std::fs::read(&path).map_err(|error| error.to_string()).and_then(|text| {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        match certificates {
            Ok(certificates) if certificates.is_empty() => Err("has no CERTIFICATE section".to_owned()),
            Ok(_) => Ok(text),
            Err(error) => Err(format!("is no PEM file of certificates: {error}")),
        }
    });
    checked.map_err(|problem| problems.push("redis-ca", format!("{} {problem}", path.display()))).ok()
}
