//! A master that Sentinels replace.

use culvert_relay::bus::redis::check::{Findings, check};
use culvert_relay::bus::redis::reach::{Reach, ReachError};
use culvert_service_kit::Secret;
use culvert_testkit::redis::RedisSentinels;

use super::listener::{Listener, settings};

#[tokio::test(flavor = "multi_thread")]
async fn the_inbox_follows_a_failover_and_the_way_back() {
    let mut sentinels = RedisSentinels::start().await.unwrap();
    let mut listener = Listener::start(&settings(&sentinels.reach())).await;
    listener.hears_all_shards().await;

    sentinels.kill_master().await.unwrap();
    listener.becomes(true).await;
    let master = sentinels.master().addr().to_string();
    assert_eq!(listener.reach.place("any").await.unwrap().to_string(), master);
    listener.hears_all_shards().await;
    write(&listener).await;

    // Both stay up: the one that is no longer the master would still take subscriptions.
    sentinels.revive().await.unwrap();
    let old = listener.reach.place("any").await.unwrap();
    sentinels.failover().await.unwrap();
    tokio::time::timeout(super::listener::LIMIT, listener.reach.moved("any", &old)).await.unwrap();
    listener.becomes(true).await;
    listener.hears_all_shards().await;
    write(&listener).await;
}

/// A connection for registry work leads to the master.
async fn write(listener: &Listener) {
    let mut asking = listener.reach.ask().await.unwrap();
    let key = listener.reach.keys().nodes();
    let () = redis::cmd("HSET").arg(key).arg("1").arg("x").query_async(&mut asking).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_have_a_password_of_their_own() {
    let sentinels = RedisSentinels::start().await.unwrap();
    let mut settings = settings(&sentinels.reach());
    for sentinel in sentinels.sentinels() {
        let () = sentinel.ask(&["ACL", "SETUSER", "default", "resetpass", ">guarded"]).await.unwrap();
    }
    let closed = Reach::new(&settings).unwrap();
    assert!(matches!(closed.place("any").await, Err(ReachError::NoMaster { .. })));
    let findings = check(&closed).await.unwrap();
    assert!(
        findings.problems.iter().all(|problem| problem.contains("redis-sentinel-password")),
        "{findings:#?}"
    );
    assert_eq!(findings.problems.len(), 3);

    settings.sentinel_password = Some(Secret::new("guarded".to_owned()));
    let open = Reach::new(&settings).unwrap();
    assert_eq!(open.place("any").await.unwrap().to_string(), sentinels.master().addr().to_string());
    assert_eq!(check(&open).await.unwrap(), Findings::default());
}
