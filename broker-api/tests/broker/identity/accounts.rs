//! By the password of an account, and how often it may be guessed at.

use std::cell::Cell;

use culvert_broker_api::identity::log_in_account;
use culvert_broker_api::live::Rate;
use culvert_broker_api::store::{Outcome, Status};
use culvert_broker_wire::ErrorCode;
use culvert_broker_wire::login::{AccountLogin, Password};
use futures_util::future::join_all;

use super::*;
use crate::common::until;

#[tokio::test]
async fn an_account_logs_in_is_known_and_logs_out() {
    let (broker, _) = broker().await;
    account(&broker, "alice").await;
    let session = token(&log_in(&broker, "alice", PASSWORD).await);
    assert!(session.starts_with("cst_") && session.len() == 47, "{session}");
    let who = broker.ask(Request::get("/api/auth/session").by(&session)).await.expect(200);
    assert_eq!(who, json!({"user_id": "alice", "admin": false, "way": "account"}));
    broker.ask(Request::post("/api/auth/logout", &json!({})).by(&session)).await.expect(204);
    assert!(!holds(&broker, &session).await);
    let (login, logout) = (log(&broker, AuditAction::Login).await, log(&broker, AuditAction::Logout).await);
    assert_eq!((login[0].actor.as_deref(), login[0].outcome), (Some("alice"), Outcome::Done));
    assert_eq!(logout.len(), 1);
}

#[tokio::test]
async fn an_unknown_user_a_wrong_password_and_a_suspended_user_look_the_same() {
    let (broker, _) = broker().await;
    account(&broker, "alice").await;
    account(&broker, "sam").await;
    broker.user("nobody-without-account").await;
    broker.core().store.set_status("sam", Status::Suspended).await.unwrap();
    let mut bodies = Vec::new();
    for (user, password) in [
        ("alice", "wrong password"),
        ("nobody", PASSWORD),
        ("sam", PASSWORD),
        ("nobody-without-account", ""),
        ("alice", ADMISSION),
        ("alice'; DROP TABLE users; --", PASSWORD),
    ] {
        let answer = log_in(&broker, user, password).await;
        bodies.push(answer.expect(401));
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    assert_eq!(bodies[0]["code"], "AUTH_FAILED");
    let failed = log(&broker, AuditAction::Login).await;
    assert_eq!(failed.iter().filter(|record| record.outcome == Outcome::Denied).count(), bodies.len());
    assert_eq!(broker.counted("culvert_broker_logins_total", r#"way="account",verdict="refused""#), 6.0);
    let (long, nul) = ("x".repeat(257), "a\0b");
    for malformed in [long.as_str(), nul, ""] {
        assert_eq!(log_in(&broker, malformed, PASSWORD).await.code(), "INVALID_INPUT");
    }
}

#[tokio::test]
async fn passwords_are_taken_over_tls_only() {
    let (broker, _) = broker_with(|config| config.behind_tls = false).await;
    account(&broker, "alice").await;
    for password in [PASSWORD, "wrong password"] {
        let answer = log_in(&broker, "alice", password).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (403, "FORBIDDEN"));
        let mut socket = broker.socket().await;
        let register = json!({"type": "register_user", "user_id": "alice", "password": password});
        assert_eq!(socket.refused(register).await, "FORBIDDEN");
    }
}

#[tokio::test]
async fn a_password_registers_on_a_websocket_over_tls() {
    let (broker, _) = broker().await;
    account(&broker, "alice").await;
    let mut socket = broker.socket().await;
    let register = |password| json!({"type": "register_user", "user_id": "alice", "password": password});
    assert_eq!(socket.refused(register("wrong password")).await, "AUTH_FAILED");
    assert_eq!(socket.expect(register(PASSWORD), "connected").await["user_id"], "alice");
}

#[tokio::test]
async fn a_login_flood_is_limited_and_ends_by_itself() {
    let (broker, clock) = broker().await;
    account(&broker, "alice").await;
    let device = Device::new();
    let session = token(&admitted(&broker, "dora", &device).await);
    for _ in 0..10 {
        assert_eq!(log_in(&broker, "alice", "wrong password").await.code(), "AUTH_FAILED");
    }
    // Whether it would be right makes no difference now.
    for password in ["wrong password", PASSWORD] {
        let refused = log_in(&broker, "alice", password).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (429, "RATE_LIMITED"));
        assert_eq!(refused.header("retry-after"), Some("6"));
    }
    assert_eq!(broker.counted("culvert_broker_guesses_refused_total", ""), 2.0);
    // What cannot be guessed goes on.
    assert!(holds(&broker, &session).await);
    device.log_in(&broker, "dora").await.expect(200);
    clock.advance(Duration::from_secs(6));
    log_in(&broker, "alice", PASSWORD).await.expect(200);
}

#[tokio::test]
async fn logins_that_are_right_are_not_guesses() {
    let (broker, _) = broker().await;
    account(&broker, "alice").await;
    for _ in 0..12 {
        log_in(&broker, "alice", PASSWORD).await.expect(200);
    }
}

/// All of the broker is on the one thread of this test, as it is in a process with one worker thread.
#[tokio::test]
async fn passwords_that_are_hashed_hold_up_no_look_up() {
    const LOGINS: usize = 20;
    let many = Rate { per_second: 100.0, burst: 100 };
    let (broker, _) = broker_with(|config| {
        let limits = &mut config.limits;
        (limits.guesses_per_source, limits.guesses_per_user, limits.guesses) = (many, many, many);
        limits.hashes_at_once = 1;
    })
    .await;
    account(&broker, "alice").await;
    let session = token(&log_in(&broker, "alice", PASSWORD).await);
    let share = json!({"result_id": "r", "title": "t", "created_at": "2025-10-03T12:00:00Z",
        "access_policy": {"type": "public"}});
    let share = broker.ask(Request::post("/api/shares", &share).by(&session)).await.expect(201);
    let path = format!("/api/shares/{}", share["token"].as_str().unwrap());
    let logged_in = Cell::new(0);
    let logins = (0..LOGINS).map(async |_| {
        log_in(&broker, "alice", PASSWORD).await.expect(200);
        logged_in.set(logged_in.get() + 1);
    });
    let look_up = async {
        until("a password is hashed", async || logged_in.get() > 0).await;
        broker.ask(Request::get(&path)).await.expect(200);
        logged_in.get()
    };
    let (_, meanwhile) = tokio::join!(join_all(logins), look_up);
    assert!(meanwhile < LOGINS, "the look-up waited for all of them");
}

#[tokio::test]
async fn one_source_locks_nobody_else_out() {
    let (broker, _) = broker().await;
    account(&broker, "alice").await;
    let guess = async |address: &str, password: &str| {
        let login = AccountLogin { user_id: "alice".into(), password: Password(password.into()) };
        log_in_account(broker.core(), visitor(address), &login).await.map_err(|refusal| refusal.code)
    };
    // All of one /64 are one source.
    for number in 0..12 {
        let expected = if number < 10 { ErrorCode::AuthFailed } else { ErrorCode::RateLimited };
        let from = format!("2001:db8:0:1::{number:x}");
        assert_eq!(guess(&from, "wrong password").await.unwrap_err(), expected, "{number}");
    }
    assert!(guess("2001:db8:0:2::1", PASSWORD).await.is_ok());
}

#[tokio::test]
async fn a_password_is_changed_by_who_knows_it_and_all_sessions_end() {
    let (broker, _) = broker().await;
    account(&broker, "alice").await;
    let (one, two) =
        (token(&log_in(&broker, "alice", PASSWORD).await), token(&log_in(&broker, "alice", PASSWORD).await));
    let change = async |old: &str, new: &str| {
        let body = json!({"old_password": old, "new_password": new});
        broker.ask(Request::post("/api/auth/password", &body).by(&one)).await
    };
    assert_eq!(change("wrong password", "another password").await.code(), "AUTH_FAILED");
    assert_eq!(change(PASSWORD, "short").await.code(), "INVALID_INPUT");
    let fresh = token(&change(PASSWORD, "another password").await);
    assert!(!holds(&broker, &one).await && !holds(&broker, &two).await);
    assert!(holds(&broker, &fresh).await);
    assert_eq!(log_in(&broker, "alice", PASSWORD).await.code(), "AUTH_FAILED");
    log_in(&broker, "alice", "another password").await.expect(200);
}
