//! The master is replaced: because it died, and because an operator said so.

use culvert_testkit::redis::RedisSentinels;
use culvert_testkit::report::measured;
use tokio::time::Instant;

use super::world::World;
use crate::alone;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_survive_a_master_that_dies_and_is_replaced_by_its_replica() {
    let alone = alone().await;
    let mut redis = RedisSentinels::start().await.unwrap();
    let world = World::start(redis.reach(), alone).await;
    let life = world.life().await;
    let killed = Instant::now();
    redis.kill_master().await.unwrap();
    let agreed = killed.elapsed();
    life.goes_on().await;
    let went_on = killed.elapsed();
    world.heals().await;
    measured(&format!(
        "after kill -9 of the master: the Sentinels agreed on another after {:.1} s, all sessions went on after \
         {:.1} s, the cluster was whole after {:.1} s",
        agreed.as_secs_f64(),
        went_on.as_secs_f64(),
        killed.elapsed().as_secs_f64(),
    ));
    // And back to where it began, once the dead one has returned as a replica.
    redis.revive().await.unwrap();
    redis.kill_master().await.unwrap();
    world.ends_well("the master that Sentinels watch dies, twice", life).await;
    let leases: u64 = redis.master().ask(&["HLEN", "{culvert}:nodes"]).await.unwrap();
    assert_eq!(leases, world.cluster.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_survive_an_operators_failover() {
    let alone = alone().await;
    let mut redis = RedisSentinels::start().await.unwrap();
    let world = World::start(redis.reach(), alone).await;
    let life = world.life().await;
    redis.failover().await.unwrap();
    // The old master is up and a replica now: who stayed there would publish into the void.
    world.ends_well("SENTINEL FAILOVER", life).await;
    let subscribed = |clients: Vec<culvert_testkit::redis::RedisClient>| {
        clients.iter().filter(|client| client.subscriptions > 0 && client.name.is_empty()).count()
    };
    assert!(subscribed(redis.master().clients().await.unwrap()) >= 4 * world.cluster.len());
}
