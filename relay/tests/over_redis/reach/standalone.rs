//! One server, alone and behind a network that misbehaves.

use std::time::Duration;

use culvert_relay::bus::redis::metrics::Resubscription;
use culvert_relay::bus::redis::settings::Server;
use culvert_testkit::chaos::{ChaosProxy, Cut, Mode};
use culvert_testkit::redis::{RedisPlan, RedisServer};
use tokio::time::Instant;

use super::listener::{Listener, SHARDS, settings};

async fn server() -> RedisServer {
    RedisPlan::new().unwrap().start().await.unwrap()
}

/// An inbox that reaches the server through a proxy.
async fn through_proxy(server: &RedisServer) -> (ChaosProxy, Listener) {
    let proxy = ChaosProxy::start(server.addr()).await.unwrap();
    let mut settings = settings(&server.reach());
    settings.servers = vec![Server { host: "127.0.0.1".to_owned(), port: proxy.addr().port(), tls: false }];
    let listener = Listener::start(&settings).await;
    (proxy, listener)
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_once_and_in_order_over_one_subscription_per_shard() {
    let server = server().await;
    let mut listener = Listener::start(&settings(&server.reach())).await;
    let channel = listener.reach.keys().inbox(super::listener::NODE, 2);
    let place = listener.reach.place(&channel).await.unwrap();
    let mut publisher = listener.reach.publisher(&place).await.unwrap();
    let sent: Vec<Vec<u8>> = (0..1000_u32).map(|n| [[1].as_slice(), &n.to_be_bytes()].concat()).collect();
    for batch in sent.chunks(64) {
        let mut pipeline = redis::pipe();
        for message in batch {
            pipeline.cmd("PUBLISH").arg(&channel).arg(message);
        }
        let receivers: Vec<u64> = pipeline.query_async(&mut publisher).await.unwrap();
        assert!(receivers.iter().all(|&receivers| receivers == 1), "{receivers:?}");
    }
    listener.has(sent.len()).await;
    assert!(listener.of_shard(2) == sent, "not what was sent, or not in order");
    let subscriptions: Vec<u64> = server
        .clients()
        .await
        .unwrap()
        .iter()
        .map(|client| client.subscriptions)
        .filter(|&n| n > 0)
        .collect();
    assert_eq!(subscriptions, vec![1; usize::from(SHARDS)]);
    assert_eq!(listener.number("culvert_relay_bus_subscriptions"), u64::from(SHARDS));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inbox_comes_back_when_redis_was_killed_and_starts_empty() {
    let mut server = server().await;
    let mut listener = Listener::start(&settings(&server.reach())).await;
    listener.hears_all_shards().await;
    server.kill().await.unwrap();
    listener.becomes(false).await;
    server.start_again().await.unwrap();
    listener.becomes(true).await;
    listener.hears_all_shards().await;
    assert_eq!(listener.resubscriptions(Resubscription::Lost), u64::from(SHARDS));
    assert!(listener.number("culvert_relay_bus_subscribe_failures_total") > 0);
    // Connections for registry work are made anew as well.
    let mut asking = listener.reach.ask().await.unwrap();
    let () = redis::cmd("PING").query_async(&mut asking).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_only_deaf_is_noticed_and_replaced() {
    let server = server().await;
    let (proxy, mut listener) = through_proxy(&server).await;
    let subscriber =
        server.clients().await.unwrap().into_iter().find(|client| client.subscriptions > 0).unwrap();
    let connection =
        proxy.connections().into_iter().find(|connection| connection.source() == subscriber.addr).unwrap();
    connection.set(|faults| faults.down.mode = Mode::Deaf);
    let began = Instant::now();
    listener.becomes(false).await;
    // Three periods of a second; the rest is for a machine that is busy.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    listener.becomes(true).await;
    listener.hears_all_shards().await;
    assert_eq!(listener.resubscriptions(Resubscription::Deaf), 1);
    assert_eq!(listener.resubscriptions(Resubscription::Lost), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_of_redis_ends_with_every_shard_subscribed() {
    let server = server().await;
    let (proxy, mut listener) = through_proxy(&server).await;
    listener.hears_all_shards().await;
    proxy.stall();
    listener.becomes(false).await;
    proxy.pass();
    listener.becomes(true).await;
    listener.hears_all_shards().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_the_network_resets_are_made_anew() {
    let server = server().await;
    let (proxy, mut listener) = through_proxy(&server).await;
    proxy.cut(Cut::Reset).await;
    listener.becomes(false).await;
    listener.becomes(true).await;
    listener.hears_all_shards().await;
    assert_eq!(listener.resubscriptions(Resubscription::Lost), u64::from(SHARDS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_does_not_answer_is_an_error_within_the_timeout() {
    let server = server().await;
    let (proxy, listener) = through_proxy(&server).await;
    proxy.stall();
    let began = Instant::now();
    let answer = listener.reach.ask().await.map(|_| ());
    assert!(began.elapsed() < listener.reach.timeout() * 2, "{:?}", began.elapsed());
    let error = answer.unwrap_err().to_string();
    let within = format!("did not answer within {:?}", listener.reach.timeout());
    assert!(error.contains(&within), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_connections_that_hang_only_the_first_is_waited_for() {
    let server = server().await;
    let (proxy, listener) = through_proxy(&server).await;
    let mut borrowed = Vec::new();
    for _ in 0..4 {
        borrowed.push(listener.reach.ask().await.unwrap());
    }
    drop(borrowed);
    // As when a machine vanishes and another takes its address: old connections hang, new ones work.
    for connection in proxy.connections() {
        connection.set(|faults| (faults.up.mode, faults.down.mode) = (Mode::Stall, Mode::Stall));
    }
    assert!(listener.reach.ask().await.is_err());
    let mut asking = listener.reach.ask().await.unwrap();
    let () = redis::cmd("PING").query_async(&mut asking).await.unwrap();
}
