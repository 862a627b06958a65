//! Bytes through haproxy arrive behind a header that says whose they are, and only where it is healthy.

use std::sync::Arc;

use culvert_service_kit::proxy_protocol::{self, Origin};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;

const SOON: Duration = Duration::from_secs(20);

/// A server with an admin port whose readiness the test decides.
struct Server {
    backend: Backend,
    peers: TcpListener,
    ready: Arc<Mutex<&'static str>>,
    _admin: JoinSet<()>,
}

impl Server {
    async fn start() -> Self {
        let (peers, admin) = (
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        );
        let backend = Backend { addr: peers.local_addr().unwrap(), health: admin.local_addr().unwrap() };
        let ready = Arc::new(Mutex::new("200 OK"));
        let mut tasks = JoinSet::new();
        let status = ready.clone();
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = admin.accept().await {
                let mut request = [0; 15];
                // The balancer may end at any time, and this server after it.
                let Ok(_) = stream.read_exact(&mut request).await else { continue };
                assert_eq!(&request, b"GET /readyz HTT");
                let answer = format!("HTTP/1.1 {}\r\nContent-Length: 0\r\n\r\n", *status.lock());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { backend, peers, ready, _admin: tasks }
    }

    /// The far end of a peer's connection, by the header. The connection that tried whether haproxy answers
    /// comes too, and is passed over.
    async fn far_end(&self, balancer: &Balancer, peer: &TcpStream) -> TcpStream {
        loop {
            let (mut stream, from) = tokio::time::timeout(SOON, self.peers.accept()).await.unwrap().unwrap();
            assert_eq!(from.ip(), SOURCE, "so that relays can tell it from direct peers");
            let header = tokio::time::timeout(SOON, proxy_protocol::read(&mut stream)).await.unwrap();
            let origin = Origin::Peer { source: peer.local_addr().unwrap(), destination: balancer.addr() };
            if header.is_ok_and(|header| header == origin) {
                return stream;
            }
        }
    }
}

async fn five_bytes(stream: &mut TcpStream) -> [u8; 5] {
    let mut bytes = [0; 5];
    tokio::time::timeout(SOON, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    bytes
}

#[tokio::test]
async fn it_forwards_bytes_behind_a_header_with_the_address_of_the_peer() {
    let server = Server::start().await;
    let balancer = Balancer::start(&[server.backend]).await.unwrap();
    let mut peer = TcpStream::connect(balancer.addr()).await.unwrap();
    peer.write_all(b"hello").await.unwrap();
    let mut behind = server.far_end(&balancer, &peer).await;
    assert_eq!(&five_bytes(&mut behind).await, b"hello");
    behind.write_all(b"world").await.unwrap();
    assert_eq!(&five_bytes(&mut peer).await, b"world");
}

#[tokio::test]
async fn a_server_that_is_not_ready_gets_no_new_peers_and_keeps_those_it_has() {
    let (one, two) = (Server::start().await, Server::start().await);
    let balancer = Balancer::start(&[one.backend, two.backend]).await.unwrap();
    *one.ready.lock() = "503 Service Unavailable";
    balancer.sees(0, false).await.unwrap();
    let before = balancer.backends().await.unwrap();
    assert!(before[1].up);
    let mut peers = Vec::new();
    for count in 1..=3 {
        let mut peer = TcpStream::connect(balancer.addr()).await.unwrap();
        peer.write_all(b"hello").await.unwrap();
        let mut behind = two.far_end(&balancer, &peer).await;
        assert_eq!(&five_bytes(&mut behind).await, b"hello", "peer {count}");
        peers.push((peer, behind));
    }
    *two.ready.lock() = "503 Service Unavailable";
    balancer.sees(1, false).await.unwrap();
    *one.ready.lock() = "200 OK";
    balancer.sees(0, true).await.unwrap();
    for (peer, behind) in &mut peers {
        behind.write_all(b"still").await.unwrap();
        assert_eq!(&five_bytes(peer).await, b"still");
    }
    let after = balancer.backends().await.unwrap();
    assert_eq!(after[0].connections_so_far, before[0].connections_so_far);
    assert_eq!(after[1].connections, 3);
}

/// Connects a peer; gives it and the index of the backend that got it.
async fn one_more(balancer: &Balancer) -> (TcpStream, usize) {
    let so_far = async || -> Vec<u64> {
        balancer.backends().await.unwrap().iter().map(|backend| backend.connections_so_far).collect()
    };
    let before = so_far().await;
    let peer = TcpStream::connect(balancer.addr()).await.unwrap();
    let placed = async {
        loop {
            let now = so_far().await;
            if let Some(backend) = (0..now.len()).find(|backend| now[*backend] > before[*backend]) {
                return backend;
            }
        }
    };
    let backend = tokio::time::timeout(SOON, placed).await.unwrap();
    (peer, backend)
}

#[tokio::test]
async fn new_peers_go_where_the_fewest_are_or_to_one_server_after_the_other() {
    for balance in [Balance::LeastConnections, Balance::RoundRobin] {
        let (one, two) = (Server::start().await, Server::start().await);
        let balancer =
            BalancerPlan::default().balance(balance).start(&[one.backend, two.backend]).await.unwrap();
        *two.ready.lock() = "503 Service Unavailable";
        balancer.sees(1, false).await.unwrap();
        let mut peers = Vec::new();
        for _ in 0..4 {
            peers.push(one_more(&balancer).await);
        }
        *two.ready.lock() = "200 OK";
        balancer.sees(1, true).await.unwrap();
        for _ in 0..2 {
            peers.push(one_more(&balancer).await);
        }
        let mut last: Vec<usize> = peers[4..].iter().map(|(_, backend)| *backend).collect();
        last.sort_unstable();
        let expected = if balance == Balance::RoundRobin { [0, 1] } else { [1, 1] };
        assert_eq!(last, expected, "{balance:?}");
    }
}

#[test]
fn the_table_of_haproxy_is_read_by_the_names_of_its_columns() {
    let table = "# pxname,svname,stot,scur,status,\npeers,FRONTEND,9,9,OPEN,\nrelays,relay0,5,2,UP,\n\
                 relays,relay1,4,0,DOWN 1/2,\nrelays,BACKEND,9,2,UP,\n\n";
    let up = Served { up: true, connections: 2, connections_so_far: 5 };
    let down = Served { up: false, connections: 0, connections_so_far: 4 };
    assert_eq!(parse(table).unwrap(), [up, down]);
    assert!(parse("nonsense").is_err());
}
