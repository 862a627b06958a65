//! Certificates that are reloaded when their files change.
//!
//! [`Certificates`] holds the chain and key that new handshakes use. Renewing is replacing the files: they
//! are compared every few seconds (by content, because mounted secrets are swapped behind a link) and on
//! SIGHUP. Connections that are open keep what they negotiated. A file that cannot be used, or a key that
//! does not fit, leaves the old certificate in place, is logged once and counted.

mod files;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ServerConfig};
use tokio::signal::unix::{SignalKind, signal};

pub use files::{Files, TlsError};

use files::Loaded;

/// How often the files are compared with what is in use.
const POLL_EVERY: Duration = Duration::from_secs(5);

crate::metric_set! {
    /// Series of the certificate in use.
    pub struct Metrics {
        /// Attempts to use changed certificate files; a rejected one left the old certificate in place.
        pub reloads: counter "culvert_tls_reloads_total" { outcome: Outcome = Outcome::ALL, Outcome::name },
        /// When the certificate in use expires, in seconds since 1970; 0 without TLS.
        pub expiry: gauge "culvert_tls_certificate_expiry_timestamp_seconds",
    }
}

/// What came of changed files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// They are in use.
    Replaced,
    /// They could not be used.
    Rejected,
}

impl Outcome {
    /// Both outcomes.
    pub const ALL: &'static [Outcome] = &[Outcome::Replaced, Outcome::Rejected];

    /// Name of the outcome in the label.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Replaced => "replaced",
            Outcome::Rejected => "rejected",
        }
    }
}

/// What [`Certificates::reload`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// The files hold what is in use.
    Unchanged,
    /// New handshakes use the new files.
    Replaced,
}

/// One name that a certificate is valid for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// A host name, possibly `*.example.org`.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Dns(name) => f.write_str(name),
            Name::Ip(address) => write!(f, "{address}"),
        }
    }
}

/// The certificate chain and key in use, and the files they come from.
pub struct Certificates {
    files: Files,
    current: ArcSwap<Loaded>,
    metrics: Metrics,
}

impl Certificates {
    /// Loads the files; this is where a server with bad files fails to start.
    pub fn load(files: Files, metrics: Metrics) -> Result<Arc<Self>, TlsError> {
        let loaded = files.load()?;
        announce(&loaded, &metrics);
        Ok(Arc::new(Self { files, current: ArcSwap::from_pointee(loaded), metrics }))
    }

    /// TLS 1.2 and 1.3 with these certificates, HTTP/1.1 only, aws-lc-rs explicitly.
    ///
    /// Sessions are not resumed: a balancer sends the next connection to any node, so tickets would cost
    /// memory and bytes in every handshake and hardly ever be redeemed.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::Provider)?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.ignore_client_order = true;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// Reads the files and, if they changed and are usable, puts them in use.
    pub fn reload(&self) -> Result<Reload, TlsError> {
        let contents = self.files.read()?;
        if self.current.load().contents == contents {
            return Ok(Reload::Unchanged);
        }
        let loaded = self.files.parse(contents)?;
        announce(&loaded, &self.metrics);
        self.current.store(Arc::new(loaded));
        self.metrics.reloads[Outcome::Replaced].increment(1);
        Ok(Reload::Replaced)
    }

    /// Reloads on SIGHUP and when the files change, until dropped; never returns.
    pub async fn watch(self: Arc<Self>) {
        self.watch_every(POLL_EVERY).await;
    }

    async fn watch_every(self: Arc<Self>, poll: Duration) {
        let mut hangup = signal(SignalKind::hangup())
            .inspect_err(|error| tracing::warn!(%error, "no SIGHUP handler, certificates are polled only"))
            .ok();
        let mut ticks = tokio::time::interval(poll);
        let mut last_fault = None;
        loop {
            let asked = tokio::select! {
                _ = ticks.tick() => false,
                () = received(&mut hangup) => true,
            };
            if asked {
                last_fault = None;
            }
            let certificates = self.clone();
            let fault = match tokio::task::spawn_blocking(move || certificates.reload()).await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(error) = fault.as_ref().filter(|_| fault != last_fault) {
                self.metrics.reloads[Outcome::Rejected].increment(1);
                tracing::error!(%error, "certificate not reloaded, the old one stays in use");
            }
            last_fault = fault;
        }
    }

    /// The DNS names and addresses that the certificate in use is valid for.
    pub fn names(&self) -> Vec<Name> {
        self.current.load().names.clone()
    }

    /// Whether the certificate in use is valid for this host name or address.
    pub fn covers(&self, host: &str) -> bool {
        self.current.load().covers(host)
    }

    /// The certificate in use, without its issuers.
    pub fn leaf(&self) -> Option<CertificateDer<'static>> {
        self.current.load().key.cert.first().cloned()
    }

    /// When the certificate in use expires, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.current.load().not_after
    }
}

/// aws-lc-rs with the suites of AES-128-GCM and SHA-256 first, whose hashes have instructions of their own
/// on current processors; those of AES-256 and SHA-384, which rustls puts first, do not.
pub(crate) fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    let first = [
        CipherSuite::TLS13_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ];
    // Stable: the rest keeps its order.
    provider.cipher_suites.sort_by_key(|suite| !first.contains(&suite.suite()));
    provider
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().key.clone())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("files", &self.files).finish_non_exhaustive()
    }
}

/// The next SIGHUP; never, where there is no handler.
async fn received(hangup: &mut Option<tokio::signal::unix::Signal>) {
    match hangup {
        Some(hangup) => {
            hangup.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Says which certificate is in use from now on.
fn announce(loaded: &Loaded, metrics: &Metrics) {
    // Exact below 2^53 seconds.
    #[expect(clippy::cast_precision_loss, reason = "dates are far below 2^53 seconds")]
    metrics.expiry.set(loaded.not_after as f64);
    let names: Vec<String> = loaded.names.iter().map(ToString::to_string).collect();
    let names = names.join(", ");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if u64::try_from(loaded.not_after).is_ok_and(|end| end > now) {
        tracing::info!(names, not_after = loaded.not_after, "certificate in use");
    } else {
        tracing::warn!(names, not_after = loaded.not_after, "certificate in use has expired");
    }
}

#[cfg(test)]
mod tests;
