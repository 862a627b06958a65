//! Shares.

use culvert_broker_api::store::{
    Access, AuditAction, AuditFilter, AuditLine, AuditRecord, LookUp, NewTeam, PageRequest, Published, Share,
    ShareChanges, TeamRole,
};
use culvert_broker_wire::{AccessPolicy, Audience, Permission};

use super::audit::record;
use super::stage::{Stage, at, hash, is_conflict, page, share};

fn users(ids: &[&str]) -> AccessPolicy {
    AccessPolicy::of(Audience::Users { user_ids: ids.iter().map(|&id| id.to_owned()).collect() })
}

fn team(id: &str) -> AccessPolicy {
    AccessPolicy::of(Audience::Team { team_id: id.to_owned() })
}

fn institution() -> AccessPolicy {
    AccessPolicy::of(Audience::Institution { institution_id: None })
}

fn is_new(outcome: Published) -> Share {
    match outcome {
        Published::New(share) => share,
        other => panic!("{other:?} is not new"),
    }
}

/// What a look-up says, in a word.
async fn verdict(stage: &Stage, name: &str, viewer: Option<&str>, now: u64) -> &'static str {
    match stage.store.look_up(&hash(name), viewer, at(now)).await.unwrap() {
        None => "none",
        Some(Access::Owner(_)) => "owner",
        Some(Access::Granted(_)) => "granted",
        Some(Access::Denied(_)) => "denied",
    }
}

pub(super) async fn a_share_is_found_as_it_was_published(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice", "bob"]).await;
    let mut new = share("alice", "one", users(&["bob", "Zoë 🦀", "1:x", "bob"]));
    new.description = Some("words".to_owned());
    new.policy.permissions = vec![Permission::Reshare, Permission::View, Permission::View];
    new.policy.expires_at = Some(at(100));
    new.policy.max_downloads = Some(u32::MAX);
    let published = is_new(store.publish(new.clone(), at(5)).await.unwrap());
    // As it is read: everything once, permissions in their order.
    let mut expected = users(&["bob", "Zoë 🦀", "1:x"]);
    expected.permissions = vec![Permission::View, Permission::Reshare];
    (expected.expires_at, expected.max_downloads) = (Some(at(100)), Some(u32::MAX));
    assert_eq!(published.policy, expected);
    assert_eq!((published.version, published.downloads, published.revoked_at), (1, 0, None));
    assert_eq!((published.created_at, published.published_at, published.updated_at), (at(0), at(5), at(5)));
    assert_eq!((published.token_hash, published.token_sealed.clone()), (hash("one"), vec![1, 2, 3]));

    let looked_up = store.look_up(&hash("one"), Some("bob"), at(6)).await.unwrap();
    assert_eq!(looked_up, Some(Access::Granted(published.clone())));
    assert_eq!(store.share("alice", "id-one").await.unwrap(), Some(published.clone()));
    assert_eq!(store.share("bob", "id-one").await.unwrap(), None, "it is not his");
    assert_eq!(store.publish(new, at(7)).await.unwrap(), Published::Same(published));

    let named = AccessPolicy::of(Audience::Institution { institution_id: Some("MIT".to_owned()) });
    for (name, policy) in [("named", named), ("public", AccessPolicy::public()), ("nobody", users(&[]))] {
        let published = is_new(store.publish(share("alice", name, policy.clone()), at(8)).await.unwrap());
        assert_eq!(store.share("alice", &format!("id-{name}")).await.unwrap(), Some(published.clone()));
        assert_eq!(published.policy, policy);
    }
    assert!(is_conflict(&store.publish(share("ghost", "ghostly", AccessPolicy::public()), at(8)).await));
}

pub(super) async fn several_look_ups_are_answered_each_for_its_viewer_and_in_their_order(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice", "bob"]).await;
    let one = is_new(store.publish(share("alice", "one", users(&["bob"])), at(1)).await.unwrap());
    let two = is_new(store.publish(share("bob", "two", institution()), at(1)).await.unwrap());
    let asked =
        |name, viewer: Option<&str>| LookUp { token_hash: hash(name), viewer: viewer.map(str::to_owned) };
    let look_ups = [
        asked("two", Some("alice")),
        asked("one", Some("alice")),
        asked("unknown", Some("alice")),
        asked("one", None),
        asked("one", Some("bob")),
        asked("two", None),
        asked("one", Some("bob")),
    ];
    let expected = [
        Some(Access::Granted(two.clone())),
        Some(Access::Owner(one.clone())),
        None,
        Some(Access::Denied(one.clone())),
        Some(Access::Granted(one.clone())),
        Some(Access::Denied(two.clone())),
        Some(Access::Granted(one.clone())),
    ];
    assert_eq!(store.look_up_all(&look_ups, at(2)).await.unwrap(), expected);
    assert_eq!(store.look_up_all(&[], at(2)).await.unwrap(), []);
    // As many as are ever gathered, and more than stay prepared.
    let many: Vec<_> = (0..64).map(|turn| look_ups[turn % look_ups.len()].clone()).collect();
    let found = store.look_up_all(&many, at(2)).await.unwrap();
    assert!(found.iter().enumerate().all(|(turn, access)| *access == expected[turn % expected.len()]));
}

pub(super) async fn publishing_again_changes_what_is_ones_own(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice"]).await;
    let first = is_new(store.publish(share("alice", "one", users(&["bob", "carol"])), at(1)).await.unwrap());
    store.count_download(&first.id).await.unwrap();
    let mut again = share("alice", "one", users(&["carol", "dave"]));
    (again.id, again.title, again.token_sealed) = ("another id".to_owned(), "new".to_owned(), vec![9]);
    let Published::Changed { before, after } = store.publish(again, at(2)).await.unwrap() else { panic!() };
    assert_eq!(*before, Share { downloads: 1, ..first.clone() });
    let expected = Share {
        title: "new".to_owned(),
        policy: users(&["carol", "dave"]),
        updated_at: at(2),
        version: 2,
        downloads: 1,
        ..first
    };
    assert_eq!(*after, expected);
    assert_eq!(store.share("alice", "id-one").await.unwrap(), Some(expected));
    assert_eq!(verdict(stage, "one", Some("bob"), 3).await, "denied");
    assert_eq!(verdict(stage, "one", Some("dave"), 3).await, "granted");
}

pub(super) async fn republishing_somebody_elses_token_is_refused(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice", "mallory"]).await;
    store.publish(share("alice", "one", users(&["bob"])), at(1)).await.unwrap();
    let mut theft = share("mallory", "one", AccessPolicy::public());
    theft.id = "stolen".to_owned();
    assert!(is_conflict(&store.publish(theft, at(2)).await));
    assert_eq!(verdict(stage, "one", None, 3).await, "denied");
    assert_eq!(verdict(stage, "one", Some("mallory"), 3).await, "denied");
    let changes = ShareChanges { policy: Some(AccessPolicy::public()), ..ShareChanges::default() };
    assert_eq!(store.change_share("mallory", &hash("one"), changes, None, at(3)).await.unwrap(), None);
    assert_eq!(store.revoke("mallory", &hash("one"), None, at(3)).await.unwrap(), None);
    assert_eq!(verdict(stage, "one", Some("alice"), 4).await, "owner");
}

pub(super) async fn a_revoked_share_is_gone_for_good(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice", "bob"]).await;
    store.publish(share("alice", "one", AccessPolicy::public()), at(1)).await.unwrap();
    assert!(is_conflict(&store.revoke("alice", &hash("one"), Some(2), at(2)).await));
    let revoked = store.revoke("alice", &hash("one"), Some(1), at(2)).await.unwrap().unwrap();
    assert_eq!((revoked.revoked_at, revoked.version), (Some(at(2)), 2));
    assert_eq!(store.revoke("alice", &hash("one"), None, at(3)).await.unwrap(), None);
    assert_eq!(verdict(stage, "one", Some("alice"), 3).await, "none");
    assert_eq!(store.share("alice", "id-one").await.unwrap(), None);
    assert_eq!(store.shares_of("alice", page(10)).await.unwrap().items, []);
    assert!(!store.count_download("id-one").await.unwrap());
    for owner in ["alice", "bob"] {
        let mut again = share(owner, "one", AccessPolicy::public());
        again.id = format!("again by {owner}");
        assert!(is_conflict(&store.publish(again, at(4)).await));
    }
}

pub(super) async fn a_policy_says_who_may_use_a_share(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice", "bob", "carol"]).await;
    let lab = NewTeam { id: "lab".to_owned(), name: "Lab".to_owned(), created_by: "alice".to_owned() };
    store.create_team(lab, at(0)).await.unwrap();
    store.put_member("lab", "carol", TeamRole::Member, at(0)).await.unwrap();
    let policies = [
        ("public", AccessPolicy::public()),
        ("institution", institution()),
        ("team", team("lab")),
        ("users", users(&["bob"])),
    ];
    for (name, policy) in policies {
        store.publish(share("alice", name, policy), at(1)).await.unwrap();
        assert_eq!(verdict(stage, name, Some("alice"), 2).await, "owner");
    }
    let expected = [
        ("public", ["granted", "granted", "granted"]),
        ("institution", ["denied", "granted", "granted"]),
        ("team", ["denied", "denied", "granted"]),
        ("users", ["denied", "granted", "denied"]),
    ];
    for (name, verdicts) in expected {
        for (viewer, expected) in [None, Some("bob"), Some("carol")].into_iter().zip(verdicts) {
            assert_eq!(verdict(stage, name, viewer, 2).await, expected, "{name} for {viewer:?}");
        }
    }
    assert_eq!(verdict(stage, "unknown", Some("bob"), 2).await, "none");
    store.remove_member("lab", "carol").await.unwrap();
    assert_eq!(verdict(stage, "team", Some("carol"), 2).await, "denied");
}

pub(super) async fn nobody_but_the_owner_uses_a_share_after_its_end(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice", "bob"]).await;
    let ending = AccessPolicy { expires_at: Some(at(10)), ..AccessPolicy::public() };
    store.publish(share("alice", "ending", ending), at(1)).await.unwrap();
    assert_eq!(verdict(stage, "ending", Some("bob"), 9).await, "granted");
    assert_eq!(verdict(stage, "ending", Some("bob"), 10).await, "denied");
    assert_eq!(verdict(stage, "ending", None, 10).await, "denied");
    assert_eq!(verdict(stage, "ending", Some("alice"), 10).await, "owner");

    let once = AccessPolicy { max_downloads: Some(1), ..AccessPolicy::public() };
    store.publish(share("alice", "once", once), at(1)).await.unwrap();
    assert_eq!(verdict(stage, "once", None, 2).await, "granted");
    assert!(store.count_download("id-once").await.unwrap());
    assert!(!store.count_download("id-once").await.unwrap());
    assert!(!store.count_download("unknown").await.unwrap());
    assert_eq!(verdict(stage, "once", None, 2).await, "denied");
    assert_eq!(verdict(stage, "once", Some("alice"), 2).await, "owner");
    let none = AccessPolicy { max_downloads: Some(0), ..AccessPolicy::public() };
    store.publish(share("alice", "never", none), at(1)).await.unwrap();
    assert_eq!(verdict(stage, "never", None, 2).await, "denied");
}

pub(super) async fn downloads_never_exceed_their_number_whoever_asks_at_once(stage: &Stage) {
    stage.admit(&["alice"]).await;
    let five = AccessPolicy { max_downloads: Some(5), ..AccessPolicy::public() };
    stage.store.publish(share("alice", "five", five), at(1)).await.unwrap();
    let other = stage.replica();
    let asked = (0..24).map(|number| {
        let store = if number % 2 == 0 { &stage.store } else { &other };
        store.count_download("id-five")
    });
    let answers = futures_util::future::join_all(asked).await;
    assert_eq!(answers.into_iter().filter(|answer| *answer.as_ref().unwrap()).count(), 5);
    assert_eq!(stage.store.share("alice", "id-five").await.unwrap().unwrap().downloads, 5);
}

pub(super) async fn downloads_are_counted_together(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice"]).await;
    let names: Vec<String> = (0..40).map(|number| format!("{number:02}")).collect();
    for name in &names {
        store.publish(share("alice", name, AccessPolicy::public()), at(1)).await.unwrap();
    }
    let line = |name: &String, counts| AuditLine {
        record: record("bob", AuditAction::ShareRequested, &format!("id-{name}")),
        counts,
    };
    let counts = |names: &[String], each| {
        let lines = names.iter().flat_map(|name| std::iter::repeat_n(line(name, true), each));
        // One about the same share that does not count, and one about none.
        let mut lines: Vec<_> = lines.chain([line(&names[0], false)]).collect();
        lines.push(AuditLine {
            record: AuditRecord { subject: None, ..lines[0].record.clone() },
            counts: false,
        });
        lines
    };
    store.append_lines(Vec::new(), at(2)).await.unwrap();
    store.append_lines(counts(&names[..1], 5), at(2)).await.unwrap();
    // Two replicas at once, over the same shares.
    let other = stage.replica();
    for _ in 0..5 {
        let (some, mut all) = (counts(&names[..10], 1), counts(&names, 2));
        all.reverse();
        let (one, two) = tokio::join!(store.append_lines(some, at(2)), other.append_lines(all, at(2)));
        one.and(two).unwrap();
    }
    store.append_lines(counts(&["gone".to_owned(), "03".to_owned()], 1), at(2)).await.unwrap();
    // More than are written with one statement.
    store.append_lines(counts(&names[39..], 400), at(2)).await.unwrap();
    let mut found = Vec::new();
    for name in &names {
        found.push(store.share("alice", &format!("id-{name}")).await.unwrap().unwrap().downloads);
    }
    let expected = |number| match number {
        0 => 20,
        3 => 16,
        1..10 => 15,
        39 => 410,
        _ => 10,
    };
    assert_eq!(found, (0..40).map(expected).collect::<Vec<_>>());
    let wanted = AuditFilter { subject: Some("id-gone".to_owned()), ..AuditFilter::default() };
    let entries = store.entries(wanted, PageRequest { after: None, limit: 10 }).await.unwrap();
    assert_eq!(entries.items.len(), 2, "what was granted is written down, whatever became of the share");
}

pub(super) async fn of_two_publications_of_a_token_at_once_one_wins(stage: &Stage) {
    let other = stage.replica();
    stage.admit(&["alice", "bob"]).await;
    for round in 0..10 {
        let name = format!("share {round}");
        let one = share("alice", &name, users(&["x"]));
        let mut two = share("bob", &name, AccessPolicy::public());
        two.id = format!("his {round}");
        let (one, two) = tokio::join!(stage.store.publish(one, at(1)), other.publish(two, at(1)));
        assert_eq!([is_conflict(&one), is_conflict(&two)].iter().filter(|lost| **lost).count(), 1);
        let winner = one.or(two).map(is_new).unwrap();
        let found = stage.store.look_up(&hash(&name), Some(&winner.owner), at(2)).await.unwrap();
        assert_eq!(found, Some(Access::Owner(winner)));
    }
}

pub(super) async fn a_change_says_what_was_and_counts_the_version(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice"]).await;
    let first = is_new(store.publish(share("alice", "one", users(&["bob"])), at(1)).await.unwrap());
    let changes = ShareChanges {
        title: Some("other".to_owned()),
        description: Some(Some("words".to_owned())),
        policy: Some(AccessPolicy { expires_at: Some(at(50)), ..users(&["carol"]) }),
    };
    let outcome = store.change_share("alice", &hash("one"), changes.clone(), Some(7), at(2)).await;
    assert!(is_conflict(&outcome));
    let (before, after) =
        store.change_share("alice", &hash("one"), changes, Some(1), at(2)).await.unwrap().unwrap();
    assert_eq!(before, first);
    assert_eq!((after.version, after.updated_at, after.title.as_str()), (2, at(2), "other"));
    assert_eq!(store.share("alice", "id-one").await.unwrap(), Some(after.clone()));
    assert_eq!(verdict(stage, "one", Some("bob"), 3).await, "denied");
    assert_eq!(verdict(stage, "one", Some("carol"), 3).await, "granted");

    let nothing = store.change_share("alice", &hash("one"), ShareChanges::default(), None, at(4)).await;
    assert_eq!(nothing.unwrap(), Some((after.clone(), after.clone())), "nothing changed, nothing counted");
    let forget = ShareChanges { description: Some(None), ..ShareChanges::default() };
    let (_, last) = store.change_share("alice", &hash("one"), forget, None, at(5)).await.unwrap().unwrap();
    assert_eq!((last.description, last.policy, last.version), (None, after.policy, 3));
    let outcome = store.change_share("alice", &hash("none"), ShareChanges::default(), None, at(5)).await;
    assert_eq!(outcome.unwrap(), None);
}

pub(super) async fn what_is_shared_with_somebody_is_listed_newest_first(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice", "bob", "carol"]).await;
    for id in ["lab", "club"] {
        let team = NewTeam { id: id.to_owned(), name: id.to_owned(), created_by: "alice".to_owned() };
        store.create_team(team, at(0)).await.unwrap();
    }
    store.put_member("lab", "bob", TeamRole::Member, at(0)).await.unwrap();
    let ended = AccessPolicy { expires_at: Some(at(20)), ..users(&["bob"]) };
    let used_up = AccessPolicy { max_downloads: Some(0), ..institution() };
    let policies = [
        ("a", users(&["bob", "carol"])),
        ("b", team("lab")),
        ("c", institution()),
        ("d", AccessPolicy::public()),
        ("e", users(&["carol"])),
        ("f", team("club")),
        ("g", ended),
        ("h", used_up),
        ("i", users(&["bob"])),
        ("j", institution()),
    ];
    for (number, (name, policy)) in (1..).zip(policies) {
        store.publish(share("alice", name, policy), at(number)).await.unwrap();
    }
    store.publish(share("bob", "own", institution()), at(11)).await.unwrap();
    store.revoke("alice", &hash("j"), None, at(12)).await.unwrap();

    let names = |shares: &[Share]| shares.iter().map(|share| share.id[3..].to_owned()).collect::<String>();
    assert_eq!(names(&store.shared_with("bob", page(10), at(13)).await.unwrap().items), "igcba");
    assert_eq!(names(&store.shared_with("bob", page(10), at(20)).await.unwrap().items), "icba");
    let first = store.shared_with("bob", page(3), at(20)).await.unwrap();
    assert_eq!(names(&first.items), "icb");
    store.publish(share("alice", "z", institution()), at(30)).await.unwrap();
    let rest = PageRequest { after: first.next, limit: 3 };
    let rest = store.shared_with("bob", rest, at(20)).await.unwrap();
    assert_eq!((names(&rest.items), rest.next), ("a".to_owned(), None));
    let mine = store.shares_of("alice", page(3)).await.unwrap();
    assert_eq!(names(&mine.items), "zih");
    let rest = PageRequest { after: mine.next, limit: 100 };
    assert_eq!(names(&store.shares_of("alice", rest).await.unwrap().items), "gfedcba");
}

pub(super) async fn a_team_that_is_deleted_takes_its_shares_with_it(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice", "bob"]).await;
    let lab = NewTeam { id: "lab".to_owned(), name: "Lab".to_owned(), created_by: "alice".to_owned() };
    store.create_team(lab.clone(), at(0)).await.unwrap();
    store.publish(share("alice", "team", team("lab")), at(1)).await.unwrap();
    store.publish(share("alice", "other", users(&["bob"])), at(1)).await.unwrap();
    store.delete_team("lab", None, at(2)).await.unwrap();
    assert_eq!(verdict(stage, "team", Some("alice"), 3).await, "none");
    assert_eq!(verdict(stage, "other", Some("bob"), 3).await, "granted");
    // Whoever takes the team's name later gets nothing of it.
    store.create_team(NewTeam { created_by: "bob".to_owned(), ..lab }, at(4)).await.unwrap();
    assert_eq!(verdict(stage, "team", Some("bob"), 5).await, "none");

    // A share that is published while its team is deleted is revoked with it, or refused.
    let other = stage.replica();
    for round in 0..10 {
        let (id, name) = (format!("team {round}"), format!("racing {round}"));
        let new = NewTeam { id: id.clone(), name: id.clone(), created_by: "alice".to_owned() };
        store.create_team(new, at(6)).await.unwrap();
        let racing = share("alice", &name, team(&id));
        let (published, deleted) =
            tokio::join!(store.publish(racing, at(7)), other.delete_team(&id, None, at(7)));
        assert!(deleted.unwrap().is_some() && (published.is_ok() || is_conflict(&published)));
        assert_eq!(verdict(stage, &name, Some("alice"), 8).await, "none");
    }
}

pub(super) async fn a_policy_for_a_team_needs_a_team_that_the_owner_is_in(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice", "bob"]).await;
    let lab = NewTeam { id: "lab".to_owned(), name: "Lab".to_owned(), created_by: "alice".to_owned() };
    store.create_team(lab, at(0)).await.unwrap();
    assert!(is_conflict(&store.publish(share("bob", "one", team("lab")), at(1)).await));
    assert!(is_conflict(&store.publish(share("alice", "one", team("none")), at(1)).await));
    assert_eq!(verdict(stage, "one", Some("alice"), 1).await, "none");
    store.publish(share("bob", "one", users(&["alice"])), at(1)).await.unwrap();
    let changes = ShareChanges { policy: Some(team("lab")), ..ShareChanges::default() };
    assert!(is_conflict(&store.change_share("bob", &hash("one"), changes.clone(), None, at(2)).await));
    assert_eq!(verdict(stage, "one", Some("alice"), 2).await, "granted", "nothing has changed");
    store.put_member("lab", "bob", TeamRole::Member, at(3)).await.unwrap();
    store.change_share("bob", &hash("one"), changes.clone(), None, at(4)).await.unwrap().unwrap();
    assert_eq!(verdict(stage, "one", Some("alice"), 5).await, "granted");
    assert_eq!(store.change_share("bob", &hash("none"), changes, None, at(4)).await.unwrap(), None);
}
