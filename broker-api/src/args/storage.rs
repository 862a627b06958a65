//! Where what lasts is kept, and how it is sealed there.

use std::path::PathBuf;

use culvert_service_kit::Secret;
use culvert_service_kit::config::{Given, Problems};
use data_encoding::BASE64;

use crate::config::Database;

/// Settings of the database and of the keys that seal secrets in it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Storage")]
pub struct StorageArgs {
    /// URL of the Postgres database, postgres://user:password@host/name, from its environment variable
    /// only, because it holds the password.
    #[arg(long, env = "CULVERT_BROKER_DATABASE_URL", value_name = "SECRET")]
    #[arg(hide = true, hide_env_values = true)]
    pub database_url: Option<Given<Secret<String>>>,
    /// File with the URL of the Postgres database.
    #[arg(long, env = "CULVERT_BROKER_DATABASE_URL_FILE", value_name = "FILE")]
    pub database_url_file: Option<Given<PathBuf>>,
    /// SQLite file to use without Postgres: for one broker alone. Made when it is missing; without this
    /// and without Postgres it is culvert-broker.db in the folder that the broker runs in.
    #[arg(long, env = "CULVERT_BROKER_DATABASE_FILE", value_name = "FILE")]
    pub database_file: Option<Given<PathBuf>>,
    /// Makes or changes the tables at start; several replicas take turns. Without it they are made by
    /// `migrate`, and a broker whose tables are missing or older does not start.
    #[arg(long, env = "CULVERT_BROKER_MIGRATE", value_name = "BOOL")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub migrate: Option<Given<bool>>,
    /// File with the keys that seal secrets in the database: 32 random bytes in base64 each, as `openssl rand
    /// -base64 32` prints them, a line each. The first seals, all open. Without it a key is made beside a
    /// SQLite file; Postgres needs one.
    #[arg(long, env = "CULVERT_BROKER_DATA_KEYS_FILE", value_name = "FILE")]
    pub data_keys_file: Option<Given<PathBuf>>,
    /// The keys themselves, separated by commas, from their environment variable only.
    #[arg(long, env = "CULVERT_BROKER_DATA_KEYS", value_name = "SECRET")]
    #[arg(hide = true, hide_env_values = true)]
    pub data_keys: Option<Given<Secret<String>>>,
}

/// What the settings of storage mean.
pub(super) struct Storage {
    pub(super) database: Database,
    pub(super) migrate: bool,
    pub(super) data_keys: Vec<Secret<Vec<u8>>>,
}

/// The SQLite file of a broker that was told of no database.
const FILE: &str = "culvert-broker.db";
/// AES-256.
const KEY_BYTES: usize = 32;

impl StorageArgs {
    pub(super) fn storage(&self, problems: &mut Problems) -> Option<Storage> {
        let database = self.database(problems);
        let data_keys = self.keys(problems);
        let migrate = self.migrate.as_ref().map(|given| problems.read(given));
        if matches!(database, Some(Database::Postgres(_)))
            && matches!(&data_keys, Some(keys) if keys.is_empty())
        {
            let sentence = "is required with Postgres: a file with a key that seals secrets in the database. \
                            Make one with: openssl rand -base64 32";
            problems.push("data-keys-file", sentence);
        }
        let database = database?;
        // A file of its own has no other user; tables that several share change when their operator says so.
        let usual = matches!(database, Database::Sqlite(_));
        Some(Storage {
            migrate: match migrate {
                Some(migrate) => migrate?,
                None => usual,
            },
            data_keys: data_keys?,
            database,
        })
    }

    fn database(&self, problems: &mut Problems) -> Option<Database> {
        let is_postgres = self.database_url.is_some() || self.database_url_file.is_some();
        if is_postgres && self.database_file.is_some() {
            problems.push("database-file", "excludes database-url, give one or the other");
            return None;
        }
        if !is_postgres {
            let file = match &self.database_file {
                Some(given) => problems.read(given)?,
                None => FILE.into(),
            };
            return Some(Database::Sqlite(file));
        }
        let url = problems.read_secret(&self.database_url, &self.database_url_file)?;
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme)) {
            let sentence = "does not begin with postgres://; for SQLite give database-file";
            problems.push("database-url", sentence);
            return None;
        }
        Some(Database::Postgres(url))
    }

    /// The keys; none if none are given.
    fn keys(&self, problems: &mut Problems) -> Option<Vec<Secret<Vec<u8>>>> {
        if self.data_keys.is_none() && self.data_keys_file.is_none() {
            return Some(Vec::new());
        }
        let text = problems.read_secret(&self.data_keys, &self.data_keys_file)?;
        let keys = parse_keys(text.expose());
        if keys.is_none() {
            let sentence = "holds something else than keys of 32 bytes in base64, as openssl rand -base64 32 \
                            prints them";
            problems.push("data-keys", sentence);
        }
        keys
    }
}

/// Keys in base64, separated by commas or white space; `None` if there is none, or something else.
pub(crate) fn parse_keys(text: &str) -> Option<Vec<Secret<Vec<u8>>>> {
    let words = text.split([',', ' ', '\t', '\r', '\n']).filter(|word| !word.is_empty());
    let keys: Option<Vec<_>> = words
        .map(|word| BASE64.decode(word.as_bytes()).ok().filter(|key| key.len() == KEY_BYTES).map(Secret::new))
        .collect();
    keys.filter(|keys| !keys.is_empty())
}
