//! What a client of a real broker can rely on; the holes of the predecessor by their numbers.

use std::time::{Duration, Instant};

use culvert_broker_wire::ClientMessage;
use culvert_client::Identity;
use culvert_client::broker::{
    AccessPolicy, BrokerEvent, Credentials, ErrorCode, ShareChange, ShareToken, SyncClient, SyncError,
};
use zeroize::Zeroizing;

use super::world::{DEADLINE, World, builder, event, until};

#[tokio::test]
async fn a_share_is_published_looked_up_listed_and_revoked() {
    let world = World::new().await;
    let alice = world.builder("alice").await.endpoint("http://127.0.0.1:3001").connect().await.unwrap();
    let bob = world.client("bob").await;
    assert_eq!((alice.user_id(), alice.local_endpoint()), ("alice".into(), "http://127.0.0.1:3001".into()));
    let mut heard = bob.subscribe();
    let policy = AccessPolicy::Users { user_ids: vec!["bob".into()] };
    let link = alice.share_result("result-123", "My Analysis", Some("of last week"), policy).await.unwrap();
    assert!(link.starts_with("ddalab://share/") && link.len() == "ddalab://share/".len() + 22, "{link}");
    let change = event(&mut heard, |event| match event {
        BrokerEvent::Share(change) => Some(change),
        _ => None,
    });
    let change = change.await;
    assert_eq!((change.event, change.share.metadata.title.as_str()), (ShareChange::Published, "My Analysis"));

    let share = bob.access_share(&link).await.unwrap();
    assert!(share.owner_online && !share.is_stale && share.grant.is_some());
    assert_eq!(share.download_url, "http://127.0.0.1:3001/api/results/result-123");
    assert_eq!(bob.access_share(&link.replace("ddalab", "culvert")).await.unwrap().metadata, share.metadata);

    let mine = alice.list_my_shares().await.unwrap();
    assert_eq!(mine.len(), 1);
    assert!(link.ends_with(mine[0].token.as_deref().unwrap()));
    let with_bob = bob.list_shared_with_me().await.unwrap();
    assert_eq!((with_bob.len(), with_bob[0].token.as_deref()), (1, None));

    alice.revoke_share(&link).await.unwrap();
    let gone = event(&mut heard, |event| match event {
        BrokerEvent::Share(change) => Some(change.event),
        _ => None,
    });
    assert_eq!(gone.await, ShareChange::Revoked);
    assert_eq!(bob.access_share(&link).await.unwrap_err().code(), Some(ErrorCode::ShareNotFound));
    alice.disconnect().await;
    bob.disconnect().await;
    assert!(matches!(alice.list_my_shares().await, Err(SyncError::Disconnected)));
}

/// Hole 2.b.1: requests waited under their token and were answered by the result's id.
#[tokio::test]
async fn hole_2b_01_answers_go_to_whoever_asked_however_many_ask_at_once() {
    let world = World::new().await;
    let alice = world.client("alice").await;
    // All of the same result, so that nothing but the request can tell them apart.
    let mut links = Vec::new();
    for n in 0..20 {
        let title = format!("share {n}");
        links.push((alice.share_result("result", &title, None, AccessPolicy::Public).await.unwrap(), title));
    }
    let bob = world.client("bob").await;
    let asked = links.iter().map(|(link, _)| bob.access_share(link));
    let answers = futures_util::future::join_all(asked).await;
    for (answer, (_, title)) in answers.into_iter().zip(&links) {
        assert_eq!(answer.unwrap().metadata.title, *title);
    }
}

/// Hole 2.b.2: a refusal was only logged, and showed as a time-out or not at all.
#[tokio::test]
async fn hole_2b_02_every_refusal_is_a_typed_error_and_comes_at_once() {
    let world = World::new().await;
    let alice = world.builder("alice").await.answer_within(DEADLINE).connect().await.unwrap();
    let bob = world.builder("bob").await.answer_within(DEADLINE).connect().await.unwrap();
    let start = Instant::now();
    let only_carol = AccessPolicy::Users { user_ids: vec!["carol".into()] };
    let link = alice.share_result("r", "t", None, only_carol).await.unwrap();
    let token: ShareToken = link.rsplit('/').next().unwrap().parse().unwrap();
    let code = |error: SyncError| error.code().unwrap_or_else(|| panic!("{error}"));
    assert_eq!(code(bob.access_share(&link).await.unwrap_err()), ErrorCode::AccessDenied);
    let unknown = ShareToken::generate();
    assert_eq!(code(bob.access_share(unknown.as_str()).await.unwrap_err()), ErrorCode::ShareNotFound);
    let stolen = bob.publish(token, "r", "mine now", None, AccessPolicy::Public).await;
    assert_eq!(code(stolen.unwrap_err()), ErrorCode::PublishError);
    let revoked = code(bob.revoke_share(&link).await.unwrap_err());
    assert!(
        matches!(revoked, ErrorCode::RevokeError | ErrorCode::ShareNotFound | ErrorCode::Forbidden),
        "{revoked:?}"
    );
    let endless = "x".repeat(513);
    let refused = bob.share_result("r", &endless, None, AccessPolicy::Public).await.unwrap_err();
    assert_eq!(code(refused), ErrorCode::InvalidInput);
    assert!(start.elapsed() < DEADLINE / 2, "the refusals took as long as a time-out");
    assert!(matches!(bob.access_share("not a token").await, Err(SyncError::Link(_))));
}

/// Hole 2.b.4: a connection that was gone stayed gone, and looked as if it were there.
#[tokio::test]
async fn hole_2b_04_the_client_comes_back_after_the_broker_and_says_what_is_so_meanwhile() {
    let mut world = World::new().await;
    let alice = world.client("alice").await;
    let mut events = alice.subscribe();
    assert!(alice.is_connected());
    world.crash().await;
    event(&mut events, |event| matches!(event, BrokerEvent::Offline(_)).then_some(())).await;
    assert!(!alice.is_connected());
    world.start().await;
    event(&mut events, |event| matches!(event, BrokerEvent::Online(_)).then_some(())).await;
    assert!(alice.is_connected());
    // And is registered: the broker knows that she is online.
    let link = alice.share_result("r", "t", None, AccessPolicy::Public).await.unwrap();
    let bob = world.client("bob").await;
    assert!(bob.access_share(&link).await.unwrap().owner_online);
}

/// Hole 2.b.5: a broker that had forgotten the user was not told again who is there.
#[tokio::test]
async fn hole_2b_05_a_client_that_the_broker_forgot_registers_again_at_the_next_heartbeat() {
    let world = World::new().await;
    let alice = world.builder("alice").await.heartbeat(Duration::from_millis(100)).connect().await.unwrap();
    let bob = world.client("bob").await;
    let link = alice.share_result("r", "t", None, AccessPolicy::Public).await.unwrap();
    let mut events = alice.subscribe();
    // The broker takes her for gone, as after it lost what it knew; the connection stays.
    alice.ask(ClientMessage::Disconnect { user_id: "alice".into() }).await.unwrap();
    event(&mut events, |event| matches!(event, BrokerEvent::Online(_)).then_some(())).await;
    assert!(bob.access_share(&link).await.unwrap().owner_online);
}

/// Hole 2.b.7, its last part: there was no authentication.
#[tokio::test]
async fn hole_2b_07_who_proves_nothing_or_the_wrong_thing_is_not_let_in() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let nobody = builder(&world.url(), "alice").logins(folder.path()).connect().await;
    assert_eq!(nobody.unwrap_err().code(), Some(ErrorCode::AuthRequired));
    let forged = Credentials::Session(Zeroizing::new("cst_forged".into()));
    let forged = builder(&world.url(), "alice").credentials(forged).connect().await;
    assert_eq!(forged.unwrap_err().code(), Some(ErrorCode::AuthFailed));
    let stranger = Credentials::Device(Identity::from_seed(&[9; 32]));
    let stranger = builder(&world.url(), "alice").credentials(stranger).connect().await;
    assert_eq!(stranger.unwrap_err().code(), Some(ErrorCode::AuthFailed));
    // One user's session does not open another's name.
    let of_bob = world.user("bob").await;
    let as_alice = builder(&world.url(), "alice").credentials(of_bob).connect().await;
    assert_eq!(as_alice.unwrap_err().code(), Some(ErrorCode::Forbidden));
}

#[tokio::test]
async fn who_goes_is_offline_at_once_and_who_comes_is_announced() {
    let world = World::new().await;
    let alice = world.client("alice").await;
    let policy = AccessPolicy::Users { user_ids: vec!["bob".into()] };
    let link = alice.share_result("r", "t", None, policy).await.unwrap();
    let bob = world.client("bob").await;
    let mut events = bob.subscribe();
    alice.disconnect().await;
    let gone = event(&mut events, |event| match event {
        BrokerEvent::Presence(presence) if presence.user_id == "alice" => Some(presence.online),
        _ => None,
    });
    assert!(!gone.await);
    let share = bob.access_share(&link).await.unwrap();
    assert!(!share.owner_online && share.download_url.is_empty());
}

#[tokio::test]
async fn a_client_says_where_it_can_be_reached_now() {
    let world = World::new().await;
    let alice = world.client("alice").await;
    let bob = world.client("bob").await;
    let link = alice.share_result("r", "t", None, AccessPolicy::Public).await.unwrap();
    assert_eq!(bob.access_share(&link).await.unwrap().download_url, "");
    let mut events = alice.subscribe();
    alice.announce("https://alice.example".into(), None).await.unwrap();
    event(&mut events, |event| matches!(event, BrokerEvent::Online(_)).then_some(())).await;
    let url = bob.access_share(&link).await.unwrap().download_url.clone();
    assert_eq!(url, "https://alice.example/api/results/r");
}

#[tokio::test]
async fn what_a_client_announces_is_known_at_once_and_its_user_never_counts_as_gone() {
    let world = World::new().await;
    let alice = world.builder("alice").await.answer_within(DEADLINE).connect().await.unwrap();
    let policy = AccessPolicy::Users { user_ids: vec!["bob".into()] };
    let link = alice.share_result("r", "t", None, policy).await.unwrap();
    let bob = world.client("bob").await;
    let (mut of_alice, mut of_bob) = (alice.subscribe(), bob.subscribe());
    for n in 0..10 {
        let endpoint = format!("https://alice.example/{n}");
        alice.announce(endpoint.clone(), None).await.unwrap();
        let share = bob.access_share(&link).await.unwrap();
        assert_eq!((share.owner_online, &share.download_url), (true, &format!("{endpoint}/api/results/r")));
    }
    while let Ok(event) = of_alice.try_recv() {
        assert!(!matches!(event, BrokerEvent::Offline(_)), "{event:?}");
    }
    while let Ok(event) = of_bob.try_recv() {
        assert!(!matches!(&event, BrokerEvent::Presence(presence) if !presence.online), "{event:?}");
    }
}

#[tokio::test]
async fn plain_text_across_a_network_is_not_even_dialled() {
    let refused = SyncClient::builder("ws://192.0.2.1:1/ws", "alice").connect().await;
    assert!(matches!(refused, Err(SyncError::Url(_))));
    let world = World::new().await;
    let alice = world.client("alice").await;
    until("it is connected", || alice.is_connected()).await;
}
