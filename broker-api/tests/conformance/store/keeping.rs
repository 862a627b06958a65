//! What the broker keeps for itself.

use culvert_broker_api::store::{Claim, Session, SigningKey, StoredAnswer, Way};

use super::stage::{Stage, at, hash};

fn key(kid: &str, from: u64) -> SigningKey {
    SigningKey {
        kid: kid.to_owned(),
        public: hash(kid),
        sealed: vec![1, 2, 3],
        created_at: at(from),
        active_from: at(from + 10),
        retires_at: at(from + 100),
    }
}

pub(super) async fn the_first_value_of_a_secret_is_kept(stage: &Stage) {
    let store = &stage.store;
    assert_eq!(store.secret("opaque").await.unwrap(), None);
    let other = stage.replica();
    let (one, two) =
        tokio::join!(store.keep_secret("opaque", vec![1; 32]), other.keep_secret("opaque", vec![2; 32]));
    let kept = one.unwrap();
    assert_eq!(kept, two.unwrap());
    assert_eq!(store.keep_secret("opaque", vec![3]).await.unwrap(), kept);
    assert_eq!(store.secret("opaque").await.unwrap(), Some(kept));
    assert_eq!(store.secret("other").await.unwrap(), None);
}

pub(super) async fn of_replicas_that_add_a_signing_key_at_once_one_does(stage: &Stage) {
    let store = &stage.store;
    let other = stage.replica();
    let (one, two) = tokio::join!(
        store.add_signing_key(key("one", 1), at(0)),
        other.add_signing_key(key("two", 1), at(0))
    );
    assert!(one.unwrap() != two.unwrap());
    let keys = store.signing_keys(at(5)).await.unwrap();
    assert_eq!(keys, [key(&keys[0].kid, 1)]);
    assert!(!store.add_signing_key(key("three", 2), at(10)).await.unwrap(), "that one starts after 10");
    assert!(store.add_signing_key(key("three", 2), at(11)).await.unwrap());
    let kids: Vec<_> = store.signing_keys(at(100)).await.unwrap().into_iter().map(|key| key.kid).collect();
    assert_eq!((kids.len(), kids[0].as_str()), (2, "three"), "newest first");
    assert_eq!(store.signing_keys(at(101)).await.unwrap(), [key("three", 2)]);
    assert_eq!(store.signing_keys(at(102)).await.unwrap(), []);
}

pub(super) async fn a_repeated_request_gets_the_answer_of_the_first(stage: &Stage) {
    let store = &stage.store;
    let (one, two) = (hash("one"), hash("two"));
    let claim = async |user: &str, request: &[u8; 32], now| {
        store.claim(user, "key", request, at(now), at(now + 1000)).await.unwrap()
    };
    assert_eq!(claim("alice", &one, 0).await, Claim::New);
    assert_eq!(claim("alice", &one, 59).await, Claim::UnderWay);
    assert_eq!(claim("alice", &two, 59).await, Claim::Other);
    assert_eq!(claim("bob", &two, 0).await, Claim::New, "keys belong to users");
    assert_eq!(claim("alice", &one, 60).await, Claim::New, "the first one broke off");
    assert_eq!(claim("alice", &two, 200).await, Claim::Other, "the key stays with its request");
    assert_eq!(claim("alice", &one, 119).await, Claim::UnderWay);

    let answer = StoredAnswer {
        status: 201,
        headers: vec![("etag".to_owned(), "\"1\"".to_owned()), ("x".to_owned(), "ä".to_owned())],
        body: vec![0, 255, 7],
    };
    store.answer("alice", "key", Some(answer.clone())).await.unwrap();
    store.answer("alice", "key", None).await.unwrap();
    assert_eq!(claim("alice", &one, 900).await, Claim::Answered(answer));
    assert_eq!(claim("alice", &two, 900).await, Claim::Other);
    assert_eq!(claim("alice", &two, 1060).await, Claim::New, "it was kept until then");

    store.answer("bob", "key", None).await.unwrap();
    assert_eq!(claim("bob", &one, 1).await, Claim::New, "it was given up");
}

pub(super) async fn of_two_requests_with_a_key_at_once_one_is_new(stage: &Stage) {
    let other = stage.replica();
    for round in 0..10 {
        let (key, request) = (format!("key {round}"), hash("request"));
        let (one, two) = tokio::join!(
            stage.store.claim("alice", &key, &request, at(1), at(100)),
            other.claim("alice", &key, &request, at(1), at(100))
        );
        let mut claims = [one.unwrap(), two.unwrap()];
        claims.sort_by_key(|claim| *claim != Claim::New);
        assert_eq!(claims, [Claim::New, Claim::UnderWay]);
    }
}

pub(super) async fn what_has_ended_is_swept_out(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice"]).await;
    for (name, end) in [("a", 10), ("b", 20), ("c", 30)] {
        let session = Session {
            hash: hash(name),
            user: "alice".to_owned(),
            device: None,
            way: Way::Account,
            created_at: at(1),
            expires_at: at(end),
        };
        store.create_session(session).await.unwrap();
        store.claim("alice", name, &hash(name), at(1), at(end)).await.unwrap();
    }
    store.add_signing_key(key("one", 1), at(0)).await.unwrap();
    assert_eq!(store.tidy(at(9)).await.unwrap(), 0);
    assert_eq!(store.tidy(at(20)).await.unwrap(), 4);
    assert_eq!(store.tidy(at(20)).await.unwrap(), 0);
    assert!(store.session(&hash("c"), at(20)).await.unwrap().is_some());
    assert_eq!(store.claim("alice", "c", &hash("c"), at(20), at(90)).await.unwrap(), Claim::UnderWay);
    assert_eq!(store.tidy(at(200)).await.unwrap(), 3, "a session, a claim, a key");
}
