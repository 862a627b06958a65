//! Sessions.

use culvert_broker_api::store::{Role, Session, SessionUser, Status, Way};

use super::stage::{Stage, at, device, hash, is_conflict};

fn session(name: &str, user: &str, with: Option<u16>) -> Session {
    Session {
        hash: hash(name),
        user: user.to_owned(),
        device: with.map(|number| device(number).key),
        way: if with.is_some() { Way::Device } else { Way::Account },
        created_at: at(1),
        expires_at: at(100),
    }
}

pub(super) async fn a_session_holds_until_it_ends(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice", "bob"]).await;
    store.create_session(session("one", "alice", None)).await.unwrap();
    store.create_session(session("two", "alice", None)).await.unwrap();
    store.create_session(session("his", "bob", None)).await.unwrap();
    assert!(is_conflict(&store.create_session(session("one", "bob", None)).await));
    assert!(is_conflict(&store.create_session(session("ghost", "nobody", None)).await));

    let found = store.session(&hash("one"), at(99)).await.unwrap();
    assert_eq!(found, Some(SessionUser { session: session("one", "alice", None), role: Role::User }));
    assert_eq!(store.session(&hash("one"), at(100)).await.unwrap(), None, "it has ended");
    assert_eq!(store.session(&hash("none"), at(2)).await.unwrap(), None);
    assert!(store.end_session(&hash("one")).await.unwrap());
    assert!(!store.end_session(&hash("one")).await.unwrap());
    assert_eq!(store.end_sessions("alice").await.unwrap(), 1);
    assert_eq!(store.session(&hash("two"), at(2)).await.unwrap(), None);
    assert!(store.session(&hash("his"), at(2)).await.unwrap().is_some());
}

pub(super) async fn a_session_ends_with_its_device_and_its_user(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice"]).await;
    store.add_device("alice", device(1)).await.unwrap();
    store.create_session(session("with device", "alice", Some(1))).await.unwrap();
    store.create_session(session("without", "alice", None)).await.unwrap();
    store.set_role("alice", Role::Admin).await.unwrap();
    assert_eq!(store.session(&hash("without"), at(2)).await.unwrap().unwrap().role, Role::Admin);

    store.revoke_device("alice", &device(1).key, at(3)).await.unwrap();
    assert_eq!(store.session(&hash("with device"), at(4)).await.unwrap(), None);
    // One that was under way when the device was revoked.
    store.create_session(session("too late", "alice", Some(1))).await.unwrap();
    assert_eq!(store.session(&hash("too late"), at(4)).await.unwrap(), None);

    store.set_status("alice", Status::Suspended).await.unwrap();
    assert_eq!(store.session(&hash("without"), at(4)).await.unwrap(), None);
    store.set_status("alice", Status::Active).await.unwrap();
    assert!(store.session(&hash("without"), at(4)).await.unwrap().is_some());
}
