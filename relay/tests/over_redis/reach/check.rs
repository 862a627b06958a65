//! Each way in which a Redis can be unfit, and the sentence about it.

use std::path::Path;
use std::time::Duration;

use culvert_relay::bus::redis::check::{Findings, check, rule};
use culvert_relay::bus::redis::keys::Keys;
use culvert_relay::bus::redis::reach::{Reach, ReachError};
use culvert_relay::bus::redis::settings::{Mode, Settings};
use culvert_service_kit::Secret;
use culvert_testkit::redis::{RedisCluster, RedisPlan, RedisSentinels, RedisServer};
use culvert_testkit::relay::RelayPlan;

use super::listener::{Listener, settings};

async fn found(settings: &Settings) -> Findings {
    check(&Reach::new(settings).unwrap()).await.unwrap()
}

/// The only problem, which holds all of these words.
fn only(findings: &Findings, words: &[&str]) {
    assert_eq!(findings.problems.len(), 1, "{findings:#?}");
    for word in words {
        assert!(findings.problems[0].contains(word), "{word} not in {}", findings.problems[0]);
    }
}

async fn server(directives: &[(&str, &str)]) -> RedisServer {
    let plan = directives.iter().fold(RedisPlan::new().unwrap(), |plan, (name, value)| plan.set(name, value));
    plan.start().await.unwrap()
}

/// A server with a user of these rights, and settings of a relay that is this user.
async fn restricted(rights: &str) -> (RedisServer, Settings) {
    let plan = RedisPlan::new().unwrap().password("admin").user("relay", "secret", rights);
    let server = plan.start().await.unwrap();
    let mut settings = settings(&server.reach());
    settings.user = Some("relay".to_owned());
    settings.password = Some(Secret::new("secret".to_owned()));
    (server, settings)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_with_its_defaults_is_fit_and_left_as_it_was() {
    let server = server(&[]).await;
    assert_eq!(found(&settings(&server.reach())).await, Findings::default());
    let keys: u64 = server.ask(&["DBSIZE"]).await.unwrap();
    assert_eq!(keys, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_wrong_is_said_at_once() {
    let server = server(&[
        ("maxmemory", "100mb"),
        ("maxmemory-policy", "allkeys-lru"),
        ("client-output-buffer-limit", "pubsub 8mb 2mb 60"),
    ])
    .await;
    let findings = found(&settings(&server.reach())).await;
    assert_eq!(findings.problems.len(), 2, "{findings:#?}");
    assert!(findings.problems[0].contains("maxmemory-policy noeviction"), "{findings:#?}");
    assert!(findings.problems[1].contains("pubsub 32mb 8mb 60"), "{findings:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_evicts_what_expires_is_a_warning() {
    let server = server(&[("maxmemory", "100mb"), ("maxmemory-policy", "volatile-ttl")]).await;
    let findings = found(&settings(&server.reach())).await;
    assert_eq!(findings.problems, Vec::<String>::new());
    assert_eq!(findings.warnings.len(), 1, "{findings:#?}");
    assert!(findings.warnings[0].contains("volatile-ttl"), "{findings:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_zero_are_no_limits() {
    let directives = [("client-output-buffer-limit", "pubsub 0 0 0"), ("maxmemory-policy", "allkeys-lru")];
    let server = server(&directives).await;
    assert_eq!(found(&settings(&server.reach())).await, Findings::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rule_that_is_documented_is_enough_for_the_check_and_the_inbox() {
    let (_server, settings) = restricted(&rule(&Keys::new("culvert"), false)).await;
    assert_eq!(found(&settings).await, Findings::default());
    let mut listener = Listener::start(&settings).await;
    listener.hears_all_shards().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_may_not_run_a_command_is_told_which() {
    let rights = format!("{} -hrandfield -srem", rule(&Keys::new("culvert"), false));
    let (_server, settings) = restricted(&rights).await;
    let findings = found(&settings).await;
    only(&findings, &["the user relay run hrandfield, srem;", "ACL SETUSER relay ~culvert:*", "+hrandfield"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_may_not_use_the_names_of_the_prefix_is_told_which() {
    let (_server, mut settings) = restricted(&rule(&Keys::new("culvert"), false)).await;
    settings.prefix = "other".to_owned();
    let findings = found(&settings).await;
    only(&findings, &["use keys", "{other}:*", ", other:*", "use channels other:in:*", "&other:in:*"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_transactions_has_nothing_carried_out() {
    let rights = format!("{} -multi", rule(&Keys::new("culvert"), false));
    let (server, settings) = restricted(&rights).await;
    only(&found(&settings).await, &["run multi;"]);
    let keys: u64 = server.ask(&["DBSIZE"]).await.unwrap();
    assert_eq!(keys, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_are_hidden_are_a_warning() {
    let rights = format!("{} -config|get", rule(&Keys::new("culvert"), false));
    let (_server, settings) = restricted(&rights).await;
    let findings = found(&settings).await;
    assert_eq!(findings.problems, Vec::<String>::new());
    assert_eq!(findings.warnings.len(), 1, "{findings:#?}");
    assert!(findings.warnings[0].contains("client-output-buffer-limit"), "{findings:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_a_problem_and_not_an_outage() {
    let (_server, mut settings) = restricted(&rule(&Keys::new("culvert"), false)).await;
    settings.password = Some(Secret::new("guess".to_owned()));
    only(&found(&settings).await, &["refuses the user or the password", "redis-user"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_away_is_an_outage_and_not_a_problem() {
    let mut server = server(&[]).await;
    server.kill().await.unwrap();
    let error = check(&Reach::new(&settings(&server.reach())).unwrap()).await.unwrap_err();
    assert!(matches!(error, ReachError::Unreachable { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_not_taken_for_a_master() {
    let master = server(&[]).await;
    let replica = server(&[("replicaof", &format!("127.0.0.1 {}", master.port()))]).await;
    only(&found(&settings(&replica.reach())).await, &["is a replica of 127.0.0.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_are_fit_and_are_not_taken_for_anything_else() {
    let sentinels = RedisSentinels::start().await.unwrap();
    let right = settings(&sentinels.reach());
    assert_eq!(found(&right).await, Findings::default());
    let mut unknown = right.clone();
    unknown.mode = Mode::Sentinel { master: "nobody".to_owned() };
    only(&found(&unknown).await, &["no master called nobody", "redis-sentinel-master"]);
    let mut alone = right.clone();
    alone.servers.truncate(1);
    alone.mode = Mode::Standalone;
    only(&found(&alone).await, &["is a Sentinel", "redis-mode to sentinel"]);
    let mut server = settings(&sentinels.master().reach());
    server.mode = right.mode;
    only(&found(&server).await, &["is no Sentinel", "redis-mode to standalone"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_fit_and_is_not_taken_for_one_server() {
    let cluster = RedisCluster::start().await.unwrap();
    let right = settings(&cluster.reach());
    assert_eq!(found(&right).await, Findings::default());
    let mut alone = right.clone();
    alone.servers.truncate(1);
    alone.mode = Mode::Standalone;
    only(&found(&alone).await, &["part of a cluster", "redis-mode to cluster"]);
    let server = server(&[]).await;
    let mut single = settings(&server.reach());
    single.mode = Mode::Cluster;
    only(&found(&single).await, &["no part of a cluster", "redis-mode to standalone"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_master_of_a_cluster_is_looked_at() {
    let cluster = RedisCluster::start().await.unwrap();
    let limit = ["CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 1mb 1"];
    let () = cluster.masters()[2].ask(&limit).await.unwrap();
    only(&found(&settings(&cluster.reach())).await, &[&cluster.masters()[2].addr().to_string()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_was_away_at_the_start_is_looked_at_when_it_comes_and_the_node_goes_on() {
    const SOON: Duration = Duration::from_secs(30);
    let plan = RedisPlan::new().unwrap().set("maxmemory", "100mb").set("maxmemory-policy", "allkeys-lru");
    let relay = RelayPlan::open(Path::new(env!("CARGO_BIN_EXE_culvert-relay"))).unwrap();
    let mut relay = relay.set("redis", format!("redis://{}", plan.addr())).start().await.unwrap();
    let says = |words: &'static str| move |line: &str| line.contains(words).then(|| line.to_owned());
    relay.process().line(SOON, says("this node serves nobody until")).await.unwrap();
    assert_eq!(relay.admin("/readyz").await.unwrap().0, 503);

    let _server = plan.start().await.unwrap();
    let complaint = relay.process().line(SOON, says("maxmemory-policy noeviction")).await.unwrap();
    assert!(complaint.to_lowercase().contains("error"), "{complaint}");
    let ready = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while relay.admin("/readyz").await.unwrap().0 != 200 {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(SOON, ready).await.expect("the node goes on with it");
}
