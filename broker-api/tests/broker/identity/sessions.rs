//! Sessions, and what is remembered of them.

use culvert_broker_api::identity;
use culvert_broker_api::store::Status;

use super::*;

#[tokio::test]
async fn a_session_ends_after_its_time() {
    let (broker, clock) = broker().await;
    account(&broker, "alice").await;
    let session = token(&log_in(&broker, "alice", PASSWORD).await);
    clock.advance(broker.core().config.timing.session - Duration::from_secs(1));
    assert!(holds(&broker, &session).await);
    // Remembered, and over all the same.
    clock.advance(Duration::from_secs(1));
    assert!(!holds(&broker, &session).await);
}

#[tokio::test]
async fn a_suspended_user_is_out_at_once_when_it_is_told_and_in_ten_seconds_when_it_is_not() {
    let (broker, clock) = broker().await;
    account(&broker, "alice").await;
    account(&broker, "bob").await;
    let (alice, bob) =
        (token(&log_in(&broker, "alice", PASSWORD).await), token(&log_in(&broker, "bob", PASSWORD).await));
    assert!(holds(&broker, &alice).await && holds(&broker, &bob).await);
    let mut socket = broker.online("alice", &alice).await;
    let store = &broker.core().store;
    store.set_status("alice", Status::Suspended).await.unwrap();
    identity::ended(broker.core(), "alice").await;
    assert!(!holds(&broker, &alice).await);
    socket.closed().await;
    store.set_status("bob", Status::Suspended).await.unwrap();
    clock.advance(Duration::from_secs(10));
    assert!(!holds(&broker, &bob).await);
}

#[tokio::test]
async fn logging_out_closes_the_sessions_websockets() {
    let (broker, _) = broker().await;
    account(&broker, "alice").await;
    let session = token(&log_in(&broker, "alice", PASSWORD).await);
    let mut socket = broker.online("alice", &session).await;
    broker.ask(Request::post("/api/auth/logout", &json!({})).by(&session)).await.expect(204);
    socket.closed().await;
}

#[tokio::test]
async fn a_session_token_registers_its_own_user_only() {
    let (broker, _) = broker().await;
    account(&broker, "alice").await;
    let session = token(&log_in(&broker, "alice", PASSWORD).await);
    let register =
        |user: &str, token: &str| json!({"type": "register_user", "user_id": user, "session_token": token});
    let mut socket = broker.socket().await;
    assert_eq!(socket.refused(register("bob", &session)).await, "FORBIDDEN");
    let mut socket = broker.socket().await;
    assert_eq!(socket.refused(register("alice", "cst_made-up")).await, "AUTH_FAILED");
    let mut socket = broker.socket().await;
    socket.expect(register("alice", &session), "connected").await;
}

#[tokio::test]
async fn what_is_no_token_is_refused_and_a_flood_of_tokens_is_limited() {
    let (broker, _) = broker_with(|config| config.limits.requests.burst = 20).await;
    let with = async |value: &str| {
        broker.ask(Request::get("/api/auth/session").header("authorization", value)).await.code()
    };
    let wellformed = format!("Bearer cst_{}", "A".repeat(43));
    for wrong in ["Bearer", "Bearer ", "Basic YTpi", "cst_x", "Bearer cst_x", wellformed.as_str()] {
        assert_eq!(with(wrong).await, "AUTH_FAILED", "{wrong}");
    }
    assert_eq!(broker.ask(Request::get("/api/auth/session")).await.code(), "AUTH_REQUIRED");
    let mut refused = 0;
    for number in 0..30 {
        let token = format!("Bearer cst_{number:043}");
        refused += u32::from(with(&token).await == "RATE_LIMITED");
    }
    assert!(refused >= 10, "{refused}");
    assert!(broker.counted("culvert_broker_guesses_refused_total", "") >= 10.0);
}
