//! What was typed.
//!
//! Every scenario is a subcommand with its own settings and those that all have ([`Common`]). What they mean
//! is [`Settings`]: files are read, settings checked against each other.

mod command;
mod settings;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Command, FromArgMatches, Subcommand};
use url::Url;

use crate::report::Threshold;
use crate::scenario::Scenario;
use crate::target::RelaySetting;
use crate::worker::Worker;

pub use settings::{Admin, Crew, Output, Relays, Settings};

/// What is to be done.
#[derive(Debug)]
pub enum Action {
    /// A load test.
    Run(Box<Settings>),
    /// One of the other commands.
    Tool(Tool),
}

/// What is no load test.
#[derive(Debug, Clone, Subcommand)]
pub enum Tool {
    /// Shows how two runs differ, figure by figure.
    Compare {
        /// The JSON file of the first run.
        before: PathBuf,
        /// The JSON file of the second.
        after: PathBuf,
    },
    /// Waits for a coordinator on another machine (--worker) and makes its share of the load.
    Worker(Worker),
}

/// Settings that every scenario has.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Relay or balancer to load, ws:// or wss://; peers are spread over several evenly.
    #[arg(long = "url", value_name = "URL", help_heading = TARGET, conflicts_with = "spawn")]
    urls: Vec<Url>,
    /// Starts so many relays on this machine; from 2 on with Redis, behind haproxy.
    #[arg(long, value_name = "N", help_heading = TARGET, required_unless_present = "urls")]
    spawn: Option<usize>,
    /// Spawned relays speak TLS, with a certificate made for them.
    #[arg(long, help_heading = TARGET, requires = "spawn")]
    tls: bool,
    /// Setting of spawned relays, such as queue-bytes=4MiB; may be given several times.
    #[arg(long = "relay-arg", value_name = "NAME=VALUE", help_heading = TARGET, requires = "spawn",
          allow_hyphen_values = true)]
    relay_args: Vec<RelaySetting>,
    /// PEM file with an authority that is trusted beside the system's.
    #[arg(long, value_name = "FILE", help_heading = TARGET, conflicts_with = "spawn")]
    ca: Option<PathBuf>,
    /// Admin port of a relay, for its processor time and memory, such as http://10.0.0.7:9443; may be given
    /// several times.
    #[arg(long, value_name = "URL", help_heading = TARGET, conflicts_with = "spawn")]
    metrics: Vec<Url>,

    /// File with the access token; or the token itself in CULVERT_LOADTEST_ACCESS_TOKEN.
    #[arg(long, value_name = "FILE", help_heading = ADMISSION, conflicts_with = "ticket_key")]
    access_token_file: Option<PathBuf>,
    /// PEM file with the Ed25519 key that signs a ticket for every peer.
    #[arg(long, value_name = "FILE", help_heading = ADMISSION)]
    ticket_key: Option<PathBuf>,
    /// That key's id, where the relays have several.
    #[arg(long, value_name = "ID", help_heading = ADMISSION, requires = "ticket_key")]
    ticket_key_id: Option<String>,
    /// Tenant in the tickets.
    #[arg(long, value_name = "NAME", help_heading = ADMISSION, default_value = "default")]
    tenant: String,

    /// How long is measured.
    #[arg(long, value_name = "DURATION", help_heading = RUN, default_value = "10s",
          value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Load before that, which does not count.
    #[arg(long, value_name = "DURATION", help_heading = RUN, default_value = "2s",
          value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// For everything that is random, so that a run can be repeated.
    #[arg(long, value_name = "NUMBER", help_heading = RUN, default_value_t = 1)]
    seed: u64,
    /// Worker processes on this machine [default: as many as the scenario needs, mostly 1; 0 with --worker].
    #[arg(long, value_name = "N", help_heading = RUN)]
    workers: Option<usize>,
    /// Worker on another machine (`culvert-loadtest worker --listen …`); may be given several times.
    #[arg(long = "worker", value_name = "HOST:PORT", help_heading = RUN, requires = "worker_secret_file",
          conflicts_with = "spawn")]
    remote_workers: Vec<String>,
    /// File with the secret that those workers have, too.
    #[arg(long, value_name = "FILE", help_heading = RUN)]
    worker_secret_file: Option<PathBuf>,
    /// Binds spawned relays, Redis and haproxy to one core, and workers to the others.
    #[arg(long, help_heading = RUN)]
    pin: bool,

    /// Writes the report, with the raw histograms, as JSON.
    #[arg(long, value_name = "FILE", help_heading = REPORT)]
    json: Option<PathBuf>,
    /// Writes the report as a page with plots [default: a file in this folder, named after scenario and time].
    #[arg(long, value_name = "FILE", help_heading = REPORT, conflicts_with = "no_html")]
    html: Option<PathBuf>,
    /// Writes no page.
    #[arg(long, help_heading = REPORT)]
    no_html: bool,
    /// Exits with 1 if this holds, such as 'p99>5ms' or 'undelivered>0'; may be given several times.
    #[arg(long, value_name = "EXPRESSION", help_heading = REPORT)]
    fail_if: Vec<Threshold>,
    /// Shows no progress.
    #[arg(long, short, help_heading = REPORT)]
    quiet: bool,
}

const TARGET: &str = "Target";
const ADMISSION: &str = "Admission";
const RUN: &str = "Run";
const REPORT: &str = "Report";

/// The whole command line.
pub fn command() -> Command {
    let command = Command::new("culvert-loadtest")
        .about("Load tests for Culvert relays")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true);
    let scenarios = Scenario::augment_subcommands(Command::new("scenarios"));
    let scenarios = scenarios.get_subcommands().map(|scenario| Common::augment_args(scenario.clone()));
    Tool::augment_subcommands(command.subcommands(scenarios))
}

/// Reads a command line, the first word of which is the program's name.
///
/// # Errors
/// It is not one, or asks for help; or its settings make no sense.
pub fn parse(command_line: Vec<OsString>) -> Result<Action, Refused> {
    let matches = command().try_get_matches_from(&command_line)?;
    if let Ok(tool) = Tool::from_arg_matches(&matches) {
        return Ok(Action::Tool(tool));
    }
    let scenario = Scenario::from_arg_matches(&matches)?;
    let Some((_, given)) = matches.subcommand() else { unreachable!("a subcommand is required") };
    let common = Common::from_arg_matches(given)?;
    let settings = Settings::of(scenario, common, command::recorded(&command_line));
    Ok(Action::Run(Box::new(settings.map_err(Refused::Settings)?)))
}

/// Why a command line is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is wrong, or asks for help.
    #[error(transparent)]
    Words(#[from] clap::Error),
    /// A setting makes no sense.
    #[error("{0:#}")]
    Settings(anyhow::Error),
}

#[cfg(test)]
mod tests;
