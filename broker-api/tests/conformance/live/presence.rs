//! Who is online.

use std::time::Duration;

use culvert_broker_api::live::{Change, Presence};
use culvert_broker_wire::message::RelayAddress;
use culvert_wire::{PeerId, TopicId};
use futures_util::future::join_all;

use super::stage::{Stage, TTL, presence};

pub(super) async fn a_user_turns_with_the_first_connection_and_with_the_last(stage: &mut Stage) {
    let (laptop, phone) = (presence("alice", 1, 9), presence("alice", 2, 5));
    let now = stage.now();
    assert_eq!(stage.first().arrive(&laptop, TTL, now).await.unwrap(), Change::Turned);
    assert_eq!(stage.last().arrive(&phone, TTL, now).await.unwrap(), Change::Same);
    assert_eq!(stage.last().depart("alice", &laptop.connection, now).await.unwrap(), Change::Same);
    assert_eq!(stage.first().presences("alice").await.unwrap(), std::slice::from_ref(&phone));
    assert_eq!(stage.first().depart("alice", &phone.connection, now).await.unwrap(), Change::Turned);
    assert_eq!(stage.first().depart("alice", &phone.connection, now).await.unwrap(), Change::Same);
    assert_eq!(stage.last().presences("alice").await.unwrap(), []);
    stage.heard(&[("alice", true), ("alice", false)]).await;
}

pub(super) async fn a_connection_that_is_known_already_is_replaced(stage: &mut Stage) {
    let mut laptop = presence("alice", 1, 9);
    let now = stage.now();
    stage.first().arrive(&laptop, TTL, now).await.unwrap();
    laptop.endpoint = "https://alice.example.org".to_owned();
    assert_eq!(stage.last().arrive(&laptop, TTL, now).await.unwrap(), Change::Same);
    assert_eq!(stage.first().presences("alice").await.unwrap(), [laptop.clone()]);
    assert_eq!(stage.first().depart("alice", &laptop.connection, now).await.unwrap(), Change::Turned);
}

pub(super) async fn connections_are_given_oldest_first_with_all_that_is_known(stage: &mut Stage) {
    let mut all = [presence("alice", 3, 30), presence("alice", 1, 20), presence("alice", 2, 10)];
    all[1].device = None;
    all[2].endpoint = String::new();
    all[2].relay = Some(RelayAddress {
        url: "wss://relay.example.org".to_owned(),
        topic: TopicId([3; 32]),
        peer_id: PeerId([4; 32]),
    });
    for presence in all.iter().rev() {
        stage.first().arrive(presence, TTL, stage.now()).await.unwrap();
    }
    assert_eq!(stage.last().presences("alice").await.unwrap(), all);
    assert_eq!(stage.last().presences("bob").await.unwrap(), []);

    let carol = presence("carol", 4, 5);
    stage.first().arrive(&carol, TTL, stage.now()).await.unwrap();
    let of_each = stage.last().presences_of(&["carol", "bob", "alice", "carol"]).await.unwrap();
    assert_eq!(of_each, [vec![carol.clone()], vec![], all.to_vec(), vec![carol]]);
    assert_eq!(stage.last().presences_of(&[]).await.unwrap(), Vec::<Vec<Presence>>::new());
}

pub(super) async fn a_connection_ends_with_its_time_and_is_swept_by_one(stage: &mut Stage) {
    let users = ["alice", "bob", "carol", "dave"];
    for (number, user) in (1..).zip(users) {
        stage.first().arrive(&presence(user, number, 9), TTL, stage.now()).await.unwrap();
    }
    let later = TTL - Duration::from_secs(1);
    stage.clock.advance(later);
    stage.last().arrive(&presence("dave", 9, 0), TTL, stage.now()).await.unwrap();
    assert_eq!(stage.last().sweep(stage.now()).await.unwrap(), Vec::<String>::new());
    assert_eq!(stage.last().presences("alice").await.unwrap().len(), 1);

    // The replica that entered them is gone; over with its time, also before anybody swept.
    stage.clock.advance(Duration::from_secs(1));
    assert_eq!(stage.last().presences("alice").await.unwrap(), []);
    let now = stage.now();
    let sweeps = (0..8).map(|turn| &stage.replicas[turn % stage.replicas.len()]);
    let swept = join_all(sweeps.map(|live| live.sweep(now))).await;
    let mut gone: Vec<String> = swept.into_iter().flat_map(Result::unwrap).collect();
    gone.sort();
    assert_eq!(gone, ["alice", "bob", "carol"]);
    assert_eq!(stage.first().presences("dave").await.unwrap().len(), 1);

    let online = users.map(|user| (user, true));
    let offline = ["alice", "bob", "carol"].map(|user| (user, false));
    stage.heard(&[&online[..], &offline].concat()).await;
}

pub(super) async fn a_connection_that_is_renewed_stays_and_a_lost_one_is_entered_again(stage: &mut Stage) {
    let all = [presence("alice", 1, 9), presence("bob", 2, 8), presence("bob", 3, 7)];
    for presence in &all {
        stage.first().arrive(presence, TTL, stage.now()).await.unwrap();
    }
    stage.clock.advance(TTL / 2);
    // Alice is lost, as if somebody else had removed her.
    stage.last().depart("alice", &all[0].connection, stage.now()).await.unwrap();
    stage.first().renew(&all, TTL, stage.now()).await.unwrap();
    stage.clock.advance(TTL / 2);
    assert_eq!(stage.last().sweep(stage.now()).await.unwrap(), Vec::<String>::new());
    assert_eq!(stage.last().presences("alice").await.unwrap(), all[..1]);
    assert_eq!(stage.last().presences("bob").await.unwrap(), all[1..]);
    stage.first().renew(&[], TTL, stage.now()).await.unwrap();
    stage.heard(&[("alice", true), ("bob", true), ("alice", false), ("alice", true)]).await;
}

pub(super) async fn whoever_is_online_is_told_apart_in_order(stage: &mut Stage) {
    stage.first().arrive(&presence("bob", 1, 9), TTL, stage.now()).await.unwrap();
    stage.first().arrive(&presence("dave", 2, 9), TTL * 2, stage.now()).await.unwrap();
    let users = ["alice", "bob", "carol", "dave"].map(str::to_owned);
    assert_eq!(stage.last().online(&users).await.unwrap(), [false, true, false, true]);
    assert_eq!(stage.last().online(&[]).await.unwrap(), Vec::<bool>::new());
    stage.clock.advance(TTL);
    assert_eq!(stage.last().online(&users).await.unwrap(), [false, false, false, true]);
}

pub(super) async fn users_with_odd_names_do_not_meet(stage: &mut Stage) {
    let names =
        ["a b", "a", "a:b", "{a}", "{0}a", "ä\u{1f600}", "a\nb", "*", "due", "x'; DROP TABLE users; --"];
    for (number, name) in (1..).zip(names) {
        stage.first().arrive(&presence(name, number, 9), TTL, stage.now()).await.unwrap();
    }
    for (number, name) in (1..).zip(names) {
        assert_eq!(stage.last().presences(name).await.unwrap(), [presence(name, number, 9)], "{name:?}");
    }
    stage.clock.advance(TTL);
    let mut gone = stage.last().sweep(stage.now()).await.unwrap();
    let mut names = names;
    gone.sort();
    names.sort_unstable();
    assert_eq!(gone, names);
}
