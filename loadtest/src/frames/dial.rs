//! From a URL to an admitted connection.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use crate::plan::{Admission, Reach};

/// A socket, with or without TLS.
pub trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// Opens connections to the relays of a [`Reach`], one after the other.
pub struct Dialer {
    ways: Vec<Way>,
    tls: Option<TlsConnector>,
    pub(super) admission: Admission,
}

/// One relay or balancer.
pub(super) struct Way {
    pub(super) host: String,
    pub(super) addr: SocketAddr,
    name: Option<ServerName<'static>>,
}

impl Dialer {
    /// Looks the names up and reads the authority.
    ///
    /// # Errors
    /// A URL is none, its host has no address, or the authority does not read.
    pub async fn new(reach: &Reach) -> Result<Self> {
        let mut ways = Vec::new();
        for url in &reach.urls {
            ways.push(Way::of(url).await.with_context(|| format!("{url} cannot be used"))?);
        }
        ensure!(!ways.is_empty(), "there is no relay to dial");
        let encrypted = ways.iter().any(|way| way.name.is_some());
        let tls = if encrypted { Some(connector(reach.authority.as_deref())?) } else { None };
        Ok(Self { ways, tls, admission: reach.admission.clone() })
    }

    /// How many relays or balancers there are.
    pub fn ways(&self) -> usize {
        self.ways.len()
    }

    pub(super) fn way(&self, number: usize) -> &Way {
        &self.ways[number % self.ways.len()]
    }

    pub(super) async fn open(&self, way: &Way) -> Result<Box<dyn Io>> {
        let tcp =
            TcpStream::connect(way.addr).await.with_context(|| format!("{} does not answer", way.addr))?;
        tcp.set_nodelay(true)?;
        Ok(match (&way.name, &self.tls) {
            (Some(name), Some(tls)) => {
                let stream = tls.connect(name.clone(), tcp).await;
                Box::new(stream.with_context(|| format!("no TLS with {}", way.host))?)
            }
            _ => Box::new(tcp),
        })
    }
}

impl Way {
    async fn of(url: &Url) -> Result<Self> {
        ensure!(matches!(url.scheme(), "ws" | "wss"), "the scheme must be ws or wss");
        let host = url.host_str().context("the URL names no host")?.to_owned();
        let port = url.port_or_known_default().context("the URL names no port")?;
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let addr = tokio::net::lookup_host((bare.as_str(), port)).await?.next().context("no address")?;
        let name = if url.scheme() == "wss" { Some(ServerName::try_from(bare.clone())?) } else { None };
        Ok(Self { host: bare, addr, name })
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
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
