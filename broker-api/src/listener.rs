//! Accepts connections and serves each in a task of its own: PROXY header, TLS, HTTP/1.1, upgrades.
//!
//! The loop never waits for a client. Everything up to the head of the first request has one deadline, a
//! connection without a request has another, a body that stops has a third, and whoever does not take what
//! is written is cut off. A connection takes a seat as long as it is open, also after it has become a
//! WebSocket; without a free seat it is closed unread.

mod service;
mod stream;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use culvert_service_kit::Shutdown;
use culvert_service_kit::proxy_protocol::{self, Origin};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::core::Visitor;
use crate::metrics::{Metrics, Refused};
use service::Service;
use stream::{Seat, Seated};

pub use service::{Front, unavailable};

/// Pause when the process is out of file descriptors, instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Longest head of a request, and the piece in which bodies are read. Tokens and cookies of proxies fit.
const HTTP_BUFFER: usize = 16 * 1024;
/// Header lines of a request.
const MAX_HEADERS: usize = 64;

/// What every connection needs.
pub struct Listener {
    config: Config,
    front: Front,
    tls: Option<TlsAcceptor>,
    metrics: Arc<Metrics>,
    seats: Arc<Semaphore>,
    shutdown: Shutdown,
    leaving: CancellationToken,
}

impl Listener {
    /// A listener that answers with what stands in `front`.
    pub fn new(
        config: Config,
        front: Front,
        tls: Option<Arc<ServerConfig>>,
        metrics: Metrics,
        shutdown: Shutdown,
    ) -> Arc<Self> {
        let seats = Arc::new(Semaphore::new(config.limits.connections.min(Semaphore::MAX_PERMITS)));
        metrics.most_connections.set(config.limits.connections as f64);
        let tls = tls.map(TlsAcceptor::from);
        // Every connection and every request holds it, and a copy would be that of some hundred handles.
        let metrics = Arc::new(metrics);
        let leaving = CancellationToken::new();
        Arc::new(Self { config, front, tls, metrics, seats, shutdown, leaving })
    }

    /// Ends every connection after the request it is in; those that come get one answer each.
    pub fn leave(&self) {
        self.leaving.cancel();
    }

    /// Accepts until dropped; each connection runs in `tasks` until it ends or everything is killed.
    pub async fn accept(self: &Arc<Self>, listener: TcpListener, tasks: &TaskTracker) {
        loop {
            let (tcp, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => {
                    self.metrics.accept_pauses.increment(1);
                    tracing::warn!(%error, "cannot accept connections, pausing; raise the limit of open files");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            self.metrics.accepted.increment(1);
            let Ok(permit) = self.seats.clone().try_acquire_owned() else {
                self.metrics.refused[Refused::Full].increment(1);
                continue;
            };
            let seat = Seat::new(permit, self.metrics.tcp_connections.clone());
            let listener = self.clone();
            tasks.spawn(async move {
                let killed = listener.shutdown.killed();
                tokio::select! {
                    () = listener.connection(tcp, address, seat) => {}
                    () = killed => {}
                }
            });
        }
    }

    async fn connection(&self, tcp: TcpStream, address: SocketAddr, seat: Seat) {
        let deadline = Instant::now() + self.config.timing.handshake;
        let served = match &self.tls {
            None => match tokio::time::timeout_at(deadline, self.source(tcp, address.ip())).await {
                Ok(Ok((tcp, source))) => self.serve(tcp, source, seat, deadline).await,
                Ok(Err(refused)) => Err(refused),
                Err(_) => Err(Refused::Timeout),
            },
            Some(acceptor) => {
                // Boxed, so that the task of an open connection keeps no room for a handshake that is over.
                let open = Box::pin(async {
                    let (tcp, source) = self.source(tcp, address.ip()).await?;
                    let tls = acceptor.accept(tcp).await.map_err(|_| Refused::Tls)?;
                    Ok((tls, source))
                });
                match tokio::time::timeout_at(deadline, open).await {
                    Ok(Ok((tls, source))) => self.serve(tls, source, seat, deadline).await,
                    Ok(Err(refused)) => Err(refused),
                    Err(_) => Err(Refused::Timeout),
                }
            }
        };
        if let Err(refused) = served {
            self.metrics.refused[refused].increment(1);
            tracing::debug!(%address, reason = refused.name(), "connection ended before its first request");
        }
    }

    /// The address that counts, behind a balancer that is believed.
    async fn source(&self, mut tcp: TcpStream, near: IpAddr) -> Result<(TcpStream, IpAddr), Refused> {
        let mut source = near;
        if self.config.proxy_protocol_from.contains(near) {
            let origin = proxy_protocol::read(&mut tcp).await.map_err(|_| Refused::ProxyProtocol)?;
            if let Origin::Peer { source: real, .. } = origin {
                source = real.ip();
            }
        }
        // Answers and events are written whole; Nagle's delay would only add to them.
        tcp.set_nodelay(true).map_err(|_| Refused::Http)?;
        Ok((tcp, source.to_canonical()))
    }

    /// Serves requests until the connection ends or becomes something else.
    async fn serve<S>(&self, socket: S, source: IpAddr, seat: Seat, deadline: Instant) -> Result<(), Refused>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let visitor = Visitor { source, secure: self.tls.is_some() || self.config.behind_tls };
        let service =
            Service::new(self.front.clone(), visitor, self.metrics.clone(), self.config.timing.write);
        let requested = service.requested();
        let socket = Seated::new(socket, seat, self.config.timing.write);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.config.timing.keep_alive)
            .max_buf_size(HTTP_BUFFER)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let first = tokio::select! {
            ended = &mut connection => Some(ended),
            () = requested.notified() => None,
            () = tokio::time::sleep_until(deadline) => return Err(Refused::Timeout),
            () = self.leaving.cancelled() => None,
        };
        match first {
            Some(Ok(())) => return Ok(()),
            Some(Err(_)) => return Err(Refused::Http),
            None => {}
        }
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = self.leaving.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%source, %error, "connection ended early");
        }
        Ok(())
    }
}

/// The front while there is nothing to serve yet: everything is refused with this reason.
pub fn closed(reason: &'static str) -> Router {
    Router::new().fallback(move || async move { unavailable(reason) })
}

/// Errors of the one connection that was about to be accepted; the port itself is fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
