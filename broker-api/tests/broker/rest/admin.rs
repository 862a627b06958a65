//! Users and the audit log, for administrators; and who sees whether somebody is online.

use super::*;

use crate::common;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_administrators_see_users_and_the_audit_log() {
    let (broker, _) = at_a_time().await;
    let (alice, root) = (broker.signed_in("alice").await, admin(&broker).await);
    let requests = || {
        [
            Request::get("/api/users"),
            Request::get("/api/users/root"),
            Request::new(hyper::Method::PATCH, "/api/users/alice").json(&json!({ "role": "admin" })),
            Request::delete("/api/users/root"),
            Request::get("/api/audit"),
        ]
    };
    for request in requests() {
        let refused = broker.ask(request.by(&alice)).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (403, "FORBIDDEN"));
    }
    for request in requests() {
        let refused = broker.ask(request).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (401, "AUTH_REQUIRED"));
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    }
    assert_eq!(audit(&broker, &root, "action=audit_read&actor=alice").await.len(), 1);
    let users = broker.ask(Request::get("/api/users").by(&root)).await.expect(200);
    assert_eq!(users["users"].as_array().unwrap().len(), 2);
    assert_eq!(broker.ask(Request::get("/api/users/me").by(&alice)).await.expect(200)["role"], "user");
    assert_eq!(broker.ask(Request::get("/api/users/nobody").by(&root)).await.code(), "USER_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_is_suspended_or_removed_is_out_at_once() {
    let (broker, _) = at_a_time().await;
    let (alice, bob) = (broker.signed_in("alice").await, broker.signed_in("bob").await);
    let root = admin(&broker).await;
    let token = published(&broker, &alice, json!({ "type": "public" })).await;
    broker.ask(Request::get("/api/users/me").by(&alice)).await.expect(200);
    let set = |id: &str, change: Value| {
        Request::new(hyper::Method::PATCH, &format!("/api/users/{id}")).json(&change).by(&root)
    };
    let suspended = broker.ask(set("alice", json!({ "status": "suspended" }))).await.expect(200);
    assert_eq!(suspended["status"], "suspended");
    assert_eq!(broker.ask(Request::get("/api/users/me").by(&alice)).await.code(), "AUTH_FAILED");
    broker.ask(set("alice", json!({ "status": "active" }))).await.expect(200);
    assert_eq!(broker.ask(set("bob", json!({ "role": "admin" }))).await.expect(200)["role"], "admin");
    broker.ask(Request::get("/api/users").by(&bob)).await.expect(200);

    for own in [set("root", json!({ "status": "suspended" })), set("root", json!({ "role": "user" }))] {
        assert_eq!(broker.ask(own).await.code(), "CONFLICT");
    }
    assert_eq!(broker.ask(Request::delete("/api/users/root").by(&root)).await.code(), "CONFLICT");
    broker.ask(Request::delete("/api/users/alice").by(&root)).await.expect(204);
    assert_eq!(broker.ask(Request::delete("/api/users/alice").by(&root)).await.code(), "USER_NOT_FOUND");
    assert_eq!(look_up(&broker, &token, None).await.code(), "SHARE_NOT_FOUND");
    let written = audit(&broker, &root, "action=user_changed&subject=alice").await;
    assert_eq!(written.iter().filter(|entry| entry["actor"] == "root").count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_log_is_filtered_and_holds_no_tokens() {
    let (broker, clock) = at_a_time().await;
    let (alice, root) = (broker.signed_in("alice").await, admin(&broker).await);
    let token = published(&broker, &alice, json!({ "type": "public" })).await;
    clock.advance(AN_HOUR);
    look_up(&broker, &token, None).await.expect(200);
    look_up(&broker, "AAAAAAAAAAAAAAAAAAAAAA", Some(&broker.session("alice").await)).await;
    let all = broker.ask(Request::get("/api/audit").by(&root)).await;
    let text = String::from_utf8(all.body.to_vec()).unwrap();
    assert!(!text.contains(&token) && !text.contains("AAAAAAAAAAAAAAAAAAAAAA") && !text.contains("cst_"));
    let recent = audit(&broker, &root, "since=2025-10-09T09:00:00Z").await;
    let actions: Vec<_> = recent.iter().map(|entry| (&entry["action"], &entry["outcome"])).collect();
    let (asked, done, denied) = (json!("share_requested"), json!("done"), json!("denied"));
    assert_eq!(actions, [(&asked, &denied), (&asked, &done)]);
    assert_eq!(audit(&broker, &root, "actor=alice&action=share_published").await.len(), 1);
    for bad in ["action=nonsense", "since=yesterday", "actor=%00", "subject=a%00"] {
        let refused = broker.ask(Request::get(&format!("/api/audit?{bad}")).by(&root)).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (400, "INVALID_INPUT"), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_is_seen_by_those_who_share_something() {
    let (broker, _) = at_a_time().await;
    let alice = broker.signed_in("alice").await;
    let (bob, eve) = (broker.signed_in("bob").await, broker.signed_in("eve").await);
    published(&broker, &alice, json!({ "type": "users", "user_ids": ["bob"] })).await;
    let socket = broker.online("alice", &alice).await;
    let asked = async |who: &str| broker.ask(Request::get("/api/presence/alice").by(who)).await;
    assert_eq!(asked(&bob).await.expect(200)["online"], true);
    assert_eq!(asked(&alice).await.expect(200)["online"], true);
    let hidden = asked(&eve).await;
    let unknown = broker.ask(Request::get("/api/presence/nobody").by(&eve)).await;
    assert_eq!((hidden.status, &hidden.body), (unknown.status, &unknown.body));
    assert_eq!(hidden.code(), "USER_NOT_FOUND");
    let own = broker.ask(Request::get("/api/presence").by(&alice)).await.expect(200);
    assert_eq!(own["devices"][0]["endpoint"], "http://192.0.2.1:3001");
    drop(socket);
    common::until("alice is offline, and was seen", async || {
        let alice = asked(&bob).await.expect(200);
        alice["online"] == false && alice["last_seen"].is_string()
    })
    .await;
}
