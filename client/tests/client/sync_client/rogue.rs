//! Brokers that do what a real one does not.

use std::time::Duration;

use culvert_broker_wire::ClientMessage;
use culvert_client::broker::{AccessPolicy, BrokerEvent, Credentials, ShareToken, SyncError};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::world::{DEADLINE, builder, event};

const SHORT: Duration = Duration::from_millis(300);

/// A WebSocket server that lets anybody in and hands over what they say afterwards.
struct Rogue {
    url: String,
    heard: mpsc::UnboundedReceiver<Value>,
    say: mpsc::UnboundedSender<Value>,
    _task: JoinSet<()>,
}

impl Rogue {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        let ((hear, heard), (say, mut said)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { continue };
                welcome(&mut socket).await;
                loop {
                    tokio::select! {
                        message = socket.next() => match message {
                            Some(Ok(Message::Text(text))) => hear.send(serde_json::from_str(&text).unwrap()).unwrap(),
                            Some(Ok(_)) => {}
                            _ => break,
                        },
                        Some(answer) = said.recv() => {
                            let answer: Value = answer;
                            if socket.send(Message::text(answer.to_string())).await.is_err() { break }
                        }
                    }
                }
            }
        });
        Self { url, heard, say, _task: task }
    }

    /// The next message of this type.
    async fn hears(&mut self, kind: &str) -> Value {
        let next = async {
            loop {
                let message = self.heard.recv().await.unwrap();
                if message["type"] == kind {
                    return message;
                }
            }
        };
        tokio::time::timeout(DEADLINE, next).await.unwrap_or_else(|_| panic!("no `{kind}` came"))
    }

    fn says(&self, answer: Value) {
        self.say.send(answer).unwrap();
    }
}

async fn welcome(socket: &mut WebSocketStream<TcpStream>) {
    let Some(Ok(Message::Text(text))) = socket.next().await else { return };
    let register: Value = serde_json::from_str(&text).unwrap();
    let _ = socket.send(Message::text(connected(&register).to_string())).await;
}

fn connected(register: &Value) -> Value {
    json!({
        "type": "connected", "request_id": register["request_id"], "server_version": "0", "institution": "Rogue",
        "user_id": register["user_id"], "heartbeat_timeout_seconds": 300,
    })
}

fn info(request: &Value, title: &str) -> Value {
    json!({
        "type": "share_info", "request_id": request["request_id"],
        "info": {
            "metadata": {
                "owner_user_id": "alice", "result_id": "r", "title": title, "description": null,
                "created_at": "2025-10-03T12:00:00Z", "access_policy": {"type": "public"},
            },
            "download_url": "", "owner_online": false,
        },
    })
}

/// Hole 2.b.3: a request that timed out stayed, and took a later answer.
#[tokio::test]
async fn hole_2b_03_a_request_that_timed_out_is_forgotten_and_its_late_answer_is_nobodys() {
    let mut broker = Rogue::new().await;
    let bob = builder(&broker.url, "bob").credentials(Credentials::None).answer_within(SHORT);
    let bob = bob.connect().await.unwrap();
    let token = ShareToken::generate();
    assert!(matches!(bob.access_share(token.as_str()).await, Err(SyncError::TimedOut(_))));
    let late = broker.hears("request_share").await;
    let (answer, ()) = tokio::join!(bob.access_share(token.as_str()), async {
        let asked = broker.hears("request_share").await;
        assert_ne!(asked["request_id"], late["request_id"]);
        broker.says(info(&late, "too late"));
        broker.says(info(&json!({"request_id": "never asked"}), "invented"));
        broker.says(json!({"type": "share_info", "info": info(&asked, "without a number")["info"]}));
        broker.says(info(&asked, "right"));
    });
    assert_eq!(answer.unwrap().metadata.title, "right");
}

/// Hole 2.b.3, its other half: what waits is bounded, and makes room when it has timed out.
#[tokio::test]
async fn hole_2b_03_requests_that_are_never_answered_do_not_pile_up() {
    let broker = Rogue::new().await;
    let bob =
        builder(&broker.url, "bob").credentials(Credentials::None).answer_within(Duration::from_secs(3));
    let bob = bob.connect().await.unwrap();
    let flood = (0..1100).map(|_| bob.ask(ClientMessage::GetChallenge));
    let ended = futures_util::future::join_all(flood).await;
    let busy = ended.iter().filter(|ended| matches!(ended, Err(SyncError::Busy(_)))).count();
    let late = ended.iter().filter(|ended| matches!(ended, Err(SyncError::TimedOut(_)))).count();
    assert_eq!((busy, late), (1100 - 1024, 1024));
    // They are forgotten within a second, and others are taken again.
    let end = tokio::time::Instant::now() + DEADLINE;
    loop {
        match tokio::time::timeout(Duration::from_millis(200), bob.ask(ClientMessage::GetChallenge)).await {
            Err(_) => break,
            Ok(Err(SyncError::Busy(_))) => assert!(tokio::time::Instant::now() < end, "still full"),
            Ok(other) => panic!("{other:?}"),
        }
    }
}

/// Hole 2.b.4, its second half: nothing noticed a connection that had gone silent.
#[tokio::test]
async fn hole_2b_04_a_broker_that_answers_no_heartbeat_is_left_and_tried_again() {
    let mut broker = Rogue::new().await;
    let bob = builder(&broker.url, "bob").credentials(Credentials::None);
    let bob = bob.answer_within(SHORT).heartbeat(SHORT).connect().await.unwrap();
    let mut events = bob.subscribe();
    broker.hears("heartbeat").await;
    event(&mut events, |event| matches!(event, BrokerEvent::Offline(_)).then_some(())).await;
    event(&mut events, |event| matches!(event, BrokerEvent::Online(_)).then_some(())).await;
}

#[tokio::test]
async fn nonsense_ends_no_connection_and_an_answer_of_the_wrong_kind_is_an_error() {
    let mut broker = Rogue::new().await;
    let bob = builder(&broker.url, "bob").credentials(Credentials::None).connect().await.unwrap();
    broker.says(json!({"type": "confetti"}));
    broker.says(json!([1, {"type": "ack"}]));
    broker.says(json!({"type": "error", "message": "of nobody", "code": "INTERNAL"}));
    let token = ShareToken::generate();
    let (answer, ()) = tokio::join!(bob.access_share(token.as_str()), async {
        let asked = broker.hears("request_share").await;
        broker.says(json!({"type": "confetti", "request_id": asked["request_id"]}));
    });
    assert!(matches!(answer, Err(SyncError::Protocol(_))));
    let (answer, ()) = tokio::join!(bob.share_result("r", "t", None, AccessPolicy::Public), async {
        let asked = broker.hears("publish_share").await;
        broker.says(info(&asked, "no answer to this"));
    });
    assert!(matches!(answer, Err(SyncError::Protocol(_))));
    assert!(bob.is_connected());
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_with_the_connection_is_made_again_once() {
    let mut broker = Rogue::new().await;
    let alice = builder(&broker.url, "alice").credentials(Credentials::None);
    let alice = alice.answer_within(Duration::from_secs(5)).heartbeat(Duration::from_secs(1));
    let alice = alice.connect().await.unwrap();
    let (published, ()) = tokio::join!(alice.share_result("r", "t", None, AccessPolicy::Public), async {
        let first = broker.hears("publish_share").await;
        // The broker forgets this client: it connects again and says it once more.
        let beat = broker.hears("heartbeat").await;
        broker.says(json!({
            "type": "error", "request_id": beat["request_id"], "code": "USER_NOT_FOUND", "message": "register first",
        }));
        let again = broker.hears("publish_share").await;
        assert_eq!(again["token"], first["token"]);
        broker.says(json!({"type": "ack", "message_id": null, "request_id": again["request_id"]}));
    });
    assert!(published.is_ok(), "{published:?}");
}

#[tokio::test]
async fn what_is_announced_while_a_registration_is_under_way_is_said_behind_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let alice = builder(&url, "alice").credentials(Credentials::None).answer_within(DEADLINE);
    let alice = alice.start().await.unwrap();
    let broker = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let mut endpoints = Vec::new();
        while endpoints.len() < 2 {
            let Some(Ok(Message::Text(text))) = socket.next().await else { panic!("{endpoints:?}") };
            let register: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(register["type"], "register_user");
            endpoints.push(register["endpoint"].clone());
            socket.send(Message::text(connected(&register).to_string())).await.unwrap();
        }
        endpoints
    };
    let both = async { tokio::join!(alice.announce("https://alice.example".into(), None), broker) };
    let (announced, endpoints) = tokio::time::timeout(DEADLINE, both).await.expect("it is said");
    announced.unwrap();
    assert_eq!(endpoints, ["", "https://alice.example"]);
}

#[tokio::test]
async fn a_broker_that_takes_no_announcement_is_left_and_told_on_another_connection() {
    let mut broker = Rogue::new().await;
    let alice = builder(&broker.url, "alice").credentials(Credentials::None);
    let alice = alice.answer_within(SHORT).heartbeat(DEADLINE).connect().await.unwrap();
    let mut events = alice.subscribe();
    let announced = alice.announce("https://alice.example".into(), None).await;
    assert!(matches!(announced, Err(SyncError::TimedOut(_))), "{announced:?}");
    assert_eq!(broker.hears("register_user").await["endpoint"], "https://alice.example");
    event(&mut events, |event| matches!(event, BrokerEvent::Offline(_)).then_some(())).await;
    event(&mut events, |event| matches!(event, BrokerEvent::Online(_)).then_some(())).await;
}
