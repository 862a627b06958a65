//! Prometheus and its tool, as Debian brings them.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use culvert_testkit::binaries::Missing;
use culvert_testkit::process::{Plan, Process, Source, free_port};
use serde_json::Value;
use tempfile::TempDir;

const STARTED: Duration = Duration::from_secs(60);
/// `promtool test rules` takes seconds.
const CHECKED: Duration = Duration::from_secs(120);

fn installed(program: &str) -> Result<String> {
    if !Path::new(program).is_file() {
        return Err(Missing { program: program.to_owned(), package: "prometheus" }.into());
    }
    Ok(program.to_owned())
}

/// Runs `promtool` and gives what it printed on both streams.
pub(crate) async fn promtool(args: &[&str], folder: &Path) -> Result<String> {
    let plan = Plan::new("promtool", &installed("/usr/bin/promtool")?).args(args).current_dir(folder);
    let mut process = plan.start()?;
    process.succeeds(CHECKED).await?;
    Ok(process.output().text(Source::Stdout) + &process.output().text(Source::Stderr))
}

/// A Prometheus that scrapes and evaluates once a second; killed when dropped.
pub(crate) struct Prometheus {
    _process: Process,
    address: SocketAddr,
    client: reqwest::Client,
    _folder: TempDir,
}

impl Prometheus {
    /// One with these jobs and the rules of a file.
    pub(crate) async fn start(jobs: &[(&str, Vec<SocketAddr>)], rules: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("culvert-prometheus-").tempdir()?;
        let mut config = String::from("global: {scrape_interval: 1s, evaluation_interval: 1s}\n");
        writeln!(config, "rule_files: [{}]\nscrape_configs:", rules.canonicalize()?.display())?;
        for (job, targets) in jobs {
            let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
            let targets = targets.join(", ");
            writeln!(config, "  - {{job_name: {job}, static_configs: [{{targets: [{targets}]}}]}}")?;
        }
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut process = Plan::new("prometheus", &installed("/usr/bin/prometheus")?)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .current_dir(folder.path())
            .start()?;
        process.answers(address, STARTED).await?;
        // The proxies of whoever runs the tests are not meant.
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { _process: process, address, client, _folder: folder })
    }

    /// What a query gives now: the value of each series.
    pub(crate) async fn query(&self, query: &str) -> Result<Vec<f64>> {
        let answer = self.client.get(format!("http://{}/api/v1/query", self.address));
        let answer: Value = answer.query(&[("query", query)]).send().await?.json().await?;
        ensure!(answer["status"] == "success", "{query}: {answer}");
        let samples = answer["data"]["result"].as_array().with_context(|| format!("no vector: {query}"))?;
        let value = |sample: &Value| sample["value"][1].as_str()?.parse().ok();
        Ok(samples.iter().filter_map(value).collect())
    }

    /// The names of the alerts that wait or fire.
    pub(crate) async fn alerts(&self) -> Result<Vec<String>> {
        let answer = self.client.get(format!("http://{}/api/v1/alerts", self.address)).send().await?;
        let answer: Value = answer.json().await?;
        let alerts = answer["data"]["alerts"].as_array().context("no alerts")?;
        Ok(alerts
            .iter()
            .filter_map(|alert| alert["labels"]["alertname"].as_str().map(str::to_owned))
            .collect())
    }
}
