//! How WebSockets end: floods, clients that never read or never speak, sessions that end, no more room, a
//! replica that goes away.

use std::cell::Cell;
use std::time::Duration;

use culvert_broker_api::live::{Event, Rate};
use culvert_service_kit::Clock;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::common::{self, Request, Running, Socket, until};

async fn with(change: impl FnOnce(&mut culvert_broker_api::Config)) -> Running {
    Running::sqlite_with(Clock::system(), change).await
}

/// The code of the error before the close, and the code of the close.
async fn end(socket: &mut Socket) -> (String, u16) {
    let error = loop {
        let message = socket.next().await;
        if message["type"] == "error" && message.get("request_id").is_none() {
            break message["code"].as_str().unwrap().to_owned();
        }
    };
    (error, socket.closed().await.unwrap().code.into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_over_the_rate_are_refused_and_whoever_goes_on_is_closed() {
    let broker = with(|config| config.limits.messages = Rate { per_second: 1.0, burst: 5 }).await;
    let token = broker.signed_in("alice").await;
    let mut alice = broker.online("alice", &token).await;
    for number in 0..200 {
        let message = json!({"type": "heartbeat", "user_id": "alice", "request_id": number.to_string()});
        alice.send(&message).await;
    }
    let (mut acks, mut refused) = (0, 0);
    let flood = loop {
        let answer = alice.next().await;
        match (answer["type"].as_str().unwrap(), answer.get("request_id")) {
            ("ack", Some(_)) => acks += 1,
            ("error", Some(_)) => {
                assert_eq!(answer["code"], "RATE_LIMITED");
                refused += 1;
            }
            ("error", None) => break answer["code"].as_str().unwrap().to_owned(),
            _ => panic!("{answer}"),
        }
    };
    assert_eq!(flood, "RATE_LIMITED");
    assert_eq!(u16::from(alice.closed().await.unwrap().code), 4429);
    assert_eq!(refused, 20);
    assert!((4..60).contains(&acks), "{acks}");
    assert_eq!(broker.counted("culvert_broker_closes_total", "flood"), 1.0);
    assert_eq!(broker.counted("culvert_broker_messages_total", "refused"), 20.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_is_closed_and_goes_offline() {
    let broker = with(|config| {
        config.limits.messages = Rate { per_second: 1e9, burst: u32::MAX };
        config.timing.write = Duration::from_millis(200);
    })
    .await;
    let token = broker.signed_in("alice").await;
    let mut alice = broker.online("alice", &token).await;
    // Each is answered by many times its size: the kernel's buffers fill, then the write stalls.
    let data = data_encoding::BASE64.encode(&vec![0; 500_000]);
    let hash = {
        use sha2::Digest;
        data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(vec![0; 500_000]))
    };
    let state = json!({"type": "backup_state", "user_id": "alice", "state_hash": hash, "data": data});
    alice.expect(state, "backup_info").await;
    let message = Message::text(json!({"type": "restore_state", "user_id": "alice"}).to_string());
    let live = broker.core().live.clone();
    let flood = async {
        loop {
            alice.send_raw(message.clone()).await;
        }
    };
    tokio::select! {
        () = flood => {}
        () = until("she is offline", async || live.presences("alice").await.unwrap().is_empty()) => {}
    }
    assert_eq!(broker.counted("culvert_broker_closes_total", "slow"), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_falls_behind_events_is_closed() {
    let broker = with(|config| config.limits.queue = 4).await;
    let token = broker.signed_in("alice").await;
    let mut alice = broker.online("alice", &token).await;
    let core = broker.core().clone();
    // More than its queue holds, at once, and each too large for the kernel to take many.
    let title = "x".repeat(60_000);
    let metadata = json!({"owner_user_id": "alice", "result_id": "r", "title": title,
        "created_at": "2025-10-03T12:00:00Z", "access_policy": {"type": "public"}});
    let share = json!({"id": "s", "metadata": metadata, "published_at": "2025-10-03T12:00:00Z"});
    let news = json!({"change": "updated", "share": share, "before": null});
    let event = Event::Share(Box::new(serde_json::from_value(news).unwrap()));
    until("she is closed as slow", async || {
        for _ in 0..100 {
            core.live.publish(&event).await.unwrap();
        }
        broker.counted("culvert_broker_closes_total", "slow") == 1.0
    })
    .await;
    alice.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_longer_than_the_heartbeat_timeout_ends_the_socket() {
    let broker = with(|config| config.timing.heartbeat_timeout = Duration::from_millis(600)).await;
    let token = broker.signed_in("alice").await;
    let (mut silent, mut alive) =
        (broker.online("alice", &token).await, broker.online("alice", &token).await);
    let began = std::time::Instant::now();
    let over = Cell::new(false);
    let heartbeats = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        while !over.get() {
            ticks.tick().await;
            alive.expect(json!({"type": "heartbeat", "user_id": "alice"}), "ack").await;
        }
    };
    let ends = async {
        assert_eq!(end(&mut silent).await, ("USER_NOT_FOUND".to_owned(), 4408));
        over.set(true);
    };
    tokio::join!(ends, heartbeats);
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    let live = broker.core().live.clone();
    until("one is left", async || live.presences("alice").await.unwrap().len() == 1).await;
    alive.expect(json!({"type": "heartbeat", "user_id": "alice"}), "ack").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_say_who_they_are_is_closed() {
    let broker = with(|config| config.timing.request = Duration::from_millis(300)).await;
    let mut nobody = broker.socket().await;
    assert_eq!(end(&mut nobody).await, ("AUTH_REQUIRED".to_owned(), 4401));
    assert_eq!(broker.counted("culvert_broker_closes_total", "unproven"), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_ends_with_its_session_and_others_stay() {
    let broker = Running::sqlite().await;
    let (first, bob) = (broker.signed_in("alice").await, broker.signed_in("bob").await);
    let second = broker.session("alice").await;
    let mut sockets = [
        broker.online("alice", &first).await,
        broker.online("alice", &second).await,
        broker.online("bob", &bob).await,
    ];
    broker.ask(Request::post("/api/auth/logout", &json!({})).by(&first)).await.expect_ok();
    assert_eq!(end(&mut sockets[0]).await, ("AUTH_REQUIRED".to_owned(), 4401));
    sockets[1].expect(json!({"type": "heartbeat", "user_id": "alice"}), "ack").await;
    culvert_broker_api::identity::ended(broker.core(), "alice").await;
    assert_eq!(end(&mut sockets[1]).await, ("AUTH_REQUIRED".to_owned(), 4401));
    sockets[2].expect(json!({"type": "heartbeat", "user_id": "bob"}), "ack").await;
    assert_eq!(broker.counted("culvert_broker_closes_total", "session_over"), 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ended_unheard_is_found_out_after_events_were_missed() {
    let broker = Running::sqlite().await;
    let token = broker.signed_in("alice").await;
    let mut alice = broker.online("alice", &token).await;
    let hash: [u8; 32] = {
        use sha2::Digest;
        sha2::Sha256::digest(token.as_bytes()).into()
    };
    assert!(broker.core().store.end_session(&hash).await.unwrap());
    alice.expect(json!({"type": "heartbeat", "user_id": "alice"}), "ack").await;
    broker.core().live.publish(&Event::Missed).await.unwrap();
    assert_eq!(end(&mut alice).await, ("AUTH_REQUIRED".to_owned(), 4401));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_and_a_broker_have_only_so_many_connections() {
    let broker = with(|config| {
        config.limits.connections_per_user = 2;
        config.limits.connections = 4;
    })
    .await;
    let (alice, bob) = (broker.signed_in("alice").await, broker.signed_in("bob").await);
    let one = broker.online("alice", &alice).await;
    let _two = broker.online("alice", &alice).await;
    let refused = Socket::open(broker.addr(), Some(&alice)).await.err().unwrap();
    assert!(String::from_utf8_lossy(&refused.body).contains("SERVER_FULL"), "{refused:?}");
    let mut bob_socket = broker.online("bob", &bob).await;
    one.close().await;
    until("there is room again", async || Socket::open(broker.addr(), Some(&alice)).await.is_ok()).await;
    bob_socket.expect(json!({"type": "heartbeat", "user_id": "bob"}), "ack").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_tells_every_socket_and_takes_its_users_offline() {
    let broker = Running::sqlite().await;
    let token = broker.signed_in("alice").await;
    let mut alice = broker.online("alice", &token).await;
    let mut nobody = broker.socket().await;
    let live = broker.core().live.clone();
    let told = async {
        for socket in [&mut alice, &mut nobody] {
            assert_eq!(end(socket).await, ("UNAVAILABLE".to_owned(), 1001));
        }
    };
    let (drained, ()) = tokio::join!(broker.drain(), told);
    drained.unwrap();
    assert_eq!(live.presences("alice").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_websocket_end_it() {
    let broker = Running::sqlite().await;
    let mut stream = TcpStream::connect(broker.addr()).await.unwrap();
    let upgrade = "GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    // An unmasked frame with reserved bits.
    stream.write_all(&[0xff, 0x00]).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(common::DEADLINE, stream.read_to_end(&mut answer)).await;
    read.expect("it ends in time").unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    // A close frame with 1002.
    assert!(answer.windows(4).any(|window| window[0] == 0x88 && window[2..] == [0x03, 0xea]), "{answer:?}");
    until("it is counted", async || broker.counted("culvert_broker_closes_total", "protocol") == 1.0).await;
}
