//! What only Redis can do: lose everything, be away, be replaced.

use std::sync::atomic::Ordering;

use culvert_broker_api::live::memory::MemoryLive;
use culvert_broker_api::live::{Event, Live, LiveError};
use culvert_relay::admission::Revoked;
use culvert_relay::bus::redis::control::Control;
use culvert_service_kit::Clock;
use culvert_testkit::redis::RedisSentinels;
use culvert_wire::PeerId;

use super::once::Known;
use super::stage::{START, Stage, TTL, eventually, heard, presence, sentinel_mode, settings, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_emptied_is_noticed_and_users_are_entered_again() {
    within(async {
        let mut stage = Stage::redis().await;
        let alice = presence("alice", 1, 9);
        stage.first().arrive(&alice, TTL, stage.now()).await.unwrap();
        assert_eq!(stage.first().sweep(stage.now()).await.unwrap(), Vec::<String>::new());
        stage.heard(&[("alice", true)]).await;
        let server = stage.server.as_ref().unwrap();
        server.ask::<()>(&["FLUSHALL"]).await.unwrap();
        stage.first().sweep(stage.now()).await.unwrap();
        assert_eq!(heard(&mut stage.ears[0]).await, Event::Missed);
        stage.first().renew(std::slice::from_ref(&alice), TTL, stage.now()).await.unwrap();
        assert_eq!(stage.last().presences("alice").await.unwrap(), [alice]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_stays_used_when_redis_was_emptied_or_started_again() {
    within(async {
        let mut stage = Stage::redis().await;
        let horizon = Known::at(START);
        assert!(stage.first().nonce("n", START + 1, TTL, &horizon).await.unwrap());
        let server = stage.server.as_mut().unwrap();
        server.ask::<()>(&["FLUSHALL"]).await.unwrap();
        // What may have been accepted before: everything up to the store's horizon of now.
        let horizon = Known::at(START + 300);
        for live in &stage.replicas {
            assert!(!live.nonce("n", START + 1, TTL, &horizon).await.unwrap());
        }
        assert_eq!(horizon.asked.load(Ordering::Relaxed), 1);
        assert!(stage.first().nonce("m", START + 301, TTL, &horizon).await.unwrap());

        // A dump that is older than the last nonces comes back with the server.
        let floor = stage.server.as_ref().unwrap();
        let saved: String = floor.ask(&["GET", "culvert:b:{nonce}:floor"]).await.unwrap();
        let server = stage.server.as_mut().unwrap();
        server.kill().await.unwrap();
        server.start_again().await.unwrap();
        server.ask::<()>(&["SET", "culvert:b:{nonce}:floor", &saved]).await.unwrap();
        let horizon = Known::at(START + 600);
        let live = stage.first();
        let refused = eventually("redis does not come back", async || {
            live.nonce("m", START + 301, TTL, &horizon).await.ok()
        });
        assert!(!refused.await);
        assert!(stage.last().nonce("m", START + 601, TTL, &horizon).await.unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_away_is_heard_again_and_says_that_something_was_missed() {
    within(async {
        let mut stage = Stage::redis().await;
        stage.first().check().await.unwrap();
        let server = stage.server.as_mut().unwrap();
        server.kill().await.unwrap();
        let live = stage.first();
        eventually("a dead redis answers", async || live.check().await.is_err().then_some(())).await;
        assert!(matches!(live.presences("alice").await, Err(LiveError::Unavailable(_))));
        stage.server.as_mut().unwrap().start_again().await.unwrap();
        for ear in &mut stage.ears {
            assert_eq!(heard(ear).await, Event::Missed);
        }
        stage.last().arrive(&presence("alice", 1, 9), TTL, stage.now()).await.unwrap();
        stage.heard(&[("alice", true)]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_costs_its_time_and_no_more() {
    within(async {
        let stage = Stage::redis().await;
        stage.first().check().await.unwrap();
        stage.server.as_ref().unwrap().pause().unwrap();
        let began = std::time::Instant::now();
        assert!(matches!(stage.first().presences("alice").await, Err(LiveError::Unavailable(_))));
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
        stage.server.as_ref().unwrap().resume().unwrap();
        let live = stage.first();
        eventually("redis does not come back", async || live.check().await.ok()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_holds_something_else_is_told_from_a_redis_that_is_away() {
    within(async {
        let stage = Stage::redis().await;
        let live = stage.first();
        live.arrive(&presence("alice", 1, 9), TTL, stage.now()).await.unwrap();
        let server = stage.server.as_ref().unwrap();
        let keys: Vec<String> = server.ask(&["KEYS", "culvert:b:*:u:alice"]).await.unwrap();
        server.ask::<()>(&["SET", &keys[0], "no hash"]).await.unwrap();
        assert!(matches!(live.presences("alice").await, Err(LiveError::Broken(_))));
        server.ask::<()>(&["DEL", &keys[0]]).await.unwrap();
        server
            .ask::<()>(&[b"HSET".as_slice(), keys[0].as_bytes(), b"connection", b"no text: \xff"])
            .await
            .unwrap();
        assert!(matches!(live.presences("alice").await, Err(LiveError::Broken(_))));
        assert_eq!(live.presences("bob").await.unwrap(), []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_stays_used_when_a_replica_of_redis_takes_over() {
    within(async {
        let mut sentinels = RedisSentinels::start().await.unwrap();
        let stage = Stage::on(settings(&sentinels.reach(), sentinel_mode())).await;
        let horizon = Known::at(START);
        assert!(stage.first().nonce("n", START + 1, TTL, &horizon).await.unwrap());
        sentinels.kill_master().await.unwrap();
        let horizon = Known::at(START + 300);
        let live = stage.first();
        let refused = eventually("no replica takes over", async || {
            live.nonce("n", START + 1, TTL, &horizon).await.ok()
        });
        assert!(!refused.await);
        assert_eq!(horizon.asked.load(Ordering::Relaxed), 1);
        let other = stage.last();
        let accepted = eventually("the other one does not find it", async || {
            other.nonce("m", START + 301, TTL, &horizon).await.ok()
        });
        assert!(accepted.await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_is_on_the_list_that_relays_read() {
    within(async {
        let stage = Stage::redis().await;
        let until = Clock::system().unix_seconds() + 3600;
        let revoked = [Revoked::Ticket("t".to_owned()), Revoked::Peer(PeerId([7; 32]))];
        stage.first().revoke(&revoked, until).await.unwrap();
        let control = Control::new(stage.settings.as_ref().unwrap()).unwrap();
        assert_eq!(control.status().await.unwrap().revocations, 2);
    })
    .await;
}

#[tokio::test]
async fn a_broker_without_redis_and_relay_says_that_it_cannot_revoke() {
    let live = MemoryLive::new(Clock::system());
    let refused = live.revoke(&[Revoked::Ticket("t".to_owned())], u64::MAX).await.unwrap_err();
    assert!(refused.to_string().contains("no relay"), "{refused}");
}
