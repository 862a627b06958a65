//! The networks that people sit in: proxies, inspection, and a probe that says which it is.
//!
//! The proxies are the real programs; the box that inspects TLS is the chaos proxy with an authority of
//! its own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use culvert_client::probe::{Outcome, Report, Stage, probe};
use culvert_client::{
    AccessToken, AdmissionSource, ProxyChoice, RelayOptions, RelayTransport, Transport, TransportConfig,
    TransportMode,
};
use culvert_relay::config::{AdmissionPolicy, Tls};
use culvert_service_kit::Secret;
use culvert_service_kit::tls::Files;
use culvert_testkit::certs::TestCa;
use culvert_testkit::chaos::ChaosProxy;
use culvert_testkit::proxies::{Credentials, Socks, Squid};
use culvert_testkit::relay::Embedded;

const TOPIC: [u8; 32] = [9; 32];
const STEP: Duration = Duration::from_secs(10);
/// A name that only the test's squid can resolve.
const HIDDEN: &str = "relay.culvert.test";

struct Secured {
    relay: Embedded,
    ca: TestCa,
}

async fn secured() -> Result<Secured> {
    let ca = TestCa::new("Relay Operator CA")?;
    let leaf = ca.issue(&["localhost", HIDDEN])?;
    let mut config = Embedded::config();
    config.tls = Tls::Files(Files { certificate: leaf.cert_path(), key: leaf.key_path() });
    Ok(Secured { relay: Embedded::start(config).await?, ca })
}

impl Secured {
    fn url(&self, host: &str) -> String {
        format!("wss://{host}:{}", self.relay.addr().port())
    }
}

fn options(ca: Option<PathBuf>, proxy: Option<&str>) -> RelayOptions {
    let proxy = proxy.map_or(ProxyChoice::Direct, |url| ProxyChoice::Through(url.parse().unwrap()));
    RelayOptions { ca_file: ca, proxy, ..Default::default() }
}

/// Enters a topic and leaves it again.
async fn enters(url: &str, options: RelayOptions) -> Result<()> {
    let config = TransportConfig {
        mode: TransportMode::Relay,
        relay_url: Some(url.to_owned()),
        timeout_ms: 10_000,
        ..Default::default()
    };
    let mut transport = RelayTransport::new(config, options)?;
    transport.announce(TOPIC).await?;
    transport.disconnect().await
}

async fn refusal(url: &str, options: RelayOptions) -> String {
    format!("{:#}", enters(url, options).await.unwrap_err())
}

#[tokio::test]
async fn a_relay_with_its_own_authority_is_trusted_by_its_ca_file_only() -> Result<()> {
    let relay = secured().await?;
    enters(&relay.url("localhost"), options(Some(relay.ca.path()), None)).await?;
    let error = refusal(&relay.url("localhost"), options(None, None)).await;
    assert!(
        error.contains("Relay Operator CA") && error.contains("pass that authority's certificate"),
        "{error}"
    );
    let error = refusal(&relay.url("127.0.0.1"), options(Some(relay.ca.path()), None)).await;
    assert!(error.contains("use a name that is in the relay's certificate"), "{error}");
    Ok(())
}

#[tokio::test]
async fn an_inspecting_network_is_named_and_works_once_its_authority_is_given() -> Result<()> {
    let relay = secured().await?;
    let box_ca = TestCa::new("Corporate Inspection")?;
    let shown = box_ca.issue(&["localhost"])?;
    let inspector = ChaosProxy::intercepting(relay.relay.addr(), &shown, &relay.ca, "localhost").await?;
    let url = format!("wss://localhost:{}", inspector.addr().port());
    let error = refusal(&url, options(None, None)).await;
    assert!(error.contains("issued by \"Corporate Inspection\""), "{error}");
    assert!(error.contains("if this network inspects TLS"), "{error}");
    enters(&url, options(Some(box_ca.path()), None)).await
}

#[tokio::test]
async fn squid_with_basic_lets_through_who_has_the_password() -> Result<()> {
    let relay = secured().await?;
    let credentials = Credentials::new("us+er", "p:a+s/s?ü %");
    let squid = Squid::start(Some(credentials)).await?;
    let (url, ca) = (relay.url(HIDDEN), relay.ca.path());
    enters(&url, options(Some(ca.clone()), Some(&squid.url()))).await?;
    let log = squid.access_log()?;
    assert!(log.contains(&format!("CONNECT {HIDDEN}:")), "the name was left to the proxy: {log}");
    let error = refusal(&url, options(Some(ca.clone()), Some(&squid.url_with(None)))).await;
    assert!(error.contains("asks for a user and password"), "{error}");
    let wrong = Credentials::new("us+er", "wrong");
    let error = refusal(&url, options(Some(ca), Some(&squid.url_with(Some(&wrong))))).await;
    assert!(error.contains("does not accept the user and password"), "{error}");
    assert!(!error.contains("wrong"), "{error}");
    Ok(())
}

#[tokio::test]
async fn socks_with_a_password_lets_through() -> Result<()> {
    let relay = secured().await?;
    let socks = Socks::start(Some(Credentials::new("user", "pass word"))).await?;
    enters(&relay.url("localhost"), options(Some(relay.ca.path()), Some(&socks.url()))).await?;
    socks.connected(&format!("localhost:{}", relay.relay.addr().port())).await
}

async fn probed(url: &str, options: RelayOptions) -> Report {
    let mut seen = Vec::new();
    let report = probe(&url.parse().unwrap(), &options, STEP, |check| seen.push(check.stage)).await;
    assert_eq!(seen, report.checks.iter().map(|check| check.stage).collect::<Vec<_>>());
    report
}

fn code(report: &Report, stage: Stage) -> &'static str {
    report.checks.iter().find(|check| check.stage == stage).map_or("no such check", |check| check.code)
}

#[tokio::test]
async fn a_probe_of_a_good_way_passes_every_stage() -> Result<()> {
    let relay = secured().await?;
    let report = probed(&relay.url("localhost"), options(Some(relay.ca.path()), None)).await;
    assert!(report.usable, "{report:#?}");
    let stages: Vec<_> = report.checks.iter().map(|check| check.stage).collect();
    use Stage::{Dns, Hello, Proxy, RoundTrip, Size, TcpV4, TcpV6, Tls, Upgrade};
    assert_eq!(stages, [Dns, TcpV4, TcpV6, Proxy, Tls, Upgrade, Hello, RoundTrip, Size]);
    assert_eq!(code(&report, Tls), "tls_private_authority", "no public authority stands behind it");
    let tls = report.checks.iter().find(|check| check.stage == Tls).unwrap();
    assert!(
        tls.sentence.contains("TLS 1.3") && tls.sentence.contains("Relay Operator CA"),
        "{}",
        tls.sentence
    );
    for (stage, expected) in
        [(Upgrade, "upgrade_ok"), (Hello, "hello_ok"), (RoundTrip, "round_trip_ok"), (Size, "size_ok")]
    {
        assert_eq!(code(&report, stage), expected);
    }
    let json = serde_json::to_value(&report)?;
    assert_eq!(json["checks"][0]["stage"], "dns");
    assert_eq!(json["checks"][5]["outcome"], "ok");
    Ok(())
}

#[tokio::test]
async fn a_probe_names_the_stage_that_blocks() -> Result<()> {
    let relay = secured().await?;
    let report = probed(&relay.url("localhost"), options(None, None)).await;
    assert!(!report.usable);
    assert_eq!(code(&report, Stage::Tls), "tls_unknown_issuer");
    assert_eq!(
        report.checks.last().map(|check| (check.stage, check.outcome)),
        Some((Stage::Size, Outcome::Skipped))
    );

    let squid = Squid::start(Some(Credentials::new("u", "p"))).await?;
    let through = options(Some(relay.ca.path()), Some(&squid.url_with(None)));
    let report = probed(&relay.url(HIDDEN), through).await;
    assert_eq!(code(&report, Stage::Dns), "dns_failed_proxy_decides");
    assert_eq!(code(&report, Stage::Proxy), "proxy_login_required");
    let report = probed(&relay.url(HIDDEN), options(Some(relay.ca.path()), Some(&squid.url()))).await;
    assert!(report.usable, "{report:#?}");

    let report = probed("wss://nothing.invalid", options(None, None)).await;
    assert_eq!(code(&report, Stage::Dns), "dns_failed");

    let web = ChaosProxy::start(relay.relay.addr()).await?;
    web.refuse_new(true);
    let report = probed(&format!("ws://localhost:{}", web.addr().port()), options(None, None)).await;
    assert!(!report.usable, "{report:#?}");

    let mut config = Embedded::config();
    config.admission = AdmissionPolicy {
        access_token: Some(Secret::new("a-long-enough-token".to_owned())),
        ..Default::default()
    };
    let closed = Embedded::start(config).await?;
    let report = probed(&closed.url(), options(None, None)).await;
    assert_eq!(code(&report, Stage::Hello), "not_admitted", "{report:#?}");
    let admission = AdmissionSource::AccessToken(AccessToken::new("a-long-enough-token"));
    let report = probed(&closed.url(), RelayOptions { admission, ..options(None, None) }).await;
    assert!(report.usable, "{report:#?}");
    Ok(())
}
