//! The broker on the local networks, so that clients find it by themselves (mDNS, RFC 6762; DNS-SD, RFC 6763).
//!
//! Under the name of the first sync broker and under ours, on every interface, over IPv4 and IPv6, with the
//! keys that clients know. Nothing in it comes from a password: an announcement is for everybody who is
//! near, and a hash would let them guess in peace. It is withdrawn when the broker begins to drain.

use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use culvert_relay::config::Tls;
use culvert_service_kit::Shutdown;
use culvert_service_kit::tls::Certificates;
use data_encoding::HEXLOWER;
use mdns_sd::{ServiceDaemon, ServiceInfo, UnregisterStatus};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::config::Config;

/// Names of the service: the first sync broker's, and ours.
pub const SERVICES: [&str; 2] = ["_ddalab-broker._tcp.local.", "_culvert._tcp.local."];
/// How often the certificate is compared with the one that is announced.
const EVERY: Duration = Duration::from_secs(60);
/// Longest wait for a goodbye to be sent.
const GOODBYE: Duration = Duration::from_secs(2);
/// A label has 63 bytes at most (RFC 1035), and words stand before the host's name in one.
const LONGEST_HOST: usize = 40;

/// Announces the broker, if it is to be, until a drain is requested; ends with the goodbye.
pub(crate) async fn while_serving(
    config: &Config,
    at: Option<SocketAddr>,
    certificates: Option<&Certificates>,
    shutdown: &Shutdown,
) {
    let (Some(at), true) = (at, config.announce) else { return shutdown.drain_requested().await };
    let Some(mut announcement) = Announcement::start(config, at, certificates) else {
        return shutdown.drain_requested().await;
    };
    tokio::select! {
        () = announcement.keep(config, at, certificates) => {}
        () = shutdown.drain_requested() => {}
    }
    announcement.withdraw().await;
}

/// What is announced; ends when dropped, and properly with [`Announcement::withdraw`].
struct Announcement {
    daemon: ServiceDaemon,
    names: Vec<String>,
}

impl Announcement {
    /// Announces the broker at this address; what is in the way is said once.
    fn start(config: &Config, at: SocketAddr, certificates: Option<&Certificates>) -> Option<Self> {
        let started = ServiceDaemon::new().and_then(|daemon| {
            let mut this = Self { daemon, names: Vec::new() };
            this.tell(config, at, certificates)?;
            Ok(this)
        });
        started
            .inspect(|this| tracing::info!(names = this.names.join(", "), "announced on the local networks"))
            .inspect_err(
                |error| tracing::warn!(%error, "the broker cannot be announced on the local networks"),
            )
            .ok()
    }

    fn tell(
        &mut self,
        config: &Config,
        at: SocketAddr,
        certificates: Option<&Certificates>,
    ) -> mdns_sd::Result<()> {
        self.names.clear();
        for service in SERVICES {
            let info = describe(service, &host(), config, at, certificates)?;
            self.names.push(info.get_fullname().to_owned());
            self.daemon.register(info)?;
        }
        Ok(())
    }

    /// Announces anew when the certificate has changed, until dropped.
    async fn keep(&mut self, config: &Config, at: SocketAddr, certificates: Option<&Certificates>) {
        let mut announced = fingerprint(certificates);
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = fingerprint(certificates);
            if now != announced {
                announced = now;
                if let Err(error) = self.tell(config, at, certificates) {
                    tracing::warn!(%error, "the new certificate cannot be announced");
                }
            }
        }
    }

    /// Tells everybody who heard it that the broker is gone.
    async fn withdraw(self) {
        for name in &self.names {
            let said = async {
                match self.daemon.unregister(name) {
                    Ok(status) => matches!(status.recv_async().await, Ok(UnregisterStatus::OK)),
                    Err(_) => false,
                }
            };
            if !timeout(GOODBYE, said).await.unwrap_or(false) {
                tracing::debug!(name, "the announcement was not withdrawn and ends by itself");
            }
        }
        if let Ok(ended) = self.daemon.shutdown() {
            // Its thread has nothing to lose.
            let _ = timeout(GOODBYE, ended.recv_async()).await;
        }
    }
}

/// One announcement.
fn describe(
    service: &str,
    host: &str,
    config: &Config,
    at: SocketAddr,
    certificates: Option<&Certificates>,
) -> mdns_sd::Result<ServiceInfo> {
    let is_tls = matches!(config.tls, Tls::Files(_));
    let mut properties = vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("institution", config.institution.clone()),
        ("auth_required", "true".to_owned()),
        ("tls", is_tls.to_string()),
    ];
    // The name that the certificate is for, which an address is not.
    if is_tls && let Some(name) = crate::config::host_of(&config.public_url) {
        properties.push(("host", name));
    }
    if let Some(fingerprint) = fingerprint(certificates) {
        properties.push(("fingerprint", fingerprint));
    }
    let instance = format!("Culvert Broker @ {host}");
    let host = format!("{host}.local.");
    if at.ip().is_unspecified() {
        let info = ServiceInfo::new(service, &instance, &host, "", at.port(), &properties[..])?;
        return Ok(info.enable_addr_auto());
    }
    ServiceInfo::new(service, &instance, &host, at.ip(), at.port(), &properties[..])
}

/// SHA-256 of the certificate in use, lowercase hexadecimal.
fn fingerprint(certificates: Option<&Certificates>) -> Option<String> {
    let leaf = certificates?.leaf()?;
    Some(HEXLOWER.encode(digest(&SHA256, &leaf).as_ref()))
}

/// This machine's name, as far as a label takes it.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let label = name.trim().split('.').next().unwrap_or_default();
    let label: String =
        label.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(LONGEST_HOST).collect();
    if label.is_empty() { "culvert-broker".to_owned() } else { label }
}
