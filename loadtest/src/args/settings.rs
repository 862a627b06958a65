//! What was typed, as it is meant.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use url::Url;

use super::Common;
use crate::control::Secret;
use crate::plan::{Admission, Plan, Reach, Share};
use crate::report::Threshold;
use crate::scenario::Scenario;
use crate::secrets;
use crate::target::{RelaySetting, Target};

/// The variable with the access token itself.
const ACCESS_TOKEN: &str = "CULVERT_LOADTEST_ACCESS_TOKEN";

/// A load test.
#[derive(Debug)]
pub struct Settings {
    /// The load.
    pub scenario: Scenario,
    /// Where it goes.
    pub relays: Relays,
    /// Who makes it.
    pub crew: Crew,
    /// What does not count.
    pub warm_up: Duration,
    /// What counts.
    pub duration: Duration,
    /// For everything that is random.
    pub seed: u64,
    /// Whether target and load have cores of their own.
    pub pin: bool,
    /// What is left of it.
    pub output: Output,
    /// The command, secrets masked.
    pub command: String,
}

/// Which relays are loaded.
#[derive(Debug)]
pub enum Relays {
    /// Those that are there.
    Existing {
        /// How peers get to them.
        reach: Reach,
        /// Where they say what they use.
        metrics: Vec<Admin>,
    },
    /// Those that are started for this run.
    Spawned {
        /// How many.
        relays: usize,
        /// Whether they speak TLS.
        tls: bool,
        /// Why they let peers in.
        admission: Admission,
        /// Their settings.
        settings: Vec<RelaySetting>,
    },
}

/// The admin port of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Host and port, as typed.
    pub host: String,
}

/// Who makes the load.
pub struct Crew {
    /// Processes on this machine.
    pub local: usize,
    /// Workers elsewhere, host and port.
    pub remote: Vec<String>,
    /// What those know.
    pub secret: Option<Secret>,
}

/// What is left of a run.
#[derive(Debug)]
pub struct Output {
    /// The report as JSON.
    pub json: Option<PathBuf>,
    /// The page.
    pub html: Option<PathBuf>,
    /// What makes it a failure.
    pub thresholds: Vec<Threshold>,
    /// No progress.
    pub quiet: bool,
}

impl std::fmt::Debug for Crew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crew")
            .field("local", &self.local)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

impl Settings {
    pub(super) fn of(scenario: Scenario, given: Common, command: String) -> Result<Self> {
        let admission = admission(&given)?;
        let output = Output {
            json: given.json,
            html: given.html.or_else(|| (!given.no_html).then(|| page(&scenario))),
            thresholds: given.fail_if,
            quiet: given.quiet,
        };
        let relays = match given.spawn {
            Some(relays) => {
                ensure!(relays > 0, "--spawn must be at least 1");
                Relays::Spawned { relays, tls: given.tls, admission, settings: given.relay_args }
            }
            None => {
                for url in &given.urls {
                    check(url)?;
                }
                let read = |path: &PathBuf| {
                    std::fs::read_to_string(path).with_context(|| format!("--ca {}", path.display()))
                };
                let authority = given.ca.as_ref().map(read).transpose()?;
                let metrics = given.metrics.iter().map(Admin::of).collect::<Result<_>>()?;
                Relays::Existing { reach: Reach { urls: given.urls, admission, authority }, metrics }
            }
        };
        let secret = given.worker_secret_file.as_deref().map(secrets::read).transpose()?;
        let secret = secret.as_deref().map(Secret::of);
        let alone = if given.remote_workers.is_empty() { scenario.workers_at_least() } else { 0 };
        let local = given.workers.unwrap_or(alone);
        let crew = Crew { local, remote: given.remote_workers, secret };
        let least = scenario.workers_at_least();
        ensure!(crew.size() >= least, "--workers must be at least {least} without a --worker elsewhere");
        let (warm_up, duration) = (given.warm_up, given.duration);
        let settings = Self {
            scenario,
            relays,
            crew,
            warm_up,
            duration,
            seed: given.seed,
            pin: given.pin,
            output,
            command,
        };
        settings.plan(settings.promised(), Share { index: 0, of: settings.crew.size() }).check()?;
        if let (Some(faults), Relays::Existing { reach, .. }) =
            (settings.scenario.faults(settings.seed), &settings.relays)
        {
            faults.check(&Target::existing(reach.clone()))?;
        }
        Ok(settings)
    }

    /// What the worker of this share is told.
    pub fn plan(&self, reach: Reach, share: Share) -> Plan {
        let (warm_up, duration) = (self.warm_up, self.duration);
        Plan { scenario: self.scenario.clone(), reach, share, warm_up, duration, seed: self.seed }
    }

    /// How peers will get to the relays, as far as it is known before they run.
    fn promised(&self) -> Reach {
        match &self.relays {
            Relays::Existing { reach, .. } => reach.clone(),
            Relays::Spawned { tls, admission, .. } => {
                let url = if *tls { "wss://localhost" } else { "ws://localhost" };
                let urls = url.parse().into_iter().collect();
                Reach { urls, admission: admission.clone(), authority: None }
            }
        }
    }
}

impl Crew {
    /// How many workers there are.
    pub fn size(&self) -> usize {
        self.local + self.remote.len()
    }
}

impl Admin {
    fn of(url: &Url) -> Result<Self> {
        ensure!(
            url.scheme() == "http" && matches!(url.path(), "/" | "/metrics"),
            "--metrics {url}: give the admin port of a relay, such as http://10.0.0.7:9443"
        );
        let (host, port) = (url.host_str(), url.port_or_known_default());
        let (host, port) = host.zip(port).with_context(|| format!("--metrics {url} names no host"))?;
        Ok(Self { host: format!("{host}:{port}") })
    }
}

fn check(url: &Url) -> Result<()> {
    let instead = match url.scheme() {
        "ws" | "wss" => None,
        "http" => Some("ws"),
        "https" => Some("wss"),
        other => bail!("--url {url}: {other}:// is not spoken by relays: give a ws:// or wss:// URL"),
    };
    if let Some(instead) = instead {
        bail!("--url {url}: write {instead}:// for {}://", url.scheme());
    }
    ensure!(
        url.username().is_empty() && url.password().is_none(),
        "--url names a user; relays know tokens and tickets: --access-token-file or --ticket-key"
    );
    Ok(())
}

fn admission(given: &Common) -> Result<Admission> {
    if let Some(path) = &given.ticket_key {
        let key = secrets::read(path)?;
        secrets::public_pem(&key).with_context(|| format!("--ticket-key {}", path.display()))?;
        return Ok(Admission::Tickets {
            key,
            key_id: given.ticket_key_id.clone(),
            tenant: given.tenant.clone(),
        });
    }
    let token = match &given.access_token_file {
        Some(path) => Some(secrets::read(path)?),
        None => std::env::var(ACCESS_TOKEN).ok().filter(|token| !token.is_empty()),
    };
    Ok(token.map_or(Admission::Open, Admission::AccessToken))
}

/// The file of a page that was not named: the same scenario may run again in the same folder.
fn page(scenario: &Scenario) -> PathBuf {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    format!("culvert-loadtest-{}-{}.html", scenario.name(), now.replace(':', "-")).into()
}
