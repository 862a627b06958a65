//! What an operator typed, and how it becomes a [`Config`].
//!
//! Every field is a setting: a flag, a key of the TOML file and an environment variable of the same name.
//! `docs/configuration.md` is generated from here. Nothing is open unless somebody said so: without a way
//! in, without a certificate, or open to the world, the relay does not start and says what to set.

mod limits;
mod redis;
mod setting;
mod timing;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use culvert_service_kit::Secret;
use culvert_service_kit::config::{Given, Problems};
use culvert_service_kit::proxy_protocol::TrustedSources;
use culvert_service_kit::telemetry::{LogFilter, LogFormat};
use culvert_service_kit::tls::Files;

use crate::admission::TicketKeys;
use crate::config::{AdmissionPolicy, Config, KeySource, TicketPolicy, Tls};

pub use self::redis::{BusArgs, RedisArgs, RedisMode};
pub use limits::LimitArgs;
pub use setting::{AdminAddress, ByteRate};
pub use timing::TimingArgs;

const AFTER_HELP: &str = "\
Each setting is a flag, an environment variable, and a key of the TOML file with the flag's name. A flag \
wins over the environment, which wins over the file.

Exit codes: 0 after a drain, 1 when the relay could not start, had to give up or was stopped at once, \
64 when the configuration is wrong.";

/// A Culvert relay: passes frames between peers on port 443 that it cannot read.
#[derive(Debug, Parser)]
#[command(name = "culvert-relay", version, after_help = AFTER_HELP)]
pub struct Args {
    /// What to do.
    #[arg(value_enum, default_value_t = Action::Run)]
    pub action: Action,
    /// TOML file with settings. Keys that are not settings are refused.
    #[arg(long, env = "CULVERT_RELAY_CONFIG", value_name = "FILE")]
    pub config: Option<Given<PathBuf>>,
    /// Shape of log lines, which go to standard error: text or json.
    #[arg(long, env = "CULVERT_RELAY_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: Given<LogFormat>,
    /// Which log lines are written, such as info or culvert_relay=debug,warn. Without it RUST_LOG counts,
    /// without that info.
    #[arg(long, env = "CULVERT_RELAY_LOG", value_name = "FILTER")]
    pub log: Option<Given<String>>,

    /// Where peers connect. Port 443 of the outside world usually ends here through a balancer.
    #[arg(long, env = "CULVERT_RELAY_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:8443")]
    #[arg(help_heading = "Addresses")]
    pub listen: Given<SocketAddr>,
    /// Where operators find /livez, /readyz, /metrics and /version, or none. It asks nobody who they are,
    /// so keep it on a private address.
    #[arg(
        long,
        env = "CULVERT_RELAY_ADMIN_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9443"
    )]
    #[arg(help_heading = "Addresses")]
    pub admin_listen: Given<AdminAddress>,
    /// Host names by which peers dial this relay, beside those in its certificate. A peer that meant
    /// another host is refused, so that nobody can pass its greeting on.
    #[arg(long, env = "CULVERT_RELAY_NAMES", value_name = "LIST", help_heading = "Addresses")]
    pub names: Option<Given<Vec<String>>>,
    /// Networks of balancers that send a PROXY protocol v2 header. From them it is required and believed,
    /// from everybody else it is refused.
    #[arg(long, env = "CULVERT_RELAY_PROXY_PROTOCOL_FROM", value_name = "LIST", help_heading = "Addresses")]
    pub proxy_protocol_from: Option<Given<TrustedSources>>,

    /// PEM file with the certificate and its issuers, read again when it changes and on SIGHUP.
    #[arg(long, env = "CULVERT_RELAY_TLS_CERTIFICATE", value_name = "FILE", help_heading = "Encryption")]
    pub tls_certificate: Option<Given<PathBuf>>,
    /// PEM file with the certificate's private key, read again with it.
    #[arg(long, env = "CULVERT_RELAY_TLS_KEY", value_name = "FILE", help_heading = "Encryption")]
    pub tls_key: Option<Given<PathBuf>>,
    /// Serves without TLS: only behind a balancer that terminates it, or on loopback.
    #[arg(long, env = "CULVERT_RELAY_PLAIN_TEXT", value_name = "BOOL", default_value = "false")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "Encryption")]
    pub plain_text: Given<bool>,

    /// Files with the Ed25519 public keys (PEM or JSON Web Key Set) whose tickets admit peers, read again
    /// when they change; or https:// URLs of JSON Web Key Sets, such as the broker's
    /// /.well-known/jwks.json. A key set that was never fetched admits nobody, one that cannot be fetched
    /// again stays in use.
    #[arg(long, env = "CULVERT_RELAY_TICKET_KEYS", value_name = "LIST", help_heading = "Admission")]
    pub ticket_keys: Option<Given<Vec<KeySource>>>,
    /// PEM file with authorities to trust, beside the system's, when key sets are fetched.
    #[arg(long, env = "CULVERT_RELAY_TICKET_KEYS_CA", value_name = "FILE", help_heading = "Admission")]
    pub ticket_keys_ca: Option<Given<PathBuf>>,
    /// How often key sets are fetched: the longest time for which a withdrawn key still admits.
    #[arg(long, env = "CULVERT_RELAY_TICKET_KEYS_REFRESH", value_name = "DURATION", default_value = "60s")]
    #[arg(help_heading = "Admission")]
    pub ticket_keys_refresh: Given<Duration>,
    /// Tickets that are valid for longer than this from now are refused.
    #[arg(long, env = "CULVERT_RELAY_TICKET_LONGEST_LIFE", value_name = "DURATION", default_value = "24h")]
    #[arg(help_heading = "Admission")]
    pub ticket_longest_life: Given<Duration>,
    /// File with the access token: peers that know it are admitted.
    #[arg(long, env = "CULVERT_RELAY_ACCESS_TOKEN_FILE", value_name = "FILE", help_heading = "Admission")]
    pub access_token_file: Option<Given<PathBuf>>,
    /// The access token itself, from its environment variable only.
    #[arg(long, env = "CULVERT_RELAY_ACCESS_TOKEN", value_name = "SECRET", help_heading = "Admission")]
    #[arg(hide = true, hide_env_values = true)]
    pub access_token: Option<Given<Secret<String>>>,
    /// Admits everybody. On an address that others can reach it needs an access token too, which is then
    /// asked of everybody who has no ticket.
    #[arg(long, env = "CULVERT_RELAY_OPEN", value_name = "BOOL", default_value = "false")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "Admission")]
    pub open: Given<bool>,

    /// How Redis is reached.
    #[command(flatten)]
    pub redis: RedisArgs,
    /// What is asked of it.
    #[command(flatten)]
    pub bus: BusArgs,
    /// How long things may take.
    #[command(flatten)]
    pub timing: TimingArgs,
    /// How much may be done.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// What the program is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// Serve until SIGTERM or SIGINT, then drain; a second signal stops at once.
    Run,
    /// Say what is wrong with the settings, or print them as they are in effect, secrets masked.
    CheckConfig,
}

/// What the arguments mean for the process rather than for the node.
#[derive(Debug)]
pub struct Logs {
    /// Shape of a line.
    pub format: LogFormat,
    /// Which lines.
    pub filter: LogFilter,
}

impl Args {
    /// The configuration, or everything that is wrong with it, beside the problems found so far.
    ///
    /// Opens the files that are named, so that a wrong certificate or key is among the problems.
    ///
    /// # Errors
    /// [`Problems`], each with its setting and what is accepted.
    pub fn config(&self, mut problems: Problems) -> Result<(Config, Logs), Problems> {
        let logs = self.logs(&mut problems);
        let listen = problems.read(&self.listen);
        let admin_listen = problems.read(&self.admin_listen);
        let names = problems.read_optional(&self.names).unwrap_or_default();
        let proxy_protocol_from = problems.read_optional(&self.proxy_protocol_from).unwrap_or_default();
        let private = listen.is_none_or(|address| address.ip().is_loopback());
        let tls = self.tls(&mut problems, private);
        let admission = self.admission(&mut problems, private);
        let redis = self.redis.settings_with(&self.bus, &mut problems);
        let limits = self.limits.limits(&mut problems);
        let timing = self.timing.timing(&mut problems);
        let drain = self.timing.drain(&mut problems);
        let config = (|| {
            let config = Config {
                listen: listen?,
                admin_listen: admin_listen?.0,
                tls: tls?,
                names,
                proxy_protocol_from,
                admission: admission?,
                // Given and wrong is among the problems.
                redis,
                limits: limits?,
                timing: timing?,
                drain: drain?,
            };
            Some((config, logs?))
        })();
        problems.finish(config)
    }

    fn logs(&self, problems: &mut Problems) -> Option<Logs> {
        let format = problems.read(&self.log_format);
        let filter = LogFilter::new(self.log.as_ref().map(Given::text))
            .map_err(|error| problems.push("log", error.to_string()))
            .ok();
        Some(Logs { format: format?, filter: filter? })
    }

    fn tls(&self, problems: &mut Problems, private: bool) -> Option<Tls> {
        let plain_text = problems.read(&self.plain_text)?;
        match (plain_text, &self.tls_certificate, &self.tls_key) {
            (false, Some(certificate), Some(key)) => {
                let files = Files { certificate: problems.read(certificate)?, key: problems.read(key)? };
                if let Err(error) = files.check() {
                    problems.push("tls-certificate, tls-key", error.to_string());
                }
                Some(Tls::Files(files))
            }
            (true, None, None) => {
                if !private && self.names.is_none() {
                    let sentence = "must list the host names that peers dial, because without TLS no \
                                    certificate says them";
                    problems.push("names", sentence);
                }
                Some(Tls::PlainText)
            }
            (true, ..) => {
                problems.push("plain-text", "excludes tls-certificate and tls-key, give one or the other");
                None
            }
            (false, Some(_), None) => {
                problems.push("tls-key", "is missing beside tls-certificate");
                None
            }
            (false, None, Some(_)) => {
                problems.push("tls-certificate", "is missing beside tls-key");
                None
            }
            (false, None, None) => {
                let sentence = "and tls-key are required; behind a balancer that terminates TLS, or for a \
                                trial on loopback, give plain-text instead";
                problems.push("tls-certificate", sentence);
                None
            }
        }
    }

    fn admission(&self, problems: &mut Problems, private: bool) -> Option<AdmissionPolicy> {
        let open = problems.read(&self.open)?;
        let access_token = problems.read_secret(&self.access_token, &self.access_token_file);
        let tickets = self.tickets(problems);
        let token_given = self.access_token.is_some() || self.access_token_file.is_some();
        if !open && !token_given && self.ticket_keys.is_none() {
            let sentence = "is not configured, so nobody could connect; give ticket-keys, access-token-file \
                            or, to admit everybody, open";
            problems.push("admission", sentence);
        }
        if open && !private && !token_given {
            let sentence = "on an address that others can reach would let everybody use this relay; give \
                            access-token-file too, use ticket-keys instead, or listen on 127.0.0.1";
            problems.push("open", sentence);
        }
        Some(AdmissionPolicy { open, access_token, tickets })
    }

    fn tickets(&self, problems: &mut Problems) -> Option<TicketPolicy> {
        let keys = problems.read_optional(&self.ticket_keys);
        let longest_life = problems.read_checked(&self.ticket_longest_life, "more than 0s", |d| !d.is_zero());
        let authorities = problems.read_optional(&self.ticket_keys_ca);
        let refresh = problems.read_checked(&self.ticket_keys_refresh, "at least 1s", |d| d.as_secs() >= 1);
        let policy =
            TicketPolicy { keys: keys?, longest_life: longest_life?, authorities, refresh: refresh? };
        if let Err(error) = TicketKeys::load(&policy) {
            problems.push("ticket-keys", chain(&error));
        }
        Some(policy)
    }
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests;
