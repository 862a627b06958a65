//! The stages themselves, one function each.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use culvert_wire::{ConnId, Generation};
use futures_util::future::poll_fn;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::{Check, Collector, Finding, Outcome, Stage};
use crate::dial::{
    BoxedStream, ChosenProxy, DialError, Dialer, ProxyProblem, RelayUrl, Secured, Socket, UpgradeProblem,
    connect, issuer, provider, resolve,
};
use crate::identity::{Identity, SystemRng};
use crate::options::RelayOptions;
use crate::relay::link::{Introduction, Link, LinkError, LinkEvent};

/// Round trips that are measured; the quickest counts.
const ROUND_TRIPS: usize = 3;
/// Padding of the size probe, in bytes; the last is the longest payload of the protocol.
const SIZES: [usize; 3] = [1024, 4096, 16 * 1024];

/// Passes every stage that can be passed; whether the relay can be used.
pub(super) async fn pass<P: FnMut(&Check)>(
    relay: &RelayUrl,
    options: &RelayOptions,
    step: Duration,
    report: &mut Collector<P>,
) -> bool {
    let own = (relay.clone(), options.clone());
    let dialer = tokio::task::spawn_blocking(move || Dialer::new(&own.0, &own.1)).await;
    let dialer = match dialer {
        Ok(Ok(dialer)) => dialer,
        Ok(Err(error)) => {
            let (stage, finding) = match &error {
                DialError::ProxyVariable { .. } => {
                    (Stage::Proxy, Finding::failed("proxy_setting_invalid", &error))
                }
                _ => (Stage::Tls, Finding::failed("trust_unusable", &error)),
            };
            report.add(stage, finding);
            return false;
        }
        Err(error) => {
            report.add(Stage::Tls, Finding::failed("trust_unusable", &error));
            return false;
        }
    };
    let Some(stream) = reach(&dialer, step, report).await else {
        report.skip(&[Stage::Tls, Stage::Upgrade, Stage::Hello, Stage::RoundTrip, Stage::Size]);
        return false;
    };
    let Some(stream) = secure(&dialer, stream, step, report).await else {
        report.skip(&[Stage::Upgrade, Stage::Hello, Stage::RoundTrip, Stage::Size]);
        return false;
    };
    let Some(socket) = upgrade(&dialer, stream, step, report).await else {
        report.skip(&[Stage::Hello, Stage::RoundTrip, Stage::Size]);
        return false;
    };
    let Some(mut link) = hello(&dialer, options, socket, step, report).await else {
        report.skip(&[Stage::RoundTrip, Stage::Size]);
        return false;
    };
    let alive = round_trip(&mut link, step, report).await;
    if !alive {
        report.skip(&[Stage::Size]);
        return false;
    }
    let whole = size(&mut link, step, report).await;
    link.close(Duration::from_secs(1)).await;
    whole
}

/// DNS, TCP over both families and the proxy: a stream to the relay.
async fn reach<P: FnMut(&Check)>(
    dialer: &Dialer,
    step: Duration,
    report: &mut Collector<P>,
) -> Option<BoxedStream> {
    let relay = dialer.relay();
    let addresses = match within(step, "looking up the relay", resolve(relay.host(), relay.port())).await {
        Ok(addresses) => {
            let list: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
            report.add(Stage::Dns, Finding::ok("dns_ok", format!("{} is {}", relay.host(), list.join(", "))));
            addresses
        }
        Err(error) if dialer.proxy().is_some() => {
            let sentence = format!("{error}, but the proxy may know it");
            report.add(
                Stage::Dns,
                Finding::note("dns_failed_proxy_decides", sentence, "nothing, if the proxy stage passes"),
            );
            Vec::new()
        }
        Err(error) => {
            report.add(Stage::Dns, Finding::failed("dns_failed", &error));
            report.skip(&[Stage::TcpV4, Stage::TcpV6]);
            report.add(Stage::Proxy, no_proxy());
            return None;
        }
    };
    let v4 = family(&addresses, SocketAddr::is_ipv4);
    let v6 = family(&addresses, SocketAddr::is_ipv6);
    let direct = dialer.proxy().is_none();
    let v4 = tcp(Stage::TcpV4, v4, relay, direct, step, report).await;
    let v6 = tcp(Stage::TcpV6, v6, relay, direct, step, report).await;
    match dialer.proxy() {
        None => {
            report.add(Stage::Proxy, no_proxy());
            v4.or(v6).map(|stream| Box::new(stream) as BoxedStream)
        }
        Some(proxy) => tunnel(dialer, proxy, step, report).await,
    }
}

fn no_proxy() -> Finding {
    Finding::skipped("proxy_none", "no proxy is configured for this relay")
}

fn family(addresses: &[SocketAddr], is_it: fn(&SocketAddr) -> bool) -> Vec<SocketAddr> {
    addresses.iter().copied().filter(is_it).collect()
}

async fn tcp<P: FnMut(&Check)>(
    stage: Stage,
    addresses: Vec<SocketAddr>,
    relay: &RelayUrl,
    direct: bool,
    step: Duration,
    report: &mut Collector<P>,
) -> Option<TcpStream> {
    let (ok, none, failed) = match stage {
        Stage::TcpV4 => ("tcp_v4_ok", "tcp_v4_no_address", "tcp_v4_failed"),
        _ => ("tcp_v6_ok", "tcp_v6_no_address", "tcp_v6_failed"),
    };
    if addresses.is_empty() {
        report.add(stage, Finding::skipped(none, "the relay has no address of this kind"));
        return None;
    }
    match within(step, "connecting to the relay", connect(addresses, relay.authority())).await {
        Ok(stream) => {
            report.add(stage, Finding::ok(ok, format!("connected to {}", relay.authority())));
            Some(stream)
        }
        Err(error) => {
            let mut finding = Finding::failed(failed, &error);
            if !direct {
                // On such networks that is how it should be.
                finding.outcome = Outcome::Note;
                finding.advice = Some("nothing, if the proxy stage passes".to_owned());
            }
            report.add(stage, finding);
            None
        }
    }
}

async fn tunnel<P: FnMut(&Check)>(
    dialer: &Dialer,
    proxy: &ChosenProxy,
    step: Duration,
    report: &mut Collector<P>,
) -> Option<BoxedStream> {
    let login =
        if proxy.url.credentials().is_some() { "with a user and password" } else { "without a login" };
    match within(step, "connecting through the proxy", dialer.tunnel(proxy)).await {
        Ok(stream) => {
            let sentence =
                format!("{} (from {}), {login}, lets through to the relay", proxy.url, proxy.origin);
            report.add(Stage::Proxy, Finding::ok("proxy_ok", sentence));
            Some(stream)
        }
        Err(error) => {
            let code = match &error {
                DialError::Proxy { problem, .. } => match problem {
                    ProxyProblem::AuthenticationRequired { .. } => "proxy_login_required",
                    ProxyProblem::AuthenticationRefused { .. } => "proxy_login_refused",
                    ProxyProblem::AuthenticationUnsupported { .. } => "proxy_login_unsupported",
                    ProxyProblem::Forbidden { .. } => "proxy_forbids",
                    ProxyProblem::Unreachable { .. } => "proxy_cannot_reach",
                    ProxyProblem::NotHttp(_) => "proxy_not_http",
                    ProxyProblem::Status { .. } | ProxyProblem::Io(_) | ProxyProblem::Socks(_) => {
                        "proxy_failed"
                    }
                },
                DialError::UnknownIssuer { .. } | DialError::Tls { .. } => "proxy_tls_failed",
                _ => "proxy_unreachable",
            };
            let mut finding = Finding::failed(code, &error);
            finding.sentence = format!("{} (from {})", finding.sentence, proxy.origin);
            report.add(Stage::Proxy, finding);
            None
        }
    }
}

async fn secure<P: FnMut(&Check)>(
    dialer: &Dialer,
    stream: BoxedStream,
    step: Duration,
    report: &mut Collector<P>,
) -> Option<BoxedStream> {
    if !dialer.relay().is_secure() {
        let advice = "use wss:// outside of tests; what peers say is encrypted inside either way";
        report.add(Stage::Tls, Finding::note("tls_none", "the relay is dialled in plain text", advice));
        return Some(stream);
    }
    match within(step, "TLS with the relay", dialer.secure(stream)).await {
        Ok(secured) => {
            report.add(Stage::Tls, describe(dialer.relay().host(), &secured));
            Some(Box::new(secured.stream))
        }
        Err(error) => {
            let code = match &error {
                DialError::UnknownIssuer { .. } => "tls_unknown_issuer",
                DialError::TimedOut { .. } => "tls_timed_out",
                _ => "tls_failed",
            };
            report.add(Stage::Tls, Finding::failed(code, &error));
            None
        }
    }
}

/// Version and issuer; a trusted chain that no public authority stands behind is a private one, on
/// company networks usually that of a box that inspects.
fn describe(host: &str, secured: &Secured) -> Finding {
    let version = match secured.stream.get_ref().1.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS",
    };
    let Some(leaf) = secured.chain.first() else {
        return Finding::ok("tls_ok", format!("{version}, resumed"));
    };
    let sentence = format!("{version}, certificate issued by \"{}\"", issuer(leaf));
    if is_public(host, &secured.chain) {
        return Finding::ok("tls_ok", sentence);
    }
    Finding::note(
        "tls_private_authority",
        format!("{sentence}, which this machine trusts and which is no public authority"),
        "if the relay does not have its own authority, this network inspects TLS: it sees who connects and \
         how much, and still not what peers say",
    )
}

fn is_public(host: &str, chain: &[CertificateDer<'_>]) -> bool {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let Ok(verifier) = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build()
    else {
        return false;
    };
    let (Some((leaf, rest)), Ok(name)) = (chain.split_first(), ServerName::try_from(host)) else {
        return false;
    };
    verifier.verify_server_cert(leaf, rest, &name, &[], UnixTime::now()).is_ok()
}

async fn upgrade<P: FnMut(&Check)>(
    dialer: &Dialer,
    stream: BoxedStream,
    step: Duration,
    report: &mut Collector<P>,
) -> Option<Socket> {
    match within(step, "the WebSocket upgrade", dialer.upgrade(stream)).await {
        Ok(socket) => {
            report.add(Stage::Upgrade, Finding::ok("upgrade_ok", "the WebSocket is open"));
            Some(socket)
        }
        Err(error) => {
            let code = match &error {
                DialError::Upgrade(UpgradeProblem::Status { .. }) => "upgrade_refused",
                DialError::Upgrade(UpgradeProblem::Subprotocol { .. }) => "upgrade_not_a_relay",
                DialError::TimedOut { .. } => "upgrade_timed_out",
                _ => "upgrade_broken",
            };
            report.add(Stage::Upgrade, Finding::failed(code, &error));
            None
        }
    }
}

async fn hello<P: FnMut(&Check)>(
    dialer: &Dialer,
    options: &RelayOptions,
    socket: Socket,
    step: Duration,
    report: &mut Collector<P>,
) -> Option<Link> {
    let identity = options.identity.clone().unwrap_or_else(|| Identity::generate(&mut SystemRng));
    let introduction = Introduction {
        identity: &identity,
        admission: &options.admission,
        // The lowest there is: a probe is never the connection to talk to.
        generation: Generation(0),
        replaces: ConnId::NONE,
    };
    match Link::introduce(socket, dialer.relay().host(), introduction, Instant::now() + step).await {
        Ok(link) => {
            let seconds = link.welcome().keepalive_ms / 1000;
            report
                .add(Stage::Hello, Finding::ok("hello_ok", format!("admitted; keepalive every {seconds} s")));
            Some(link)
        }
        Err(error) => {
            let code = match &error {
                LinkError::Closed { code, .. } => {
                    culvert_wire::Close::from_code(*code).map_or("hello_refused", culvert_wire::Close::name)
                }
                LinkError::Silent(_) => "hello_timed_out",
                LinkError::Broke(_) => "hello_cut_off",
                LinkError::Version(_) => "version",
                _ => "hello_failed",
            };
            let mut finding = Finding::failed(code, &error);
            if let LinkError::Broke(_) | LinkError::Silent(_) = error {
                finding.advice = Some(
                    "the WebSocket opened and then nothing came through: something on the way lets it open \
                     and kills it; ask the network's operator to allow WebSocket to this host"
                        .to_owned(),
                );
            }
            report.add(Stage::Hello, finding);
            None
        }
    }
}

async fn round_trip<P: FnMut(&Check)>(link: &mut Link, step: Duration, report: &mut Collector<P>) -> bool {
    let mut quickest = Duration::MAX;
    for token in 0..ROUND_TRIPS {
        match ping(link, token as u64, Bytes::new(), step).await {
            Ok(took) => quickest = quickest.min(took),
            Err(error) => {
                report.add(Stage::RoundTrip, Finding::failed("round_trip_failed", &error));
                return false;
            }
        }
    }
    let sentence = format!("{:.1} ms there and back", quickest.as_secs_f64() * 1000.0);
    report.add(Stage::RoundTrip, Finding::ok("round_trip_ok", sentence));
    true
}

async fn size<P: FnMut(&Check)>(link: &mut Link, step: Duration, report: &mut Collector<P>) -> bool {
    for size in SIZES {
        if let Err(error) = ping(link, size as u64, Bytes::from(vec![0x5a; size]), step).await {
            let mut finding = Finding::failed("size_limited", &error);
            finding.sentence = format!("a message of {} KiB did not come back: {error}", size / 1024);
            finding.advice = Some(
                "something on the way cuts long WebSocket messages; ask its operator to lift the limit"
                    .to_owned(),
            );
            report.add(Stage::Size, finding);
            return false;
        }
    }
    report.add(Stage::Size, Finding::ok("size_ok", "messages of 1, 4 and 16 KiB come back whole"));
    true
}

/// Sends a `Ping` and waits for its echo, padding and all.
async fn ping(link: &mut Link, token: u64, padding: Bytes, limit: Duration) -> Result<Duration, LinkError> {
    let start = Instant::now();
    link.ping(token, padding);
    let echoed = async {
        loop {
            match poll_fn(|cx| link.poll(cx)).await {
                LinkEvent::Ended(error) => return Err(error),
                LinkEvent::Pong if link.echoed() => return Ok(start.elapsed()),
                LinkEvent::Pong | LinkEvent::Frame(_) | LinkEvent::Flushed => {}
            }
        }
    };
    timeout(limit, echoed).await.unwrap_or(Err(LinkError::Silent("echo a message")))
}

async fn within<T>(
    limit: Duration,
    step: &'static str,
    work: impl Future<Output = Result<T, DialError>>,
) -> Result<T, DialError> {
    timeout(limit, work).await.unwrap_or(Err(DialError::TimedOut { step, limit }))
}
