//! Brokers that announce themselves on the local network (mDNS, RFC 6762, and DNS-SD, RFC 6763).
//!
//! What is announced is a hint and proves nothing: whoever is in the network can announce anything. The
//! broker's certificate is checked as always, and the password never goes to one that cannot prove to know it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use mdns_sd::{ResolvedService, ServiceDaemon, ServiceEvent};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use super::http::printable;

/// Service names under which brokers are announced: ours, and the first protocol's.
pub const SERVICES: [&str; 2] = ["_culvert._tcp.local.", "_ddalab-broker._tcp.local."];
/// How long others have to show themselves after the first one did.
const GRACE: Duration = Duration::from_millis(500);
/// Brokers that are listed at most; a network full of announcements must not fill the memory.
const MOST: usize = 256;

/// A broker that announced itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoveredBroker {
    /// What it is called.
    pub name: String,
    /// Where it is: `wss://host:port/ws`.
    pub url: String,
    /// Name of the institution.
    pub institution: String,
    /// Version of what it announces.
    pub version: String,
    /// Whether it lets in only those who prove who they are.
    pub auth_required: bool,
    /// Always empty from our brokers: nothing that a password could be tried against is announced.
    pub auth_hash: String,
    /// Whether it speaks TLS.
    pub uses_tls: bool,
    /// SHA-256 of its certificate, if it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// The local network cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("the local network cannot be asked for brokers: {0}")]
pub struct DiscoveryError(#[from] mdns_sd::Error);

/// Asks the local network, IPv4 and IPv6, for brokers for at most `limit`.
///
/// Returns half a second after the first one answered, so that others can answer too; with none, at the end.
///
/// # Errors
/// There is no network to ask.
pub async fn discover_brokers(limit: Duration) -> Result<Vec<DiscoveredBroker>, DiscoveryError> {
    let daemon = ServiceDaemon::new()?;
    let found = search(&daemon, limit).await;
    // Its thread ends by itself when it has heard this.
    if let Err(error) = daemon.shutdown() {
        tracing::debug!(%error, "the search for brokers was not ended in order");
    }
    found
}

async fn search(daemon: &ServiceDaemon, limit: Duration) -> Result<Vec<DiscoveredBroker>, DiscoveryError> {
    let (ours, first) = (daemon.browse(SERVICES[0])?, daemon.browse(SERVICES[1])?);
    let mut until = Until::new(limit);
    // Several addresses and both services of one broker are one broker.
    let mut found = BTreeMap::new();
    loop {
        let event = timeout_at(until.deadline, async {
            tokio::select! {
                event = ours.recv_async() => event,
                event = first.recv_async() => event,
            }
        });
        match event.await {
            Err(_) | Ok(Err(_)) => break,
            Ok(Ok(ServiceEvent::ServiceResolved(service))) => {
                if let Some(broker) = describe(&service)
                    && found.len() < MOST
                {
                    found.entry((service.get_hostname().to_owned(), service.get_port())).or_insert(broker);
                    until.found();
                }
            }
            Ok(Ok(_)) => {}
        }
    }
    Ok(found.into_values().collect())
}

/// When the search ends: the grace counts from the first broker that was found, not from the start.
struct Until {
    deadline: Instant,
    has_found: bool,
}

impl Until {
    fn new(limit: Duration) -> Self {
        Self { deadline: Instant::now() + limit, has_found: false }
    }

    fn found(&mut self) {
        if !self.has_found {
            self.has_found = true;
            self.deadline = self.deadline.min(Instant::now() + GRACE);
        }
    }
}

fn describe(service: &ResolvedService) -> Option<DiscoveredBroker> {
    let property = |key| service.get_property_val_str(key).map(printable).unwrap_or_default();
    let addresses = service.get_addresses().iter().map(mdns_sd::ScopedIp::to_ip_addr);
    let uses_tls = property("tls") == "true";
    let host = match property("host") {
        // A name that the certificate can be for; what the broker is told by.
        host if !host.is_empty() && uses_tls => host,
        _ => address(addresses)?,
    };
    let scheme = if uses_tls { "wss" } else { "ws" };
    Some(DiscoveredBroker {
        name: printable(service.get_fullname().split("._").next().unwrap_or_default()),
        url: format!("{scheme}://{host}:{}/ws", service.get_port()),
        institution: property("institution"),
        version: property("version"),
        auth_required: property("auth_required") != "false",
        auth_hash: property("auth_hash"),
        uses_tls,
        certificate: Some(property("fingerprint")).filter(|fingerprint| !fingerprint.is_empty()),
    })
}

/// The address to dial: IPv4 before IPv6, none that only this machine or this link has, unless there is no other.
fn address(addresses: impl Iterator<Item = IpAddr>) -> Option<String> {
    let mut all: Vec<IpAddr> = addresses.collect();
    all.sort_by_key(|address| match address {
        IpAddr::V4(v4) => (v4.is_loopback(), v4.is_link_local(), false),
        IpAddr::V6(v6) => (v6.is_loopback(), v6.is_unicast_link_local(), true),
    });
    // A link-local IPv6 address is of no use without the interface's number, which a URL cannot carry.
    let usable = |address: &IpAddr| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    all.into_iter().find(usable).map(|address| match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hole 2.b.6 of the predecessor, first half: with a late first broker the search ended at once.
    #[tokio::test(start_paused = true)]
    async fn hole_2b_06_the_grace_counts_from_the_first_broker_that_answers() {
        let start = Instant::now();
        let mut until = Until::new(Duration::from_secs(5));
        tokio::time::advance(Duration::from_secs(3)).await;
        until.found();
        assert_eq!(until.deadline - start, Duration::from_millis(3500));
        tokio::time::advance(Duration::from_millis(300)).await;
        until.found();
        assert_eq!(until.deadline - start, Duration::from_millis(3500), "others do not prolong it");
        let mut late = Until::new(Duration::from_secs(5));
        tokio::time::advance(Duration::from_millis(4900)).await;
        late.found();
        assert_eq!(late.deadline - Instant::now(), Duration::from_millis(100), "nor is the limit passed");
    }

    #[tokio::test]
    async fn a_broker_that_announces_itself_under_either_name_is_found_with_what_it_says() {
        // On the loopback only, so that a test is no news for the network.
        let loopback = || {
            let daemon = ServiceDaemon::new().unwrap();
            daemon.disable_interface(mdns_sd::IfKind::All).unwrap();
            daemon.enable_interface(mdns_sd::IfKind::LoopbackV4).unwrap();
            daemon
        };
        for (service, port) in [(SERVICES[0], 8443), (SERVICES[1], 8444)] {
            let (announcer, searcher) = (loopback(), loopback());
            let properties =
                [("version", "1.0"), ("institution", "Lab"), ("tls", "true"), ("host", "broker.example")];
            let info = mdns_sd::ServiceInfo::new(
                service,
                "Culvert Broker @ here",
                "here.local.",
                "127.0.0.1",
                port,
                &properties[..],
            );
            announcer.register(info.unwrap()).unwrap();
            let found = search(&searcher, Duration::from_secs(30)).await.unwrap();
            let ours = found.iter().find(|broker| broker.url == format!("wss://broker.example:{port}/ws"));
            let ours = ours.unwrap_or_else(|| panic!("not among {found:?}"));
            assert_eq!((ours.institution.as_str(), ours.uses_tls, ours.auth_required), ("Lab", true, true));
            assert!(ours.auth_hash.is_empty() && ours.name.starts_with("Culvert Broker"), "{ours:?}");
            announcer.shutdown().unwrap();
            searcher.shutdown().unwrap();
        }
    }

    #[test]
    fn an_address_that_others_can_use_is_preferred() {
        let pick = |list: &[&str]| address(list.iter().map(|text| text.parse().unwrap()));
        assert_eq!(pick(&["fe80::1", "::1", "2001:db8::1", "192.0.2.7"]).as_deref(), Some("192.0.2.7"));
        assert_eq!(pick(&["fe80::1", "127.0.0.1", "2001:db8::1"]).as_deref(), Some("[2001:db8::1]"));
        assert_eq!(pick(&["127.0.0.1"]).as_deref(), Some("127.0.0.1"));
        assert_eq!(pick(&["fe80::1"]), None);
    }
}
