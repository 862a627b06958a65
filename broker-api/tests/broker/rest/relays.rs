//! Relay tickets and revocations, and the keys that sign.

use culvert_testkit::postgres::PostgresPlan;
use culvert_testkit::redis::RedisPlan;

use super::*;

const PEER: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const TOPIC: &str = "2222222222222222222222222222222222222222222222222222222222222222";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_is_signed_for_a_key_and_topics_and_lasts_as_long_as_asked() {
    let (broker, _) = at_a_time().await;
    let alice = broker.signed_in("alice").await;
    let new = json!({ "peer_id": PEER, "topics": [TOPIC], "lifetime_seconds": 600,
        "limits": { "frames_per_second": 10 } });
    let issued = broker.ask(Request::post("/api/relay-tickets", &new).by(&alice)).await.expect(201);
    assert_eq!(issued["relays"], json!(["wss://relay.example"]));
    let (header, claims) = verified(&broker, issued["ticket"].as_str().unwrap()).await;
    assert_eq!(header["typ"], culvert_wire::ticket::TICKET_TYPE);
    assert_eq!(
        claims,
        json!({
            "aud": "culvert-relay", "sub": PEER, "tenant": "default", "topics": [TOPIC],
            "limits": { "frames_per_second": 10 }, "invites": 0, "iat": START, "exp": START + 600,
            "jti": issued["id"],
        })
    );
    let usual = json!({ "peer_id": PEER, "topics": [TOPIC] });
    let usual = broker.ask(Request::post("/api/relay-tickets", &usual).by(&alice)).await.expect(201);
    assert_eq!(verified(&broker, usual["ticket"].as_str().unwrap()).await.1["exp"], START + 3600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_for_too_much_is_refused() {
    let (broker, _) = at_a_time().await;
    let (alice, root) = (broker.signed_in("alice").await, admin(&broker).await);
    let many: Vec<_> = (0..65).map(|number| format!("{number:064x}")).collect();
    for (field, value, code) in [
        ("topics", json!("*"), "FORBIDDEN"),
        ("topics", json!([]), "INVALID_INPUT"),
        ("topics", json!(many), "INVALID_INPUT"),
        ("topics", json!(["abc"]), "PARSE_ERROR"),
        ("lifetime_seconds", json!(0), "INVALID_INPUT"),
        ("lifetime_seconds", json!(8 * 3600 + 1), "INVALID_INPUT"),
        ("lifetime_seconds", json!(-1), "PARSE_ERROR"),
        ("limits", json!({ "unknown": 1 }), "PARSE_ERROR"),
        ("peer_id", json!("abc"), "PARSE_ERROR"),
        ("shares", json!(["AAAAAAAAAAAAAAAAAAAAAA"]), "SHARE_NOT_FOUND"),
    ] {
        let mut new = json!({ "peer_id": PEER, "topics": [TOPIC] });
        new[field] = value;
        let refused = broker.ask(Request::post("/api/relay-tickets", &new).by(&alice)).await;
        assert_eq!(refused.code(), code, "{field}");
    }
    let all = json!({ "peer_id": PEER, "topics": "*" });
    broker.ask(Request::post("/api/relay-tickets", &all).by(&root)).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_download_a_share_gets_a_ticket_for_its_owners_topic() {
    let (broker, _) = at_a_time().await;
    let alice = broker.signed_in("alice").await;
    let (bob, eve) = (broker.signed_in("bob").await, broker.signed_in("eve").await);
    let token = published(&broker, &alice, json!({ "type": "users", "user_ids": ["bob"] })).await;
    let new = json!({ "peer_id": PEER, "shares": [token] });
    let ask = async |who: &str| broker.ask(Request::post("/api/relay-tickets", &new).by(who)).await;
    assert_eq!(ask(&bob).await.code(), "INVALID_INPUT", "its owner is offline");
    let mut socket = broker.socket_of(&alice).await;
    let relay = json!({ "url": "wss://relay.example", "topic": TOPIC, "peer_id": PEER });
    let register = json!({ "type": "register_user", "user_id": "alice", "relay": relay });
    socket.send(&register).await;
    assert_eq!(socket.next().await["type"], "connected");
    assert_eq!(ask(&bob).await.expect(201)["topics"], json!([TOPIC]));
    assert_eq!(ask(&alice).await.expect(201)["topics"], json!([TOPIC]));
    assert_eq!(ask(&eve).await.code(), "SHARE_NOT_FOUND");
    let found = look_up(&broker, &token, Some(&bob)).await.expect(200);
    assert_eq!((&found["relays"], &found["download_url"]), (&json!([relay]), &json!("")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_revoke_what_is_theirs_and_administrators_everything() {
    let postgres = PostgresPlan::new().unwrap().start().await.unwrap();
    let redis = RedisPlan::new().unwrap().start().await.unwrap();
    let clock = Clock::manual(START);
    let broker = Running::replicas_with(1, &postgres, &redis, &clock, |_| {}).await.remove(0);
    let (alice, eve) = (broker.signed_in("alice").await, broker.signed_in("eve").await);
    let root = admin(&broker).await;
    let new = json!({ "peer_id": PEER, "topics": [TOPIC] });
    let ticket = broker.ask(Request::post("/api/relay-tickets", &new).by(&alice)).await.expect(201);
    let own = json!({ "tickets": [ticket["id"]] });
    let ask = async |who: &str, what: &Value| {
        broker.ask(Request::post("/api/relay-revocations", what).by(who)).await
    };
    assert_eq!(ask(&eve, &own).await.code(), "FORBIDDEN");
    assert_eq!(ask(&alice, &json!({ "peers": [PEER] })).await.code(), "FORBIDDEN");
    assert_eq!(ask(&alice, &json!({})).await.code(), "INVALID_INPUT");
    assert_eq!(ask(&alice, &json!({ "tickets": vec!["x"; 257] })).await.code(), "INVALID_INPUT");
    let done = ask(&alice, &own).await.expect(200);
    assert_eq!((&done["revoked"], &done["until"]), (&json!(1), &json!("2025-10-09T16:53:20Z")));
    assert_eq!(ask(&root, &json!({ "peers": [PEER], "tickets": ["x"] })).await.expect(200)["revoked"], 2);
    // The audit log tells the relays again when Redis has forgotten, as long as it matters.
    let core = broker.core().clone();
    assert_eq!(culvert_broker_api::domain::tickets::restore(&core).await.unwrap(), 3);
    clock.advance(8 * AN_HOUR);
    assert_eq!(culvert_broker_api::domain::tickets::restore(&core).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_key_is_published_a_day_before_it_signs_and_the_old_one_stays() {
    let (broker, clock) = at_a_time().await;
    let alice = broker.signed_in("alice").await;
    let core = broker.core().clone();
    let kids = async || {
        let answer = broker.ask(Request::get("/.well-known/jwks.json")).await;
        assert_eq!(answer.header("cache-control"), Some("public, max-age=21600"));
        let keys = answer.expect(200)["keys"].as_array().unwrap().clone();
        assert!(keys.iter().all(|key| key.get("d").is_none()), "a private key is published");
        keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let token = published(&broker, &alice, json!({ "type": "public" })).await;
    let signer = async || {
        let found = look_up(&broker, &token, None).await.expect(200);
        verified(&broker, found["grant"].as_str().unwrap()).await.0["kid"].as_str().unwrap().to_owned()
    };
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let first = kids().await;
    assert_eq!(first.len(), 1);
    let refresh = async || culvert_broker_api::domain::upkeep::refresh_keys(&core).await;
    // In days from the start; the next key is due when the newest has signed for thirty.
    let due =
        || (broker.counted("culvert_broker_signing_key_due_timestamp_seconds", "") - START as f64) / 86_400.0;
    clock.advance(days(29) - Duration::from_secs(1));
    refresh().await;
    assert_eq!((kids().await, due()), (first.clone(), 30.0));
    clock.advance(Duration::from_secs(1));
    // Two replicas at once add one key.
    tokio::join!(refresh(), refresh());
    let both = kids().await;
    assert_eq!((both.len(), due()), (2, 60.0));
    assert_eq!(signer().await, first[0]);
    clock.advance(days(1));
    refresh().await;
    assert_eq!(kids().await.len(), 2);
    assert_ne!(signer().await, first[0]);
    clock.advance(days(31));
    refresh().await;
    assert!(!kids().await.contains(&first[0]), "the first key has retired");
}
