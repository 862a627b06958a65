//! The WebSocket: the messages of the first protocol as they were documented, what is refused, and the
//! holes of the first broker that concern it, each with a test named after it.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::common::{self, Running, Socket, until};

/// A token that a share which is not public may have.
const TOKEN: &str = "qM5RyH1d4m0Zr9vTtX2u8w";

/// A message of the documents, word by word; gives the answer whole.
async fn say(socket: &mut Socket, text: &str) -> Value {
    socket.send_raw(Message::text(text)).await;
    loop {
        let message = socket.next().await;
        // Events come at any time and answer nothing.
        if message["type"] != "share_event" && message["type"] != "presence_event" {
            return message;
        }
    }
}

fn ack() -> Value {
    json!({"type": "ack", "message_id": null})
}

fn publish(owner: &str, token: &str, title: &str, policy: &Value) -> Value {
    json!({"type": "publish_share", "token": token, "metadata": {
        "owner_user_id": owner, "result_id": "result-uuid", "title": title, "description": null,
        "created_at": "2025-10-03T12:00:00Z", "access_policy": policy,
    }})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_messages_of_the_first_protocol_are_answered_as_documented() {
    let broker = Running::sqlite().await;
    let alice = broker.signed_in("alice@institution.edu").await;
    let bob = broker.signed_in("bob@institution.edu").await;
    let mut alice = broker.socket_of(&alice).await;
    let register =
        r#"{"type":"register_user","user_id":"alice@institution.edu","endpoint":"http://192.168.1.50:3001"}"#;
    let connected = say(&mut alice, register).await;
    assert_eq!(connected["type"], "connected");
    assert_eq!(connected["user_id"], "alice@institution.edu");
    assert_eq!(connected["institution"], "Default Institution");
    assert_eq!(connected["heartbeat_timeout_seconds"], 300);
    assert_eq!(say(&mut alice, r#"{"type":"heartbeat","user_id":"alice@institution.edu"}"#).await, ack());
    let publish = r#"{"type":"publish_share","token":"abc123xyz","metadata":{
        "owner_user_id":"alice@institution.edu","result_id":"result-uuid","title":"My DDA Analysis",
        "description":"EEG analysis from experiment X","created_at":"2025-10-03T12:00:00Z",
        "access_policy":{"type":"public"}}}"#;
    assert_eq!(say(&mut alice, publish).await, ack());

    let mut bob = broker.socket_of(&bob).await;
    let request = r#"{"type":"request_share","token":"abc123xyz","requester_id":"bob@institution.edu"}"#;
    let info = say(&mut bob, request).await;
    assert_eq!(info["type"], "share_info");
    assert_eq!(info["info"]["metadata"]["title"], "My DDA Analysis");
    assert_eq!(info["info"]["metadata"]["description"], "EEG analysis from experiment X");
    assert_eq!(info["info"]["metadata"]["access_policy"]["type"], "public");
    assert_eq!(info["info"]["owner_online"], true);
    let url = info["info"]["download_url"].as_str().unwrap();
    assert_eq!(url, "http://192.168.1.50:3001/api/results/result-uuid");

    assert_eq!(say(&mut alice, r#"{"type":"disconnect","user_id":"alice@institution.edu"}"#).await, ack());
    let info = say(&mut bob, request).await;
    assert_eq!((&info["info"]["owner_online"], &info["info"]["download_url"]), (&json!(false), &json!("")));
    let unregistered = say(&mut alice, r#"{"type":"heartbeat","user_id":"alice@institution.edu"}"#).await;
    assert_eq!(unregistered["code"], "USER_NOT_FOUND");
    assert_eq!(say(&mut alice, r#"{"type":"revoke_share","token":"abc123xyz"}"#).await, ack());
    let again = say(&mut alice, r#"{"type":"revoke_share","token":"abc123xyz"}"#).await;
    assert_eq!((&again["type"], &again["code"]), (&json!("error"), &json!("REVOKE_ERROR")));
    assert_eq!(say(&mut bob, request).await["code"], "SHARE_NOT_FOUND");
    let restore = say(&mut alice, r#"{"type":"restore_state","user_id":"alice@institution.edu"}"#).await;
    assert_eq!(restore["code"], "BACKUP_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_left_to_do_in_the_first_protocol_is_there() {
    let broker = Running::sqlite().await;
    let (alice, bob) = (broker.signed_in("alice").await, broker.signed_in("bob").await);
    let mut alice = broker.online("alice", &alice).await;
    let mut bob = broker.online("bob", &bob).await;
    let policy = json!({"type": "users", "user_ids": ["bob"]});
    alice.expect(publish("alice", TOKEN, "for bob", &policy), "ack").await;
    let mine = alice.expect(json!({"type": "list_my_shares", "user_id": "alice"}), "share_list").await;
    assert_eq!(mine["shares"], json!([TOKEN]));
    let theirs = bob.expect(json!({"type": "list_shared_with_me"}), "share_list").await;
    assert_eq!(
        (&theirs["shares"], &theirs["items"][0]["metadata"]["title"]),
        (&json!([]), &json!("for bob"))
    );
    assert!(theirs["items"][0].get("token").is_none());

    let hash = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
    let state = json!({"type": "backup_state", "user_id": "alice", "state_hash": hash});
    assert_eq!(alice.refused(state.clone()).await, "BACKUP_NOT_FOUND");
    let mut with_data = state.clone();
    with_data["data"] = "Zm9v".into();
    alice.expect(with_data, "backup_info").await;
    assert_eq!(alice.expect(state, "backup_info").await["size_bytes"], 3);
    let restored = alice.expect(json!({"type": "restore_state", "user_id": "alice"}), "backup_info").await;
    assert_eq!((&restored["data"], &restored["state_hash"]), (&json!("Zm9v"), &json!(hash)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hole_1b_1_a_connection_speaks_for_nobody_but_its_user() {
    let broker = Running::sqlite().await;
    broker.signed_in("alice").await;
    let mallory = broker.signed_in("mallory").await;
    let mut nobody = broker.socket().await;
    for message in messages("alice") {
        assert_eq!(nobody.refused(message.clone()).await, "AUTH_REQUIRED", "{message}");
    }
    assert_eq!(nobody.refused(json!({"type": "register_user", "user_id": "alice"})).await, "AUTH_REQUIRED");
    let wrong = json!({"type": "register_user", "user_id": "alice", "session_token": "cst_wrong"});
    assert_eq!(nobody.refused(wrong).await, "AUTH_FAILED");

    let mut mallory = broker.online("mallory", &mallory).await;
    for message in messages("alice") {
        if message["type"] != "revoke_share" {
            assert_eq!(mallory.refused(message.clone()).await, "FORBIDDEN", "{message}");
        }
    }
    let register = json!({"type": "register_user", "user_id": "alice", "endpoint": "http://198.51.100.66"});
    assert_eq!(mallory.refused(register).await, "FORBIDDEN");
    assert_eq!(broker.core().live.presences("alice").await.unwrap(), []);
    assert_eq!(broker.core().live.presences("mallory").await.unwrap().len(), 1);
}

/// Every message that names a user, or needs one.
fn messages(user: &str) -> Vec<Value> {
    vec![
        json!({"type": "heartbeat", "user_id": user}),
        json!({"type": "disconnect", "user_id": user}),
        publish(user, TOKEN, "t", &json!({"type": "public"})),
        json!({"type": "request_share", "token": TOKEN, "requester_id": user}),
        json!({"type": "revoke_share", "token": TOKEN}),
        json!({"type": "list_my_shares", "user_id": user}),
        json!({"type": "list_shared_with_me", "user_id": user}),
        json!({"type": "backup_state", "user_id": user, "state_hash": "00"}),
        json!({"type": "restore_state", "user_id": user}),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hole_1b_3_somebody_elses_token_is_neither_published_nor_revoked() {
    let broker = Running::sqlite().await;
    let (alice, mallory) = (broker.signed_in("alice").await, broker.signed_in("mallory").await);
    let mut alice = broker.online("alice", &alice).await;
    let mut mallory = broker.online("mallory", &mallory).await;
    let secret = json!({"type": "users", "user_ids": ["alice"]});
    alice.expect(publish("alice", TOKEN, "secret", &secret), "ack").await;
    mallory.refused(publish("mallory", TOKEN, "mine now", &json!({"type": "public"}))).await;
    assert_eq!(mallory.refused(json!({"type": "revoke_share", "token": TOKEN})).await, "REVOKE_ERROR");
    let request = json!({"type": "request_share", "token": TOKEN, "requester_id": "mallory"});
    assert_eq!(mallory.refused(request).await, "ACCESS_DENIED");
    let request = json!({"type": "request_share", "token": TOKEN, "requester_id": "alice"});
    let info = alice.expect(request, "share_info").await;
    assert_eq!(info["info"]["metadata"]["title"], "secret");
    assert_eq!(info["info"]["metadata"]["access_policy"]["type"], "users");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hole_1b_6_closing_the_socket_is_going_offline_at_once() {
    let broker = Running::sqlite().await;
    let token = broker.signed_in("alice").await;
    let laptop = broker.online("alice", &token).await;
    let phone = broker.online("alice", &token).await;
    let live = broker.core().live.clone();
    assert_eq!(live.presences("alice").await.unwrap().len(), 2);
    laptop.close().await;
    until("one of two devices is gone", async || live.presences("alice").await.unwrap().len() == 1).await;
    // Without a word: the connection just ends.
    drop(phone);
    until("nobody is online", async || live.presences("alice").await.unwrap().is_empty()).await;
    until("when she was last seen is noted", async || {
        broker.core().store.user("alice").await.unwrap().unwrap().last_seen.is_some()
    })
    .await;
    until("every socket is counted as closed", async || {
        broker.counted("culvert_broker_closes_total", "done") == 2.0
            && broker.counted("culvert_broker_connections", "") == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hole_1b_7_answers_carry_the_request_id_of_what_they_answer() {
    let broker = Running::sqlite().await;
    let token = broker.signed_in("alice").await;
    let mut alice = broker.online("alice", &token).await;
    for (text, kind) in [
        (r#"{"type":"heartbeat","user_id":"alice","request_id":"h-1"}"#, "ack"),
        (r#"{"type":"heartbeat","user_id":"bob","request_id":"h-2"}"#, "error"),
        (r#"{"type":"nonsense","request_id":"h-3"}"#, "error"),
        (r#"{"type":"get_challenge","request_id":"h-4"}"#, "challenge"),
    ] {
        let answer = say(&mut alice, text).await;
        assert_eq!(answer["type"], kind, "{text}");
        assert!(text.contains(answer["request_id"].as_str().unwrap()), "{answer}");
    }
    let longest = "x".repeat(128);
    let message = json!({"type": "heartbeat", "user_id": "alice", "request_id": longest});
    assert_eq!(say(&mut alice, &message.to_string()).await["request_id"], longest);
    let message = json!({"type": "heartbeat", "user_id": "alice", "request_id": "x".repeat(129)});
    let refused = say(&mut alice, &message.to_string()).await;
    assert_eq!((&refused["code"], refused.get("request_id")), (&json!("INVALID_INPUT"), None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_said_and_the_socket_stays() {
    let broker = Running::sqlite().await;
    let token = broker.signed_in("alice").await;
    let mut alice = broker.online("alice", &token).await;
    let deep = format!(r#"{{"type":"heartbeat","user_id":{}1{}}}"#, "[".repeat(500), "]".repeat(500));
    let deep_unknown = format!(
        r#"{{"type":"list_shared_with_me","x":{}{}}}"#,
        "{\"a\":".repeat(200),
        "1".to_owned() + &"}".repeat(200)
    );
    let texts = [
        "",
        "hello",
        "{",
        "[1]",
        "null",
        "{}",
        r#"{"type":"nonsense"}"#,
        r#"{"type":"ack","message_id":null}"#,
        r#"{"type":"heartbeat"}"#,
        r#"{"type":"heartbeat","user_id":7}"#,
        r#"{"type":"heartbeat","user_id":"alice","user_id":"bob"}"#,
        r#"{"type":"heartbeat","user_id":"\ud800"}"#,
        r#"{"type":"heartbeat","user_id":"alice"}{}"#,
        "\u{feff}{\"type\":\"heartbeat\",\"user_id\":\"alice\"}",
        &deep,
        &deep_unknown,
    ];
    for text in texts {
        let answer = say(&mut alice, text).await;
        assert_eq!(answer["code"], "PARSE_ERROR", "{text}: {answer}");
    }
    alice.send_raw(Message::binary(vec![0, 159, 146, 150])).await;
    assert_eq!(alice.next().await["code"], "PARSE_ERROR");
    alice.send_raw(Message::Ping(vec![1, 2, 3].into())).await;
    alice.expect(json!({"type": "heartbeat", "user_id": "alice"}), "ack").await;
    assert_eq!(broker.counted("culvert_broker_messages_total", "unreadable"), texts.len() as f64 + 1.0);
    assert_eq!(broker.counted("culvert_broker_errors_total", "PARSE_ERROR"), texts.len() as f64 + 1.0);
    assert_eq!(broker.counted("culvert_broker_messages_total", "heartbeat"), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_that_is_not_utf_8_is_said_to_be_so_before_the_close() {
    let broker = Running::sqlite().await;
    let mut socket = broker.socket().await;
    let frame = tokio_tungstenite::tungstenite::protocol::frame::Frame::message(
        vec![b'{', 0xff, b'}'],
        tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode::Data(
            tokio_tungstenite::tungstenite::protocol::frame::coding::Data::Text,
        ),
        true,
    );
    socket.send_raw(Message::Frame(frame)).await;
    assert_eq!(socket.next().await["code"], "PARSE_ERROR");
    assert_eq!(u16::from(socket.closed().await.unwrap().code), 1007);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_too_long_ends_the_socket_with_a_reason() {
    let broker = Running::sqlite().await;
    let token = broker.signed_in("alice").await;
    let mut alice = broker.online("alice", &token).await;
    let mut long = json!({"type": "heartbeat", "user_id": "alice", "padding": ""});
    let rest = (1 << 20) - long.to_string().len();
    long["padding"] = "x".repeat(rest).into();
    assert_eq!(say(&mut alice, &long.to_string()).await, ack());
    long["padding"] = "x".repeat(rest + 1).into();
    alice.send_raw(Message::text(long.to_string())).await;
    assert_eq!(alice.next().await["code"], "TOO_LARGE");
    assert_eq!(u16::from(alice.closed().await.unwrap().code), 1009);
    let live = broker.core().live.clone();
    until("she is offline", async || live.presences("alice").await.unwrap().is_empty()).await;
    assert_eq!(broker.counted("culvert_broker_closes_total", "too_large"), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_that_are_too_long_or_odd_are_refused_and_change_nothing() {
    let broker = Running::sqlite().await;
    let token = broker.signed_in("alice").await;
    let mut alice = broker.socket_of(&token).await;
    let relay = json!({"url": "https://not-a-relay", "topic": "00".repeat(32), "peer_id": "00".repeat(32)});
    for (field, value) in [
        ("endpoint", json!("javascript:alert(1)")),
        ("endpoint", json!(format!("http://{}", "x".repeat(2048)))),
        ("endpoint", json!("http://a/\u{0}")),
        ("device_name", json!("x".repeat(513))),
    ] {
        let mut register = json!({"type": "register_user", "user_id": "alice"});
        register[field] = value;
        assert_eq!(alice.refused(register.clone()).await, "INVALID_INPUT", "{register}");
    }
    let register = json!({"type": "register_user", "user_id": "alice", "relay": relay});
    assert!(["INVALID_INPUT", "PARSE_ERROR"].contains(&alice.refused(register).await.as_str()));
    for hostile in ["'; DROP TABLE users; --", "%", "\u{1}", ""] {
        let list = json!({"type": "list_my_shares", "cursor": hostile});
        assert_eq!(alice.refused(list).await, "INVALID_INPUT", "{hostile:?}");
        let heartbeat = json!({"type": "heartbeat", "user_id": hostile});
        assert_eq!(alice.refused(heartbeat).await, "FORBIDDEN", "{hostile:?}");
        let request = json!({"type": "request_share", "token": hostile, "requester_id": "alice"});
        alice.refused(request).await;
    }
    assert_eq!(broker.core().live.presences("alice").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_no_upgrade_or_proves_nothing_is_refused() {
    let broker = Running::sqlite().await;
    let plain = broker.ask(common::Request::get("/ws")).await;
    assert_eq!((plain.status.as_u16(), plain.code()), (400, "INVALID_INPUT".to_owned()));
    let upgrade = |version: &str| {
        common::Request::get("/ws")
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "WebSocket")
            .header("sec-websocket-version", version)
    };
    let old = broker.ask(upgrade("8").header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==")).await;
    assert_eq!((old.status.as_u16(), old.header("sec-websocket-version")), (426, Some("13")));
    assert_eq!(broker.ask(upgrade("13")).await.status.as_u16(), 400);
    let refused = Socket::open(broker.addr(), Some("cst_wrong")).await.err().unwrap();
    assert_eq!(refused.status.as_u16(), 401);
}
