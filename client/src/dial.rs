//! From a URL to an open WebSocket: name, address, proxy, TLS, upgrade.
//!
//! Each step is a method of [`Dialer`], so that the probe can take them one by one; [`Dialer::dial`]
//! takes them all under one deadline and says which of them it was that failed.

mod error;
mod happy;
mod proxy;
mod tls;
mod tunnel;
mod upgrade;
pub mod url;

pub use error::{DialError, ProxyProblem, UpgradeProblem};
pub use url::{Credentials, ProxyScheme, ProxyUrl, RelayUrl, UrlError};

pub(crate) use proxy::ChosenProxy;
use tls::Trust;
pub(crate) use tls::{Secured, issuer, provider};
pub(crate) use upgrade::WRITE_BUFFER;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::WebSocketStream;

use crate::options::RelayOptions;

/// Bytes both ways.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(crate) type BoxedStream = Box<dyn Stream>;
pub(crate) type Socket = WebSocketStream<BoxedStream>;

/// Dials one relay, again and again if need be.
#[derive(Debug)]
pub(crate) struct Dialer {
    relay: RelayUrl,
    proxy: Option<ChosenProxy>,
    /// Absent where neither the relay nor the proxy speaks TLS.
    trust: Option<Trust>,
}

impl Dialer {
    /// Settles proxy and trust: reads the environment, the system's store and the CA file.
    pub(crate) fn new(relay: &RelayUrl, options: &RelayOptions) -> Result<Self, DialError> {
        let proxy = proxy::choose(&options.proxy, relay, proxy::environment)?;
        let tls_to_proxy = proxy.as_ref().is_some_and(|proxy| proxy.url.scheme() == ProxyScheme::Https);
        let needs_tls = relay.is_secure() || tls_to_proxy || options.ca_file.is_some();
        let trust = needs_tls.then(|| Trust::load(options.ca_file.as_deref())).transpose()?;
        Ok(Self { relay: relay.clone(), proxy, trust })
    }

    pub(crate) fn relay(&self) -> &RelayUrl {
        &self.relay
    }

    pub(crate) fn proxy(&self) -> Option<&ChosenProxy> {
        self.proxy.as_ref()
    }

    /// All of it.
    pub(crate) async fn dial(&self, limit: Duration) -> Result<Socket, DialError> {
        let deadline = Instant::now() + limit;
        let stream = self.stream(limit).await?;
        within(deadline, limit, "the WebSocket upgrade", self.upgrade(stream)).await
    }

    /// All up to the first byte of HTTP: name, address, proxy, TLS.
    pub(crate) async fn stream(&self, limit: Duration) -> Result<BoxedStream, DialError> {
        let deadline = Instant::now() + limit;
        let stream = match &self.proxy {
            None => {
                let (host, port) = (self.relay.host(), self.relay.port());
                let addresses = within(deadline, limit, "looking up the server", resolve(host, port)).await?;
                let tcp = connect(addresses, self.relay.authority());
                Box::new(within(deadline, limit, "connecting to the server", tcp).await?)
            }
            Some(proxy) => {
                within(deadline, limit, "connecting through the proxy", self.tunnel(proxy)).await?
            }
        };
        if !self.relay.is_secure() {
            return Ok(stream);
        }
        let secured = within(deadline, limit, "TLS with the server", self.secure(stream)).await?;
        Ok(Box::new(secured.stream))
    }

    /// Reaches the proxy and has it open a tunnel to the relay.
    pub(crate) async fn tunnel(&self, proxy: &ChosenProxy) -> Result<BoxedStream, DialError> {
        let url = &proxy.url;
        let addresses = resolve(url.host(), url.port()).await?;
        let tcp = connect(addresses, url::authority(url.host(), url.port())).await?;
        let tunnelled = match url.scheme() {
            ProxyScheme::Http => tunnel::http_connect(Box::new(tcp), &self.relay, url.credentials()).await,
            ProxyScheme::Https => {
                let secured = self.trust()?.secure(url.host(), tcp).await?;
                tunnel::http_connect(Box::new(secured.stream), &self.relay, url.credentials()).await
            }
            ProxyScheme::Socks5h => tunnel::socks5(tcp, &self.relay, url.credentials()).await,
        };
        tunnelled.map_err(|problem| DialError::Proxy { proxy: url.to_string(), problem })
    }

    /// TLS with the relay.
    pub(crate) async fn secure(&self, stream: BoxedStream) -> Result<Secured, DialError> {
        self.trust()?.secure(self.relay.host(), stream).await
    }

    /// The WebSocket upgrade with the relay.
    pub(crate) async fn upgrade(&self, stream: BoxedStream) -> Result<Socket, DialError> {
        upgrade::upgrade(stream, &self.relay).await
    }

    fn trust(&self) -> Result<&Trust, DialError> {
        let missing = || rustls::Error::General("TLS was not set up".to_owned());
        self.trust.as_ref().ok_or_else(|| DialError::SystemTrust(missing()))
    }
}

/// Asks the operating system, in its order.
pub(crate) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
    let failed = |source| DialError::Name { host: host.to_owned(), source };
    let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await.map_err(failed)?.collect();
    if addresses.is_empty() {
        return Err(failed(std::io::ErrorKind::NotFound.into()));
    }
    Ok(addresses)
}

/// A TCP connection to the first address that takes one.
pub(crate) async fn connect(addresses: Vec<SocketAddr>, authority: String) -> Result<TcpStream, DialError> {
    let dial = |address| async move {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    happy::first_of(addresses, dial).await.map_err(|source| DialError::Tcp { authority, source })
}

async fn within<T>(
    deadline: Instant,
    limit: Duration,
    step: &'static str,
    work: impl Future<Output = Result<T, DialError>>,
) -> Result<T, DialError> {
    timeout_at(deadline, work).await.unwrap_or(Err(DialError::TimedOut { step, limit }))
}
