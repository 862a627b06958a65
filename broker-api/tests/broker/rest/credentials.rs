//! API credentials: shown once, rotated with an overlap, revoked; and requests that are keyed with them.

use culvert_broker_wire::auth::{
    API_KEY_HEADER, EMAIL_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, signature,
};

use super::*;

/// A credential of a user: key and secret.
async fn made(broker: &Running, token: &str) -> (String, String) {
    let answer = broker.ask(Request::post("/api/credentials", &json!({ "name": "script" })).by(token)).await;
    let made = answer.expect(201);
    let text = |field: &str| made[field].as_str().unwrap().to_owned();
    (text("api_key"), text("api_secret"))
}

/// Keys a request, as whoever has the credential.
fn keyed(request: Request, user: &str, (key, secret): (&str, &str), at: u64, body: &str) -> Request {
    request
        .header(API_KEY_HEADER, key)
        .header(EMAIL_HEADER, user)
        .header(TIMESTAMP_HEADER, &at.to_string())
        .header(SIGNATURE_HEADER, &signature(secret, at, user, key, body.as_bytes()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_shown_once_and_replaced_with_an_overlap() {
    let (broker, clock) = at_a_time().await;
    let alice = broker.signed_in("alice").await;
    let (key, first) = made(&broker, &alice).await;
    assert!(key.starts_with("rpa_") && key.len() == 68 && first.starts_with("rps_") && first.len() == 68);
    let listed = broker.ask(Request::get("/api/credentials").by(&alice)).await;
    assert!(!String::from_utf8_lossy(&listed.body).contains("rps_"));
    assert_eq!(listed.expect(200)["credentials"][0]["api_key"], key);

    let rotate =
        || Request::post(&format!("/api/credentials/{key}/rotate"), &json!({ "overlap_seconds": 60 }));
    let second = broker.ask(rotate().by(&alice)).await.expect(200);
    let second = second["api_secret"].as_str().unwrap();
    assert_ne!(second, first);
    assert_eq!(broker.ask(rotate().by(&alice)).await.code(), "CONFLICT");
    let ask = async |secret: &str, at| {
        broker.ask(keyed(Request::get("/api/users/me"), "alice", (&key, secret), at, "")).await
    };
    for secret in [&first, second] {
        assert_eq!(ask(secret, START).await.expect(200)["user_id"], "alice");
    }
    clock.advance(Duration::from_secs(60));
    assert_eq!(ask(&first, START + 60).await.code(), "AUTH_FAILED");
    ask(second, START + 61).await.expect(200);
    broker.ask(Request::delete(&format!("/api/credentials/{key}")).by(&alice)).await.expect(204);
    assert_eq!(ask(second, START + 62).await.code(), "AUTH_FAILED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sees_or_changes_somebody_elses_credential() {
    let (broker, _) = at_a_time().await;
    let (alice, eve) = (broker.signed_in("alice").await, broker.signed_in("eve").await);
    let (key, secret) = made(&broker, &alice).await;
    let list = broker.ask(Request::get("/api/credentials").by(&eve)).await.expect(200);
    assert_eq!(list["credentials"], json!([]));
    for request in [
        Request::delete(&format!("/api/credentials/{key}")),
        Request::post(&format!("/api/credentials/{key}/rotate"), &json!({})),
        Request::delete("/api/credentials/rpa_unknown"),
    ] {
        assert_eq!(broker.ask(request.by(&eve)).await.code(), "NOT_FOUND");
    }
    let own = keyed(Request::get("/api/users/me"), "alice", (&key, &secret), START, "");
    broker.ask(own).await.expect(200);
    let borrowed = keyed(Request::get("/api/users/me"), "eve", (&key, &secret), START + 1, "");
    assert_eq!(broker.ask(borrowed).await.code(), "AUTH_FAILED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyed_body_counts_and_a_keyed_request_is_done_once() {
    let (broker, _) = at_a_time().await;
    let alice = broker.signed_in("alice").await;
    let (key, secret) = made(&broker, &alice).await;
    let body = share(json!({ "type": "public" })).to_string();
    let request = |signed: &str, sent: &str| {
        let request =
            Request::new(hyper::Method::POST, "/api/shares").header("content-type", "application/json");
        keyed(request.body(sent.to_owned()), "alice", (&key, &secret), START, signed)
    };
    assert_eq!(broker.ask(request("", &body)).await.code(), "AUTH_FAILED");
    broker.ask(request(&body, &body)).await.expect(201);
    let replayed = broker.ask(request(&body, &body)).await;
    assert_eq!((replayed.status.as_u16(), replayed.code().as_str()), (401, "AUTH_FAILED"));
    let backup = Request::new(hyper::Method::PUT, "/api/backups/me").body("state");
    let backup = keyed(backup, "alice", (&key, &secret), START, "state");
    broker.ask(backup).await.expect(201);
}
