//! Accepts connections and takes each through its handshake, in a task of its own, under one deadline.

use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use culvert_service_kit::Shutdown;
use culvert_service_kit::proxy_protocol::{self, Origin};
use culvert_wire::Close;
use futures_util::FutureExt;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::accounts::Seat;
use crate::handshake::{self, Admitted, Rejected};
use crate::http;
use crate::metrics::Refusal;
use crate::node::Node;
use crate::peer;
use crate::reader::Reader;
use crate::socket::Socket;
use crate::websocket::WebSocket;

/// Pause when the process is out of file descriptors, instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that wait in the kernel to be accepted.
const BACKLOG: u32 = 4096;

/// What every connection task needs.
pub struct Listener {
    /// The node.
    pub node: Arc<Node>,
    /// TLS, or `None` for plain text.
    pub tls: Option<Arc<ServerConfig>>,
    /// Killing it ends every connection.
    pub shutdown: Shutdown,
    pending: AtomicUsize,
}

/// Opens the port.
///
/// # Errors
/// The address is taken or not this machine's.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    // A restarted node takes its port back although old connections linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Listener {
    /// A listener for this node.
    pub fn new(node: Arc<Node>, tls: Option<Arc<ServerConfig>>, shutdown: Shutdown) -> Arc<Self> {
        Arc::new(Self { node, tls, shutdown, pending: AtomicUsize::new(0) })
    }

    /// Accepts until dropped; each connection runs in `tasks` until it ends or everything is killed.
    pub async fn accept(self: &Arc<Self>, listener: TcpListener, tasks: &TaskTracker) {
        let metrics = &self.node.metrics;
        loop {
            let (tcp, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => {
                    metrics.accept_pauses.increment(1);
                    tracing::warn!(%error, "cannot accept connections, pausing; raise the limit of open files");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            metrics.accepted.increment(1);
            let limits = &self.node.config.limits;
            let pending = self.pending.load(Ordering::Relaxed);
            if pending >= limits.handshakes_pending
                || self.node.local().connections() + pending >= limits.connections
            {
                metrics.refused[Refusal::NodeFull].increment(1);
                continue;
            }
            let pending = Pending::new(self.clone());
            let listener = self.clone();
            tasks.spawn(async move {
                let killed = listener.shutdown.killed();
                tokio::select! {
                    () = listener.connection(tcp, address, pending) => {}
                    () = killed => {}
                }
            });
        }
    }

    async fn connection(&self, tcp: TcpStream, address: SocketAddr, pending: Pending) {
        let node = &self.node;
        let started = Instant::now();
        // Boxed, so that an idle peer's task does not keep room for a handshake that is over.
        let opened = Box::pin(self.open(tcp, address)).await;
        drop(pending);
        let (admitted, mut socket) = match opened {
            Ok(opened) => opened,
            Err(refusal) => {
                node.metrics.refused[refusal].increment(1);
                tracing::debug!(%address, reason = refusal.name(), "connection ended before the welcome");
                return;
            }
        };
        node.metrics.handshake_seconds.record(started.elapsed().as_secs_f64());
        let Admitted { link, replaces, grant, seats } = admitted;
        tracing::debug!(conn = %link.id, peer = %link.peer.short(), %address, tenant = grant.tenant, "peer connected");
        let (expiry, expires) = watch::channel(grant.expires_at);
        let reader = Box::new(Reader::new(node.clone(), link.clone(), replaces, grant, seats, expiry));
        let run = AssertUnwindSafe(peer::run(node, &link, reader, expires, &mut socket)).catch_unwind();
        let close = run.await.unwrap_or_else(|_| {
            tracing::error!(conn = %link.id, "a connection's task panicked; this is a defect, please report it");
            node.metrics.closed[Close::Internal].increment(1);
            Close::Internal
        });
        tracing::debug!(conn = %link.id, close = close.name(), "peer disconnected");
    }

    /// Everything between accept and welcome, under one deadline.
    async fn open(&self, tcp: TcpStream, address: SocketAddr) -> Result<(Admitted, WebSocket), Refusal> {
        let deadline = Instant::now() + self.node.config.timing.handshake;
        let upgrade = tokio::time::timeout_at(deadline, self.upgrade(tcp, address));
        let (mut socket, seat) = upgrade.await.map_err(|_| Refusal::Timeout)??;
        let admit = handshake::admit(&self.node, &mut socket, seat);
        let (close, refusal) = match tokio::time::timeout_at(deadline, admit).await {
            Ok(Ok(admitted)) => return Ok((admitted, socket)),
            Ok(Err(Rejected::Gone)) => return Err(Refusal::Disconnected),
            Ok(Err(Rejected::Close(close))) => (close, Refusal::Hello),
            Err(_) => (Close::HandshakeTimeout, Refusal::Timeout),
        };
        self.node.metrics.closed[close].increment(1);
        socket.close(close).await;
        Err(refusal)
    }

    async fn upgrade(&self, tcp: TcpStream, address: SocketAddr) -> Result<(WebSocket, Seat), Refusal> {
        let (tcp, seat) = self.seat(tcp, address).await?;
        let socket = self.encrypt(tcp).await?;
        let socket = http::upgrade(socket, &self.node.config.limits, self.node.is_leaving()).await?;
        Ok((socket, seat))
    }

    /// The real address of the peer, and a seat for it.
    async fn seat(&self, mut tcp: TcpStream, address: SocketAddr) -> Result<(TcpStream, Seat), Refusal> {
        let mut source = address.ip();
        if self.node.config.proxy_protocol_from.contains(source)
            && let Origin::Peer { source: real, .. } = proxy_protocol::read(&mut tcp).await?
        {
            source = real.ip();
        }
        let seat = self.node.seat_source(source).map_err(|_| Refusal::Source)?;
        // Frames are small and batched by us; Nagle's delay would only add to them.
        tcp.set_nodelay(true).map_err(|_| Refusal::Disconnected)?;
        Ok((tcp, seat))
    }

    async fn encrypt(&self, tcp: TcpStream) -> Result<Socket, Refusal> {
        let metrics = &self.node.metrics;
        match &self.tls {
            None => Ok(Socket::clear(tcp, metrics)),
            Some(config) => Socket::secure(tcp, config.clone(), metrics).await.map_err(|_| Refusal::Tls),
        }
    }
}

/// Counts a handshake that is under way.
struct Pending(Arc<Listener>);

impl Pending {
    fn new(listener: Arc<Listener>) -> Self {
        listener.pending.fetch_add(1, Ordering::Relaxed);
        listener.node.metrics.handshakes.increment(1.0);
        Self(listener)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
        self.0.node.metrics.handshakes.decrement(1.0);
    }
}

/// Errors of the one connection that was about to be accepted; the port itself is fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
