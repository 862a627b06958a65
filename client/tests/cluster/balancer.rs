//! A TCP balancer on loopback: each connection goes to the next node in turn.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// Runs until it is dropped; then every connection through it is gone.
pub(crate) struct Balancer {
    addr: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    _accepting: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    targets: Vec<SocketAddr>,
    next: usize,
    accepted: usize,
    open: Vec<Open>,
    /// The nodes' ends of connections whose clients were cut off.
    zombies: Vec<TcpStream>,
}

struct Open {
    target: SocketAddr,
    pumps: AbortHandle,
}

impl Balancer {
    pub(crate) async fn start(targets: impl IntoIterator<Item = SocketAddr>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let shared =
            Arc::new(Mutex::new(Shared { targets: targets.into_iter().collect(), ..Shared::default() }));
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { addr, shared, _accepting: accepting })
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://localhost:{}", self.addr.port())
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    pub(crate) fn add(&self, target: SocketAddr) {
        self.shared().targets.push(target);
    }

    /// As if somebody had connected: it is the next node's turn.
    pub(crate) fn take_turn(&self) {
        self.shared().next += 1;
    }

    /// Sends nobody there any more; what is open stays open.
    pub(crate) fn remove(&self, target: SocketAddr) {
        self.shared().targets.retain(|other| *other != target);
    }

    /// Connections accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.shared().accepted
    }

    /// Connections that are open now, in all or to one node.
    pub(crate) fn open(&self, target: Option<SocketAddr>) -> usize {
        let mut shared = self.shared();
        shared.open.retain(|open| !open.pumps.is_finished());
        shared.open.iter().filter(|open| target.is_none_or(|target| open.target == target)).count()
    }

    /// What peers see of a node that is killed: their connections end and no new one gets there. The node
    /// itself keeps its ends, so that it tells nobody: what is sent to those addresses disappears.
    pub(crate) fn kill(&self, target: SocketAddr) {
        self.remove(target);
        for open in self.shared().open.iter().filter(|open| open.target == target) {
            open.pumps.abort();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Mutex<Shared>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let target = {
                    let mut shared = shared.lock().unwrap();
                    shared.accepted += 1;
                    shared.next += 1;
                    let at = (shared.next - 1) % shared.targets.len().max(1);
                    shared.targets.get(at).copied()
                };
                // Nobody is left to serve it: it is closed.
                let Some(target) = target else { continue };
                let pumps = connections.spawn(serve(client, target, Arc::clone(&shared)));
                shared.lock().unwrap().open.push(Open { target, pumps });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Keeps the node's end open when it is dropped in the middle.
struct Ends {
    node: Option<TcpStream>,
    shared: Arc<Mutex<Shared>>,
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.shared.lock().unwrap().zombies.extend(self.node.take());
    }
}

async fn serve(mut client: TcpStream, target: SocketAddr, shared: Arc<Mutex<Shared>>) {
    let Ok(node) = TcpStream::connect(target).await else { return };
    let nodelay = client.set_nodelay(true).and(node.set_nodelay(true));
    nodelay.unwrap();
    let mut ends = Ends { node: Some(node), shared };
    let Some(node) = &mut ends.node else { return };
    let ((mut from_client, mut to_client), (mut from_node, mut to_node)) = (client.split(), node.split());
    let up = async {
        let _ = copy(&mut from_client, &mut to_node).await;
        let _ = to_node.shutdown().await;
    };
    let down = async {
        let _ = copy(&mut from_node, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    tokio::join!(up, down);
    ends.node = None;
}

/// Polls until `is_so`, at most for `limit`.
pub(crate) async fn until(limit: Duration, what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let poll = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(limit, poll).await.with_context(|| format!("{what}: not within {limit:?}"))
}
