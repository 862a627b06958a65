//! Each proxy does to a hand-made client what its kind does to clients.

use std::time::Duration;

use data_encoding::BASE64;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::certs::{TestCa, provider};

const SOON: Duration = Duration::from_secs(20);

/// A server that says hello to everyone, in TLS where it has a certificate.
async fn greeter(tls: Option<TlsAcceptor>) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            match &tls {
                None => stream.write_all(b"hello").await.unwrap(),
                Some(tls) => {
                    let Ok(mut stream) = tls.accept(stream).await else { continue };
                    stream.write_all(b"hello").await.unwrap();
                    stream.shutdown().await.unwrap();
                }
            }
        }
    });
    (port, tasks)
}

/// CONNECT by hand: the proxy's status and the stream behind it.
async fn connect(proxy: u16, target: &str, credentials: Option<&Credentials>) -> (u16, TcpStream) {
    let mut stream = TcpStream::connect(("127.0.0.1", proxy)).await.unwrap();
    let authorization = credentials.map(|c| {
        let encoded = BASE64.encode(format!("{}:{}", c.user, c.password).as_bytes());
        format!("Proxy-Authorization: Basic {encoded}\r\n")
    });
    let request =
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{}\r\n", authorization.unwrap_or_default());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(SOON, stream.read_u8()).await.unwrap().unwrap());
    }
    let status = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap().parse().unwrap();
    (status, stream)
}

#[tokio::test]
async fn squid_tunnels_for_those_it_knows_and_resolves_names_itself() {
    let known = Credentials::new("anna", "p+/:ä longer than eight");
    let squid = Squid::start(Some(known.clone())).await.unwrap();
    let (port, _greeter) = greeter(None).await;
    let target = format!("relay.culvert.test:{port}");
    assert_eq!(connect(squid.port(), &target, None).await.0, 407);
    let wrong = Credentials::new("anna", "p+/:ä longer than nine");
    assert_eq!(connect(squid.port(), &target, Some(&wrong)).await.0, 407);
    let (status, mut stream) = connect(squid.port(), &target, Some(&known)).await;
    assert_eq!(status, 200);
    let mut hello = String::new();
    stream.read_to_string(&mut hello).await.unwrap();
    assert_eq!(hello, "hello");
    assert_eq!(
        squid.url(),
        format!("http://anna:p%2B%2F%3A%C3%A4%20longer%20than%20eight@127.0.0.1:{}", squid.port())
    );
    let log = squid.access_log().unwrap();
    assert!(log.contains(&format!("TCP_DENIED/407 CONNECT {target}")), "{log}");
}

#[tokio::test]
async fn an_open_squid_asks_nobody() {
    let squid = Squid::start(None).await.unwrap();
    let (port, _greeter) = greeter(None).await;
    assert_eq!(connect(squid.port(), &format!("127.0.0.1:{port}"), None).await.0, 200);
}

#[tokio::test]
async fn mitmproxy_shows_a_certificate_of_its_own_authority() {
    let ca = TestCa::new("Behind the proxy").unwrap();
    let acceptor = TlsAcceptor::from(ca.loopback().unwrap().server_config().unwrap());
    let (port, _greeter) = greeter(Some(acceptor)).await;
    let known = Credentials::new("anna", "secret");
    let proxy = Mitmproxy::start(&ca.path(), Some(known.clone())).await.unwrap();
    let target = format!("localhost:{port}");
    assert_eq!(connect(proxy.port(), &target, None).await.0, 407);

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(proxy.ca_path()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let (_, stream) = connect(proxy.port(), &target, Some(&known)).await;
    let connector = TlsConnector::from(std::sync::Arc::new(config));
    let mut stream = connector.connect(name.clone(), stream).await.unwrap();
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");

    let (_, stream) = connect(proxy.port(), &target, Some(&known)).await;
    let direct = TlsConnector::from(ca.client_config().unwrap());
    let error = direct.connect(name, stream).await.unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn microsocks_connects_by_name_for_those_it_knows() {
    let socks = Socks::start(Some(Credentials::new("anna", "secret"))).await.unwrap();
    let (port, _greeter) = greeter(None).await;
    let mut stream = TcpStream::connect(("127.0.0.1", socks.port())).await.unwrap();
    let request = [&b"\x05\x01\x00\x03\x09localhost"[..], &port.to_be_bytes()].concat();
    let steps: [(&[u8], usize); 3] = [(b"\x05\x01\x02", 2), (b"\x01\x04anna\x06secret", 2), (&request, 10)];
    for (step, answer) in steps {
        stream.write_all(step).await.unwrap();
        let mut bytes = vec![0; answer];
        tokio::time::timeout(SOON, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
        assert!(bytes[1] == 0 || bytes == [5, 2], "{bytes:?}");
    }
    let mut hello = String::new();
    stream.read_to_string(&mut hello).await.unwrap();
    assert_eq!(hello, "hello");
    socks.connected(&format!("localhost:{port}")).await.unwrap();
}
