//! Shares: who may do what, and what others learn.

use sqlx::{Connection, SqliteConnection};

use super::*;

use crate::common;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_is_published_looked_up_changed_listed_and_revoked() {
    let (broker, _) = at_a_time().await;
    let (alice, bob) = (broker.signed_in("alice").await, broker.signed_in("bob").await);
    let policy = json!({ "type": "users", "user_ids": ["bob"] });
    let answer = broker.ask(Request::post("/api/shares", &share(policy)).by(&alice)).await;
    let made = answer.expect(201);
    let token = made["token"].as_str().unwrap();
    assert_eq!(token.len(), 22);
    assert_eq!(answer.header("location").unwrap(), format!("/api/shares/{token}"));
    assert_eq!(answer.header("etag").unwrap(), "\"1\"");
    assert_eq!(made["metadata"]["created_at"], "2025-10-09T08:53:20Z");

    let found = look_up(&broker, token, Some(&bob)).await.expect(200);
    assert_eq!(found["metadata"]["owner_user_id"], "alice");
    assert_eq!((&found["owner_online"], &found["download_url"]), (&json!(false), &json!("")));
    assert!(found["grant"].is_string());

    let mine = broker.ask(Request::get("/api/shares").by(&alice)).await.expect(200);
    assert_eq!((&mine["shares"][0]["token"], &mine["shares"][0]["downloads"]), (&json!(token), &json!(1)));
    let shared = broker.ask(Request::get("/api/shared-with-me").by(&bob)).await.expect(200);
    assert_eq!(shared["shares"][0]["id"], made["id"]);
    assert!(shared["shares"][0]["token"].is_null(), "lists of others' shares have no tokens");
    assert_eq!(broker.ask(Request::get("/api/shares").by(&bob)).await.expect(200)["shares"], json!([]));

    let path = format!("/api/shares/{token}");
    let change = json!({ "title": "Renamed", "description": "more" });
    let patch = || Request::new(hyper::Method::PATCH, &path).json(&change).by(&alice);
    let changed = broker.ask(patch().header("if-match", "\"1\"")).await;
    assert_eq!(changed.expect(200)["metadata"]["title"], "Renamed");
    assert_eq!(changed.header("etag").unwrap(), "\"2\"");
    let stale = broker.ask(patch().header("if-match", "\"1\"")).await;
    assert_eq!((stale.status.as_u16(), stale.code().as_str()), (412, "PRECONDITION_FAILED"));
    let removed = Request::new(hyper::Method::PATCH, &path).json(&json!({ "description": null })).by(&alice);
    assert!(broker.ask(removed).await.expect(200)["metadata"]["description"].is_null());

    assert_eq!(broker.ask(Request::delete(&path).by(&bob)).await.code(), "SHARE_NOT_FOUND");
    let stale = broker.ask(Request::delete(&path).by(&alice).header("if-match", "\"1\"")).await;
    assert_eq!(stale.status.as_u16(), 412);
    broker.ask(Request::delete(&path).by(&alice)).await.expect(204);
    for who in [&alice, &bob] {
        assert_eq!(look_up(&broker, token, Some(who)).await.code(), "SHARE_NOT_FOUND");
    }
    assert_eq!(broker.ask(Request::delete(&path).by(&alice)).await.code(), "SHARE_NOT_FOUND");
    assert_eq!(broker.ask(Request::get("/api/shares").by(&alice)).await.expect(200)["shares"], json!([]));
}

/// Hole: the policy was not asked over HTTP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hole_1_b_2_the_policy_holds_over_http_and_unknown_looks_like_forbidden() {
    let (broker, _) = at_a_time().await;
    let alice = broker.signed_in("alice").await;
    let (bob, eve) = (broker.signed_in("bob").await, broker.signed_in("eve").await);
    broker
        .ask(Request::post("/api/teams", &json!({ "id": "lab", "name": "Lab" })).by(&alice))
        .await
        .expect(201);
    let member = Request::put("/api/teams/lab/members/bob", &json!({ "role": "member" })).by(&alice);
    broker.ask(member).await.expect(200);
    let unknown = look_up(&broker, "AAAAAAAAAAAAAAAAAAAAAA", Some(&eve)).await;
    let nobody = look_up(&broker, "AAAAAAAAAAAAAAAAAAAAAA", None).await;
    assert_eq!((unknown.status.as_u16(), unknown.code().as_str()), (404, "SHARE_NOT_FOUND"));
    for (policy, eves, anybodys) in [
        (json!({ "type": "users", "user_ids": ["bob"] }), false, false),
        (json!({ "type": "team", "team_id": "lab" }), false, false),
        (json!({ "type": "institution" }), true, false),
        (json!({ "type": "public" }), true, true),
    ] {
        let token = published(&broker, &alice, policy.clone()).await;
        for (who, allowed) in [(Some(&alice), true), (Some(&bob), true), (Some(&eve), eves), (None, anybodys)]
        {
            let answer = look_up(&broker, &token, who.map(String::as_str)).await;
            if allowed {
                answer.expect(200);
            } else {
                let missing = if who.is_some() { &unknown } else { &nobody };
                assert_eq!((answer.status, &answer.body), (missing.status, &missing.body), "{policy}");
                let names =
                    |answer: &Answer| answer.headers.keys().map(ToString::to_string).collect::<Vec<_>>();
                assert_eq!(names(&answer), names(missing), "{policy}");
            }
        }
    }
}

/// Hole: publishing somebody else's token changed their share's policy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hole_1_b_3_nobody_publishes_under_a_token_of_somebody_else() {
    let (broker, _) = at_a_time().await;
    let (alice, eve) = (broker.signed_in("alice").await, broker.signed_in("eve").await);
    let root = admin(&broker).await;
    let token = published(&broker, &alice, json!({ "type": "users", "user_ids": ["bob"] })).await;
    let mut theft = share(json!({ "type": "public" }));
    theft["token"] = token.clone().into();
    let refused = broker.ask(Request::post("/api/shares", &theft).by(&eve)).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (409, "PUBLISH_ERROR"));
    assert_eq!(look_up(&broker, &token, Some(&eve)).await.code(), "SHARE_NOT_FOUND");
    let kept = look_up(&broker, &token, Some(&alice)).await.expect(200);
    assert_eq!(kept["metadata"]["access_policy"]["user_ids"], json!(["bob"]));
    let written = audit(&broker, &root, "action=share_published&actor=eve").await;
    assert_eq!((written.len(), &written[0]["outcome"]), (1, &json!("denied")));

    // The owner may; and after a revocation nobody may.
    let again = broker.ask(Request::post("/api/shares", &theft).by(&alice)).await;
    assert_eq!(again.expect(200)["metadata"]["access_policy"]["type"], "public");
    broker.ask(Request::delete(&format!("/api/shares/{token}")).by(&alice)).await.expect(204);
    let revoked = broker.ask(Request::post("/api/shares", &theft).by(&alice)).await;
    assert_eq!(revoked.code(), "PUBLISH_ERROR");
}

/// Hole: a bare URL was handed out, with nothing that the owner could check.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hole_1_b_5_a_grant_is_verified_offline_by_the_owner() {
    let (broker, _) = at_a_time().await;
    let (alice, bob) = (broker.signed_in("alice").await, broker.signed_in("bob").await);
    let token = published(&broker, &alice, json!({ "type": "users", "user_ids": ["bob"] })).await;
    let _online = broker.online("alice", &alice).await;
    let found = look_up(&broker, &token, Some(&bob)).await.expect(200);
    assert_eq!(found["owner_online"], true);
    assert_eq!(found["download_url"], "http://192.0.2.1:3001/api/results/result-1");
    let (header, claims) = verified(&broker, found["grant"].as_str().unwrap()).await;
    assert_eq!(header["typ"], culvert_broker_wire::grant::GRANT_TYPE);
    let hash = token.parse::<culvert_broker_wire::ShareToken>().unwrap().hash();
    for (claim, value) in [
        ("aud", json!("culvert-owner")),
        ("sub", json!("bob")),
        ("owner", json!("alice")),
        ("result_id", json!("result-1")),
        ("share", json!(data_encoding::HEXLOWER.encode(&hash))),
        ("iat", json!(START)),
        ("exp", json!(START + 300)),
    ] {
        assert_eq!(claims[claim], value, "{claim}");
    }
    let public = published(&broker, &alice, json!({ "type": "public" })).await;
    let found = look_up(&broker, &public, None).await.expect(200);
    let (_, claims) = verified(&broker, found["grant"].as_str().unwrap()).await;
    assert!(claims["sub"].is_null() && claims["cnf"].is_null());
}

/// Hole: addresses of local networks were told to everybody who had a token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hole_1_b_9_strangers_learn_no_address_of_a_local_network() {
    let (broker, _) = at_a_time().await;
    let (alice, bob) = (broker.signed_in("alice").await, broker.signed_in("bob").await);
    let token = published(&broker, &alice, json!({ "type": "public" })).await;
    for (endpoint, told) in [
        ("http://192.168.1.50:3001", false),
        ("http://10.1.2.3", false),
        ("http://100.100.1.1:3001", false),
        ("http://127.0.0.1:3001", false),
        ("http://[fd00::1]:3001", false),
        ("http://[fe80::1]:3001", false),
        ("http://workstation:3001", false),
        ("http://workstation.local:3001", false),
        ("http://192.0.2.1:3001", true),
        ("https://alice.example.org", true),
    ] {
        let mut socket = broker.socket_of(&alice).await;
        socket.register("alice", endpoint).await;
        let url = format!("{endpoint}/api/results/result-1");
        let stranger = look_up(&broker, &token, None).await.expect(200);
        assert_eq!(stranger["owner_online"], true);
        assert_eq!(stranger["download_url"], if told { &url } else { "" }, "{endpoint}");
        assert_eq!(look_up(&broker, &token, Some(&bob)).await.expect(200)["download_url"], url);
        socket.close().await;
        common::until("alice is offline", async || {
            look_up(&broker, &token, None).await.expect(200)["owner_online"] == false
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_ends_when_its_policy_says_so_and_no_grant_outlives_it() {
    let (broker, clock) = at_a_time().await;
    let alice = broker.signed_in("alice").await;
    let end = culvert_broker_wire::Timestamp::from_unix_seconds(START + 100).to_string();
    let token = published(&broker, &alice, json!({ "type": "public", "expires_at": end })).await;
    let found = look_up(&broker, &token, None).await.expect(200);
    assert_eq!(verified(&broker, found["grant"].as_str().unwrap()).await.1["exp"], START + 100);
    clock.advance(Duration::from_secs(100));
    assert_eq!(look_up(&broker, &token, None).await.code(), "SHARE_NOT_FOUND");
    look_up(&broker, &token, Some(&alice)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_is_downloaded_as_often_as_allowed_however_many_ask_at_once() {
    let (broker, _) = at_a_time().await;
    let (alice, root) = (broker.signed_in("alice").await, admin(&broker).await);
    let token = published(&broker, &alice, json!({ "type": "public", "max_downloads": 3 })).await;
    let asked = (0..10).map(|_| look_up(&broker, &token, None));
    let answers = futures_util::future::join_all(asked).await;
    let granted = answers.iter().filter(|answer| answer.status.is_success()).count();
    assert_eq!(granted, 3);
    assert!(answers.iter().all(|answer| answer.status.is_success() || answer.code() == "SHARE_NOT_FOUND"));
    let written = audit(&broker, &root, "action=share_requested").await;
    let done = written.iter().filter(|entry| entry["outcome"] == "done").count();
    assert_eq!((written.len(), done), (10, 3));
    for (series, count) in [("culvert_broker_grants_total", 3.0), ("culvert_broker_share_denials_total", 7.0)]
    {
        assert!((broker.counted(series, "") - count).abs() < 1e-9, "{series}");
    }
    // Its owner is not counted, and sees who asked.
    look_up(&broker, &token, Some(&alice)).await.expect(200);
    let accesses =
        broker.ask(Request::get(&format!("/api/shares/{token}/accesses")).by(&alice)).await.expect(200);
    let accesses = accesses["accesses"].as_array().unwrap();
    assert_eq!(accesses.len(), 11);
    assert_eq!((&accesses[0]["user_id"], &accesses[0]["granted"]), (&json!("alice"), &json!(true)));
    let refused = accesses.iter().find(|access| access["granted"] == false).unwrap();
    assert_eq!(refused["reason"], "used up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_looks_gets_no_grant_and_is_not_counted() {
    let (broker, _) = at_a_time().await;
    let alice = broker.signed_in("alice").await;
    let token = published(&broker, &alice, json!({ "type": "public", "max_downloads": 1 })).await;
    for _ in 0..2 {
        let seen = broker.ask(Request::get(&format!("/api/shares/{token}?grant=false"))).await.expect(200);
        assert!(seen["grant"].is_null());
    }
    let view = published(&broker, &alice, json!({ "type": "public", "permissions": ["view"] })).await;
    assert!(look_up(&broker, &view, None).await.expect(200)["grant"].is_null());
    look_up(&broker, &token, None).await.expect(200);
    assert_eq!(look_up(&broker, &token, None).await.code(), "SHARE_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_can_be_guessed_is_for_public_shares_only() {
    let (broker, _) = at_a_time().await;
    let alice = broker.signed_in("alice").await;
    let mut short = share(json!({ "type": "users", "user_ids": ["bob"] }));
    short["token"] = "abc123xyz".into();
    assert_eq!(broker.ask(Request::post("/api/shares", &short).by(&alice)).await.code(), "INVALID_INPUT");
    short["access_policy"] = json!({ "type": "public" });
    broker.ask(Request::post("/api/shares", &short).by(&alice)).await.expect(201);
    let closed = json!({ "access_policy": { "type": "institution" } });
    let patch = Request::new(hyper::Method::PATCH, "/api/shares/abc123xyz").json(&closed).by(&alice);
    assert_eq!(broker.ask(patch).await.code(), "INVALID_INPUT");
    for bad in ["", "a b", "ä", &"x".repeat(129)] {
        short["token"] = bad.into();
        let refused = broker.ask(Request::post("/api/shares", &short).by(&alice)).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (400, "INVALID_INPUT"), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_is_checked_field_by_field() {
    let (broker, _) = at_a_time().await;
    let alice = broker.signed_in("alice").await;
    let public = || share(json!({ "type": "public" }));
    for (field, value, code) in [
        ("owner_user_id", json!("bob"), "FORBIDDEN"),
        ("result_id", json!(""), "INVALID_INPUT"),
        ("result_id", json!("x".repeat(257)), "INVALID_INPUT"),
        ("title", json!("x".repeat(513)), "INVALID_INPUT"),
        ("title", json!("a\u{0}b"), "INVALID_INPUT"),
        ("description", json!("x".repeat(4097)), "INVALID_INPUT"),
        ("access_policy", json!({ "type": "team", "team_id": "nowhere" }), "PUBLISH_ERROR"),
        ("access_policy", json!({ "type": "users", "user_ids": [] }), "INVALID_INPUT"),
        ("access_policy", json!({ "type": "institution", "institution_id": "other" }), "INVALID_INPUT"),
        ("access_policy", json!({ "type": "everybody" }), "PARSE_ERROR"),
        ("created_at", json!("yesterday"), "PARSE_ERROR"),
        ("title", json!(7), "PARSE_ERROR"),
    ] {
        let mut bad = public();
        bad[field] = value;
        let refused = broker.ask(Request::post("/api/shares", &bad).by(&alice)).await;
        assert_eq!(refused.code(), code, "{field}: {refused:?}");
    }
    let sql = "'; DROP TABLE shares; --";
    let mut odd = public();
    odd["title"] = sql.into();
    odd["result_id"] = sql.into();
    let made = broker.ask(Request::post("/api/shares", &odd).by(&alice)).await.expect(201);
    assert_eq!(made["metadata"]["title"], sql);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_go_on_where_they_stopped_and_refuse_what_is_no_cursor() {
    let (broker, clock) = at_a_time().await;
    let alice = broker.signed_in("alice").await;
    for _ in 0..5 {
        published(&broker, &alice, json!({ "type": "public" })).await;
        clock.advance(Duration::from_secs(1));
    }
    let mut seen = Vec::new();
    let mut path = "/api/shares?limit=2".to_owned();
    loop {
        let page = broker.ask(Request::get(&path).by(&alice)).await.expect(200);
        let items = page["shares"].as_array().unwrap();
        assert!(items.len() <= 2);
        seen.extend(items.iter().map(|item| item["published_at"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/shares?limit=2&cursor={cursor}");
    }
    assert_eq!(seen.len(), 5);
    assert!(seen.is_sorted_by(|newer, older| newer > older), "{seen:?}");
    for bad in ["limit=0", "limit=1001", "limit=x", "limit=-1", "cursor=!", "cursor=AAAA", "limit=1&limit=2"]
    {
        let refused = broker.ask(Request::get(&format!("/api/shares?{bad}")).by(&alice)).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (400, "INVALID_INPUT"), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_cannot_be_written_down_is_not_given_and_a_denial_is_still_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broker.db");
    let broker = Running::start(common::config(&file), Clock::system()).await;
    let alice = broker.signed_in("alice").await;
    let open = published(&broker, &alice, json!({ "type": "public" })).await;
    let closed = published(&broker, &alice, json!({ "type": "institution" })).await;
    let mut database = SqliteConnection::connect(file.to_str().unwrap()).await.unwrap();
    sqlx::query("ALTER TABLE audit_log RENAME TO away").execute(&mut database).await.unwrap();
    let refused = look_up(&broker, &open, None).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (503, "UNAVAILABLE"));
    assert!(!String::from_utf8_lossy(&refused.body).contains("audit"), "{refused:?}");
    assert_eq!(look_up(&broker, &closed, None).await.code(), "SHARE_NOT_FOUND");
    sqlx::query("ALTER TABLE away RENAME TO audit_log").execute(&mut database).await.unwrap();
    assert!(look_up(&broker, &open, None).await.expect(200)["grant"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_copy_of_the_database_has_no_token_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broker.db");
    let broker = Running::start(common::config(&file), Clock::system()).await;
    let alice = broker.signed_in("alice").await;
    let mut new = share(json!({ "type": "public" }));
    new["title"] = "findable-title".into();
    let body = new.to_string();
    let request = Request::post("/api/shares", &new).header("idempotency-key", "k").by(&alice);
    let token = broker.ask(request).await.expect(201)["token"].as_str().unwrap().to_owned();
    look_up(&broker, &token, None).await.expect(200);
    broker.drain().await.unwrap();
    let all = common::stolen(folder.path());
    let holds = |text: &str| all.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(body.contains("findable-title") && holds("findable-title"), "the search would find it");
    assert!(!holds(&token));
}
