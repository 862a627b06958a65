//! Whether this Redis can connect nodes, asked once: at the start, or when it is first there.
//!
//! What is wrong would otherwise show itself under load, or as loss: registrations evicted, subscribers cut
//! off, commands refused. Everything that is wrong is said at once, each in a sentence that says what to
//! do. A Redis that is away is not unfit; see [`ReachError`]. A node does not start with one that is unfit; if
//! it started without one, [`watch`] looks later, and the node goes on and says so.

mod info;
mod rights;

use std::collections::HashMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::time::{sleep, timeout};

pub use rights::rule;

use super::reach::{Place, Reach, ReachError};
use super::settings::Mode;
use info::Info;

/// Oldest version: `HRANDFIELD`, and ACLs for channels, came with it.
const OLDEST: (u32, u32) = (6, 2);
/// Oldest version as a cluster: sharded pub/sub came with it.
const OLDEST_CLUSTER: (u32, u32) = (7, 0);
/// Bytes that must be allowed to wait in Redis for one subscriber: all nodes together have at most 6 MiB
/// under way to it, and Redis counts what it needs to keep them as well.
const HARD_LIMIT: u64 = 16 << 20;
/// Bytes that must be allowed to wait for longer, as Redis has it by default.
const SOFT_LIMIT: u64 = 8 << 20;

/// How often a Redis that was away is asked.
const AWAY: Duration = Duration::from_secs(1);
/// How often an unfit one is looked at and complained of.
const UNFIT: Duration = Duration::from_secs(60);

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// What a node cannot work with.
    pub problems: Vec<String>,
    /// What an operator should look at.
    pub warnings: Vec<String>,
}

/// Looks at every server that the bus would use.
///
/// # Errors
/// They could not be asked; waiting may help.
pub async fn check(reach: &Reach) -> Result<Findings, ReachError> {
    let mut findings = Findings::default();
    kinds(reach, &mut findings).await?;
    if !findings.problems.is_empty() {
        // Who is not what it was taken for is not asked for more.
        return Ok(findings);
    }
    let places = match reach.places().await {
        Err(ReachError::NoMaster { master, reason }) if reason.contains("No such master") => {
            findings.problems.push(format!(
                "the Sentinels know no master called {master}; set redis-sentinel-master to the name in \
                 their sentinel monitor"
            ));
            return Ok(findings);
        }
        places => places?,
    };
    for place in places {
        match reach.publisher(&place).await {
            Ok(connection) => server(reach, &place, connection, &mut findings).await?,
            Err(error @ ReachError::Refused { .. }) => findings.refused(&error, "redis"),
            Err(error) => return Err(error),
        }
    }
    Ok(findings)
}

/// Looks at a Redis that was away at the start once it answers, and again while it is unfit.
///
/// Peers may be on this node by then, and other nodes do well with the same Redis, so it is no reason to
/// end; whoever operates it is told until it is fit. Cancel safe.
pub async fn watch(reach: &Reach) {
    let mut unfit = false;
    loop {
        // What takes long is asked again like what is away.
        match timeout(UNFIT, check(reach)).await {
            Ok(Ok(findings)) => {
                findings.tell();
                if findings.problems.is_empty() {
                    if unfit {
                        tracing::info!("redis is fit to connect nodes now");
                    }
                    return;
                }
                unfit = true;
                sleep(UNFIT).await;
            }
            Ok(Err(_)) | Err(_) => sleep(AWAY).await,
        }
    }
}

impl Findings {
    /// Logs everything that was found.
    fn tell(&self) {
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        for problem in &self.problems {
            tracing::error!("{problem}");
        }
    }

    fn refused(&mut self, error: &ReachError, setting: &str) {
        self.problems.push(format!("{error}; correct {setting}-user and {setting}-password"));
    }
}

/// Compares what answers at the given addresses with what it was said to be.
async fn kinds(reach: &Reach, findings: &mut Findings) -> Result<(), ReachError> {
    let setting = if matches!(reach.mode(), Mode::Sentinel { .. }) { "redis-sentinel" } else { "redis" };
    let (mut answered, mut error) = (false, None);
    for (place, opened) in reach.given().await {
        let mut connection = match opened {
            Ok(connection) => connection,
            Err(refused @ ReachError::Refused { .. }) => {
                findings.refused(&refused, setting);
                continue;
            }
            Err(unreachable) => {
                error = Some(unreachable);
                continue;
            }
        };
        answered = true;
        let Some(info) = Info::read(reach, &place, &mut connection).await? else { continue };
        let is = match info.text("redis_mode") {
            Some("sentinel") => "sentinel",
            Some("cluster") => "cluster",
            _ => "standalone",
        };
        let expected = match reach.mode() {
            Mode::Standalone => "standalone",
            Mode::Sentinel { .. } => "sentinel",
            Mode::Cluster => "cluster",
        };
        if is != expected {
            findings.problems.push(match is {
                "sentinel" => format!(
                    "at {place} is a Sentinel; set redis-mode to sentinel and redis-sentinel-master to the \
                     name it gives the master"
                ),
                "cluster" => format!("redis at {place} is part of a cluster; set redis-mode to cluster"),
                _ => format!(
                    "redis at {place} is {}; set redis-mode to standalone, or name the servers that redis \
                     is to be reached by",
                    if expected == "sentinel" { "no Sentinel" } else { "no part of a cluster" }
                ),
            });
        }
    }
    match error {
        Some(error) if !answered && findings.problems.is_empty() => Err(error),
        _ => Ok(()),
    }
}

/// Looks at one server that serves channels and keys.
async fn server(
    reach: &Reach,
    place: &Place,
    mut connection: MultiplexedConnection,
    findings: &mut Findings,
) -> Result<(), ReachError> {
    if let Some(info) = Info::read(reach, place, &mut connection).await? {
        version(place, &info, reach.is_cluster(), findings);
        eviction(place, &info, findings);
        if info.text("role") == Some("slave") {
            let master = info.text("master_host").unwrap_or("another server");
            findings.problems.push(format!(
                "redis at {place} is a replica of {master}; name the master, or the Sentinels that know it"
            ));
        }
    }
    output_limit(place, &mut connection, findings).await;
    if let Some(problem) = rights::missing(reach, place, &mut connection).await? {
        findings.problems.push(problem);
    }
    Ok(())
}

fn version(place: &Place, info: &Info, is_cluster: bool, findings: &mut Findings) {
    // Valkey says here with which version of Redis it is compatible.
    let Some(text) = info.text("redis_version") else { return };
    let mut parts = text.split('.').map_while(|part| part.parse::<u32>().ok());
    let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let (oldest, why) =
        if is_cluster { (OLDEST_CLUSTER, " as a cluster, for sharded pub/sub") } else { (OLDEST, "") };
    if (major, minor) < oldest {
        findings.problems.push(format!(
            "redis at {place} is version {text}; at least {}.{} is needed{why}",
            oldest.0, oldest.1
        ));
    }
}

fn eviction(place: &Place, info: &Info, findings: &mut Findings) {
    let policy = info.text("maxmemory_policy").unwrap_or("noeviction");
    // Without a limit nothing is evicted, whatever the policy.
    if info.text("maxmemory").is_none_or(|limit| limit == "0") {
        return;
    }
    if policy.starts_with("allkeys-") {
        findings.problems.push(format!(
            "redis at {place} evicts any key when its memory is full (maxmemory-policy {policy}), so nodes \
             would lose their leases; set maxmemory-policy noeviction"
        ));
    } else if policy.starts_with("volatile-") {
        findings.warnings.push(format!(
            "redis at {place} evicts keys that expire when its memory is full (maxmemory-policy {policy}); \
             nodes have few of them, but noeviction is the policy to run with"
        ));
    }
}

/// Redis cuts off a subscriber for which more waits than this.
async fn output_limit(place: &Place, connection: &mut MultiplexedConnection, findings: &mut Findings) {
    const NEEDED: &str = "client-output-buffer-limit must leave pubsub at least 16mb hard and 8mb soft, as \
                          with \"pubsub 32mb 8mb 60\"";
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg("client-output-buffer-limit");
    let answer: Result<HashMap<String, String>, _> = command.query_async(connection).await;
    let limits = answer.ok().and_then(|pairs| pairs.into_values().next());
    let words: Vec<&str> = limits.as_deref().unwrap_or_default().split_whitespace().collect();
    let pubsub = words.iter().position(|word| *word == "pubsub").map(|at| &words[at + 1..]);
    let Some([hard, soft, ..]) = pubsub else {
        findings.warnings.push(format!(
            "redis at {place} does not show its settings, so one could not be checked: {NEEDED}"
        ));
        return;
    };
    let below = |text: &str, least: u64| text.parse::<u64>().is_ok_and(|limit| limit != 0 && limit < least);
    if below(hard, HARD_LIMIT) || below(soft, SOFT_LIMIT) {
        findings.problems.push(format!(
            "redis at {place} cuts off subscribers early (pubsub {hard} hard, {soft} soft): {NEEDED}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::redis::settings::Server;

    fn problems(version_field: &str, is_cluster: bool) -> Vec<String> {
        let place = Place::from(Server { host: "h".to_owned(), port: 1, tls: false });
        let mut findings = Findings::default();
        version(&place, &Info::parse(version_field), is_cluster, &mut findings);
        findings.problems
    }

    #[test]
    fn versions_that_lack_what_is_used_are_refused() {
        for (text, alone, as_cluster) in [
            ("redis_version:5.0.14", false, false),
            ("redis_version:6.0.20", false, false),
            ("redis_version:6.2.0", true, false),
            ("redis_version:7.0.15\r\nredis_mode:cluster", true, true),
            ("redis_version:10.1.0", true, true),
            // Valkey 9 names the Redis it is compatible with.
            ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.0.0", true, true),
        ] {
            assert_eq!(problems(text, false).is_empty(), alone, "{text}");
            assert_eq!(problems(text, true).is_empty(), as_cluster, "{text}");
        }
        let problem = &problems("redis_version:6.2.14", true)[0];
        assert_eq!(
            problem,
            "redis at h:1 is version 6.2.14; at least 7.0 is needed as a cluster, for sharded pub/sub"
        );
    }
}
