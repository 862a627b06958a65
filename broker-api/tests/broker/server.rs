//! A broker's life: it waits for its stores, is alone where it has to be, refuses what stalls, and drains.

use std::net::Ipv4Addr;
use std::time::Duration;

use culvert_broker_api::config::Database;
use culvert_broker_api::server::{OpenError, SoleError};
use culvert_relay::config::Tls;
use culvert_service_kit::Clock;
use culvert_service_kit::lifecycle::Drained;
use culvert_service_kit::tls::Files;
use culvert_testkit::certs::TestCa;
use culvert_testkit::postgres::PostgresPlan;
use sqlx::PgPool;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::common::{self, DEADLINE, Request, Running, Starting, config, until};

/// Reads until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.expect("an end in time");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_serves_on_sqlite_and_ends_after_a_drain() {
    let broker = Running::sqlite().await;
    let health = broker.ask(Request::get("/health")).await;
    assert_eq!((health.status.as_u16(), &health.body[..]), (200, &b"OK"[..]));
    let ready = Request::get("/readyz").send(broker.admin_addr()).await;
    assert_eq!(ready.expect(200)["reason"], "serving");
    assert_eq!(broker.drain().await.unwrap(), Drained::Complete);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_brokers_on_one_file_the_second_says_that_the_first_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder.path().join("broker.db"));
    let first = Running::start(config.clone(), Clock::system()).await;
    let refused = Starting::new(config.clone(), Clock::system()).given_up().await;
    assert!(matches!(refused, OpenError::Sole(SoleError::NotAlone)), "{refused:?}");
    first.drain().await.unwrap();
    Running::start(config, Clock::system()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_without_redis_refuse_to_pretend_to_be_replicas() {
    let postgres = PostgresPlan::new().unwrap().start().await.unwrap();
    let redis = culvert_testkit::redis::RedisPlan::new().unwrap().start().await.unwrap();
    let mut alone = config(std::path::Path::new("unused"));
    alone.database = Database::Postgres(postgres.create_database().await.unwrap().into());
    let mut replica = alone.clone();
    replica.redis = Some(common::settings(&redis, "sole"));

    let first = Running::start(alone.clone(), Clock::system()).await;
    let refused = Starting::new(alone.clone(), Clock::system()).given_up().await;
    assert!(matches!(refused, OpenError::Sole(SoleError::NotAlone)), "{refused:?}");
    let refused = Starting::new(replica.clone(), Clock::system()).given_up().await;
    assert!(matches!(refused, OpenError::Sole(SoleError::Taken)), "{refused:?}");
    first.drain().await.unwrap();

    let _one = Running::start(replica.clone(), Clock::system()).await;
    let _other = Running::start(replica, Clock::system()).await;
    let refused = Starting::new(alone, Clock::system()).given_up().await;
    assert!(matches!(refused, OpenError::Sole(SoleError::NotAlone)), "{refused:?}");
}

/// Which backend holds the lock of the brokers in this database, and the lock's number.
const HOLDER: &str = "SELECT pid, (classid::bigint << 32) | objid::bigint FROM pg_locks \
    WHERE locktype = 'advisory' AND granted \
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_takes_its_lock_again_and_ends_once_somebody_else_has_it() {
    let postgres = PostgresPlan::new().unwrap().start().await.unwrap();
    let url = postgres.create_database().await.unwrap();
    let database = PgPool::connect(&url).await.unwrap();
    let holder = async || sqlx::query_as::<_, (i32, i64)>(HOLDER).fetch_optional(&database).await.unwrap();
    let end = async |backend: i32| {
        let ended = sqlx::query("SELECT pg_terminate_backend($1)").bind(backend).execute(&database).await;
        ended.unwrap();
    };
    let mut alone = config(std::path::Path::new("unused"));
    alone.database = Database::Postgres(url.into());
    let mut broker = Starting::new(alone, Clock::system());
    broker.opened().await;

    let (first, lock) = holder().await.expect("the broker has its lock");
    end(first).await;
    until("it has its lock again", async || holder().await.is_some_and(|(backend, _)| backend != first))
        .await;
    assert_eq!(Request::get("/health").send(broker.addr()).await.status.as_u16(), 200);

    // Somebody who waits has the lock the moment it is free.
    let mut other = database.acquire().await.unwrap();
    let waits = sqlx::query("SELECT pg_advisory_lock($1)").bind(lock).execute(&mut *other);
    let frees = async {
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        until("the other one waits", async || {
            sqlx::query_scalar::<_, i64>(waiting).fetch_one(&database).await.unwrap() == 1
        })
        .await;
        end(holder().await.unwrap().0).await;
    };
    let (waited, ()) = tokio::join!(waits, frees);
    waited.unwrap();
    let ended = broker.given_up().await;
    assert!(matches!(ended, OpenError::Sole(SoleError::NotAlone)), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_whose_database_is_not_there_yet_says_so_and_serves_when_it_is() {
    let plan = PostgresPlan::new().unwrap();
    let mut settings = config(std::path::Path::new("unused"));
    let url = format!("postgres://postgres@{}/postgres", plan.addr());
    settings.database = Database::Postgres(url.into());
    let mut broker = Starting::new(settings, Clock::system());
    until("the admin port says what is missing", async || {
        let ready = Request::get("/readyz").send(broker.admin_addr()).await;
        let reason = ready.expect(503)["reason"].as_str().unwrap().to_owned();
        reason.contains("the database cannot be reached")
    })
    .await;
    let answer = Request::get("/api/info").send(broker.addr()).await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (503, "UNAVAILABLE"));
    assert_eq!(answer.header("retry-after"), Some("2"));
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let _postgres = plan.start().await.unwrap();
    broker.opened().await;
    until("the API is there", async || {
        Request::get("/health").send(broker.addr()).await.status.as_u16() == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stalls_before_its_request_is_cut_off_and_counted() {
    let broker = Running::sqlite_with(Clock::system(), |config| {
        config.timing.handshake = Duration::from_millis(300);
    })
    .await;
    let mut silent = TcpStream::connect(broker.addr()).await.unwrap();
    assert_eq!(rest(&mut silent).await, "");
    let mut slow = TcpStream::connect(broker.addr()).await.unwrap();
    slow.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n").await.unwrap();
    assert_eq!(rest(&mut slow).await, "");
    until("counted", async || broker.counted("culvert_broker_refused_total", "timeout") == 2.0).await;
    let mut wrong = TcpStream::connect(broker.addr()).await.unwrap();
    wrong.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n").await.unwrap();
    rest(&mut wrong).await;
    until("counted", async || broker.counted("culvert_broker_refused_total", "http") == 1.0).await;
    assert_eq!(broker.counted("culvert_broker_accepted_total", ""), 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_requests_ends_and_so_does_a_body_that_stops() {
    let broker = Running::sqlite_with(Clock::system(), |config| {
        config.timing.keep_alive = Duration::from_millis(300);
        config.timing.write = Duration::from_millis(300);
    })
    .await;
    let mut idle = TcpStream::connect(broker.addr()).await.unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(rest(&mut idle).await.starts_with("HTTP/1.1 200"));
    let mut stopped = TcpStream::connect(broker.addr()).await.unwrap();
    let head = "POST /api/auth/login HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    stopped.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(&mut stopped).await;
    assert!(!answer.contains(" 500 ") && !answer.contains(" 200 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_full_closes_newcomers_unread_and_has_room_again() {
    let broker = Running::sqlite_with(Clock::system(), |config| config.limits.connections = 2).await;
    let first = TcpStream::connect(broker.addr()).await.unwrap();
    let _second = TcpStream::connect(broker.addr()).await.unwrap();
    until("both are counted", async || broker.counted("culvert_broker_tcp_connections", "") == 2.0).await;
    let mut third = TcpStream::connect(broker.addr()).await.unwrap();
    assert_eq!(rest(&mut third).await, "");
    until("counted", async || broker.counted("culvert_broker_refused_total", "full") == 1.0).await;
    assert_eq!(broker.counted("culvert_broker_tcp_connections_limit", ""), 2.0);
    drop(first);
    until("there is room", async || broker.counted("culvert_broker_tcp_connections", "") == 1.0).await;
    assert_eq!(broker.ask(Request::get("/health")).await.status.as_u16(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_counted_by_what_they_are_about() {
    let broker = Running::sqlite().await;
    broker.ask(Request::get("/health")).await.expect_ok();
    broker.ask(Request::get("/api/shares/AAAAAAAAAAAAAAAAAAAAAA")).await;
    let count = |label: &str| broker.counted("culvert_broker_requests_total", label);
    assert_eq!(count("route=\"information\",status=\"success\""), 1.0);
    assert_eq!(count("route=\"share\",status=\"refusal\""), 1.0);
    assert_eq!(broker.counted("culvert_broker_request_seconds_count", "information"), 1.0);
    until("the stores were asked", async || broker.counted("culvert_broker_backend_up", "") == 2.0).await;
    let open = async || broker.counted("culvert_broker_database_connections", "") >= 1.0;
    until("its connections are counted", open).await;
    assert_eq!(broker.counted("culvert_broker_database_connections_limit", ""), 10.0);
    let waiting = async || broker.counted("culvert_broker_database_waiting", "") == 0.0;
    until("nobody waits for one", waiting).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_source_is_that_of_the_proxy_header_and_a_missing_one_is_refused() {
    let broker = Running::sqlite_with(Clock::system(), |config| {
        config.proxy_protocol_from = "127.0.0.0/8".parse().unwrap();
    })
    .await;
    let mut plain = TcpStream::connect(broker.addr()).await.unwrap();
    plain.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert_eq!(rest(&mut plain).await, "");
    until("counted", async || broker.counted("culvert_broker_refused_total", "proxy_protocol") == 1.0).await;
    let mut behind = TcpStream::connect(broker.addr()).await.unwrap();
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    header.extend(Ipv4Addr::new(192, 0, 2, 7).octets());
    header.extend(Ipv4Addr::LOCALHOST.octets());
    header.extend([0x12, 0x34, 0x01, 0xbb]);
    behind.write_all(&header).await.unwrap();
    behind.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(rest(&mut behind).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_the_broker_answers_and_clear_text_is_refused_and_counted() {
    let authority = TestCa::new("broker").unwrap();
    let leaf = authority.loopback().unwrap();
    let files = Files { certificate: leaf.cert_path().to_owned(), key: leaf.key_path().to_owned() };
    let broker = Running::sqlite_with(Clock::system(), |config| {
        config.tls = Tls::Files(files);
        config.behind_tls = false;
    })
    .await;
    let connector = TlsConnector::from(authority.client_config().unwrap());
    let tcp = TcpStream::connect(broker.addr()).await.unwrap();
    let mut tls = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    tls.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(DEADLINE, tls.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("OK"), "{answer}");

    let mut clear = TcpStream::connect(broker.addr()).await.unwrap();
    clear.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(!rest(&mut clear).await.contains("200"));
    until("counted", async || broker.counted("culvert_broker_refused_total", "tls") == 1.0).await;
}

/// hyper takes a slow reader's answer into its own buffer up to a bound, and the rest waits for the client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_is_cut_off_and_gives_its_seat_back() {
    let broker = Running::sqlite_with(Clock::system(), |config| {
        config.timing.write = Duration::from_millis(300);
        config.timing.keep_alive = Duration::from_secs(600);
    })
    .await;
    let stream = TcpStream::connect(broker.addr()).await.unwrap();
    let (_reader, mut writer) = stream.into_split();
    let requests = "GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n".repeat(50);
    let ask = async {
        // Until the kernel's buffers are full of answers nobody reads, and the broker has had enough.
        while writer.write_all(requests.as_bytes()).await.is_ok() {}
    };
    tokio::time::timeout(DEADLINE, ask).await.expect("the broker cuts it off");
    until("the seat is free", async || broker.counted("culvert_broker_tcp_connections", "") == 0.0).await;
}
