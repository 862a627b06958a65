//! API credentials.

use culvert_broker_api::store::{ApiSecret, Credential, PageRequest, Status};

use super::stage::{Stage, at, is_conflict, page};

fn secret(id: &str, made: u64) -> ApiSecret {
    ApiSecret { id: id.to_owned(), sealed: id.as_bytes().to_vec(), created_at: at(made), expires_at: None }
}

fn credential(api_key: &str, user: &str, made: u64) -> Credential {
    Credential {
        api_key: api_key.to_owned(),
        user: user.to_owned(),
        name: format!("name of {api_key}"),
        created_at: at(made),
        last_used_at: None,
        secrets: vec![secret(&format!("{api_key}-1"), made)],
    }
}

pub(super) async fn a_credential_is_found_while_it_holds(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice", "bob"]).await;
    let new = credential("rpa_1", "alice", 1);
    store.create_credential(new.clone()).await.unwrap();
    assert!(is_conflict(&store.create_credential(credential("rpa_1", "bob", 1)).await));
    assert!(is_conflict(&store.create_credential(credential("rpa_2", "nobody", 1)).await));
    assert_eq!(store.credential("rpa_1", at(2)).await.unwrap(), Some(new.clone()));
    assert_eq!(store.credential("rpa_2", at(2)).await.unwrap(), None);

    store.credential_used("rpa_1", at(100)).await.unwrap();
    store.credential_used("rpa_1", at(30)).await.unwrap();
    let used = store.credential("rpa_1", at(101)).await.unwrap().unwrap().last_used_at.unwrap();
    assert_eq!(used.unix_micros(), at(100).unix_micros() / 60_000_000 * 60_000_000, "to the minute");

    store.set_status("alice", Status::Suspended).await.unwrap();
    assert_eq!(store.credential("rpa_1", at(2)).await.unwrap(), None);
    store.set_status("alice", Status::Active).await.unwrap();
    assert!(!store.revoke_credential("bob", "rpa_1", at(3)).await.unwrap());
    assert!(store.revoke_credential("alice", "rpa_1", at(3)).await.unwrap());
    assert!(!store.revoke_credential("alice", "rpa_1", at(3)).await.unwrap());
    assert_eq!(store.credential("rpa_1", at(2)).await.unwrap(), None);
    assert_eq!(store.credentials_of("alice", page(10), at(3)).await.unwrap().items, []);
    assert_eq!(store.rotate("alice", "rpa_1", secret("new", 4), at(9)).await.unwrap(), None);
}

pub(super) async fn secrets_are_rotated_two_at_a_time(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice", "bob"]).await;
    store.create_credential(credential("rpa_1", "alice", 1)).await.unwrap();
    assert_eq!(store.rotate("bob", "rpa_1", secret("his", 10), at(20)).await.unwrap(), None);
    let other = stage.replica();
    let (one, two) = tokio::join!(
        store.rotate("alice", "rpa_1", secret("two", 10), at(20)),
        other.rotate("alice", "rpa_1", secret("too", 10), at(20))
    );
    assert_eq!([is_conflict(&one), is_conflict(&two)].iter().filter(|lost| **lost).count(), 1);
    let rotated = one.or(two).unwrap().unwrap();
    let first = ApiSecret { expires_at: Some(at(20)), ..secret("rpa_1-1", 1) };
    assert_eq!((rotated.secrets.len(), &rotated.secrets[0]), (2, &first));
    assert_eq!(store.credential("rpa_1", at(19)).await.unwrap(), Some(rotated.clone()));
    let later = store.credential("rpa_1", at(20)).await.unwrap().unwrap();
    assert_eq!(later.secrets, rotated.secrets[1..], "the old one has ended");
    // At once: nothing lives but the new one.
    let replaced = store.rotate("alice", "rpa_1", secret("three", 30), at(30)).await.unwrap().unwrap();
    assert_eq!(replaced.secrets, [secret("three", 30)]);
    assert_eq!(store.credential("rpa_1", at(30)).await.unwrap(), Some(replaced));
}

pub(super) async fn credentials_are_listed_with_their_secrets(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice", "bob"]).await;
    for number in 1..=5_u64 {
        store.create_credential(credential(&format!("rpa_{number}"), "alice", number / 2)).await.unwrap();
    }
    store.create_credential(credential("rpa_his", "bob", 1)).await.unwrap();
    store.rotate("alice", "rpa_3", secret("new", 10), at(20)).await.unwrap();
    let mut seen = Vec::new();
    let mut request = page(2);
    loop {
        let part = store.credentials_of("alice", request, at(15)).await.unwrap();
        seen.extend(part.items);
        let Some(next) = part.next else { break };
        request = PageRequest { after: Some(next), limit: 2 };
    }
    let keys: Vec<_> = seen.iter().map(|one| (one.api_key.as_str(), one.secrets.len())).collect();
    assert_eq!(keys, [("rpa_5", 1), ("rpa_4", 1), ("rpa_3", 2), ("rpa_2", 1), ("rpa_1", 1)]);
    assert_eq!(seen[0], credential("rpa_5", "alice", 2));
}

pub(super) async fn the_horizon_only_rises(stage: &Stage) {
    let store = &stage.store;
    assert_eq!(store.raise_horizon(0).await.unwrap(), 0);
    assert_eq!(store.raise_horizon(1_800_000_000).await.unwrap(), 1_800_000_000);
    assert_eq!(stage.replica().raise_horizon(5).await.unwrap(), 1_800_000_000);
    assert_eq!(store.raise_horizon(1_800_000_001).await.unwrap(), 1_800_000_001);
}
