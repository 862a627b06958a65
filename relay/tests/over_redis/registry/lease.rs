//! A node's number: claimed, kept, lost and taken.

use std::time::{Duration, Instant};

use culvert_relay::bus::AttachError;
use culvert_relay::bus::redis::incarnation::Incarnation;
use culvert_relay::bus::redis::lease::Event;
use culvert_service_kit::Clock;

use super::node::{DEADLINE, LEASE, LOAD, Node, eventually, lease_of, redis, settings, write_lease};

#[tokio::test]
async fn two_nodes_get_different_numbers_and_see_each_other_come_and_go() {
    let redis = redis().await;
    let mut a = Node::start(&settings(&redis)).await;
    let mut b = Node::start(&settings(&redis)).await;
    let ((a_node, a_life), (b_node, b_life)) = (a.own(), b.own());
    assert_ne!(a_node, b_node);
    let appeared = |node, incarnation| Event::Appeared { node, incarnation, versions: 1..=2 };
    assert_eq!(a.event().await, appeared(b_node, b_life));
    assert_eq!(b.event().await, appeared(a_node, a_life));
    assert!(a.lease.is_valid() && b.lease.is_valid());
    let about = &a.lease.table().get(b_node).unwrap().about.clone();
    assert_eq!((about.connections, about.memberships, about.degraded), (3, 4, None));
    assert_eq!((a.metric("culvert_relay_bus_lease"), a.metric("culvert_relay_bus_nodes")), (1.0, 2.0));
    assert!(a.metric("culvert_relay_bus_tick_seconds_count") > 0.0);

    b.lease.release(true).await;
    assert!(!b.lease.is_valid());
    assert_eq!(lease_of(&redis, b_node).await, None);
    let before = Instant::now();
    assert_eq!(a.event().await, Event::Gone { node: b_node, incarnation: b_life });
    assert!(before.elapsed() < LEASE, "not only when it would have expired");
    b.lease.refresh().await;
    assert_eq!(lease_of(&redis, b_node).await, None, "it ticks no more");
}

#[tokio::test]
async fn a_node_that_stops_ticking_is_gone_one_lease_time_later() {
    let redis = redis().await;
    let mut a = Node::start(&settings(&redis)).await;
    let mut b = Node::start(&settings(&redis)).await;
    a.event().await;
    let (node, incarnation) = b.own();
    b.pause().await;
    let before = Instant::now();
    assert_eq!(a.event().await, Event::Gone { node, incarnation });
    let took = before.elapsed();
    assert!(took > LEASE * 6 / 7 - Duration::from_millis(200), "{took:?}");
    assert!(took < LEASE + Duration::from_secs(1), "{took:?}");
    assert!(!b.lease.is_valid(), "it knew before the others did");
    let dead: Vec<_> = a.lease.table().dead().map(|(node, lease)| (node, lease.incarnation)).collect();
    assert_eq!(dead, [(node, incarnation)], "its lease stays until it is swept");
}

#[tokio::test]
async fn a_node_that_wakes_after_its_lease_keeps_its_number_under_a_higher_term() {
    let redis = redis().await;
    let mut a = Node::start(&settings(&redis)).await;
    let mut b = Node::start(&settings(&redis)).await;
    let (node, life) = b.own();
    for absent in [false, true] {
        b.pause().await;
        a.until(|event| matches!(event, Event::Gone { .. })).await;
        if absent {
            let () = redis.ask(&["HDEL", "{culvert}:nodes", &node.0.to_string()]).await.unwrap();
        }
        b.told();
        b.resume();
        let lapsed = b.event().await;
        let incarnation = Incarnation { term: life.term + 1 + u32::from(absent), ..life };
        assert_eq!(lapsed, Event::Lapsed { incarnation });
        eventually("its lease is valid", async || b.lease.is_valid()).await;
        assert_eq!(b.own(), (node, incarnation));
        let versions = 1..=2;
        a.until(|event| *event == Event::Appeared { node, incarnation, versions: versions.clone() }).await;
    }
    assert_eq!(b.metric(r#"culvert_relay_bus_lease_losses_total{loss="lapsed"}"#), 2.0);
}

#[tokio::test]
async fn a_node_whose_number_was_taken_is_fenced_and_draws_another() {
    let redis = redis().await;
    let mut a = Node::start(&settings(&redis)).await;
    let (node, life) = a.own();
    a.pause().await;
    let mut lease = lease_of(&redis, node).await.unwrap();
    lease.incarnation = Incarnation { instance: !life.instance, term: 1 };
    write_lease(&redis, node, &lease).await;
    a.told();
    a.resume();
    let told = a.until(|event| matches!(event, Event::Placed { .. })).await;
    assert_eq!(told[0], Event::Fenced);
    let (other, fresh) = a.own();
    assert!(other != node && fresh.instance != life.instance);
    assert_eq!(lease_of(&redis, node).await.unwrap(), lease, "the successor's lease is untouched");
    assert_eq!(a.metric(r#"culvert_relay_bus_lease_losses_total{loss="fenced"}"#), 1.0);

    // Nor does it take its own number from whoever has it when it leaves.
    let (node, life) = a.own();
    a.pause().await;
    lease.incarnation = Incarnation { instance: !life.instance, term: 1 };
    write_lease(&redis, node, &lease).await;
    a.lease.release(true).await;
    assert_eq!(lease_of(&redis, node).await.unwrap(), lease);
}

#[tokio::test]
async fn after_redis_lost_everything_the_nodes_keep_their_numbers_and_nobody_is_gone() {
    let redis = redis().await;
    let mut a = Node::start(&settings(&redis)).await;
    let mut b = Node::start(&settings(&redis)).await;
    a.event().await;
    b.event().await;
    let before = [a.own(), b.own()];
    let () = redis.ask(&["FLUSHALL"]).await.unwrap();
    for (node, (other, life)) in [(&mut a, before[1]), (&mut b, before[0])] {
        let raised = |event: &Event| matches!(event, Event::Raised { .. });
        let told = node.until(raised).await;
        let raised = Event::Raised { node: other, incarnation: life.raised(), versions: 1..=2 };
        assert_eq!(told.last(), Some(&raised));
        assert!(told.iter().any(|event| matches!(event, Event::Lapsed { .. })), "{told:?}");
        assert!(!told.iter().any(|event| matches!(event, Event::Gone { .. })), "{told:?}");
    }
    assert_eq!([a.own(), b.own()], before.map(|(node, life)| (node, life.raised())));
}

#[tokio::test]
async fn while_redis_is_away_a_node_takes_no_part_and_comes_back_with_it() {
    let mut redis = redis().await;
    let mut a = Node::start(&settings(&redis)).await;
    let (node, life) = a.own();
    redis.kill().await.unwrap();
    assert_eq!(a.event().await, Event::Reachable(false));
    eventually("the lease is not valid", async || !a.lease.is_valid()).await;
    eventually("the lease is shown", async || a.metric("culvert_relay_bus_lease") == 0.0).await;
    assert!(a.metric("culvert_relay_bus_tick_failures_total") > 0.0);
    redis.start_again().await.unwrap();
    let told = [a.event().await, a.event().await];
    let lapsed = Event::Lapsed { incarnation: life.raised() };
    assert_eq!(told, [lapsed, Event::Reachable(true)]);
    assert_eq!(a.own().0, node);
}

#[tokio::test]
async fn a_redis_that_stalls_for_less_than_the_lease_costs_nothing() {
    let redis = redis().await;
    let mut a = Node::start(&settings(&redis)).await;
    let (node, life) = a.own();
    redis.pause().unwrap();
    assert_eq!(a.event().await, Event::Reachable(false));
    redis.resume().unwrap();
    assert_eq!(a.event().await, Event::Reachable(true));
    assert_eq!((a.own(), a.lease.is_valid()), ((node, life), true));
}

#[tokio::test]
async fn a_node_that_starts_before_redis_gets_its_number_when_redis_is_there() {
    let mut redis = redis().await;
    redis.kill().await.unwrap();
    let mut a = Node::prepare(&settings(&redis), Clock::system());
    a.lease.first(LOAD, Duration::from_millis(300)).await.unwrap();
    assert_eq!(a.lease.own(), None);
    a.resume();
    redis.start_again().await.unwrap();
    a.until(|event| matches!(event, Event::Placed { .. })).await;
}

#[tokio::test]
async fn an_incompatible_cluster_is_refused_with_a_sentence_and_untouched() {
    let redis = redis().await;
    let mut a = Node::start(&settings(&redis)).await;
    a.pause().await;
    let (node, _) = a.own();
    let mut lease = lease_of(&redis, node).await.unwrap();
    lease.about.bus = (7, 9);
    write_lease(&redis, node, &lease).await;
    let b = Node::prepare(&settings(&redis), Clock::system());
    let error = b.lease.first(LOAD, DEADLINE).await.unwrap_err();
    assert!(matches!(&error, AttachError::Incompatible { theirs, .. } if theirs == "7-9"), "{error}");
    assert!(error.to_string().starts_with("the cluster speaks bus versions 7-9 and this program speaks 1-2"));
    let leases: u32 = redis.ask(&["HLEN", "{culvert}:nodes"]).await.unwrap();
    assert_eq!(leases, 1);

    // A dead one of another version stands in nobody's way.
    lease.expires = 0;
    write_lease(&redis, node, &lease).await;
    b.lease.first(LOAD, DEADLINE).await.unwrap();
    assert!(b.lease.own().is_some_and(|(other, _)| other != node), "its number is not taken either");
}

#[tokio::test]
async fn a_lease_older_than_the_node_knows_it_means_that_redis_lost_writes() {
    let redis = redis().await;
    let mut a = Node::start(&settings(&redis)).await;
    let (node, life) = a.own();
    a.pause().await;
    let mut lease = lease_of(&redis, node).await.unwrap();
    // More than one tick, which may have been under way when it paused.
    lease.expires -= 1000;
    write_lease(&redis, node, &lease).await;
    a.resume();
    assert_eq!(a.event().await, Event::Lapsed { incarnation: life.raised() });
}

#[tokio::test]
async fn a_term_is_raised_once_for_whoever_asks_and_again_if_an_answer_was_lost() {
    let redis = redis().await;
    let mut a = Node::start(&settings(&redis)).await;
    let (node, life) = a.own();
    a.lease.raise(life);
    a.lease.raise(life);
    assert_eq!(a.event().await, Event::Lapsed { incarnation: life.raised() });
    a.lease.raise(life);
    a.lease.refresh().await;
    assert_eq!((a.own(), a.told()), ((node, life.raised()), vec![]), "that incarnation is over already");

    a.pause().await;
    let mut lease = lease_of(&redis, node).await.unwrap();
    lease.incarnation.term = 9;
    write_lease(&redis, node, &lease).await;
    a.resume();
    assert_eq!(a.event().await, Event::Lapsed { incarnation: Incarnation { term: 10, ..life } });
}

#[tokio::test]
async fn what_is_left_behind_is_for_others_to_sweep() {
    let redis = redis().await;
    let mut a = Node::start(&settings(&redis)).await;
    let b = Node::start(&settings(&redis)).await;
    a.event().await;
    let (node, incarnation) = b.own();
    b.lease.release(false).await;
    assert_eq!(lease_of(&redis, node).await.unwrap().expires, 0);
    assert_eq!(a.event().await, Event::Gone { node, incarnation });
    assert_eq!(a.lease.table().dead().count(), 1);
}

#[tokio::test]
async fn a_degraded_node_says_so_and_since_when_in_its_lease() {
    let redis = redis().await;
    let a = Node::start(&settings(&redis)).await;
    let (node, _) = a.own();
    a.lease.set_degraded(true);
    a.lease.refresh().await;
    let since = lease_of(&redis, node).await.unwrap().about.degraded;
    assert!(since.is_some_and(|since| since > 1_600_000_000), "{since:?}");
    a.lease.set_degraded(true);
    a.lease.set_degraded(false);
    a.lease.refresh().await;
    assert_eq!(lease_of(&redis, node).await.unwrap().about.degraded, None);
}
