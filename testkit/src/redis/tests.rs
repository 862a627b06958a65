//! The real servers do what tests of a cluster will ask of them.

use std::time::Duration;

use redis::Value;
use redis::cluster::ClusterClientBuilder;

use super::server::{ANSWER, patient, until};
use super::*;
use crate::certs::TestCa;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_server_that_was_killed_comes_back_empty_on_the_same_port() {
    let mut server = RedisPlan::new().unwrap().start().await.unwrap();
    let addr = server.addr();
    let () = server.ask(&["SET", "key", "value"]).await.unwrap();
    assert_eq!(server.ask::<String>(&["GET", "key"]).await.unwrap(), "value");
    server.kill().await.unwrap();
    assert!(server.ask::<Value>(&["PING"]).await.is_err());
    assert!(server.process().is_err() && server.pause().is_err());
    server.start_again().await.unwrap();
    assert_eq!(server.addr(), addr);
    assert_eq!(server.ask::<Option<String>>(&["GET", "key"]).await.unwrap(), None);
    assert!(server.start_again().await.is_err(), "it runs");
}

#[tokio::test]
async fn a_paused_server_keeps_its_connections_and_answers_when_it_is_resumed() {
    let server = RedisPlan::new().unwrap().start().await.unwrap();
    let mut connection = server.connect().await.unwrap();
    server.pause().unwrap();
    let asked = async move { redis::cmd("PING").query_async::<String>(&mut connection).await };
    let mut asked = std::pin::pin!(asked);
    let short = Duration::from_millis(150);
    assert!(tokio::time::timeout(short, &mut asked).await.is_err());
    server.resume().unwrap();
    assert_eq!(tokio::time::timeout(SOON, asked).await.unwrap().unwrap(), "PONG");
}

#[tokio::test]
async fn a_server_with_tls_is_reached_by_those_who_trust_its_authority_and_not_in_clear_text() {
    let ca = TestCa::new("Redis").unwrap();
    let plan = RedisPlan::new().unwrap().tls(&ca.loopback().unwrap(), &ca).password("a \"b\" \\ ü");
    let server = plan.start().await.unwrap();
    assert_eq!(server.ask::<String>(&["PING"]).await.unwrap(), "PONG");
    assert_eq!(server.reach().url(), format!("rediss://{}", server.addr()));
    let plain = redis::Client::open(format!("redis://{}", server.addr())).unwrap();
    assert!(plain.get_multiplexed_async_connection().await.is_err());
}

#[tokio::test]
async fn the_user_of_a_relay_may_do_what_a_relay_does_and_nothing_else() {
    let plan =
        RedisPlan::new().unwrap().user("relay", "secret", &relay_rights(Mode::Standalone)).password("admin");
    let server = plan.start().await.unwrap();
    let client =
        redis::Client::open(format!("redis://relay:secret@{}/?protocol=resp3", server.addr())).unwrap();
    let mut relay = client.get_multiplexed_async_connection_with_config(&patient()).await.unwrap();
    let mut run = async |words: &str| -> redis::RedisResult<Value> {
        let mut command = redis::Cmd::new();
        for word in words.split(' ') {
            command.arg(word);
        }
        command.query_async(&mut relay).await
    };
    let allowed = [
        "HSET {culvert}:nodes 1 x",
        "HGETALL culvert:t:topic",
        "PUBLISH culvert:in:{1.0} x",
        "SUBSCRIBE culvert:in:{1.0}",
        "SCRIPT LOAD return(1)",
        "EVALSHA 930269f31393d0be681588b6ab08dccee7d6bb67 1 {culvert}:nodes",
        "CONFIG GET maxmemory-policy",
        "INFO server",
        "SET culvert:sweep:{1} x NX EX 5",
    ];
    for words in allowed {
        run(words).await.unwrap_or_else(|error| panic!("{words}: {error}"));
    }
    let denied: Vec<Value> = server.ask(&["ACL", "LOG"]).await.unwrap();
    assert_eq!(denied, [], "nor was any part of them refused");
    let refused = [
        "GET other",
        "PUBLISH other x",
        "PSUBSCRIBE *",
        "EVALSHA 930269f31393d0be681588b6ab08dccee7d6bb67 1 other",
        "CONFIG SET maxmemory 1",
        "FLUSHALL",
        "KEYS *",
        "CLIENT KILL ID 1",
        "ACL LIST",
        "SHUTDOWN",
    ];
    for words in refused {
        let error = run(words).await.expect_err(words);
        assert_eq!(error.code(), Some("NOPERM"), "{words}: {error}");
    }
}

#[tokio::test]
async fn subscribers_are_told_from_other_clients() {
    let server = RedisPlan::new().unwrap().start().await.unwrap();
    let client = redis::Client::open(format!("redis://{}/?protocol=resp3", server.addr())).unwrap();
    let (pushed, _confirmations) = tokio::sync::mpsc::unbounded_channel();
    let config = patient().set_push_sender(pushed);
    let mut subscriber = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
    subscriber.subscribe("a").await.unwrap();
    redis::cmd("SSUBSCRIBE").arg("b").exec_async(&mut subscriber).await.unwrap();
    let clients = server.clients().await.unwrap();
    let mut subscriptions: Vec<u64> = clients.iter().map(|client| client.subscriptions).collect();
    subscriptions.sort_unstable();
    assert_eq!(subscriptions, [0, 2], "the other one is the client that asks");
}

#[tokio::test]
async fn the_latency_probe_sees_how_long_a_server_was_busy() {
    let server = RedisPlan::new().unwrap().start().await.unwrap();
    let mut probe = LatencyProbe::start(&server).await.unwrap();
    let quiet = probe.more(20, SOON).await.unwrap();
    let busy = "local e = redis.call('time') e = e[1] * 1000000 + e[2] + 300000 \
                repeat local n = redis.call('time') until n[1] * 1000000 + n[2] > e";
    let () = server.ask(&["EVAL", busy, "0"]).await.unwrap();
    let worst = Duration::from_millis(250);
    assert!(quiet.samples >= 20 && probe.more(1, SOON).await.unwrap().worst >= worst);
}

#[tokio::test]
async fn its_processor_time_is_that_of_its_threads() {
    let server = RedisPlan::new().unwrap().start().await.unwrap();
    let before = server.process().unwrap().threads().unwrap();
    assert_eq!(before[0].id, server.process().unwrap().pid());
    let work = "for i = 1, 3000000 do end";
    let () = server.ask(&["EVAL", work, "0"]).await.unwrap();
    let after = server.process().unwrap().threads().unwrap();
    let spent = after[0].cpu - before[0].cpu;
    assert!(spent > Duration::from_millis(1), "{spent:?}");
    assert!(server.resources().unwrap().resident > 1_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_replace_a_master_that_dies_and_one_that_is_told_to_go() {
    let mut redis = RedisSentinels::start().await.unwrap();
    assert_eq!((redis.reach().mode(), redis.reach().servers().len()), (Mode::Sentinel, 3));
    let first = redis.master().addr();
    // In one connection: a client waits for its own writes.
    let mut client = redis.master().connect().await.unwrap();
    let copied =
        redis::pipe().cmd("SET").arg("key").arg("value").ignore().cmd("WAIT").arg(1).arg(9000).clone();
    assert_eq!(copied.query_async::<[u64; 1]>(&mut client).await.unwrap(), [1], "replicas that have it");

    redis.kill_master().await.unwrap();
    let second = redis.master().addr();
    assert_ne!(second, first);
    assert_eq!(redis.master().ask::<String>(&["GET", "key"]).await.unwrap(), "value");
    redis.revive().await.unwrap();

    redis.failover().await.unwrap();
    assert_eq!(redis.master().addr(), first);
    let () = redis.master().ask(&["SET", "key", "other"]).await.unwrap();
    assert_eq!(redis.master().info("connected_slaves").await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_moves_with_its_keys_while_a_client_of_the_cluster_uses_it() {
    let redis = RedisCluster::start().await.unwrap();
    let urls = redis.masters().iter().map(|master| format!("redis://{}", master.addr()));
    let client = ClusterClientBuilder::new(urls).response_timeout(ANSWER).connection_timeout(ANSWER);
    let mut connection = client.build().unwrap().get_async_connection().await.unwrap();
    let keys: Vec<String> = (0..250).map(|n| format!("{{moving}}:{n}")).collect();
    for key in &keys {
        let () = redis::cmd("SET").arg(key).arg("value").query_async(&mut connection).await.unwrap();
    }
    let slot = redis.slot_of("{moving}:1").await.unwrap();
    let from = redis.owner_of(slot).await.unwrap();
    let to = (from + 1) % 3;
    redis.move_slot(slot, from, to).await.unwrap();
    assert_eq!(redis.owner_of(slot).await.unwrap(), to);
    for key in &keys {
        assert_eq!(redis.masters()[to].ask::<String>(&["GET", key]).await.unwrap(), "value", "{key}");
        let value: String = redis::cmd("GET").arg(key).query_async(&mut connection).await.unwrap();
        assert_eq!(value, "value", "{key}");
    }
    redis.healthy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_of_a_cluster_that_dies_comes_back_with_its_slots_and_no_keys() {
    let mut redis = RedisCluster::start().await.unwrap();
    let slot = redis.slot_of("key").await.unwrap();
    let owner = redis.owner_of(slot).await.unwrap();
    let () = redis.masters()[owner].ask(&["SET", "key", "value"]).await.unwrap();
    redis.master(owner).kill().await.unwrap();
    let other = (owner + 1) % 3;
    until(SOON, "the others do not notice", async || {
        let info: String = redis.masters()[other].ask(&["CLUSTER", "INFO"]).await?;
        Ok(info.contains("cluster_state:fail"))
    })
    .await
    .unwrap();
    redis.master(owner).start_again().await.unwrap();
    redis.healthy().await.unwrap();
    assert_eq!(redis.owner_of(slot).await.unwrap(), owner);
    assert_eq!(redis.masters()[owner].ask::<Option<String>>(&["GET", "key"]).await.unwrap(), None);
}
