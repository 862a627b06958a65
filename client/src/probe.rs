//! What blocks the way to a relay, found stage by stage; `culvert doctor` prints it.
//!
//! Each stage has a stable code, a sentence for people and, where something is wrong, what to do. The
//! stages go the way that a connection goes ([`crate::dial`]), so what passes here works there.

mod stages;

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::dial::RelayUrl;
use crate::options::RelayOptions;

/// A stage on the way to the relay, in the order in which they are passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The name has addresses.
    Dns,
    /// A TCP connection over IPv4.
    TcpV4,
    /// A TCP connection over IPv6.
    TcpV6,
    /// The proxy, where one is configured.
    Proxy,
    /// TLS, who issued the certificate, and whether something on the way inspects.
    Tls,
    /// The WebSocket upgrade.
    Upgrade,
    /// The relay admits this peer.
    Hello,
    /// The time a message takes there and back.
    RoundTrip,
    /// Messages of 1, 4 and 16 KiB get through whole.
    Size,
}

impl Stage {
    /// What it is called in a sentence.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Dns => "the name",
            Stage::TcpV4 => "TCP over IPv4",
            Stage::TcpV6 => "TCP over IPv6",
            Stage::Proxy => "the proxy",
            Stage::Tls => "TLS",
            Stage::Upgrade => "the WebSocket upgrade",
            Stage::Hello => "the hello",
            Stage::RoundTrip => "the round-trip time",
            Stage::Size => "the size of messages",
        }
    }
}

/// How a stage went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// It works, and there is something to know.
    Note,
    /// It does not work.
    Failed,
    /// Not tried: an earlier stage failed, or it does not apply.
    Skipped,
}

/// One stage's result.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Which stage.
    pub stage: Stage,
    /// How it went.
    pub outcome: Outcome,
    /// Stable code, for scripts and for search engines, such as `tls_unknown_issuer`.
    pub code: &'static str,
    /// What was found, in one sentence.
    pub sentence: String,
    /// What to do about it, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// How long the stage took, in milliseconds.
    pub millis: u64,
}

/// Everything that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The relay that was probed.
    pub relay: String,
    /// Whether a peer of these options can use the relay from here.
    pub usable: bool,
    /// Every stage, in order.
    pub checks: Vec<Check>,
}

/// Probes the way to `relay` as a peer with these options would go it; `step` bounds every stage.
///
/// `progress` is called with each check as soon as it is known.
pub async fn probe(
    relay: &RelayUrl,
    options: &RelayOptions,
    step: Duration,
    progress: impl FnMut(&Check),
) -> Report {
    let mut report = Collector { checks: Vec::new(), progress, since: Instant::now() };
    let usable = stages::pass(relay, options, step, &mut report).await;
    Report { relay: relay.to_string(), usable, checks: report.checks }
}

/// What a stage found.
struct Finding {
    outcome: Outcome,
    code: &'static str,
    sentence: String,
    advice: Option<String>,
}

impl Finding {
    fn ok(code: &'static str, sentence: impl Into<String>) -> Self {
        Self { outcome: Outcome::Ok, code, sentence: sentence.into(), advice: None }
    }

    fn note(code: &'static str, sentence: impl Into<String>, advice: &str) -> Self {
        Self { outcome: Outcome::Note, code, sentence: sentence.into(), advice: Some(advice.to_owned()) }
    }

    fn skipped(code: &'static str, sentence: impl Into<String>) -> Self {
        Self { outcome: Outcome::Skipped, code, sentence: sentence.into(), advice: None }
    }

    /// An error's sentence; what follows its first semicolon is what to do.
    fn failed(code: &'static str, error: &dyn std::fmt::Display) -> Self {
        let text = error.to_string();
        let (sentence, advice) = match text.split_once("; ") {
            Some((sentence, advice)) => (sentence.to_owned(), Some(advice.to_owned())),
            None => (text, None),
        };
        Self { outcome: Outcome::Failed, code, sentence, advice }
    }
}

struct Collector<P> {
    checks: Vec<Check>,
    progress: P,
    since: Instant,
}

impl<P: FnMut(&Check)> Collector<P> {
    fn add(&mut self, stage: Stage, finding: Finding) {
        let Finding { outcome, code, sentence, advice } = finding;
        let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.checks.push(Check { stage, outcome, code, sentence, advice, millis });
        if let Some(check) = self.checks.last() {
            (self.progress)(check);
        }
        self.since = Instant::now();
    }

    /// The stages that can no longer be tried.
    fn skip(&mut self, stages: &[Stage]) {
        for stage in stages {
            let sentence = format!("{} was not tried, because an earlier stage failed", stage.name());
            self.add(*stage, Finding::skipped("not_reached", sentence));
        }
    }
}
