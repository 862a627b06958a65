//! What is revoked reaches every node, outlives Redis' data and ends by itself.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use culvert_relay::admission::Revoked;
use culvert_relay::bus::redis::keys::Keys;
use culvert_relay::bus::redis::lease::Event;
use culvert_relay::bus::redis::revocation;
use culvert_service_kit::Clock;
use culvert_testkit::redis::RedisServer;
use culvert_wire::PeerId;

use super::node::{DEADLINE, LOAD, Node, eventually, redis, settings};

const FAR: u64 = 4_000_000_000;

async fn revoke(redis: &RedisServer, revoked: Revoked, until: u64) {
    let mut connection = redis.connect().await.unwrap();
    revocation::add(&mut connection, &Keys::new("culvert"), &[(revoked, until)]).await.unwrap();
}

async fn stored(redis: &RedisServer) -> HashMap<String, u64> {
    redis.ask(&["HGETALL", "{culvert}:revoked"]).await.unwrap()
}

/// The entries of the next list that the node is told.
async fn told(node: &mut Node) -> Vec<(Revoked, u64)> {
    let told = node.until(|event| matches!(event, Event::Revoked(_))).await;
    let Some(Event::Revoked(list)) = told.last() else { panic!() };
    list.iter().collect()
}

#[tokio::test]
async fn every_node_hears_of_a_revocation_within_a_second() {
    let redis = redis().await;
    let (mut a, mut b) = (Node::start(&settings(&redis)).await, Node::start(&settings(&redis)).await);
    let peer = Revoked::Peer(PeerId([7; 32]));
    revoke(&redis, peer.clone(), FAR).await;
    let before = Instant::now();
    for node in [&mut a, &mut b] {
        assert_eq!(told(node).await, [(peer.clone(), FAR)]);
    }
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    let ticket = Revoked::Ticket("t1".to_owned());
    revoke(&redis, ticket.clone(), FAR).await;
    let mut list = told(&mut a).await;
    list.sort_by_key(|(revoked, _)| matches!(revoked, Revoked::Peer(_)));
    assert_eq!(list, [(ticket, FAR), (peer, FAR)]);
}

#[tokio::test]
async fn a_node_that_starts_knows_what_is_revoked_before_its_lease_is_valid() {
    let redis = redis().await;
    let peer = Revoked::Peer(PeerId([7; 32]));
    revoke(&redis, peer.clone(), FAR).await;
    let mut a = Node::prepare(&settings(&redis), Clock::system());
    a.lease.first(LOAD, DEADLINE).await.unwrap();
    assert!(!a.lease.is_valid(), "nobody has been told");
    a.resume();
    assert_eq!(told(&mut a).await, [(peer, FAR)]);
    eventually("its lease is valid", async || a.lease.is_valid()).await;
}

#[tokio::test]
async fn the_list_outlives_an_emptied_redis() {
    let redis = redis().await;
    let mut a = Node::start(&settings(&redis)).await;
    let (old, new) = (Revoked::Peer(PeerId([7; 32])), Revoked::Ticket("t2".to_owned()));
    revoke(&redis, old.clone(), FAR).await;
    told(&mut a).await;
    let before = stored(&redis).await;
    let () = redis.ask(&["FLUSHALL"]).await.unwrap();
    eventually("the list is back", async || stored(&redis).await == before).await;
    a.until(|event| matches!(event, Event::Lapsed { .. })).await;

    // Even if somebody revokes before any node has noticed: it is the union.
    a.pause().await;
    let () = redis.ask(&["FLUSHALL"]).await.unwrap();
    revoke(&redis, new.clone(), FAR).await;
    a.resume();
    assert_eq!(told(&mut a).await.len(), 2);
    eventually("the list is whole", async || stored(&redis).await.len() == 2).await;
    let mut b = Node::start(&settings(&redis)).await;
    b.lease.refresh().await;
    let revision: String = redis.ask(&["GET", "{culvert}:revision"]).await.unwrap();
    assert_eq!(revision.len(), 16);
    assert!(!b.told().iter().any(|event| matches!(event, Event::Revoked(_))), "nothing changed for it");
}

#[tokio::test]
async fn an_entry_leaves_redis_after_its_end_and_a_later_end_counts() {
    let redis = redis().await;
    let clock = Clock::manual(1_000_000);
    let mut a = Node::prepare(&settings(&redis), clock.clone());
    a.lease.first(LOAD, DEADLINE).await.unwrap();
    a.resume();
    let (short, long) = (Revoked::Ticket("short".to_owned()), Revoked::Ticket("long".to_owned()));
    revoke(&redis, long.clone(), 1_000_900).await;
    revoke(&redis, long.clone(), 1_000_100).await;
    revoke(&redis, short.clone(), 1_000_100).await;
    while told(&mut a).await.len() < 2 {}
    clock.advance(Duration::from_secs(200));
    eventually("the short one is gone", async || {
        stored(&redis).await == HashMap::from([("t:long".to_owned(), 1_000_900)])
    })
    .await;
    assert_eq!(told(&mut a).await, [(long, 1_000_900)]);
}
