//! From an address to a WebSocket: TCP, TLS, upgrade, each usable alone for handshakes cut half-way.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use culvert_wire::{PATH, SUBPROTOCOL};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::http::Uri;

use super::{Io, RawError, socket_config, within};

/// How a raw peer reaches its relay.
#[derive(Clone)]
pub struct RawOptions {
    /// Name for TLS, for the `Host` header and for the hello.
    pub host: String,
    /// The TLS client; `None` speaks in clear text.
    pub tls: Option<Arc<ClientConfig>>,
    /// Path of the upgrade request.
    pub path: String,
    /// Offered subprotocol; `None` offers none.
    pub subprotocol: Option<String>,
    /// Address to connect from, to be another source for the relay (all of 127/8 is ours).
    pub source: Option<IpAddr>,
    /// `SO_RCVBUF` in bytes, small for peers that do not read.
    pub receive_buffer: Option<u32>,
    /// Longest wait of any step.
    pub deadline: Duration,
}

impl RawOptions {
    /// In clear text.
    pub fn plain(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            tls: None,
            path: PATH.to_owned(),
            subprotocol: Some(SUBPROTOCOL.to_owned()),
            source: None,
            receive_buffer: None,
            deadline: Duration::from_secs(20),
        }
    }

    /// Over TLS, with the trust of this client configuration.
    pub fn tls(host: &str, config: Arc<ClientConfig>) -> Self {
        Self { tls: Some(config), ..Self::plain(host) }
    }

    /// The same with another deadline.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The same from another source address.
    #[must_use]
    pub fn from(self, source: IpAddr) -> Self {
        Self { source: Some(source), ..self }
    }
}

/// TCP, and TLS where the options say so.
///
/// # Errors
/// Either fails or takes longer than the deadline.
pub async fn dial(addr: SocketAddr, options: &RawOptions) -> Result<Box<dyn Io>, RawError> {
    within(options.deadline, "TCP and TLS", connect(addr, options)).await?.map_err(RawError::Io)
}

async fn connect(addr: SocketAddr, options: &RawOptions) -> std::io::Result<Box<dyn Io>> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(bytes) = options.receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(source) = options.source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(addr).await?;
    stream.set_nodelay(true)?;
    match &options.tls {
        None => Ok(Box::new(stream)),
        Some(config) => {
            let name = ServerName::try_from(options.host.clone()).map_err(std::io::Error::other)?;
            Ok(Box::new(TlsConnector::from(config.clone()).connect(name, stream).await?))
        }
    }
}

/// The WebSocket upgrade over a stream that reaches the relay.
///
/// # Errors
/// The answer is not 101, or not in time.
pub async fn upgrade(
    stream: Box<dyn Io>,
    options: &RawOptions,
) -> Result<WebSocketStream<Box<dyn Io>>, RawError> {
    let host = if options.host.contains(':') { format!("[{}]", options.host) } else { options.host.clone() };
    let uri: Uri = format!("ws://{host}{}", options.path)
        .parse()
        .map_err(|_| RawError::Io(std::io::Error::other("host and path make no URI")))?;
    let mut request = ClientRequestBuilder::new(uri);
    if let Some(subprotocol) = &options.subprotocol {
        request = request.with_sub_protocol(subprotocol);
    }
    let upgraded = tokio_tungstenite::client_async_with_config(request, stream, Some(socket_config()));
    let (socket, _) = within(options.deadline, "the upgrade", upgraded).await??;
    Ok(socket)
}
