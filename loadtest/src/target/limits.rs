//! What limits how many connections a run can hold: open files, ports, and the relays' own limits.

use std::str::FromStr;

use anyhow::{Result, bail};
use culvert_testkit::haproxy::BalancerPlan;
use culvert_testkit::relay::RelayPlan;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

use crate::plan::{Reach, Share};

/// Connections and open files beside those of peers: probes, health checks, listeners, the runtime's own.
pub(super) const SPARE: usize = 100;
/// Ports of outgoing connections, where the system does not say.
const PORTS: (u32, u32) = (32_768, 60_999);

/// As `ensure!`, with [`TooFew`].
macro_rules! enough {
    ($holds:expr, $($sentence:tt)*) => {
        if !$holds {
            bail!(TooFew(format!($($sentence)*)));
        }
    };
}

/// The machine allows too little for a run; the sentence says how much is needed and how much there is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct TooFew(String);

/// One setting of a relay, as `--relay-arg` gives it: `queue-bytes=4MiB`, or `open` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelaySetting {
    /// Its name, without dashes.
    pub name: String,
    /// Its value, if it has one.
    pub value: Option<String>,
}

impl FromStr for RelaySetting {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim_start_matches('-');
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        Ok(Self { name: name.to_owned(), value })
    }
}

impl RelaySetting {
    fn new(name: &str, value: impl ToString) -> Self {
        Self { name: name.to_owned(), value: Some(value.to_string()) }
    }

    pub(super) fn apply(&self, plan: RelayPlan) -> RelayPlan {
        match &self.value {
            Some(value) => plan.set(&self.name, value),
            None => plan.flag(&self.name),
        }
    }
}

/// Limits that a relay needs so that all peers can come from one address, and all at once.
///
/// Everything else is left at its default, so that what is measured is what users run.
pub(super) fn of_relays(connections: usize) -> Vec<RelaySetting> {
    let connections = connections + SPARE;
    vec![
        RelaySetting::new("max-connections", connections),
        RelaySetting::new("max-handshakes", connections),
        RelaySetting::new("max-connections-per-source", connections),
        RelaySetting::new("max-connections-per-tenant", connections),
        RelaySetting::new("handshakes-per-source", "unlimited"),
        RelaySetting::new("max-topics-per-connection", u16::MAX),
        RelaySetting::new("members-per-topic", connections),
    ]
}

/// Checks that haproxy can hold its connections.
pub(super) fn ensure_balanced(balancer: &BalancerPlan) -> Result<()> {
    let (needed, most) = (balancer.open_files(), most_open_files());
    enough!(
        u64::try_from(needed)? <= most,
        "haproxy needs {needed} open files for these connections, two for each, and this machine allows \
         {most}: raise the hard limit (ulimit -Hn), or take fewer connections"
    );
    Ok(())
}

/// Raises this process' limit of open files as far as it goes, and checks that it suffices for this
/// worker's share of the connections.
///
/// # Errors
/// It does not; the sentence says how many are needed and how many there are.
pub fn ensure_open_files(connections: usize, share: Share) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    // The check below says what matters about a failure.
    let _raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let needed = u64::try_from(share.part(connections) + SPARE)?;
    enough!(
        needed <= allowed,
        "a worker needs {needed} open files for its {} of {connections} connections and may have {allowed}: \
         raise the hard limit (ulimit -Hn), or spread the connections with --workers {}",
        share.part(connections),
        connections.div_ceil(usize::try_from(allowed)?.saturating_sub(SPARE).max(1)),
    );
    Ok(())
}

/// Checks that this machine has enough ports for so many outgoing connections.
///
/// # Errors
/// It does not; the sentence says how many there are.
pub fn ensure_ports(connections: usize, reach: &Reach) -> Result<()> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut bounds = range.split_whitespace().filter_map(|bound| bound.parse().ok());
    let (first, last) = bounds.next().zip(bounds.next()).unwrap_or(PORTS);
    let ports = usize::try_from(last.saturating_sub(first) + 1)?;
    let mut ways: Vec<_> =
        reach.urls.iter().map(|url| (url.host_str(), url.port_or_known_default())).collect();
    ways.sort_unstable();
    ways.dedup();
    // Every address that is dialled gets all of them anew.
    enough!(
        connections <= ports * ways.len(),
        "{connections} connections need as many ports and this machine has {ports} for each address that it \
         dials: widen net.ipv4.ip_local_port_range, give several --url, or add machines with --worker"
    );
    Ok(())
}

fn most_open_files() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// Checks that the relays that are to be started can hold their connections.
pub(super) fn ensure_relays(connections: usize, relays: usize) -> Result<()> {
    let (most, needed) = (most_open_files(), u64::try_from(connections.div_ceil(relays) + SPARE)?);
    enough!(
        needed <= most,
        "a relay needs {needed} open files for its share of {connections} connections and this machine allows \
         {most}: raise the hard limit (ulimit -Hn), start more relays with --spawn, or take fewer connections"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_of_a_relay_is_a_name_with_or_without_dashes_and_value() {
        let setting = |text: &str| text.parse::<RelaySetting>().unwrap();
        assert_eq!(setting("--queue-bytes=4MiB"), RelaySetting::new("queue-bytes", "4MiB"));
        assert_eq!(setting("redis-prefix=a=b"), RelaySetting::new("redis-prefix", "a=b"));
        assert_eq!(setting("open"), RelaySetting { name: "open".into(), value: None });
    }

    #[test]
    fn too_few_files_say_how_many_are_needed_and_how_many_there_are() {
        let most = usize::try_from(most_open_files().min(1 << 40)).unwrap();
        let error = ensure_open_files(2 * most, Share::WHOLE).unwrap_err().to_string();
        assert!(error.contains(&(2 * most + SPARE).to_string()), "{error}");
        assert!(error.contains(&most.to_string()) && error.contains("--workers 3"), "{error}");
        ensure_open_files(2 * most, Share { index: 0, of: 3 }).unwrap();
    }

    #[test]
    fn every_address_has_all_ports_of_its_own() {
        let reach = |urls: &[&str]| Reach {
            urls: urls.iter().map(|url| url.parse().unwrap()).collect(),
            admission: crate::plan::Admission::Open,
            authority: None,
        };
        let error = ensure_ports(70_000, &reach(&["ws://a", "ws://a:80"])).unwrap_err().to_string();
        assert!(error.contains("70000 connections"), "{error}");
        ensure_ports(70_000, &reach(&["ws://a", "ws://b", "ws://c", "ws://d", "ws://e"])).unwrap();
    }
}
