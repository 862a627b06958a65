//! Joins, departures and lookups through the registry, and what is left of them when parts die.

use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_relay::bus::redis::incarnation::Incarnation;
use culvert_relay::bus::redis::keys::Keys;
use culvert_relay::bus::redis::registry::entry::Entry;
use culvert_testkit::redis::RedisServer;
use culvert_wire::{ConnId, Members, NodeId, TopicId};
use futures_util::{StreamExt, stream};

use super::member::{Joiner, Told, Ways};
use super::node::{LEASE, eventually, lease_of, redis, settings};

const TOPIC: TopicId = TopicId([7; 32]);

pub(crate) fn topic(n: u64) -> TopicId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&n.to_le_bytes());
    TopicId(id)
}

fn conns(members: &Members) -> Vec<ConnId> {
    let mut conns: Vec<ConnId> = members.list.iter().map(|member| member.conn).collect();
    conns.sort();
    conns
}

async fn registered(redis: &RedisServer, topic: &TopicId) -> usize {
    redis.ask(&[b"HLEN".to_vec(), Keys::new("culvert").topic(topic)]).await.unwrap()
}

async fn indexed(redis: &RedisServer, own: (NodeId, Incarnation)) -> usize {
    let key = Keys::new("culvert").memberships(own.0, own.1);
    redis.ask(&["SCARD", &key]).await.unwrap()
}

async fn keys(redis: &RedisServer, pattern: &str) -> usize {
    let keys: Vec<Vec<u8>> = redis.ask(&["KEYS", pattern]).await.unwrap();
    keys.len()
}

async fn trio(redis: &RedisServer) -> [Joiner; 3] {
    let (settings, ways) = (settings(redis), Arc::new(Ways::default()));
    let (a, b, c) = tokio::join!(
        Joiner::start(&settings, &ways),
        Joiner::start(&settings, &ways),
        Joiner::start(&settings, &ways)
    );
    let nodes = [a, b, c];
    for node in &nodes {
        eventually("all nodes know each other", async || node.lease.table().live().count() == 3).await;
    }
    nodes
}

pub(crate) async fn fill(node: &Joiner, topics: impl Iterator<Item = TopicId>) {
    let joins = topics.enumerate().map(|(n, topic)| node.join(topic, n as u64));
    stream::iter(joins).buffer_unordered(512).for_each(async |members| assert!(!members.degraded)).await;
}

#[tokio::test]
async fn a_join_finds_the_members_of_other_nodes_and_they_hear_of_it() {
    let redis = redis().await;
    let [a, b, c] = trio(&redis).await;
    assert_eq!(a.join(TOPIC, 1).await, Members::default());
    let seen = b.join(TOPIC, 2).await;
    assert_eq!((seen.total, conns(&seen), seen.degraded), (1, vec![a.member(1).conn], false));
    assert_eq!(a.told(), [Told::Arrived(TOPIC, b.member(2).conn)]);
    assert_eq!(a.membership.nodes_of(&TOPIC), [b.node()]);
    let seen = c.lookup(TOPIC).await;
    assert_eq!(seen.total, 2);
    assert_eq!((a.told(), c.membership.nodes_of(&TOPIC)), (vec![], vec![]), "a lookup enters nothing");
    assert_eq!(a.lookup(TOPIC).await.list, [b.member(2)], "its own are not the registry's to tell");

    b.join(TOPIC, 3).await;
    b.leave(TOPIC, 2);
    assert_eq!(a.told(), [Told::Arrived(TOPIC, b.member(3).conn), Told::Departed(TOPIC, b.member(2).conn)]);
    b.leave(TOPIC, 2);
    b.leave(TOPIC, 3);
    assert_eq!(a.told(), [Told::Departed(TOPIC, b.member(3).conn)]);
    assert_eq!((a.membership.nodes_of(&TOPIC), b.membership.nodes_of(&TOPIC)), (vec![], vec![]));
    eventually("it is registered no more", async || registered(&redis, &TOPIC).await == 1).await;
    eventually("nor indexed", async || indexed(&redis, b.lease.own().unwrap()).await == 0).await;

    assert_eq!(a.metric("culvert_relay_bus_roster_topics"), 1.0);
    assert_eq!(a.metric(r#"culvert_relay_bus_registry_operations_total{kind="join"}"#), 1.0);
    assert_eq!(a.metric(r#"culvert_relay_bus_registry_operations_total{kind="lookup"}"#), 1.0);
    assert_eq!(b.metric(r#"culvert_relay_bus_registry_operations_total{kind="leave"}"#), 2.0);
    assert!(!a.membership.close().await, "a member is left");
    a.leave(TOPIC, 1);
    assert!(a.membership.close().await);
    assert_eq!(keys(&redis, "culvert:*").await, 0, "nothing is left in redis");
}

#[tokio::test]
async fn of_many_that_join_at_once_each_pair_finds_each_other() {
    let redis = redis().await;
    let [a, b, c] = trio(&redis).await;
    for round in 0..100 {
        let topic = topic(round);
        let (x, y, z) = tokio::join!(a.join(topic, 1), b.join(topic, 2), c.join(topic, 3));
        let all = [(&a, a.member(1).conn, x), (&b, b.member(2).conn, y), (&c, c.member(3).conn, z)];
        for (node, own, seen) in &all {
            let told = node.told();
            for (_, other, _) in all.iter().filter(|(_, other, _)| other != own) {
                let arrived = told.contains(&Told::Arrived(topic, *other));
                assert!(arrived || conns(seen).contains(other), "round {round}: {own} misses {other}");
            }
        }
    }
}

#[tokio::test]
async fn whoever_leaves_while_others_join_is_known_to_nobody_afterwards() {
    let redis = redis().await;
    let [a, b, c] = trio(&redis).await;
    let churn = async |node: &Joiner, stays: bool| {
        for n in 0..200 {
            node.join(topic(n % 5), n).await;
            node.leave(topic(n % 5), n);
        }
        if stays {
            for n in 0..5 {
                node.join(topic(n), 1000 + n).await;
            }
        }
    };
    tokio::join!(churn(&a, true), churn(&b, true), churn(&c, false));
    for n in 0..5 {
        for (node, other) in [(&a, &b), (&b, &a)] {
            assert_eq!(node.membership.nodes_of(&topic(n)), [other.node()]);
            assert_eq!(node.lookup(topic(n)).await.list, [other.member(1000 + n)]);
        }
        assert_eq!(registered(&redis, &topic(n)).await, 2);
    }
    for node in [&a, &b, &c] {
        // What was told adds up to what is there.
        let mut known: Vec<ConnId> = Vec::new();
        for told in node.told() {
            match told {
                Told::Arrived(_, conn) if !known.contains(&conn) => known.push(conn),
                Told::Arrived(..) => {}
                Told::Departed(_, conn) => known.retain(|other| *other != conn),
            }
        }
        assert!(known.iter().all(|conn| conn.0 & 0xffff >= 1000), "ghosts: {known:?}");
    }
}

#[tokio::test]
async fn after_redis_lost_everything_all_is_registered_anew_and_nobody_left() {
    let redis = redis().await;
    let [a, b, c] = trio(&redis).await;
    for n in 0..300 {
        a.join(topic(n), 1).await;
        b.join(topic(n), 2).await;
    }
    a.told();
    let before = [a.lease.own().unwrap(), b.lease.own().unwrap()];
    let () = redis.ask(&["FLUSHALL"]).await.unwrap();
    let all =
        async || stream::iter(0..300).fold(0, async |sum, n| sum + registered(&redis, &topic(n)).await).await;
    eventually("everything is registered", async || all().await == 600).await;
    for node in [&a, &b, &c] {
        eventually("it says so", async || node.membership.is_complete()).await;
        eventually("nothing is pending", async || node.metric("culvert_relay_bus_renewals_pending") == 0.0)
            .await;
        assert_eq!(node.told(), [], "nobody came or left");
    }
    for (node, (id, life)) in [&a, &b].into_iter().zip(before) {
        assert_eq!(node.lease.own().unwrap(), (id, life.raised()));
        assert_eq!(indexed(&redis, (id, life.raised())).await, 300);
        assert_eq!(node.metric(r#"culvert_relay_bus_registry_operations_total{kind="renewal"}"#), 300.0);
        eventually("earlier terms are swept", async || node.lease.unswept() == 2).await;
    }
    let seen = c.join(topic(5), 3).await;
    assert_eq!(conns(&seen).len(), 2);
    assert_eq!(a.membership.nodes_of(&topic(5)).len(), 2);
}

#[tokio::test]
async fn everything_is_registered_anew_no_faster_than_the_setting_says() {
    let redis = redis().await;
    let mut settings = settings(&redis);
    settings.registrations = 512;
    let ways = Arc::new(Ways::default());
    let a = Joiner::start(&settings, &ways).await;
    fill(&a, (0..1024).map(topic)).await;
    let (_, life) = a.lease.own().unwrap();
    a.lease.raise(life);
    eventually("it begins", async || !a.membership.is_complete()).await;
    let before = Instant::now();
    let pending = async || a.metric("culvert_relay_bus_renewals_pending");
    eventually("some are left", async || (1.0..1024.0).contains(&pending().await)).await;
    // Joins do not wait for it.
    assert_eq!(a.join(TOPIC, 5000).await.total, 0);
    assert!(!a.membership.is_complete());
    eventually("it is done", async || a.membership.is_complete()).await;
    // Four steps of 256, with half a second after each but the last.
    assert!(before.elapsed() > Duration::from_millis(1300), "{:?}", before.elapsed());
    assert_eq!(pending().await, 0.0);
    assert_eq!(indexed(&redis, a.lease.own().unwrap()).await, 1025);
}

#[tokio::test]
async fn a_dead_node_is_swept_and_the_living_are_untouched() {
    const MANY: u64 = 10_000;
    let redis = redis().await;
    let [a, mut b, c] = trio(&redis).await;
    fill(&b, (0..MANY).map(topic)).await;
    fill(&a, (0..50).map(topic)).await;
    let (node, life) = b.lease.own().unwrap();
    assert_eq!(indexed(&redis, (node, life)).await, 10_000);
    a.told();
    b.kill().await;
    let before = Instant::now();
    let departed: Vec<Told> = (0..50).map(|n| Told::Departed(topic(n), b.member(n).conn)).collect();
    eventually("its members are gone", async || a.book.0.lock().len() == 50).await;
    assert!(before.elapsed() < LEASE + Duration::from_secs(1), "{:?}", before.elapsed());
    assert!(a.told().iter().all(|told| departed.contains(told)));
    eventually("all know", async || c.lease.table().get(node).is_none()).await;
    assert_eq!(c.lookup(topic(3)).await.list, [a.member(3)], "dead members do not count before the sweep");

    eventually("its number is free", async || lease_of(&redis, node).await.is_none()).await;
    assert_eq!(indexed(&redis, (node, life)).await, 0);
    let swept = a.metric("culvert_relay_bus_swept_total") + c.metric("culvert_relay_bus_swept_total");
    assert!((9_900.0..=10_000.0).contains(&swept), "each once, or by a reader: {swept}");
    assert_eq!(keys(&redis, "culvert:t:*").await, 50);
    assert_eq!(keys(&redis, "culvert:sweep:*").await, 0);
    for n in 0..50 {
        assert_eq!(c.lookup(topic(n)).await.list, [a.member(n)]);
    }
}

#[tokio::test]
async fn while_redis_is_away_joins_say_so_and_are_registered_when_it_is_back() {
    let mut redis = redis().await;
    let [a, b, c] = trio(&redis).await;
    a.join(TOPIC, 1).await;
    b.join(TOPIC, 2).await;
    redis.kill().await.unwrap();
    let before = Instant::now();
    let seen = b.join(TOPIC, 3).await;
    assert!(before.elapsed() < LEASE, "{:?}", before.elapsed());
    assert_eq!((seen.total, seen.degraded, conns(&seen)), (1, true, vec![a.member(1).conn]));
    let news = [2, 3].map(|n| Told::Arrived(TOPIC, b.member(n).conn));
    assert_eq!(a.told(), news, "nodes tell each other without redis");
    assert!(c.lookup(TOPIC).await.degraded);
    assert!(!b.membership.is_complete());
    b.leave(TOPIC, 2);
    let failed = |node: &Joiner, kind: &str| {
        node.metric(&format!(r#"culvert_relay_bus_registry_failures_total{{kind="{kind}"}}"#))
    };
    assert!(failed(&b, "join") > 0.0 && failed(&c, "lookup") > 0.0);
    eventually("a departure is lost", async || failed(&b, "leave") > 0.0).await;
    redis.start_again().await.unwrap();
    for node in [&a, &b, &c] {
        eventually("all is well", async || node.membership.is_complete() && node.lease.is_valid()).await;
    }
    eventually("both are registered", async || registered(&redis, &TOPIC).await == 2).await;
    let seen = c.lookup(TOPIC).await;
    assert_eq!((conns(&seen).len(), seen.degraded), (2, false));
    assert!(conns(&seen).contains(&b.member(3).conn));
}

#[tokio::test]
async fn a_write_without_an_answer_voids_the_registrations_and_all_is_registered_anew() {
    let redis = redis().await;
    let [a, b, _c] = trio(&redis).await;
    a.join(TOPIC, 1).await;
    b.join(TOPIC, 2).await;
    let (_, life) = a.lease.own().unwrap();
    redis.pause().unwrap();
    assert!(a.join(TOPIC, 3).await.degraded);
    redis.resume().unwrap();
    eventually("its term is raised", async || a.lease.own().unwrap().1 == life.raised()).await;
    eventually("all is registered", async || a.membership.is_complete()).await;
    let entries: Vec<(Vec<u8>, Vec<u8>)> =
        redis.ask(&[b"HGETALL".to_vec(), Keys::new("culvert").topic(&TOPIC)]).await.unwrap();
    assert_eq!(entries.len(), 3);
    for (field, value) in entries {
        let entry = Entry::parse(&field, &value).unwrap();
        let own = [a.lease.own().unwrap(), b.lease.own().unwrap()];
        assert!(own.contains(&(entry.member.conn.node(), entry.life)), "{entry:?}");
    }
}

#[tokio::test]
async fn a_node_that_was_out_of_touch_learns_what_changed() {
    let redis = redis().await;
    let [a, mut b, c] = trio(&redis).await;
    a.join(TOPIC, 1).await;
    c.join(TOPIC, 2).await;
    b.join(TOPIC, 3).await;
    let (node, _) = b.lease.own().unwrap();
    b.pause().await;
    for other in [&a, &c] {
        eventually("it is gone", async || other.lease.table().get(node).is_none()).await;
        eventually("its member left", async || !other.membership.nodes_of(&TOPIC).contains(&node)).await;
    }
    // Nobody tells a dead node.
    a.leave(TOPIC, 1);
    a.join(TOPIC, 4).await;
    b.told();
    a.told();
    b.resume();
    eventually("it is complete", async || b.lease.is_valid() && b.membership.is_complete()).await;
    assert_eq!(b.told(), [Told::Arrived(TOPIC, a.member(4).conn), Told::Departed(TOPIC, a.member(1).conn)]);
    assert_eq!(a.told(), [Told::Arrived(TOPIC, b.member(3).conn)]);
    let mut nodes = b.membership.nodes_of(&TOPIC);
    nodes.sort();
    let mut others = [a.node(), c.node()];
    others.sort();
    assert_eq!(nodes, others);
}

#[tokio::test]
async fn a_large_topic_is_sampled_and_all_its_nodes_are_known() {
    let redis = redis().await;
    let [a, b, c] = trio(&redis).await;
    fill(&a, std::iter::repeat_n(TOPIC, 3000)).await;
    c.join(TOPIC, 1).await;
    let seen = b.join(TOPIC, 2).await;
    assert_eq!(seen.list.len(), culvert_wire::limits::MAX_MEMBERS);
    assert!((2990..=3001).contains(&seen.total), "{}", seen.total);
    let mut nodes = b.membership.nodes_of(&TOPIC);
    nodes.sort();
    let mut others = [a.node(), c.node()];
    others.sort();
    assert_eq!(nodes, others, "a broadcast reaches both");
    let looked = b.lookup(TOPIC).await;
    assert_eq!(looked.list.len(), culvert_wire::limits::MAX_MEMBERS);
    a.leave(TOPIC, 5);
    assert!(b.told().contains(&Told::Departed(TOPIC, a.member(5).conn)), "known here or not");
}

#[tokio::test]
async fn what_an_unknown_process_registered_is_filtered_and_removed_by_whoever_reads_it() {
    let redis = redis().await;
    let [a, b, _c] = trio(&redis).await;
    let key = Keys::new("culvert").topic(&TOPIC);
    let life = Incarnation { instance: 1, term: 1 };
    for (n, member) in [(1, b.member(1)), (2, Joiner::member(&a, 2))] {
        let member = culvert_wire::Member { conn: ConnId(member.conn.0 ^ (1 << 48)), ..member };
        let entry = Entry { member, life: Incarnation { term: n, ..life } };
        let words = [b"HSET".to_vec(), key.clone(), Entry::field(member.conn).to_vec(), entry.value()];
        let () = redis.ask(&words).await.unwrap();
    }
    let () = redis.ask(&[b"HSET".to_vec(), key.clone(), b"x".to_vec(), b"y".to_vec()]).await.unwrap();
    let seen = a.join(TOPIC, 3).await;
    assert_eq!((seen.total, seen.list.len()), (0, 0));
    eventually("only the member and the stranger are left", async || registered(&redis, &TOPIC).await == 2)
        .await;
}
