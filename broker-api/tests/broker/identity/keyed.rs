//! By API credentials.

use culvert_broker_api::identity::from_headers;
use culvert_broker_api::store::Status;
use culvert_broker_wire::auth::{MAX_SKEW, signature};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::*;

use crate::common;

/// A credential as its user holds it.
struct Key {
    user: String,
    api_key: String,
    secret: String,
}

impl Key {
    async fn of(broker: &Running, user: &str, session: &str) -> Self {
        let body = json!({"name": "script"});
        let made = broker.ask(Request::post("/api/credentials", &body).by(session)).await.expect(201);
        Self::read(user, &made)
    }

    fn read(user: &str, made: &Value) -> Self {
        let text = |name: &str| made[name].as_str().unwrap_or_else(|| panic!("{name}: {made}")).to_owned();
        Self { user: user.to_owned(), api_key: text("api_key"), secret: text("api_secret") }
    }

    fn headers(&self, timestamp: u64, body: &[u8]) -> Vec<(&'static str, String)> {
        let signed = signature(&self.secret, timestamp, &self.user, &self.api_key, body);
        vec![
            ("x-api-key", self.api_key.clone()),
            ("x-api-email", self.user.clone()),
            ("x-api-timestamp", timestamp.to_string()),
            ("x-api-signature", signed),
        ]
    }
}

/// What a request with these headers is answered: its code, or `OK`.
async fn code(broker: &Running, headers: &[(&'static str, String)]) -> String {
    let request = headers
        .iter()
        .fold(Request::get("/api/auth/session"), |request, (name, value)| request.header(name, value));
    let answer = broker.ask(request).await;
    if answer.status.is_success() { "OK".to_owned() } else { answer.code() }
}

#[tokio::test]
async fn a_keyed_request_is_accepted_once() {
    let (broker, clock) = broker().await;
    let session = broker.signed_in("alice").await;
    let key = Key::of(&broker, "alice", &session).await;
    clock.advance(Duration::from_secs(20));
    let now = NOW + 20;
    let headers = key.headers(now, b"");
    assert_eq!(code(&broker, &headers).await, "OK");
    assert_eq!(code(&broker, &headers).await, "AUTH_FAILED", "replayed");
    let mut upper = headers.clone();
    upper[3].1 = upper[3].1.to_uppercase();
    assert_eq!(code(&broker, &upper).await, "AUTH_FAILED", "replayed in capitals");
    clock.advance(Duration::from_secs(MAX_SKEW));
    assert_eq!(code(&broker, &headers).await, "AUTH_FAILED", "replayed at its last moment");
    clock.advance(Duration::from_secs(2 * MAX_SKEW));
    assert_eq!(code(&broker, &headers).await, "AUTH_FAILED", "replayed when it is forgotten");
    // The body is covered.
    let body = json!({"name": "CI"}).to_string();
    let now = clock.unix_seconds();
    let send = async |headers: &[(&str, String)], body: &str| {
        let request = headers
            .iter()
            .fold(Request::new(hyper::Method::POST, "/api/credentials"), |r, (n, v)| r.header(n, v));
        let request = request.header("content-type", "application/json").body(body.to_owned());
        broker.ask(request).await.status.as_u16()
    };
    let headers = key.headers(now, body.as_bytes());
    assert_eq!(send(&headers, &json!({"name": "evil"}).to_string()).await, 401);
    assert_eq!(send(&headers, &body).await, 201);
}

#[tokio::test]
async fn a_keyed_request_is_accepted_within_the_skew_of_both_clocks() {
    let (broker, clock) = broker().await;
    let session = broker.signed_in("alice").await;
    let key = Key::of(&broker, "alice", &session).await;
    clock.advance(Duration::from_secs(2 * MAX_SKEW));
    let now = NOW + 2 * MAX_SKEW;
    for (timestamp, expected) in [
        (now - MAX_SKEW - 1, "AUTH_FAILED"),
        (now - MAX_SKEW, "OK"),
        (now + MAX_SKEW, "OK"),
        (now + MAX_SKEW + 1, "AUTH_FAILED"),
        (0, "AUTH_FAILED"),
        (u64::MAX, "AUTH_FAILED"),
    ] {
        assert_eq!(code(&broker, &key.headers(timestamp, b"")).await, expected, "{timestamp}");
    }
}

#[tokio::test]
async fn every_part_of_a_keyed_request_counts() {
    let (broker, clock) = broker().await;
    let (alice, bob) = (broker.signed_in("alice").await, broker.signed_in("bob").await);
    let (key, other) = (Key::of(&broker, "alice", &alice).await, Key::of(&broker, "bob", &bob).await);
    clock.advance(Duration::from_secs(20));
    let headers = key.headers(NOW + 20, b"");
    for (index, (name, _)) in headers.iter().enumerate().skip(1) {
        let mut missing = headers.clone();
        missing.remove(index);
        assert_eq!(code(&broker, &missing).await, "AUTH_FAILED", "without {name}");
        let mut doubled = headers.clone();
        doubled.push(doubled[index].clone());
        assert_eq!(code(&broker, &doubled).await, "AUTH_FAILED", "with {name} twice");
    }
    let as_bob = Key { user: "bob".into(), ..Key { user: String::new(), ..clone(&key) } };
    let with_others_secret = Key { secret: other.secret.clone(), ..clone(&key) };
    let unknown = Key { api_key: format!("rpa_{}", "0".repeat(64)), ..clone(&key) };
    for (what, key) in [("as bob", as_bob), ("another secret", with_others_secret), ("unknown", unknown)] {
        assert_eq!(code(&broker, &key.headers(NOW + 20, b"")).await, "AUTH_FAILED", "{what}");
    }
    assert_eq!(code(&broker, &headers).await, "OK", "none of it used the request up");
    broker.core().store.set_status("alice", Status::Suspended).await.unwrap();
    assert_eq!(code(&broker, &key.headers(NOW + 21, b"")).await, "AUTH_FAILED", "suspended");
    assert!(broker.counted("culvert_broker_logins_total", r#"way="credential",verdict="refused""#) >= 10.0);
}

fn clone(key: &Key) -> Key {
    Key { user: key.user.clone(), api_key: key.api_key.clone(), secret: key.secret.clone() }
}

#[tokio::test]
async fn a_request_is_not_accepted_again_after_the_memory_was_lost() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOW);
    let start =
        async || Running::start(common::config(&folder.path().join("broker.db")), clock.clone()).await;
    let broker = start().await;
    let session = broker.signed_in("alice").await;
    let key = Key::of(&broker, "alice", &session).await;
    clock.advance(Duration::from_secs(60));
    let used = key.headers(NOW + 60, b"");
    assert_eq!(code(&broker, &used).await, "OK");
    broker.drain().await.unwrap();
    // Presence in memory forgets everything with its process.
    let broker = start().await;
    assert_eq!(code(&broker, &used).await, "AUTH_FAILED", "accepted before the memory was lost");
    assert_eq!(code(&broker, &key.headers(NOW + 59, b"")).await, "AUTH_FAILED", "might have been");
    clock.advance(Duration::from_secs(11));
    let fresh = key.headers(NOW + 71, b"");
    assert_eq!(code(&broker, &fresh).await, "OK", "after the horizon");
    assert_eq!(code(&broker, &fresh).await, "AUTH_FAILED");
}

#[tokio::test]
async fn two_secrets_hold_while_rotating_and_none_after_revocation() {
    let (broker, clock) = broker().await;
    let session = broker.signed_in("alice").await;
    let old = Key::of(&broker, "alice", &session).await;
    let path = format!("/api/credentials/{}/rotate", old.api_key);
    let rotated = broker.ask(Request::post(&path, &json!({"overlap_seconds": 3600})).by(&session)).await;
    let new = Key::read("alice", &rotated.expect(200));
    assert_ne!(new.secret, old.secret);
    clock.advance(MINUTE);
    let now = clock.unix_seconds();
    assert_eq!(code(&broker, &old.headers(now, b"")).await, "OK");
    assert_eq!(code(&broker, &new.headers(now, b"")).await, "OK");
    clock.advance(Duration::from_secs(3600));
    let now = clock.unix_seconds();
    assert_eq!(code(&broker, &old.headers(now, b"")).await, "AUTH_FAILED");
    assert_eq!(code(&broker, &new.headers(now, b"")).await, "OK");
    let socket = common::Socket::open_with(broker.addr(), &new.headers(now + 1, b"")).await;
    let mut socket = socket.unwrap_or_else(|error| panic!("{error:?}"));
    socket.register("alice", "").await;
    let revoke = format!("/api/credentials/{}", new.api_key);
    broker.ask(Request::delete(&revoke).by(&session)).await.expect_ok();
    assert_eq!(code(&broker, &new.headers(now + 2, b"")).await, "AUTH_FAILED");
    socket.closed().await;
}

#[tokio::test]
async fn a_user_id_beyond_ascii_signs_as_well() {
    let (broker, clock) = broker().await;
    let session = broker.signed_in("zoë").await;
    let key = Key::of(&broker, "zoë", &session).await;
    clock.advance(MINUTE);
    let headers = key.headers(clock.unix_seconds(), b"").into_iter().map(|(name, value)| {
        (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    });
    let headers: HeaderMap = headers.collect();
    let caller = from_headers(broker.core(), visitor("192.0.2.7"), &headers, b"").await.unwrap().unwrap();
    assert_eq!((caller.user.as_str(), caller.api_key), ("zoë", Some(key.api_key)));
}

#[tokio::test]
async fn a_secret_is_not_in_the_database_and_who_holds_it_makes_no_other_way_in() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Running::start(common::config(&folder.path().join("broker.db")), Clock::manual(NOW)).await;
    let session = broker.signed_in("alice").await;
    let key = Key::of(&broker, "alice", &session).await;
    let body = json!({"new_password": "another password"}).to_string();
    let headers = key.headers(NOW + 1, body.as_bytes());
    let request = headers
        .iter()
        .fold(Request::new(hyper::Method::POST, "/api/auth/password"), |r, (n, v)| r.header(n, v));
    let request = request.header("content-type", "application/json").body(body);
    assert_eq!(broker.ask(request).await.code(), "FORBIDDEN");
    broker.drain().await.unwrap();
    let stolen = common::stolen(folder.path());
    let holds = |text: &str| stolen.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("alice"), "the search would find it");
    for secret in [&key.secret, &session] {
        assert!(!holds(secret), "a stolen database yields a secret");
    }
}
