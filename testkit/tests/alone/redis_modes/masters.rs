//! A master of a Redis Cluster dies and comes back at once, with its slots and without its keys: nobody's
//! lease need be lost by that, and yet a part of all registrations is gone.

use std::collections::BTreeSet;

use culvert_testkit::redis::RedisCluster;
use culvert_testkit::{HelloOptions, Identity, RawPeer};
use culvert_wire::{Frame, Handle, TopicId};
use tokio::time::{Instant, timeout};

use super::world::{World, raw};
use crate::alone;
use crate::common::PATIENCE;

/// Enough for every master to have many of them.
const TOPICS: usize = 60;

fn topics() -> Vec<TopicId> {
    (0..TOPICS).map(|_| TopicId(Identity::random().unwrap().peer().0)).collect()
}

/// A peer on this node that is in all of these topics.
async fn enter(world: &World, node: usize, identity: &Identity, topics: &[TopicId]) -> (RawPeer, Vec<Seen>) {
    let mut peer = RawPeer::connect(world.cluster.node(node).unwrap().addr(), &raw()).await.unwrap();
    peer.set_deadline(PATIENCE);
    peer.hello(&HelloOptions::new(identity)).await.unwrap();
    let mut seen = Vec::new();
    for topic in topics {
        let (handle, members) = peer.join(*topic).await.unwrap();
        seen.push(Seen { handle, anybody: !members.list.is_empty() });
    }
    (peer, seen)
}

/// What a join showed.
struct Seen {
    handle: Handle,
    anybody: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_find_each_other_although_a_master_lost_where_they_are() {
    let alone = alone().await;
    let mut redis = RedisCluster::start().await.unwrap();
    let world = World::start(redis.reach(), alone).await;
    let life = world.life().await;
    let (topics, first) = (topics(), Identity::random().unwrap());
    let (_first, _) = enter(&world, 0, &first, &topics).await;

    let leases = redis.slot_of("{culvert}:nodes").await.unwrap();
    let other = (redis.owner_of(leases).await.unwrap() + 1) % redis.masters().len();
    redis.master(other).kill().await.unwrap();
    redis.master(other).start_again().await.unwrap();
    redis.healthy().await.unwrap();
    let back = Instant::now();
    let (mut second, seen) = enter(&world, 1, &Identity::random().unwrap(), &topics).await;
    let mut unmet: BTreeSet<u16> =
        seen.iter().filter(|seen| !seen.anybody).map(|seen| seen.handle.0).collect();
    let lost = unmet.len();
    let met = async {
        while !unmet.is_empty() {
            if let Frame::PeerJoined { handle, member } = second.recv().await.unwrap()
                && member.peer == first.peer()
            {
                unmet.remove(&handle.0);
            }
        }
    };
    let all = timeout(PATIENCE, met).await.is_ok();
    assert!(all, "of {lost} topics that were lost, {} are still without their first member", unmet.len());
    culvert_testkit::report::measured(&format!(
        "a master came back empty: the members of {lost} of {TOPICS} topics were found again after {:.1} s",
        back.elapsed().as_secs_f64()
    ));
    world.ends_well("a master of a cluster comes back empty", life).await;
}
