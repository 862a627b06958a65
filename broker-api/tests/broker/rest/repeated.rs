//! `Idempotency-Key`: what is repeated is done once.

use super::*;

fn creation(key: &str, title: &str, who: &str) -> Request {
    let mut new = share(json!({ "type": "public" }));
    new["title"] = title.into();
    Request::post("/api/shares", &new).header("idempotency-key", key).by(who)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_creation_gets_the_first_answer() {
    let (broker, clock) = at_a_time().await;
    let (alice, bob) = (broker.signed_in("alice").await, broker.signed_in("bob").await);
    let first = broker.ask(creation("k", "a", &alice)).await;
    let again = broker.ask(creation("k", "a", &alice)).await;
    first.expect(201);
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!(first.header("etag"), again.header("etag"));
    assert_eq!(
        (first.header("idempotency-replayed"), again.header("idempotency-replayed")),
        (None, Some("true"))
    );
    let mine = broker.ask(Request::get("/api/shares").by(&alice)).await.expect(200);
    assert_eq!(mine["shares"].as_array().unwrap().len(), 1);
    let other = broker.ask(creation("k", "b", &alice)).await;
    assert_eq!((other.status.as_u16(), other.code().as_str()), (409, "CONFLICT"));
    let bobs = broker.ask(creation("k", "a", &bob)).await.expect(201);
    assert_ne!(bobs["id"], first.json()["id"], "keys are a user's own");
    let _ = clock;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_one_creates() {
    let (broker, _) = at_a_time().await;
    let alice = broker.signed_in("alice").await;
    let answers =
        futures_util::future::join_all((0..8).map(|_| broker.ask(creation("k", "a", &alice)))).await;
    let made = answers.iter().filter(|answer| answer.status.as_u16() == 201);
    let ids: std::collections::BTreeSet<_> = made.map(|answer| answer.json()["id"].to_string()).collect();
    assert_eq!(ids.len(), 1);
    for waiting in answers.iter().filter(|answer| answer.status.as_u16() != 201) {
        assert_eq!((waiting.code().as_str(), waiting.header("retry-after")), ("CONFLICT", Some("1")));
    }
    let mine = broker.ask(Request::get("/api/shares").by(&alice)).await.expect(200);
    assert_eq!(mine["shares"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_creation_may_be_tried_again_and_an_odd_key_is_refused() {
    let (broker, _) = at_a_time().await;
    let alice = broker.signed_in("alice").await;
    let team = || Request::post("/api/teams", &json!({ "id": "lab", "name": "Lab" })).by(&alice);
    broker.ask(team()).await.expect(201);
    let taken = broker.ask(team().header("idempotency-key", "k")).await;
    assert_eq!(taken.code(), "CONFLICT");
    broker.ask(Request::delete("/api/teams/lab").by(&alice)).await.expect(204);
    broker.ask(team().header("idempotency-key", "k")).await.expect(201);
    for odd in ["", &"x".repeat(129)] {
        assert_eq!(broker.ask(team().header("idempotency-key", odd)).await.code(), "INVALID_INPUT");
    }
}
