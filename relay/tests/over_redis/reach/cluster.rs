//! Masters that share the slots.

use culvert_relay::bus::redis::check::{Findings, check};
use culvert_relay::bus::redis::metrics::Resubscription;
use culvert_relay::bus::redis::reach::Reach;
use culvert_service_kit::Secret;
use culvert_testkit::redis::{Mode, RedisCluster, relay_rights};

use super::listener::{LIMIT, Listener, NODE, SHARDS, settings};

#[tokio::test(flavor = "multi_thread")]
async fn each_shard_is_subscribed_at_the_master_of_its_slot() {
    let cluster = RedisCluster::start().await.unwrap();
    let mut listener = Listener::start(&settings(&cluster.reach())).await;
    listener.hears_all_shards().await;
    for shard in 0..SHARDS {
        let channel = listener.reach.keys().inbox(NODE, shard);
        let owner = cluster.owner_of(cluster.slot_of(&channel).await.unwrap()).await.unwrap();
        let expected = cluster.masters()[owner].addr().to_string();
        assert_eq!(listener.reach.place(&channel).await.unwrap().to_string(), expected);
        let count: (String, u64) =
            cluster.masters()[owner].ask(&["PUBSUB", "SHARDNUMSUB", &channel]).await.unwrap();
        assert_eq!(count, (channel, 1));
    }
    assert_eq!(listener.resubscriptions(Resubscription::Moved), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_follows_its_slot_to_another_master() {
    let cluster = RedisCluster::start().await.unwrap();
    let mut listener = Listener::start(&settings(&cluster.reach())).await;
    let channel = listener.reach.keys().inbox(NODE, 0);
    let before = listener.reach.place(&channel).await.unwrap();
    let slot = cluster.slot_of(&channel).await.unwrap();
    let from = cluster.owner_of(slot).await.unwrap();
    let to = (from + 1) % 3;
    cluster.move_slot(slot, from, to).await.unwrap();
    tokio::time::timeout(LIMIT, listener.reach.moved(&channel, &before)).await.unwrap();
    assert_eq!(
        listener.reach.place(&channel).await.unwrap().to_string(),
        cluster.masters()[to].addr().to_string()
    );
    listener.becomes(true).await;
    listener.hears_all_shards().await;
    assert!(listener.resubscriptions(Resubscription::Moved) >= 1);
    assert_eq!(listener.resubscriptions(Resubscription::Deaf), 0);
    assert_eq!(listener.reach.replaced(), 0, "the slot's keys moved along");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inbox_comes_back_with_a_master_that_was_killed() {
    let mut cluster = RedisCluster::start().await.unwrap();
    let mut listener = Listener::start(&settings(&cluster.reach())).await;
    let channel = listener.reach.keys().inbox(NODE, 0);
    let owner = cluster.owner_of(cluster.slot_of(&channel).await.unwrap()).await.unwrap();
    cluster.master(owner).kill().await.unwrap();
    listener.becomes(false).await;
    assert_eq!(listener.reach.replaced(), 0);
    cluster.master(owner).start_again().await.unwrap();
    cluster.healthy().await.unwrap();
    listener.becomes(true).await;
    listener.hears_all_shards().await;
    let noticed = async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(10));
        while listener.reach.replaced() == 0 {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(LIMIT, noticed).await.expect("the keys of the master are known to be lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_the_documented_rule_is_enough_in_a_cluster() {
    let user = format!("relay on >secret {}", relay_rights(Mode::Cluster));
    let cluster = RedisCluster::start_with(&[("user", &user)]).await.unwrap();
    let mut settings = settings(&cluster.reach());
    settings.user = Some("relay".to_owned());
    settings.password = Some(Secret::new("secret".to_owned()));
    assert_eq!(check(&Reach::new(&settings).unwrap()).await.unwrap(), Findings::default());
    let mut listener = Listener::start(&settings).await;
    listener.hears_all_shards().await;
    let mut asking = listener.reach.ask().await.unwrap();
    let script = redis::Script::new("return redis.call('HGETALL', KEYS[1])");
    let key = listener.reach.keys().nodes();
    let () = script.key(key).invoke_async(&mut asking).await.unwrap();
}
