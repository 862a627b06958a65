//! The admin port over real sockets.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::*;

struct Running {
    address: SocketAddr,
    readiness: Readiness,
    stop: CancellationToken,
    task: JoinSet<()>,
}

async fn start() -> Running {
    let registry = Registry::new();
    let _ = registry.recorder().register_counter(
        &metrics::Key::from_name("test_total"),
        &metrics::Metadata::new("test", metrics::Level::INFO, None),
    );
    let about = About { name: "culvert-test", version: "1.2.3", commit: None, protocols: &[2, 1] };
    let readiness = Readiness::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let admin = Admin { about, readiness: readiness.clone(), registry };
    let mut task = JoinSet::new();
    task.spawn(admin.serve(listener, stop.clone().cancelled_owned()));
    Running { address, readiness, stop, task }
}

impl Running {
    async fn request(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: admin\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

#[tokio::test]
async fn each_path_answers_what_it_is_for() {
    let admin = start().await;
    let live = admin.request("GET", "/livez").await;
    assert!(live.starts_with("HTTP/1.1 200 ") && live.ends_with("alive\n"), "{live}");
    let metrics = admin.request("GET", "/metrics").await;
    assert!(metrics.contains("text/plain; version=0.0.4") && metrics.contains("test_total 0\n"), "{metrics}");
    let resident = "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes ";
    let resident =
        metrics.split_once(resident).and_then(|(_, rest)| rest.lines().next()?.parse::<f64>().ok());
    assert!(resident.is_some_and(|bytes| bytes > 0.0), "{metrics}");
    let version = admin.request("GET", "/version?verbose").await;
    let expected = r#"{"name":"culvert-test","version":"1.2.3","commit":null,"protocols":[2,1]}"#;
    assert!(version.contains(expected), "{version}");
    let other = admin.request("GET", "/").await;
    assert!(other.starts_with("HTTP/1.1 404 "), "{other}");
}

#[tokio::test]
async fn readiness_is_503_with_the_reason_until_the_node_is_ready() {
    let admin = start().await;
    let starting = admin.request("GET", "/readyz").await;
    assert!(starting.starts_with("HTTP/1.1 503 "), "{starting}");
    assert!(starting.ends_with("{\"ready\":false,\"reason\":\"starting\"}\n"), "{starting}");
    assert!(admin.request("GET", "/metrics").await.contains("\nculvert_ready 0\n"));
    admin.readiness.set(true, "serving");
    let ready = admin.request("GET", "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200 "), "{ready}");
    assert!(admin.request("GET", "/metrics").await.contains("\nculvert_ready 1\n"));
    admin.readiness.retire("draining");
    let draining = admin.request("GET", "/readyz").await;
    assert!(draining.starts_with("HTTP/1.1 503 ") && draining.contains("draining"), "{draining}");
}

#[tokio::test]
async fn head_has_the_headers_only_and_other_methods_are_refused() {
    let admin = start().await;
    let head = admin.request("HEAD", "/livez").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-length: 6"), "{head}");
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    let post = admin.request("POST", "/livez").await;
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"), "{post}");
}

#[tokio::test]
async fn garbage_gets_an_answer_and_the_port_stays_up() {
    let admin = start().await;
    let mut stream = TcpStream::connect(admin.address).await.unwrap();
    stream.write_all(b"\x16\x03\x01\x00\xff not http\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    assert!(admin.request("GET", "/livez").await.contains("alive"));
}

#[tokio::test]
async fn silent_connections_are_cut_and_those_waiting_get_their_turn() {
    let admin = start().await;
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        silent.push(TcpStream::connect(admin.address).await.unwrap());
    }
    // From here on the clock jumps whenever everyone waits: to the header timeout of the silent ones.
    tokio::time::pause();
    let answer = admin.request("GET", "/livez").await;
    assert!(answer.contains("alive"), "{answer}");
    for mut stream in silent {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
    }
}

#[tokio::test]
async fn stopping_ends_the_task_even_while_a_client_is_silent() {
    let mut admin = start().await;
    let silent = TcpStream::connect(admin.address).await.unwrap();
    assert!(admin.request("GET", "/livez").await.contains("alive"));
    admin.stop.cancel();
    admin.task.join_next().await.unwrap().unwrap();
    assert!(TcpStream::connect(admin.address).await.is_err());
    drop(silent);
}
