//! What replicas tell each other.

use culvert_broker_api::live::{Event, Presence, ShareNews};
use culvert_broker_wire::message::{ShareChange, ShareSummary};
use culvert_broker_wire::{AccessPolicy, Audience, ShareMetadata, Timestamp};
use futures_util::future::try_join_all;

use super::stage::{START, Stage, TTL, heard, presence};

pub(super) async fn every_replica_hears_a_user_turn_once(stage: &mut Stage) {
    let all: Vec<Presence> = (1..20).map(|number| presence("alice", number, 9)).collect();
    let now = stage.now();
    let replica = |turn: usize| &stage.replicas[turn % stage.replicas.len()];
    let turns = || all.iter().enumerate();
    let arrivals = turns().map(|(turn, presence)| replica(turn).arrive(presence, TTL, now));
    try_join_all(arrivals).await.unwrap();
    let departures =
        turns().map(|(turn, presence)| replica(turn + 1).depart("alice", &presence.connection, now));
    try_join_all(departures).await.unwrap();
    stage.heard(&[("alice", true), ("alice", false)]).await;
}

pub(super) async fn whatever_is_published_is_heard_as_it_was(stage: &mut Stage) {
    let at = Timestamp::from_unix_seconds(START);
    let share = ShareSummary {
        id: "id".to_owned(),
        token: None,
        metadata: ShareMetadata {
            owner_user_id: "alice".to_owned(),
            result_id: "result".to_owned(),
            title: "A \"title\"\n".to_owned(),
            description: None,
            created_at: at,
            access_policy: AccessPolicy::of(Audience::Users { user_ids: vec!["bob".to_owned()] }),
        },
        published_at: at,
        downloads: None,
    };
    let news = ShareNews { change: ShareChange::Updated, share, before: Some(AccessPolicy::public()) };
    let events = [
        Event::Share(Box::new(news)),
        Event::Presence { user: "alice".to_owned(), online: true, at },
        Event::Teams { users: vec!["alice".to_owned(), "ä".to_owned()] },
        Event::Sessions { user: "alice".to_owned(), session: Some("00".to_owned()) },
        Event::Sessions { user: "alice".to_owned(), session: None },
        Event::Keys,
        Event::Missed,
    ];
    for event in &events {
        stage.last().publish(event).await.unwrap();
        for ear in &mut stage.ears {
            assert_eq!(heard(ear).await, *event);
        }
    }
}
