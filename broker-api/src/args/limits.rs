//! How much may be done.

use bytesize::ByteSize;
use culvert_service_kit::config::{Given, Problems, Setting};

use crate::config::Limits;
use crate::live::Rate;

/// Settings of [`Limits`].
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Connections of this replica, WebSockets included.
    #[arg(long, env = "CULVERT_BROKER_MAX_CONNECTIONS", value_name = "NUMBER", default_value = "10000")]
    pub max_connections: Given<usize>,
    /// WebSockets of one user, on all replicas together.
    #[arg(
        long,
        env = "CULVERT_BROKER_MAX_CONNECTIONS_PER_USER",
        value_name = "NUMBER",
        default_value = "16"
    )]
    pub max_connections_per_user: Given<u32>,
    /// Bytes of a request's body, except backups.
    #[arg(long, env = "CULVERT_BROKER_MAX_BODY", value_name = "SIZE", default_value = "1MiB")]
    pub max_body: Given<ByteSize>,
    /// Bytes of a backup.
    #[arg(long, env = "CULVERT_BROKER_MAX_BACKUP", value_name = "SIZE", default_value = "64MiB")]
    pub max_backup: Given<ByteSize>,
    /// Versions of a user's backup that are kept.
    #[arg(long, env = "CULVERT_BROKER_BACKUP_VERSIONS", value_name = "NUMBER", default_value = "5")]
    pub backup_versions: Given<u32>,
    /// Messages that wait to be written to one WebSocket before it is closed as slow.
    #[arg(long, env = "CULVERT_BROKER_QUEUE", value_name = "NUMBER", default_value = "256")]
    pub queue: Given<usize>,
    /// Messages of one WebSocket.
    #[arg(long, env = "CULVERT_BROKER_MESSAGE_RATE", value_name = "RATE", default_value = "100/5s")]
    pub message_rate: Given<Rate>,
    /// Requests of one user, or of one source address (IPv4 address, IPv6 /64) that shows no user.
    #[arg(long, env = "CULVERT_BROKER_REQUEST_RATE", value_name = "RATE", default_value = "200/4s")]
    pub request_rate: Given<Rate>,
    /// Failed proofs of identity from one source address.
    #[arg(long, env = "CULVERT_BROKER_GUESSES_PER_SOURCE", value_name = "RATE", default_value = "10/1m")]
    pub guesses_per_source: Given<Rate>,
    /// Failed proofs of identity for one user.
    #[arg(long, env = "CULVERT_BROKER_GUESSES_PER_USER", value_name = "RATE", default_value = "30/1m")]
    pub guesses_per_user: Given<Rate>,
    /// Failed proofs of identity in all.
    #[arg(long, env = "CULVERT_BROKER_GUESSES", value_name = "RATE", default_value = "100/5s")]
    pub guesses: Given<Rate>,
    /// Password hashes computed at a time, 19 MiB of memory each; others wait.
    #[arg(long, env = "CULVERT_BROKER_HASHES_AT_ONCE", value_name = "NUMBER", default_value = "2")]
    pub hashes_at_once: Given<usize>,
    /// Connections of this replica to the database.
    #[arg(long, env = "CULVERT_BROKER_DATABASE_CONNECTIONS", value_name = "NUMBER", default_value = "10")]
    pub database_connections: Given<u32>,
    /// Topics that one relay ticket may name.
    #[arg(long, env = "CULVERT_BROKER_TOPICS_PER_TICKET", value_name = "NUMBER", default_value = "64")]
    pub topics_per_ticket: Given<usize>,
}

/// The largest fields of a share together, several times.
const LEAST_BODY: u64 = 64 << 10;
/// More in memory for one request would be a way to use it up.
const LARGEST_BODY: u64 = 64 << 20;
/// A backup is one value of the database, which ends at 1 GiB.
const LARGEST_BACKUP: u64 = 1 << 30;

impl LimitArgs {
    pub(super) fn limits(&self, problems: &mut Problems) -> Option<Limits> {
        let connections = at_least_one(problems, &self.max_connections);
        let connections_per_user = at_least_one(problems, &self.max_connections_per_user);
        let body = problems.read_checked(&self.max_body, "from 64KiB to 64MiB", |size| {
            (LEAST_BODY..=LARGEST_BODY).contains(&size.as_u64())
        });
        let backup =
            problems.read_checked(&self.max_backup, "at most 1GiB", |size| size.as_u64() <= LARGEST_BACKUP);
        let backup_versions = at_least_one(problems, &self.backup_versions);
        let queue = at_least_one(problems, &self.queue);
        let messages = problems.read(&self.message_rate);
        let requests = problems.read(&self.request_rate);
        let guesses_per_source = problems.read(&self.guesses_per_source);
        let guesses_per_user = problems.read(&self.guesses_per_user);
        let guesses = problems.read(&self.guesses);
        let hashes_at_once = at_least_one(problems, &self.hashes_at_once);
        let database_connections =
            problems.read_checked(&self.database_connections, "at least 2", |&number| number >= 2);
        let topics_per_ticket = at_least_one(problems, &self.topics_per_ticket);
        Some(Limits {
            connections: connections?,
            connections_per_user: connections_per_user?,
            body_bytes: usize::try_from(body?.as_u64()).ok()?,
            backup_bytes: backup?.as_u64(),
            backup_versions: backup_versions?,
            queue: queue?,
            messages: messages?,
            requests: requests?,
            guesses_per_source: guesses_per_source?,
            guesses_per_user: guesses_per_user?,
            guesses: guesses?,
            hashes_at_once: hashes_at_once?,
            database_connections: database_connections?,
            topics_per_ticket: topics_per_ticket?,
        })
    }
}

/// A count; none at all would be a broker that does nothing.
fn at_least_one<T: Setting + PartialOrd + From<u8>>(problems: &mut Problems, given: &Given<T>) -> Option<T> {
    problems.read_checked(given, "at least 1", |number| *number >= T::from(1))
}
