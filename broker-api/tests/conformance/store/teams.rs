//! Teams and their members.

use culvert_broker_api::store::{DeletedTeam, Member, NewTeam, Published, TeamRole};
use culvert_broker_wire::{AccessPolicy, Audience};

use super::stage::{Stage, at, is_conflict, page, share};

fn new(id: &str, by: &str) -> NewTeam {
    NewTeam { id: id.to_owned(), name: format!("the {id}"), created_by: by.to_owned() }
}

pub(super) async fn a_team_is_made_renamed_and_deleted(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice", "bob"]).await;
    let team = store.create_team(new("lab", "alice"), at(1)).await.unwrap();
    assert_eq!((team.name.as_str(), team.version, team.created_at), ("the lab", 1, at(1)));
    assert_eq!(store.team("lab").await.unwrap(), Some(team));
    assert_eq!(store.role_in("lab", "alice").await.unwrap(), Some(TeamRole::Admin));
    assert!(is_conflict(&store.create_team(new("lab", "bob"), at(2)).await));
    assert!(is_conflict(&store.create_team(new("ghosts", "nobody"), at(2)).await));
    assert_eq!(store.team("ghosts").await.unwrap(), None);

    assert!(is_conflict(&store.rename_team("lab", "x", Some(2)).await));
    let renamed = store.rename_team("lab", "Lab 2", Some(1)).await.unwrap().unwrap();
    assert_eq!((renamed.name.as_str(), renamed.version), ("Lab 2", 2));
    assert_eq!(
        store.rename_team("lab", "Lab 2", None).await.unwrap(),
        Some(renamed.clone()),
        "nothing changed"
    );
    assert_eq!(store.rename_team("none", "x", None).await.unwrap(), None);
    store.create_team(new("club", "bob"), at(3)).await.unwrap();
    let teams = store.teams(page(10)).await.unwrap();
    assert_eq!(teams.items.iter().map(|team| team.id.as_str()).collect::<Vec<_>>(), ["club", "lab"]);

    store.put_member("lab", "bob", TeamRole::Member, at(3)).await.unwrap();
    let audience = Audience::Team { team_id: "lab".to_owned() };
    let shared = share("alice", "results", AccessPolicy::of(audience));
    let shared = match store.publish(shared, at(3)).await.unwrap() {
        Published::New(share) => share,
        other => panic!("{other:?} is not new"),
    };
    assert!(is_conflict(&store.delete_team("lab", Some(1), at(4)).await), "it was renamed");
    assert_eq!(store.role_in("lab", "bob").await.unwrap(), Some(TeamRole::Member));
    let members = vec!["alice".to_owned(), "bob".to_owned()];
    let deleted = DeletedTeam { members, shares: vec![shared] };
    assert_eq!(store.delete_team("lab", Some(2), at(4)).await.unwrap(), Some(deleted));
    assert_eq!(store.delete_team("lab", None, at(4)).await.unwrap(), None);
    assert_eq!(store.team("lab").await.unwrap(), None);
    assert_eq!(store.role_in("lab", "alice").await.unwrap(), None);
}

pub(super) async fn a_team_with_members_keeps_an_admin(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice", "bob", "carol"]).await;
    store.create_team(new("lab", "alice"), at(1)).await.unwrap();
    assert!(is_conflict(&store.put_member("lab", "alice", TeamRole::Member, at(2)).await));
    let bob = Member { user: "bob".to_owned(), role: TeamRole::Member, added_at: at(2) };
    assert_eq!(store.put_member("lab", "bob", TeamRole::Member, at(2)).await.unwrap(), Some(bob.clone()));
    assert_eq!(store.put_member("lab", "bob", TeamRole::Member, at(3)).await.unwrap(), Some(bob.clone()));
    assert_eq!(store.put_member("none", "bob", TeamRole::Member, at(3)).await.unwrap(), None);
    assert_eq!(store.put_member("lab", "nobody", TeamRole::Member, at(3)).await.unwrap(), None);
    assert!(is_conflict(&store.remove_member("lab", "alice").await), "bob would be left without an admin");
    assert!(!store.remove_member("lab", "carol").await.unwrap());
    assert!(!store.remove_member("none", "alice").await.unwrap());

    let promoted = store.put_member("lab", "bob", TeamRole::Admin, at(4)).await.unwrap().unwrap();
    assert_eq!(promoted, Member { role: TeamRole::Admin, ..bob });
    store.put_member("lab", "carol", TeamRole::Member, at(5)).await.unwrap();
    let members = store.members("lab", page(2)).await.unwrap();
    assert_eq!(members.items.iter().map(|member| member.user.as_str()).collect::<Vec<_>>(), ["carol", "bob"]);
    assert!(members.next.is_some());
    assert!(store.remove_member("lab", "alice").await.unwrap());
    assert!(store.remove_member("lab", "carol").await.unwrap());
    assert!(store.remove_member("lab", "bob").await.unwrap(), "the last one may go");
}

pub(super) async fn two_admins_who_leave_at_once_do_not_both_leave(stage: &Stage) {
    let other = stage.replica();
    stage.admit(&["alice", "bob", "carol"]).await;
    for round in 0..10 {
        let team = format!("team {round}");
        stage.store.create_team(new(&team, "alice"), at(1)).await.unwrap();
        stage.store.put_member(&team, "bob", TeamRole::Admin, at(1)).await.unwrap();
        stage.store.put_member(&team, "carol", TeamRole::Member, at(1)).await.unwrap();
        let (one, two) = tokio::join!(
            stage.store.remove_member(&team, "alice"),
            other.put_member(&team, "bob", TeamRole::Member, at(2))
        );
        assert_eq!([is_conflict(&one), is_conflict(&two)].iter().filter(|lost| **lost).count(), 1);
    }
}

pub(super) async fn the_teams_of_a_user_come_with_their_role(stage: &Stage) {
    let store = &stage.store;
    stage.admit(&["alice", "bob"]).await;
    for (number, id) in (1..).zip(["a", "b", "c"]) {
        store.create_team(new(id, "alice"), at(number)).await.unwrap();
    }
    store.put_member("b", "bob", TeamRole::Member, at(5)).await.unwrap();
    store.put_member("a", "bob", TeamRole::Admin, at(6)).await.unwrap();
    let teams = store.teams_of("bob", page(10)).await.unwrap();
    let teams: Vec<_> = teams.items.iter().map(|(team, role)| (team.id.as_str(), *role)).collect();
    assert_eq!(teams, [("b", TeamRole::Member), ("a", TeamRole::Admin)]);
    let first = store.teams_of("alice", page(2)).await.unwrap();
    assert_eq!(first.items.len(), 2);
    let rest = culvert_broker_api::store::PageRequest { after: first.next, limit: 2 };
    let rest = store.teams_of("alice", rest).await.unwrap();
    assert_eq!((rest.items[0].0.id.as_str(), rest.items.len(), rest.next), ("a", 1, None));
}
