//! Users and their devices.

use culvert_broker_api::store::{
    Admitted, Cursor, NewTeam, NewUser, PageRequest, Role, Session, Status, TeamRole, Way,
};
use culvert_broker_wire::{AccessPolicy, Audience};

use super::stage::{Stage, at, device, hash, is_conflict, page, share, user};

pub(super) async fn an_id_is_bound_once_together_with_its_device(stage: &Stage) {
    let store = &stage.store;
    let new = NewUser {
        password_hash: Some("$argon2id$x".to_owned()),
        role: Role::Admin,
        device: Some(device(1)),
        ..user("Ärger@example.org")
    };
    assert_eq!(store.admit(new, at(1)).await.unwrap(), Admitted::New);
    let there = store.user("Ärger@example.org").await.unwrap().unwrap();
    assert_eq!((there.role, there.status, there.created_at), (Role::Admin, Status::Active, at(1)));
    assert_eq!((there.password_hash.as_deref(), there.last_seen), (Some("$argon2id$x"), None));
    assert_eq!(store.devices(&there.id).await.unwrap(), [device(1)]);
    assert_eq!(store.user_of_device(&device(1).key).await.unwrap(), Some(there.clone()));

    let again = NewUser { device: Some(device(2)), ..user("Ärger@example.org") };
    assert_eq!(store.admit(again, at(2)).await.unwrap(), Admitted::Exists(there));
    assert_eq!(store.user_of_device(&device(2).key).await.unwrap(), None, "nothing was changed");
    let taken = NewUser { device: Some(device(1)), ..user("bob") };
    assert!(is_conflict(&store.admit(taken, at(2)).await));
    assert_eq!(store.user("bob").await.unwrap(), None, "without its device nobody is bound");
    assert_eq!(store.user("ärger@example.org").await.unwrap(), None, "ids are compared byte by byte");
}

pub(super) async fn of_two_admissions_at_once_one_wins(stage: &Stage) {
    let other = stage.replica();
    for round in 0..10_u16 {
        let id = format!("user {round}");
        let one = NewUser { device: Some(device(round * 2)), ..user(&id) };
        let two = NewUser { device: Some(device(round * 2 + 1)), ..user(&id) };
        let (one, two) = tokio::join!(stage.store.admit(one, at(1)), other.admit(two, at(1)));
        let (one, two) = (one.unwrap(), two.unwrap());
        let (lost, winner) = if one == Admitted::New { (two, round * 2) } else { (one, round * 2 + 1) };
        assert!(matches!(lost, Admitted::Exists(user) if user.id == id));
        assert_eq!(stage.store.devices(&id).await.unwrap(), [device(winner)]);
    }
}

pub(super) async fn a_device_is_bound_to_one_user_and_never_again_after_its_revocation(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice", "bob"]).await;
    store.add_device("alice", device(1)).await.unwrap();
    for user in ["alice", "bob"] {
        assert!(is_conflict(&store.add_device(user, device(1)).await));
    }
    assert!(is_conflict(&store.add_device("nobody", device(2)).await));
    store.device_used(&device(1).key, at(50)).await.unwrap();
    store.device_used(&device(1).key, at(40)).await.unwrap();
    assert_eq!(store.devices("alice").await.unwrap()[0].last_used_at, Some(at(50)));

    assert!(!store.revoke_device("bob", &device(1).key, at(60)).await.unwrap(), "it is not his");
    assert!(store.revoke_device("alice", &device(1).key, at(60)).await.unwrap());
    assert!(!store.revoke_device("alice", &device(1).key, at(61)).await.unwrap());
    assert_eq!(store.devices("alice").await.unwrap(), []);
    assert_eq!(store.user_of_device(&device(1).key).await.unwrap(), None);
    for user in ["alice", "bob"] {
        assert!(is_conflict(&store.add_device(user, device(1)).await), "it was revoked for good");
    }
}

pub(super) async fn a_user_has_at_most_256_devices(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice"]).await;
    for number in 0..255 {
        store.add_device("alice", device(number)).await.unwrap();
    }
    let other = stage.replica();
    let (one, two) =
        tokio::join!(store.add_device("alice", device(300)), other.add_device("alice", device(301)));
    assert_eq!([one, two].iter().filter(|outcome| is_conflict(outcome)).count(), 1);
    let devices = store.devices("alice").await.unwrap();
    assert_eq!((devices.len(), &devices[0]), (256, &device(0)), "oldest first");
    store.revoke_device("alice", &device(0).key, at(1)).await.unwrap();
    store.add_device("alice", device(400)).await.unwrap();
}

pub(super) async fn what_is_known_of_a_user_can_be_changed(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice"]).await;
    assert!(store.set_password("alice", Some("phc".to_owned())).await.unwrap());
    assert!(store.set_status("alice", Status::Suspended).await.unwrap());
    assert!(store.set_role("alice", Role::Admin).await.unwrap());
    store.seen("alice", at(9)).await.unwrap();
    store.seen("alice", at(8)).await.unwrap();
    let alice = store.user("alice").await.unwrap().unwrap();
    assert_eq!((alice.status, alice.role, alice.last_seen), (Status::Suspended, Role::Admin, Some(at(9))));
    assert_eq!(alice.password_hash.as_deref(), Some("phc"));
    assert!(store.set_password("alice", None).await.unwrap());
    assert_eq!(store.user("alice").await.unwrap().unwrap().password_hash, None);
    assert!(!store.set_password("nobody", None).await.unwrap());
    assert!(!store.set_status("nobody", Status::Active).await.unwrap());
    assert!(!store.set_role("nobody", Role::User).await.unwrap());
    store.seen("nobody", at(9)).await.unwrap();
}

pub(super) async fn a_removed_user_leaves_nothing_but_revoked_shares(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice", "bob"]).await;
    store.add_device("alice", device(1)).await.unwrap();
    let session = Session {
        hash: hash("session"),
        user: "alice".to_owned(),
        device: None,
        way: Way::Account,
        created_at: at(1),
        expires_at: at(1000),
    };
    store.create_session(session).await.unwrap();
    let team = NewTeam { id: "lab".to_owned(), name: "Lab".to_owned(), created_by: "bob".to_owned() };
    store.create_team(team, at(1)).await.unwrap();
    store.put_member("lab", "alice", TeamRole::Member, at(1)).await.unwrap();
    store.publish(share("alice", "hers", AccessPolicy::public()), at(2)).await.unwrap();
    let named = AccessPolicy::of(Audience::Users { user_ids: vec!["alice".to_owned()] });
    store.publish(share("bob", "for alice", named), at(2)).await.unwrap();

    assert!(store.delete_user("alice", at(3)).await.unwrap());
    assert!(!store.delete_user("alice", at(3)).await.unwrap());
    assert_eq!(store.user("alice").await.unwrap(), None);
    assert_eq!(store.user_of_device(&device(1).key).await.unwrap(), None);
    assert_eq!(store.session(&hash("session"), at(3)).await.unwrap(), None);
    assert_eq!(store.role_in("lab", "alice").await.unwrap(), None);
    assert_eq!(store.look_up(&hash("hers"), None, at(3)).await.unwrap(), None);
    assert!(is_conflict(&store.publish(share("bob", "hers", AccessPolicy::public()), at(4)).await));

    stage.admit(&["alice"]).await;
    let theirs = store.shared_with("alice", page(10), at(5)).await.unwrap();
    assert_eq!(theirs.items, [], "the next one with the id is somebody else");
    assert_eq!(store.shares_of("alice", page(10)).await.unwrap().items, []);

    // What is published while its owner is removed is revoked too, or refused.
    let other = stage.replica();
    for round in 0..10 {
        let (id, name) = (format!("user {round}"), format!("racing {round}"));
        stage.admit(&[&id]).await;
        let racing = share(&id, &name, AccessPolicy::public());
        let (published, deleted) = tokio::join!(store.publish(racing, at(6)), other.delete_user(&id, at(6)));
        assert!(deleted.unwrap() && (published.is_ok() || is_conflict(&published)));
        assert_eq!(store.look_up(&hash(&name), None, at(7)).await.unwrap(), None);
    }
}

pub(super) async fn those_who_share_a_team_or_a_share_are_related(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice", "bob", "carol", "dave", "erin", "frank", "stranger"]).await;
    let team = NewTeam { id: "lab".to_owned(), name: "Lab".to_owned(), created_by: "alice".to_owned() };
    store.create_team(team, at(1)).await.unwrap();
    store.put_member("lab", "bob", TeamRole::Member, at(1)).await.unwrap();
    let named = |who: &[&str]| {
        AccessPolicy::of(Audience::Users { user_ids: who.iter().map(|&user| user.to_owned()).collect() })
    };
    store.publish(share("alice", "one", named(&["carol", "nobody"])), at(2)).await.unwrap();
    store.publish(share("dave", "two", named(&["alice", "bob"])), at(2)).await.unwrap();
    let ended = AccessPolicy { expires_at: Some(at(10)), ..named(&["alice"]) };
    store.publish(share("erin", "three", ended), at(2)).await.unwrap();
    store.publish(share("frank", "four", named(&["alice"])), at(2)).await.unwrap();
    store.revoke("frank", &hash("four"), None, at(3)).await.unwrap();
    store.publish(share("stranger", "five", AccessPolicy::public()), at(2)).await.unwrap();

    assert_eq!(store.related("alice", at(9), 100).await.unwrap(), ["bob", "carol", "dave", "erin"]);
    assert_eq!(store.related("alice", at(10), 100).await.unwrap(), ["bob", "carol", "dave"]);
    assert_eq!(store.related("alice", at(10), 2).await.unwrap().len(), 2);
    assert_eq!(store.related("carol", at(10), 100).await.unwrap(), ["alice"]);
    assert_eq!(store.related("stranger", at(10), 100).await.unwrap(), [""; 0]);
}

pub(super) async fn lists_are_read_in_pages_while_they_grow(stage: &Stage) {
    let store = &stage.store;
    // Several at the same moment, so that only their ids order them.
    for number in 0..25_u64 {
        store.admit(user(&format!("user {number:02}")), at(number / 10)).await.unwrap();
    }
    let (mut seen, mut request) = (Vec::new(), page(4));
    loop {
        let part = store.users(request).await.unwrap();
        assert!(part.items.len() <= 4);
        seen.extend(part.items.into_iter().map(|user| user.id));
        store.admit(user(&format!("later {}", seen.len())), at(100)).await.unwrap();
        let Some(next) = part.next else { break };
        request = PageRequest { after: Cursor::decode(&next.encode()), limit: 4 };
    }
    let expected: Vec<String> = (0..25).rev().map(|number| format!("user {number:02}")).collect();
    let newest_first = |id: &String| -> u64 { id[5..].parse::<u64>().unwrap() / 10 };
    assert!(seen.is_sorted_by_key(|id| std::cmp::Reverse(newest_first(id))));
    seen.sort_by(|one, two| two.cmp(one));
    assert_eq!(seen, expected, "all of them, each once");
    let end = PageRequest { after: Some(Cursor { at: at(0), id: "user 00".to_owned() }), limit: 4 };
    assert_eq!(store.users(end).await.unwrap().items, []);
}
