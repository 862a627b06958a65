//! One document from another service: a key set, a list of versions.
//!
//! A GET over HTTP/1.1, one connection each, bounded in time and size. TLS trusts what the operating system
//! trusts and, if given, further authorities. Redirects are not followed: whoever configures a URL means
//! that one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::header::{ACCEPT, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::tls::provider;

/// A document that did not come.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL is none that is fetched.
    #[error("{0} is not an https:// URL with a host, nor http:// at a loopback address")]
    Url(Url),
    /// The authorities cannot be used.
    #[error("what is trusted cannot be loaded: {0}")]
    Trust(String),
    /// No connection, or it broke, or TLS failed.
    #[error("{host} cannot be reached")]
    Connect {
        /// Whom.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It does not speak HTTP as it should.
    #[error("{host} does not answer as an HTTP server")]
    Http {
        /// Whom.
        host: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// It answered something else than the document.
    #[error("{host} answered {status}")]
    Status {
        /// Whom.
        host: String,
        /// What.
        status: StatusCode,
    },
    /// It is larger than allowed.
    #[error("the answer of {host} is larger than {limit} bytes")]
    TooLarge {
        /// Whom.
        host: String,
        /// The limit.
        limit: usize,
    },
    /// Not in time.
    #[error("{host} did not answer within {limit:?}")]
    Late {
        /// Whom.
        host: String,
        /// The limit.
        limit: Duration,
    },
}

/// Fetches documents. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fetcher {
    tls: Arc<ClientConfig>,
    limit: Duration,
    max_bytes: usize,
}

impl Fetcher {
    /// Trusts the system's authorities and those in `ca` (PEM); gives up after `limit` and `max_bytes`.
    ///
    /// # Errors
    /// [`FetchError::Trust`].
    pub fn new(ca: Option<&[u8]>, limit: Duration, max_bytes: usize) -> Result<Self, FetchError> {
        let trust = |error: &dyn std::fmt::Display| FetchError::Trust(error.to_string());
        let extra: Vec<_> = match ca {
            Some(pem) => {
                CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|e| trust(&e))?
            }
            None => Vec::new(),
        };
        if ca.is_some() && extra.is_empty() {
            return Err(FetchError::Trust("there is no certificate in the file of authorities".to_owned()));
        }
        let provider = Arc::new(provider());
        let verifier = Verifier::new_with_extra_roots(extra, provider.clone()).map_err(|e| trust(&e))?;
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| trust(&e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Arc::new(tls), limit, max_bytes })
    }

    /// Whether a URL is one that is fetched: https, or http at a loopback address.
    pub fn accepts(url: &Url) -> bool {
        let loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        url.has_host() && (url.scheme() == "https" || (url.scheme() == "http" && loopback))
    }

    /// The body of a 200 answer. Cancel safe.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn get(&self, url: &Url) -> Result<Bytes, FetchError> {
        if !Self::accepts(url) {
            return Err(FetchError::Url(url.clone()));
        }
        let host = host(url);
        match tokio::time::timeout(self.limit, self.ask(url, &host)).await {
            Ok(answer) => answer,
            Err(_) => Err(FetchError::Late { host, limit: self.limit }),
        }
    }

    async fn ask(&self, url: &Url, host: &str) -> Result<Bytes, FetchError> {
        let connect = |source| FetchError::Connect { host: host.to_owned(), source };
        let name = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = url.port_or_known_default().unwrap_or(443);
        let stream = TcpStream::connect((name, port)).await.map_err(connect)?;
        if url.scheme() == "http" {
            return self.exchange(url, host, stream).await;
        }
        let server = ServerName::try_from(name.to_owned())
            .map_err(|error| connect(std::io::Error::new(std::io::ErrorKind::InvalidInput, error)))?;
        let stream = TlsConnector::from(self.tls.clone()).connect(server, stream).await.map_err(connect)?;
        self.exchange(url, host, stream).await
    }

    async fn exchange(
        &self,
        url: &Url,
        host: &str,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Bytes, FetchError> {
        let http = |source| FetchError::Http { host: host.to_owned(), source };
        let connect = |source| FetchError::Connect { host: host.to_owned(), source };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        // Ends with this function, whatever the other side does.
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection for one document ended early");
            }
        });
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = target.parse().map_err(|_| FetchError::Url(url.clone()))?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(host).map_err(|_| FetchError::Url(url.clone()))?);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("culvert/", env!("CARGO_PKG_VERSION"))));
        let answer = sender.send_request(request).await.map_err(http)?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status { host: host.to_owned(), status: answer.status() });
        }
        match Limited::new(answer.into_body(), self.max_bytes).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(FetchError::TooLarge { host: host.to_owned(), limit: self.max_bytes })
            }
            Err(error) => match error.downcast() {
                Ok(source) => Err(http(*source)),
                Err(error) => Err(connect(std::io::Error::other(error))),
            },
        }
    }
}

/// Host and port as the `Host` header has them.
fn host(url: &Url) -> String {
    let name = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
}

#[cfg(test)]
mod tests;
