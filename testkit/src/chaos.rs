//! A TCP proxy on loopback that behaves as badly as a network can, on command.
//!
//! Every connection through it can be stalled, made deaf in one direction, slowed, delayed and cut,
//! alone or together with all others, while it runs. With certificates at both ends
//! ([`ChaosProxy::intercepting`]) it is a man in the middle that sees inside TLS.
//! A fault is in force for what is read after the call that sets it; a chunk of at most 16 KiB that is
//! being written at that moment still arrives.

mod connection;
mod end;
mod faults;
mod pump;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::capture::Capture;
use crate::certs::{Leaf, TestCa};

pub use connection::ChaosConnection;
pub use faults::{Cut, Faults, Flow, Mode};

use connection::run;
use end::End;

/// Longest wait for the target and for both TLS handshakes of a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// The proxy. It stops, and everything through it is cut, when it is dropped.
pub struct ChaosProxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    /// The accept loop, which owns the tasks of the connections.
    _accepting: JoinSet<()>,
}

struct Shared {
    target: Mutex<SocketAddr>,
    refusing: AtomicBool,
    defaults: Mutex<Faults>,
    connections: Mutex<Vec<ChaosConnection>>,
    accepted: watch::Sender<usize>,
    capture: Mutex<Option<Capture>>,
    interception: Option<Interception>,
}

struct Interception {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl ChaosProxy {
    /// Starts on a free port of 127.0.0.1, passing everything to `target`.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        Self::start_with(target, None).await
    }

    /// Starts as a man in the middle: clients see `leaf`; the target is reached as `name` and must show a
    /// certificate of `trusted`. Tapes hold what was inside TLS.
    ///
    /// # Errors
    /// No port is free, or the certificate does not read.
    pub async fn intercepting(target: SocketAddr, leaf: &Leaf, trusted: &TestCa, name: &str) -> Result<Self> {
        let interception = Interception {
            acceptor: TlsAcceptor::from(leaf.server_config()?),
            connector: TlsConnector::from(trusted.client_config()?),
            name: ServerName::try_from(name.to_owned())?,
        };
        Self::start_with(target, Some(interception)).await
    }

    async fn start_with(target: SocketAddr, interception: Option<Interception>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no free port")?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            refusing: AtomicBool::new(false),
            defaults: Mutex::default(),
            connections: Mutex::default(),
            accepted: watch::Sender::new(0),
            capture: Mutex::default(),
            interception,
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, shared.clone()));
        Ok(Self { addr, shared, _accepting: accepting })
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Sends later connections to another address.
    pub fn set_target(&self, target: SocketAddr) {
        *self.shared.target.lock() = target;
    }

    /// Resets new connections right after they were accepted, or stops doing so. With [`ChaosProxy::cut`]
    /// after it nobody is connected.
    pub fn refuse_new(&self, refuse: bool) {
        self.shared.refusing.store(refuse, Ordering::SeqCst);
    }

    /// Changes the faults of all connections, present and future.
    pub fn set(&self, change: impl Fn(&mut Faults)) {
        change(&mut self.shared.defaults.lock());
        for connection in self.connections() {
            connection.set(&change);
        }
    }

    /// Ends all faults; what was stalled moves on.
    pub fn pass(&self) {
        self.shared.refusing.store(false, Ordering::SeqCst);
        self.set(|faults| *faults = Faults::default());
    }

    /// Nothing moves in either direction, and every connection stays up.
    pub fn stall(&self) {
        self.set(|faults| (faults.up.mode, faults.down.mode) = (Mode::Stall, Mode::Stall));
    }

    /// Cuts every connection that is open now and waits until both its ends were told.
    pub async fn cut(&self, how: Cut) {
        for connection in self.connections() {
            connection.cut(how).await;
        }
    }

    /// The connections that are open now, oldest first.
    pub fn connections(&self) -> Vec<ChaosConnection> {
        let mut connections = self.shared.connections.lock();
        connections.retain(ChaosConnection::is_open);
        connections.clone()
    }

    /// How many connections have been accepted and reached the target, since the start.
    pub fn accepted_so_far(&self) -> usize {
        *self.shared.accepted.borrow()
    }

    /// Waits until this many connections have been accepted and reached the target, since the start.
    ///
    /// # Errors
    /// They have not after `deadline`.
    pub async fn accepted(&self, count: usize, deadline: Duration) -> Result<()> {
        let mut accepted = self.shared.accepted.subscribe();
        tokio::time::timeout(deadline, accepted.wait_for(|so_far| *so_far >= count))
            .await
            .with_context(|| format!("{count} connections did not come within {deadline:?}"))?
            .context("the proxy has stopped")?;
        Ok(())
    }

    /// Records every later connection, in both directions.
    pub fn record(&self) -> Capture {
        self.shared.capture.lock().get_or_insert_default().clone()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A failed accept is the client's reset, or too many open files, which the test will notice.
                let Ok((client, _)) = accepted else { continue };
                if shared.refusing.load(Ordering::SeqCst) {
                    End::Plain(client).reset();
                    continue;
                }
                tasks.spawn(serve(client, shared.clone()));
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}

async fn serve(client: TcpStream, shared: Arc<Shared>) {
    let target = *shared.target.lock();
    let both = tokio::time::timeout(CONNECT_DEADLINE, shared.ends(client, target));
    let Ok(Ok((client, server))) = both.await else { return };
    let Ok(source) = server.local_addr() else { return };
    let tape = shared.capture.lock().as_ref().map(Capture::tape);
    let (connection, control) = {
        // Under one lock, so that a change for all connections meets this one or its defaults.
        let defaults = shared.defaults.lock();
        let pair = ChaosConnection::new(source, *defaults);
        shared.connections.lock().push(pair.0.clone());
        pair
    };
    drop(connection);
    if shared.refusing.load(Ordering::SeqCst) {
        // It was on its way when refusing began, and may have come too late for a cut.
        client.reset();
        server.reset();
        return;
    }
    shared.accepted.send_modify(|count| *count += 1);
    run(client, server, control, tape).await;
}

impl Shared {
    /// Both ends of a connection; the client is reset when the target cannot be reached.
    async fn ends(&self, client: TcpStream, target: SocketAddr) -> std::io::Result<(End, End)> {
        client.set_nodelay(true)?;
        let server = match TcpStream::connect(target).await {
            Ok(server) => server,
            Err(error) => {
                End::Plain(client).reset();
                return Err(error);
            }
        };
        server.set_nodelay(true)?;
        let Some(tls) = &self.interception else { return Ok((End::Plain(client), End::Plain(server))) };
        let server = tls.connector.connect(tls.name.clone(), server).await?;
        let client = tls.acceptor.accept(client).await?;
        Ok((End::Tls(Box::new(client.into())), End::Tls(Box::new(server.into()))))
    }
}

#[cfg(test)]
mod tests;
