//! Runs of scenarios as the command line would describe them.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use culvert_loadtest::measure::{Sample, Series};
use culvert_loadtest::plan::{Admission, Plan, Reach, Share};
use culvert_loadtest::scenario::{self, Scenario};
use culvert_loadtest::stage::{Alone, Director, Ending, Phase, Stage, alone};
use culvert_testkit::relay::Embedded;
use tokio::task::LocalSet;

/// Longest time for a whole test.
const DEADLINE: Duration = Duration::from_secs(120);
/// How often a condition is asked for.
const POLL: Duration = Duration::from_millis(5);

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    scenario: Scenario,
}

/// The scenario that these words describe.
pub(crate) fn scenario(words: &str) -> Scenario {
    let words = std::iter::once("culvert-loadtest").chain(words.split_whitespace());
    Line::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).scenario
}

/// A second of this scenario, with no warm-up, against these relays.
pub(crate) fn plan(words: &str, urls: &[String]) -> Plan {
    let urls = urls.iter().map(|url| url.parse().unwrap()).collect();
    Plan {
        scenario: scenario(words),
        reach: Reach { urls, admission: Admission::Open, authority: None },
        share: Share::WHOLE,
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(1),
        seed: 7,
    }
}

/// Runs a test within its deadline.
pub(crate) fn test(body: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let within = async { tokio::time::timeout(DEADLINE, body()).await.expect("the test takes too long") };
    LocalSet::new().block_on(&runtime, within);
}

/// Runs a plan to its end.
pub(crate) async fn run(plan: Plan) -> Alone {
    alone(plan).await.unwrap_or_else(|error| panic!("{error:#}"))
}

/// The sentence with which a plan fails.
pub(crate) async fn failure(plan: Plan) -> String {
    match alone(plan).await {
        Ok(alone) => panic!("it ran: {alone:?}"),
        Err(error) => format!("{error:#}"),
    }
}

/// Runs a plan whose phases are moved by `script`.
pub(crate) async fn directed(plan: Plan, script: impl AsyncFnOnce(&Director)) -> Result<(Ending, Sample)> {
    plan.check()?;
    let (stage, director) = Stage::new(plan);
    let direct = async {
        let mut ready = director.ready.clone();
        ready.wait_for(|ready| *ready).await.context("the scenario ended before it was ready")?;
        director.phase.send_replace(Phase::Measuring);
        script(&director).await;
        director.phase.send_replace(Phase::Over);
        anyhow::Ok(())
    };
    let (ending, directed) = tokio::join!(scenario::run(stage), direct);
    let ending = ending?;
    directed?;
    Ok((ending, director.recorder.take(Duration::ZERO, Duration::ZERO)))
}

/// Waits for a condition. The test's deadline ends it if it never comes.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(POLL).await;
    }
}

/// A relay in this process.
pub(crate) async fn relay() -> Embedded {
    Embedded::open().await.unwrap()
}

/// How many values a series has.
pub(crate) fn recorded(sample: &Sample, series: Series) -> u64 {
    sample.times.get(&series).map_or(0, |times| times.decode().unwrap().len())
}

/// A value of a series, in seconds.
pub(crate) fn quantile(sample: &Sample, series: Series, quantile: f64) -> f64 {
    let times = sample.times.get(&series).unwrap_or_else(|| panic!("no {series:?}"));
    times.decode().unwrap().value_at_quantile(quantile) as f64 / 1e9
}
