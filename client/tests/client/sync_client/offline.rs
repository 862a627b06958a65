//! What is kept while the broker is away, and what becomes of it.

use std::time::Duration;

use culvert_client::broker::{AccessPolicy, BrokerEvent, ErrorCode, ShareLink, SyncError};

use super::world::{World, builder, event};

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn changes_that_the_broker_did_not_take_are_said_to_be_kept_and_made_in_order_when_it_is_back() {
    let mut world = World::new().await;
    let alice = world.builder("alice").await.answer_within(SHORT).connect().await.unwrap();
    let mut events = alice.subscribe();
    world.crash().await;
    let mut links = Vec::new();
    for n in 0..3 {
        let kept = alice.share_result("r", &format!("share {n}"), None, AccessPolicy::Public).await;
        let Err(SyncError::Queued(link)) = kept else { panic!("{kept:?}") };
        links.push(link);
    }
    assert!(matches!(alice.revoke_share(&links[1].culvert()).await, Err(SyncError::Queued(_))));
    world.start().await;
    let mut made = Vec::new();
    while made.len() < 4 {
        made.push(
            event(&mut events, |event| match event {
                BrokerEvent::Published(link) => Some((link, true)),
                BrokerEvent::Revoked(link) => Some((link, false)),
                BrokerEvent::ChangeRefused { error, .. } => panic!("{error}"),
                _ => None,
            })
            .await,
        );
    }
    let [one, two, three] = &links[..] else { panic!("three links") };
    let expected: [(ShareLink, bool); 4] =
        [(one.clone(), true), (two.clone(), true), (three.clone(), true), (two.clone(), false)];
    assert_eq!(made, expected);
    let bob = world.client("bob").await;
    assert!(bob.access_share(&three.ddalab()).await.is_ok());
    assert_eq!(bob.access_share(&two.ddalab()).await.unwrap_err().code(), Some(ErrorCode::ShareNotFound));
}

#[tokio::test]
async fn changes_outlive_the_program() {
    let mut world = World::new().await;
    let credentials = world.user("alice").await;
    let folder = world.path("alice");
    let start = || {
        builder(&world.url(), "alice").credentials(credentials.clone()).folder(&folder).answer_within(SHORT)
    };
    let (first, second) = (start(), start());
    world.crash().await;
    let client = first.start().await.unwrap();
    let kept = client.share_result("r", "kept", None, AccessPolicy::Public).await;
    let Err(SyncError::Queued(link)) = kept else { panic!("{kept:?}") };
    drop(client);
    world.start().await;
    let client = second.start().await.unwrap();
    let mut events = client.subscribe();
    let published = event(&mut events, |event| match event {
        BrokerEvent::Published(link) => Some(link),
        _ => None,
    });
    assert_eq!(published.await, link);
}

#[tokio::test]
async fn the_queue_has_an_end_and_says_so() {
    let mut world = World::new().await;
    let alice = world.builder("alice").await.answer_within(SHORT).max_queued(2).connect().await.unwrap();
    world.crash().await;
    for _ in 0..2 {
        let kept = alice.share_result("r", "t", None, AccessPolicy::Public).await;
        assert!(matches!(kept, Err(SyncError::Queued(_))));
    }
    let surplus = alice.share_result("r", "t", None, AccessPolicy::Public).await;
    assert!(matches!(surplus, Err(SyncError::QueueFull(2))));
}

#[tokio::test]
async fn a_change_that_the_broker_refuses_when_it_is_back_is_told() {
    let mut world = World::new().await;
    let alice = world.builder("alice").await.answer_within(SHORT).connect().await.unwrap();
    let mut events = alice.subscribe();
    world.crash().await;
    let team = AccessPolicy::Team { team_id: "no-such-team".into() };
    let Err(SyncError::Queued(link)) = alice.share_result("r", "t", None, team).await else { panic!("kept") };
    world.start().await;
    let refused = event(&mut events, |event| match event {
        BrokerEvent::ChangeRefused { link, error } => Some((link, error)),
        _ => None,
    });
    let (of, error) = refused.await;
    assert_eq!((of, error.code()), (link, Some(ErrorCode::PublishError)));
}

#[tokio::test]
async fn a_share_that_was_looked_up_is_still_known_offline_and_marked_as_stale() {
    let mut world = World::new().await;
    let alice = world.client("alice").await;
    let link = alice.share_result("r", "known", None, AccessPolicy::Public).await.unwrap();
    let other = alice.share_result("r", "never asked for", None, AccessPolicy::Public).await.unwrap();
    let folder = world.path("bob");
    let bob = world.builder("bob").await.folder(&folder).answer_within(SHORT).connect().await.unwrap();
    assert!(bob.access_share(&link).await.unwrap().owner_online);
    let mut events = bob.subscribe();
    world.crash().await;
    event(&mut events, |event| matches!(event, BrokerEvent::Offline(_)).then_some(())).await;
    let stale = bob.access_share(&link).await.unwrap();
    assert_eq!((stale.is_stale, stale.owner_online, stale.metadata.title.as_str()), (true, false, "known"));
    assert!(stale.grant.is_none() && stale.download_url.is_empty());
    assert!(matches!(bob.access_share(&other).await, Err(SyncError::TimedOut(_) | SyncError::Offline(_))));
    // What was revoked meanwhile is forgotten as soon as the broker says so.
    world.start().await;
    event(&mut events, |event| matches!(event, BrokerEvent::Online(_)).then_some(())).await;
    let mut alices = alice.subscribe();
    if !alice.is_connected() {
        event(&mut alices, |event| matches!(event, BrokerEvent::Online(_)).then_some(())).await;
    }
    alice.revoke_share(&link).await.unwrap();
    assert_eq!(bob.access_share(&link).await.unwrap_err().code(), Some(ErrorCode::ShareNotFound));
    world.crash().await;
    event(&mut events, |event| matches!(event, BrokerEvent::Offline(_)).then_some(())).await;
    assert!(bob.access_share(&link).await.is_err());
}
