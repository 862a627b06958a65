//! From a URL to a socket, with or without TLS.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls_platform_verifier::Verifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::error::ConnectError;
use super::socket::Socket;
use super::ticket::Signer;
use crate::plan::{Admission, Reach};

/// Opens connections to the relays of a [`Reach`].
///
/// What all connections share is made once: addresses, trust, the key that signs tickets. Every TLS
/// handshake is a full one, as that of a peer that comes for the first time.
pub struct Dialer {
    ways: Vec<Way>,
    tls: Option<TlsConnector>,
    pub(super) admission: Admission,
    pub(super) signer: Option<Signer>,
    /// What a connection's kernel may keep for reading, if not what the system says.
    receive_buffer: Option<usize>,
}

/// One relay or balancer.
pub(super) struct Way {
    pub(super) host: String,
    addrs: Vec<SocketAddr>,
    /// Which of the addresses answered last.
    good: Cell<usize>,
    name: Option<ServerName<'static>>,
}

impl Dialer {
    /// Looks the names up, and reads the authority and the key.
    ///
    /// # Errors
    /// A URL is none, its host has no address, or the authority or the key does not read.
    pub async fn new(reach: &Reach) -> Result<Self> {
        let mut ways = Vec::new();
        for url in &reach.urls {
            ways.push(Way::of(url).await.with_context(|| format!("{url} cannot be used"))?);
        }
        ensure!(!ways.is_empty(), "there is no relay to dial: give --url or --spawn");
        let encrypted = ways.iter().any(|way| way.name.is_some());
        let tls = if encrypted { Some(connector(reach.authority.as_deref())?) } else { None };
        let signer = match &reach.admission {
            Admission::Tickets { key, key_id, tenant } => Some(Signer::new(key, key_id.as_deref(), tenant)?),
            Admission::Open | Admission::AccessToken(_) => None,
        };
        Ok(Self { ways, tls, admission: reach.admission.clone(), signer, receive_buffer: None })
    }

    /// Keeps the kernel from taking more than about so many bytes for a connection that does not read.
    #[must_use]
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// How many relays or balancers there are.
    pub fn ways(&self) -> usize {
        self.ways.len()
    }

    pub(super) fn way(&self, number: usize) -> &Way {
        &self.ways[number % self.ways.len()]
    }

    pub(super) async fn open(&self, way: &Way) -> Result<Socket, ConnectError> {
        let tcp = way.connect().await?;
        let addr = way.addrs[way.good.get()];
        let unusable = |source| ConnectError::Unreachable { addr, source };
        tcp.set_nodelay(true).map_err(unusable)?;
        if let Some(bytes) = self.receive_buffer {
            let set = rustix::net::sockopt::set_socket_recv_buffer_size(&tcp, bytes);
            set.map_err(|error| unusable(error.into()))?;
        }
        Ok(match (&way.name, &self.tls) {
            (Some(name), Some(tls)) => {
                let stream = tls.connect(name.clone(), tcp).await;
                let stream = stream.map_err(|source| ConnectError::Tls { host: way.host.clone(), source })?;
                Socket::Tls(Box::new(stream.into()))
            }
            _ => Socket::Plain(tcp),
        })
    }
}

impl Way {
    async fn of(url: &Url) -> Result<Self> {
        ensure!(matches!(url.scheme(), "ws" | "wss"), "the scheme must be ws or wss");
        let host = url.host_str().context("the URL names no host")?.to_owned();
        let port = url.port_or_known_default().context("the URL names no port")?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let addrs = tokio::net::lookup_host((host.as_str(), port)).await;
        let addrs: Vec<_> = addrs.with_context(|| format!("{host} is not known here"))?.collect();
        ensure!(!addrs.is_empty(), "{host} has no address");
        let name = if url.scheme() == "wss" { Some(ServerName::try_from(host.clone())?) } else { None };
        Ok(Self { host, addrs, good: Cell::new(0), name })
    }

    /// Every address in turn, beginning with the one that answered last.
    async fn connect(&self) -> Result<TcpStream, ConnectError> {
        let first = self.good.get();
        let mut failed = None;
        for turn in 0..self.addrs.len() {
            let index = (first + turn) % self.addrs.len();
            let addr = self.addrs[index];
            match TcpStream::connect(addr).await {
                Ok(tcp) => {
                    self.good.set(index);
                    return Ok(tcp);
                }
                Err(error) => failed = Some((addr, error)),
            }
        }
        Err(match failed {
            Some((addr, source)) => refused(addr, source),
            None => ConnectError::Own(format!("{} has no address", self.host)),
        })
    }
}

fn refused(addr: SocketAddr, source: io::Error) -> ConnectError {
    use rustix::io::Errno;
    match Errno::from_io_error(&source) {
        Some(Errno::MFILE | Errno::NFILE) => ConnectError::TooManyFiles,
        Some(Errno::ADDRNOTAVAIL) => ConnectError::NoPort(addr),
        _ => ConnectError::Unreachable { addr, source },
    }
}

fn connector(authority: Option<&str>) -> Result<TlsConnector> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut extra = Vec::new();
    if let Some(pem) = authority {
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            extra.push(certificate.context("the authority is no PEM")?);
        }
        ensure!(!extra.is_empty(), "there is no certificate in the authority");
    }
    let verifier = Verifier::new_with_extra_roots(extra, provider.clone())?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}
