//! Backups: opaque, checked, versioned, and one's own.

use sha2::{Digest, Sha256};

use super::*;

const PATH: &str = "/api/backups/me";

fn hash(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

fn put(token: &str, bytes: &[u8]) -> Request {
    Request::new(hyper::Method::PUT, PATH).body(bytes.to_vec()).by(token)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_comes_back_as_it_was_stored_with_its_versions() {
    let (broker, _) = at_a_time().await;
    let (alice, eve) = (broker.signed_in("alice").await, broker.signed_in("eve").await);
    assert_eq!(broker.ask(Request::get(PATH).by(&alice)).await.code(), "BACKUP_NOT_FOUND");
    let states: Vec<Vec<u8>> = (1..=3u8).map(|seed| vec![seed; 3 << 20]).collect();
    for (version, state) in (1..).zip(&states) {
        let stored = broker.ask(put(&alice, state).header("x-state-hash", &hash(state))).await;
        let info = stored.expect(201);
        assert_eq!((&info["version"], &info["state_hash"]), (&json!(version), &json!(hash(state))));
        assert_eq!(stored.header("etag").unwrap(), format!("\"{version}\""));
    }
    let latest = broker.ask(Request::get(PATH).by(&alice)).await;
    assert_eq!((&latest.body[..], latest.header("etag")), (&states[2][..], Some("\"3\"")));
    assert_eq!(latest.header("x-state-hash").unwrap(), hash(&states[2]));
    let first = broker.ask(Request::get("/api/backups/me?version=1").by(&alice)).await;
    assert_eq!(&first.body[..], &states[0][..]);
    let versions = broker.ask(Request::get("/api/backups/me/versions").by(&alice)).await.expect(200);
    let numbers: Vec<_> =
        versions["versions"].as_array().unwrap().iter().map(|one| &one["version"]).collect();
    assert_eq!(numbers, [3, 2, 1]);
    let same = broker.ask(Request::get(PATH).by(&alice).header("if-none-match", "\"3\"")).await;
    assert_eq!((same.status.as_u16(), same.body.len()), (304, 0));

    assert_eq!(broker.ask(Request::get(PATH).by(&eve)).await.code(), "BACKUP_NOT_FOUND");
    assert_eq!(broker.ask(Request::delete(PATH).by(&eve)).await.code(), "BACKUP_NOT_FOUND");
    assert_eq!(broker.ask(Request::get(PATH)).await.code(), "AUTH_REQUIRED");
    let stale = broker.ask(Request::delete(PATH).by(&alice).header("if-match", "\"2\"")).await;
    assert_eq!(stale.status.as_u16(), 412);
    broker.ask(Request::delete(PATH).by(&alice).header("if-match", "\"3\"")).await.expect(204);
    assert_eq!(broker.ask(Request::get(PATH).by(&alice)).await.code(), "BACKUP_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_devices_that_store_over_the_same_version_one_is_refused() {
    let (broker, _) = at_a_time().await;
    let alice = broker.signed_in("alice").await;
    let first = |bytes: &'static [u8]| broker.ask(put(&alice, bytes).header("if-none-match", "*"));
    let (one, other) = tokio::join!(first(b"one"), first(b"other"));
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 412]);
    let over = |bytes: &'static [u8]| broker.ask(put(&alice, bytes).header("if-match", "\"1\""));
    let answers = futures_util::future::join_all([over(b"a"), over(b"b"), over(b"c")]).await;
    let stored = answers.iter().filter(|answer| answer.status.as_u16() == 201).count();
    assert_eq!(stored, 1, "{answers:?}");
    let refused = answers.iter().find(|answer| answer.status.as_u16() != 201).unwrap();
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (412, "PRECONDITION_FAILED"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_is_not_what_was_announced_or_too_large_leaves_nothing() {
    let broker = Running::sqlite_with(Clock::system(), |config| config.limits.backup_bytes = 1 << 20).await;
    let alice = broker.signed_in("alice").await;
    let wrong = broker.ask(put(&alice, b"state").header("x-state-hash", &hash(b"other"))).await;
    assert_eq!((wrong.status.as_u16(), wrong.code().as_str()), (400, "INVALID_INPUT"));
    for odd in ["zz", &"x".repeat(64), ""] {
        let refused = broker.ask(put(&alice, b"state").header("x-state-hash", odd)).await;
        assert_eq!(refused.code(), "INVALID_INPUT", "{odd}");
    }
    let large = broker.ask(put(&alice, &vec![0; (1 << 20) + 1])).await;
    assert_eq!((large.status.as_u16(), large.code().as_str()), (413, "TOO_LARGE"));
    for odd in ["1", "\"x\"", "W/\"1\"", "\"1\", \"2\""] {
        assert_eq!(broker.ask(put(&alice, b"state").header("if-match", odd)).await.code(), "INVALID_INPUT");
    }
    assert_eq!(broker.ask(Request::get(PATH).by(&alice)).await.code(), "BACKUP_NOT_FOUND");
    broker.ask(put(&alice, &vec![0; 1 << 20])).await.expect(201);
}
