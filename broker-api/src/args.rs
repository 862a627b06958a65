//! What an operator typed, and how it becomes a [`Config`].
//!
//! Every field is a setting: a flag, a key of the TOML file and an environment variable of the same name;
//! some have a second variable, by which deployments of the first sync broker know them ([`ALIASES`]).
//! `docs/configuration.md` is generated from here. Nothing is open unless somebody said so: without a
//! certificate, without a key for what is stored, or without the URL that clients are told, the broker does
//! not start and says what to set.

#![allow(rustdoc::bare_urls, reason = "doc comments here are what --help prints")]

mod institution;
mod limits;
mod redis;
mod setting;
mod storage;
mod timing;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use culvert_relay::args::{AdminAddress, RedisArgs};
use culvert_relay::config::Tls;
use culvert_service_kit::config::{Given, Problems};
use culvert_service_kit::proxy_protocol::TrustedSources;
use culvert_service_kit::telemetry::{LogFilter, LogFormat};
use culvert_service_kit::tls::Files;

use crate::admin::AdminCommand;
use crate::config::Config;

pub use institution::InstitutionArgs;
pub use limits::LimitArgs;
pub use setting::{PublicUrl, Seconds};
pub use storage::StorageArgs;
pub use timing::TimingArgs;

pub(crate) use storage::parse_keys;

/// Second names of environment variables, with the setting of each; the setting's own variable wins.
pub const ALIASES: &[(&str, &str)] = &[
    ("DATABASE_URL", "database-url"),
    ("REDIS_URL", "redis"),
    ("BIND_ADDR", "listen"),
    ("HEARTBEAT_TIMEOUT_SECONDS", "heartbeat-timeout"),
    ("INSTITUTION_NAME", "institution"),
    ("BROKER_PASSWORD", "institution-password"),
    ("USE_TLS", "require-tls"),
    ("CHECK_FOR_UPDATES", "check-for-updates"),
];

const AFTER_HELP: &str = "\
Each setting is a flag, an environment variable, and a key of the TOML file with the flag's name. A flag \
wins over the environment, which wins over the file. Flags stand after serve, migrate and check-config, and \
before user, credentials, team and audit.

Exit codes: 0 done, or ended after a drain; 1 when something failed, the broker could not start, had to \
give up or was stopped at once; 64 when the configuration is wrong.";

/// The Culvert broker: who is online, who may fetch what.
#[derive(Debug, Parser)]
#[command(name = "culvert-broker-api", version, after_help = AFTER_HELP, mut_args = redis::named)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Option<Action>,
    /// TOML file with settings. Keys that are not settings are refused.
    #[arg(long, env = "CULVERT_BROKER_CONFIG", value_name = "FILE")]
    pub config: Option<Given<PathBuf>>,
    /// Shape of log lines, which go to standard error: text or json.
    #[arg(long, env = "CULVERT_BROKER_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: Given<LogFormat>,
    /// Which log lines are written, such as info or culvert_broker_api=debug,warn. Without it RUST_LOG
    /// counts, without that info.
    #[arg(long, env = "CULVERT_BROKER_LOG", value_name = "FILTER")]
    pub log: Option<Given<String>>,
    /// Threads that serve requests, beside those that hash passwords. With one a request costs least; more
    /// let one replica use more cores.
    #[arg(long, env = "CULVERT_BROKER_WORKER_THREADS", value_name = "NUMBER", default_value = "1")]
    pub worker_threads: Given<usize>,

    /// Where clients connect.
    #[arg(long, env = "CULVERT_BROKER_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    #[arg(help_heading = "Addresses")]
    pub listen: Given<SocketAddr>,
    /// Where operators find /livez, /readyz, /metrics and /version, or none. It asks nobody who they are,
    /// so keep it on a private address.
    #[arg(
        long,
        env = "CULVERT_BROKER_ADMIN_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9080"
    )]
    #[arg(help_heading = "Addresses")]
    pub admin_listen: Given<AdminAddress>,
    /// The URL by which clients reach the broker, such as https://broker.example.org: links, grants and
    /// tickets carry it, and devices prove themselves to its host name. Required unless the broker listens
    /// on loopback.
    #[arg(long, env = "CULVERT_BROKER_PUBLIC_URL", value_name = "URL", help_heading = "Addresses")]
    pub public_url: Option<Given<PublicUrl>>,
    /// Host names beside that of public-url to which devices may prove themselves.
    #[arg(long, env = "CULVERT_BROKER_NAMES", value_name = "LIST", help_heading = "Addresses")]
    pub names: Option<Given<Vec<String>>>,
    /// Networks of balancers that send a PROXY protocol v2 header. From them it is required and believed,
    /// from everybody else it is refused.
    #[arg(long, env = "CULVERT_BROKER_PROXY_PROTOCOL_FROM", value_name = "LIST", help_heading = "Addresses")]
    pub proxy_protocol_from: Option<Given<TrustedSources>>,
    /// Origins whose pages may call the API, such as https://lab.example.org; without it none.
    #[arg(long, env = "CULVERT_BROKER_CORS_ORIGINS", value_name = "LIST", help_heading = "Addresses")]
    pub cors_origins: Option<Given<Vec<String>>>,

    /// PEM file with the certificate and its issuers, read again when it changes and on SIGHUP.
    #[arg(long, env = "CULVERT_BROKER_TLS_CERTIFICATE", value_name = "FILE", help_heading = "Encryption")]
    pub tls_certificate: Option<Given<PathBuf>>,
    /// PEM file with the certificate's private key, read again with it.
    #[arg(long, env = "CULVERT_BROKER_TLS_KEY", value_name = "FILE", help_heading = "Encryption")]
    pub tls_key: Option<Given<PathBuf>>,
    /// Serves without TLS because whoever stands before the broker terminates it; passwords may pass.
    #[arg(long, env = "CULVERT_BROKER_BEHIND_TLS", value_name = "BOOL", default_value = "false")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "Encryption")]
    pub behind_tls: Given<bool>,
    /// Serves without TLS although nobody terminates it, for a trial on loopback; plain passwords are
    /// refused.
    #[arg(long, env = "CULVERT_BROKER_PLAIN_TEXT", value_name = "BOOL", default_value = "false")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "Encryption")]
    pub plain_text: Given<bool>,
    /// Insists on TLS: with it plain-text is refused.
    #[arg(long, env = "CULVERT_BROKER_REQUIRE_TLS", value_name = "BOOL", default_value = "false")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "Encryption")]
    pub require_tls: Given<bool>,

    /// Where what lasts is kept.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// How Redis is reached.
    #[command(flatten)]
    pub redis: RedisArgs,
    /// Who the broker is for.
    #[command(flatten)]
    pub institution: InstitutionArgs,
    /// How long things may take.
    #[command(flatten)]
    pub timing: TimingArgs,
    /// How much may be done.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// What the program is asked to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Serve until SIGTERM or SIGINT, then drain; a second signal stops at once. The usual one.
    Serve,
    /// Make or change the tables of the database, and end. Several at once take turns.
    Migrate,
    /// Say what is wrong with the settings, or print them as they are in effect, secrets masked.
    CheckConfig,
    /// Print the OpenAPI document of the API.
    Openapi,
    /// Work on the database beside running brokers.
    #[command(flatten)]
    Admin(AdminCommand),
}

/// More is a mistake: a thread without a core of its own only costs.
const MOST_WORKER_THREADS: usize = 256;

/// What the arguments mean for the process rather than for the broker.
#[derive(Debug)]
pub struct Process {
    /// Shape of a log line.
    pub log_format: LogFormat,
    /// Which log lines.
    pub log_filter: LogFilter,
    /// Threads that serve requests.
    pub worker_threads: usize,
}

impl Args {
    /// The configuration, or everything that is wrong with it, beside the problems found so far.
    ///
    /// Opens the files that are named, so that a wrong certificate or key is among the problems.
    ///
    /// # Errors
    /// [`Problems`], each with its setting and what is accepted.
    pub fn config(&self, mut problems: Problems) -> Result<(Config, Process), Problems> {
        let process = self.process(&mut problems);
        let listen = problems.read(&self.listen);
        let admin_listen = problems.read(&self.admin_listen);
        let names = problems.read_optional(&self.names).unwrap_or_default();
        let proxy_protocol_from = problems.read_optional(&self.proxy_protocol_from).unwrap_or_default();
        let cors_origins = problems.read_optional(&self.cors_origins).unwrap_or_default();
        let tls = self.tls(&mut problems);
        let public_url = self.public_url(&mut problems, listen);
        let redis = self.redis.settings(&mut problems);
        let storage = self.storage.storage(&mut problems);
        let institution = self.institution.read(&mut problems);
        let limits = self.limits.limits(&mut problems);
        let timing = self.timing.timing(&mut problems);
        let drain = self.timing.drain(&mut problems);
        let config = (|| {
            let (tls, behind_tls) = tls?;
            let (storage, institution) = (storage?, institution?);
            let config = Config {
                listen: listen?,
                admin_listen: admin_listen?.0,
                tls,
                behind_tls,
                public_url: public_url?,
                names,
                proxy_protocol_from,
                cors_origins,
                database: storage.database,
                migrate: storage.migrate,
                redis,
                data_keys: storage.data_keys,
                institution: institution.name,
                institution_password: institution.password,
                relays: institution.relays,
                tenant: institution.tenant,
                timing: timing?,
                limits: limits?,
                announce: institution.announce,
                update_url: institution.update_url,
                drain: drain?,
            };
            Some((config, process?))
        })();
        problems.finish(config)
    }

    fn process(&self, problems: &mut Problems) -> Option<Process> {
        let log_format = problems.read(&self.log_format);
        let log_filter = LogFilter::new(self.log.as_ref().map(Given::text))
            .map_err(|error| problems.push("log", error.to_string()))
            .ok();
        let worker_threads = problems.read_checked(&self.worker_threads, "from 1 to 256", |number| {
            (1..=MOST_WORKER_THREADS).contains(number)
        });
        Some(Process { log_format: log_format?, log_filter: log_filter?, worker_threads: worker_threads? })
    }

    /// Encryption, and whether somebody before the broker does it.
    fn tls(&self, problems: &mut Problems) -> Option<(Tls, bool)> {
        let plain_text = problems.read(&self.plain_text);
        let behind_tls = problems.read(&self.behind_tls);
        let require_tls = problems.read(&self.require_tls);
        let (plain_text, behind_tls, require_tls) = (plain_text?, behind_tls?, require_tls?);
        let files = match (&self.tls_certificate, &self.tls_key) {
            (Some(certificate), Some(key)) => {
                let files = Files { certificate: problems.read(certificate)?, key: problems.read(key)? };
                if let Err(error) = files.check() {
                    problems.push("tls-certificate, tls-key", error.to_string());
                }
                Some(files)
            }
            (None, None) => None,
            (Some(_), None) => {
                problems.push("tls-key", "is missing beside tls-certificate");
                return None;
            }
            (None, Some(_)) => {
                problems.push("tls-certificate", "is missing beside tls-key");
                return None;
            }
        };
        match (files, behind_tls, plain_text) {
            (Some(files), behind_tls, false) => Some((Tls::Files(files), behind_tls)),
            (None, true, false) => Some((Tls::PlainText, true)),
            (None, false, true) if !require_tls => Some((Tls::PlainText, false)),
            (None, false, true) => {
                let sentence = "excludes require-tls; give tls-certificate and tls-key, or behind-tls if a \
                                balancer terminates TLS";
                problems.push("plain-text", sentence);
                None
            }
            (_, _, true) => {
                let sentence = "excludes tls-certificate, tls-key and behind-tls, give one or the other";
                problems.push("plain-text", sentence);
                None
            }
            (None, false, false) if require_tls => {
                let sentence =
                    "needs tls-certificate and tls-key, or behind-tls if a balancer terminates TLS";
                problems.push("require-tls", sentence);
                None
            }
            (None, false, false) => {
                let sentence = "and tls-key are required; behind a balancer that terminates TLS give \
                                behind-tls, for a trial on loopback plain-text";
                problems.push("tls-certificate", sentence);
                None
            }
        }
    }

    fn public_url(&self, problems: &mut Problems, listen: Option<SocketAddr>) -> Option<String> {
        if let Some(given) = &self.public_url {
            return problems.read(given).map(|url| url.0);
        }
        let listen = listen?;
        if !listen.ip().is_loopback() {
            let sentence = "is required on an address that others can reach: the URL by which clients reach \
                            the broker, such as https://broker.example.org";
            problems.push("public-url", sentence);
            return None;
        }
        let scheme = if self.tls_certificate.is_some() { "https" } else { "http" };
        Some(format!("{scheme}://{listen}"))
    }
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
