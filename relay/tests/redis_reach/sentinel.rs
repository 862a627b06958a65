//! A master that Sentinels replace.

use culvert_testkit::redis::RedisSentinels;

use crate::listener::{Listener, settings};

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
    tokio::time::timeout(crate::listener::LIMIT, listener.reach.moved("any", &old)).await.unwrap();
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
