//! The proxy between a plain client and a plain server: every fault does what it says, and ends.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::*;

const SOON: Duration = Duration::from_secs(10);
/// Long enough to notice a byte that should not move on loopback.
const A_WHILE: Duration = Duration::from_millis(150);

struct Line {
    proxy: ChaosProxy,
    client: TcpStream,
    server: TcpStream,
    connection: ChaosConnection,
    listener: TcpListener,
}

async fn line() -> Line {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = ChaosProxy::start(listener.local_addr().unwrap()).await.unwrap();
    let client = TcpStream::connect(proxy.addr()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    proxy.accepted(1, SOON).await.unwrap();
    let connection = proxy.connections().remove(0);
    Line { proxy, client, server, connection, listener }
}

async fn read(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    timeout(SOON, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    bytes
}

/// What a socket that was cut, or not, gives next.
async fn next(stream: &mut TcpStream) -> std::io::Result<usize> {
    timeout(SOON, stream.read(&mut [0; 64])).await.unwrap()
}

async fn silent(stream: &mut TcpStream) -> bool {
    timeout(A_WHILE, stream.read(&mut [0; 64])).await.is_err()
}

#[tokio::test]
async fn it_passes_and_records_both_directions_and_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = ChaosProxy::start(listener.local_addr().unwrap()).await.unwrap();
    let capture = proxy.record();
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    client.write_all(b"question").await.unwrap();
    assert_eq!(read(&mut server, 8).await, b"question");
    server.write_all(b"answer").await.unwrap();
    assert_eq!(read(&mut client, 6).await, b"answer");
    client.shutdown().await.unwrap();
    assert_eq!(next(&mut server).await.unwrap(), 0);
    server.write_all(b"!").await.unwrap();
    assert_eq!(read(&mut client, 1).await, b"!", "half closed, the other half still moves");
    let tape = capture.tapes().remove(0);
    assert_eq!((tape.up(), tape.down()), (b"question".to_vec(), b"answer!".to_vec()));
}

#[tokio::test]
async fn a_connection_is_known_by_the_address_that_the_target_sees() {
    let Line { proxy, server, connection, listener, .. } = line().await;
    assert_eq!(connection.source(), server.peer_addr().unwrap());
    let _second = TcpStream::connect(proxy.addr()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    proxy.accepted(2, SOON).await.unwrap();
    let sources: Vec<SocketAddr> = proxy.connections().iter().map(ChaosConnection::source).collect();
    assert_eq!(sources, [connection.source(), server.peer_addr().unwrap()]);
}

#[tokio::test]
async fn a_stalled_connection_keeps_its_bytes_and_delivers_them_later() {
    let Line { proxy, mut client, mut server, .. } = line().await;
    proxy.stall();
    client.write_all(b"late").await.unwrap();
    assert!(silent(&mut server).await);
    proxy.pass();
    assert_eq!(read(&mut server, 4).await, b"late");
}

#[tokio::test]
async fn a_stalled_connection_pushes_back_on_the_sender() {
    let Line { proxy, mut client, server: _server, .. } = line().await;
    proxy.stall();
    let flood = vec![0; 64 * 1024 * 1024];
    assert!(timeout(A_WHILE, client.write_all(&flood)).await.is_err(), "64 MiB vanished in a stalled line");
}

#[tokio::test]
async fn one_direction_can_be_deaf_while_the_other_hears() {
    let Line { mut client, mut server, connection, proxy: _proxy, .. } = line().await;
    connection.set(|faults| faults.up.mode = Mode::Deaf);
    client.write_all(b"nobody hears this").await.unwrap();
    assert!(silent(&mut server).await);
    server.write_all(b"heard").await.unwrap();
    assert_eq!(read(&mut client, 5).await, b"heard");
    connection.set(|faults| faults.up.mode = Mode::Pass);
    client.write_all(b"again").await.unwrap();
    assert_eq!(read(&mut server, 5).await, b"again", "what was said to the deaf stays lost");
}

#[tokio::test]
async fn a_reset_reaches_both_ends_as_a_reset() {
    let Line { proxy, mut client, mut server, connection, .. } = line().await;
    proxy.cut(Cut::Reset).await;
    assert!(!connection.is_open() && proxy.connections().is_empty());
    assert_eq!(next(&mut client).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(next(&mut server).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn an_orderly_cut_reaches_both_ends_as_an_end_even_with_bytes_under_way() {
    let Line { proxy, mut client, mut server, .. } = line().await;
    proxy.stall();
    client.write_all(b"never arrives").await.unwrap();
    proxy.cut(Cut::Finish).await;
    assert_eq!(next(&mut client).await.unwrap(), 0);
    assert_eq!(next(&mut server).await.unwrap(), 0);
}

#[tokio::test]
async fn a_reset_by_one_side_reaches_the_other_as_a_reset() {
    let Line { client, mut server, connection, proxy: _proxy, .. } = line().await;
    End::Plain(client).reset();
    timeout(SOON, connection.ended()).await.unwrap();
    assert_eq!(next(&mut server).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_rate_limit_and_a_delay_take_the_time_they_say() {
    let Line { mut client, mut server, connection, proxy: _proxy, .. } = line().await;
    connection.set(|faults| faults.up.bytes_per_second = Some(100_000));
    let start = Instant::now();
    let bytes: Vec<u8> = (0..20_000u32).map(|n| n.to_le_bytes()[0]).collect();
    client.write_all(&bytes).await.unwrap();
    assert_eq!(read(&mut server, bytes.len()).await, bytes);
    let (took, limit) = (start.elapsed(), Duration::from_millis(200));
    assert!(took > limit.mul_f32(0.8), "20,000 bytes at 100,000 a second took {took:?}");

    connection.set(|faults| faults.up = Flow { delay: Duration::from_millis(80), ..Flow::default() });
    let start = Instant::now();
    client.write_all(b"x").await.unwrap();
    read(&mut server, 1).await;
    assert!(start.elapsed() >= Duration::from_millis(80));
}

#[tokio::test]
async fn new_connections_can_be_refused_while_old_ones_live_and_the_target_can_move() {
    let Line { proxy, mut client, mut server, listener: _listener, .. } = line().await;
    proxy.refuse_new(true);
    let mut refused = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(next(&mut refused).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    client.write_all(b"still here").await.unwrap();
    assert_eq!(read(&mut server, 10).await, b"still here");

    proxy.refuse_new(false);
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    proxy.set_target(other.local_addr().unwrap());
    let mut second = TcpStream::connect(proxy.addr()).await.unwrap();
    let (mut moved, _) = other.accept().await.unwrap();
    second.write_all(b"hello").await.unwrap();
    assert_eq!(read(&mut moved, 5).await, b"hello");
    assert_eq!(proxy.connections().len(), 2);
}

#[tokio::test]
async fn dropping_it_ends_every_connection() {
    let Line { proxy, mut client, mut server, .. } = line().await;
    drop(proxy);
    assert!(matches!(next(&mut client).await, Ok(0) | Err(_)));
    assert!(matches!(next(&mut server).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn it_waits_for_as_many_bytes_as_a_test_wants() {
    let Line { mut client, server: _server, connection, proxy: _proxy, .. } = line().await;
    client.write_all(&[0; 1000]).await.unwrap();
    let moved = connection.moved_until(SOON, |moved| moved.up >= 1000).await.unwrap();
    assert_eq!((moved.up, moved.down), (1000, 0));
    assert!(connection.moved_until(A_WHILE, |moved| moved.down > 0).await.is_err());
}

#[tokio::test]
async fn in_the_middle_of_tls_it_hears_the_clear_text_and_cuts_cleanly() {
    let ca = TestCa::new("Inspector").unwrap();
    let leaf = ca.loopback().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy =
        ChaosProxy::intercepting(listener.local_addr().unwrap(), &leaf, &ca, "localhost").await.unwrap();
    let capture = proxy.record();
    let acceptor = TlsAcceptor::from(leaf.server_config().unwrap());
    let connector = TlsConnector::from(ca.client_config().unwrap());
    let name = ServerName::try_from("localhost").unwrap();
    let client = async { connector.connect(name, TcpStream::connect(proxy.addr()).await?).await };
    let server = async { acceptor.accept(listener.accept().await?.0).await };
    let (client, server) = tokio::join!(client, server);
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    client.write_all(b"in the clear").await.unwrap();
    client.flush().await.unwrap();
    let mut heard = [0; 12];
    server.read_exact(&mut heard).await.unwrap();
    assert!(capture.find(b"in the clear").is_none(), "12 bytes are less than a window");
    assert_eq!(capture.tapes()[0].up(), b"in the clear");
    proxy.cut(Cut::Finish).await;
    assert_eq!(client.read(&mut heard).await.unwrap(), 0, "an end with close_notify is no error");
}
