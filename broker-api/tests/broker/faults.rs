//! The stores go away, stall, restart and forget: what was acknowledged stays, everything else is refused
//! with a reason, and the broker is back by itself.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use culvert_broker_api::config::{Config, Database};
use culvert_broker_api::core::Visitor;
use culvert_broker_api::domain::shares::{Wanted, look_up};
use culvert_broker_wire::{ErrorCode, ShareToken};
use culvert_relay::config::{AdmissionPolicy, KeySource, TicketPolicy};
use culvert_service_kit::Clock;
use culvert_testkit::postgres::{PostgresPlan, PostgresServer};
use culvert_testkit::process::Signal;
use culvert_testkit::redis::{RedisPlan, RedisServer};
use culvert_testkit::relay::Embedded;
use culvert_testkit::{HelloOptions, Identity, RawOptions, RawPeer};
use culvert_wire::TopicId;
use data_encoding::HEXLOWER;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::common::{DEADLINE, Request, Running, Starting, config, settings, until};

/// Longest wait for a store in these tests.
const BACKEND: Duration = Duration::from_millis(500);

/// A broker on a Postgres and a Redis of its own.
struct World {
    broker: Running,
    token: String,
    postgres: PostgresServer,
    redis: RedisServer,
}

impl World {
    async fn start() -> Self {
        let postgres = PostgresPlan::new().unwrap().start().await.unwrap();
        let redis = RedisPlan::new().unwrap().start().await.unwrap();
        let broker = Running::start(on(&postgres, &redis).await, Clock::system()).await;
        let token = broker.signed_in("alice").await;
        Self { broker, token, postgres, redis }
    }

    /// Publishes by REST; gives the status, the code of a refusal, and the token.
    async fn publish(&self) -> (u16, Value, ShareToken) {
        self.publish_by(&self.token).await
    }

    /// The same by whoever has this session.
    async fn publish_by(&self, session: &str) -> (u16, Value, ShareToken) {
        let token = ShareToken::generate();
        let share = json!({"token": token.as_str(), "result_id": "r", "title": "t",
            "created_at": "2025-10-03T12:00:00Z", "access_policy": {"type": "public"}});
        let answer = self.broker.ask(Request::post("/api/shares", &share).by(session)).await;
        let code = if answer.status.is_success() { Value::Null } else { answer.json()["code"].clone() };
        (answer.status.as_u16(), code, token)
    }

    async fn look_up(&self, token: &ShareToken) -> (u16, Value) {
        let path = format!("/api/shares/{}", token.as_str());
        let answer = self.broker.ask(Request::get(&path).by(&self.token)).await;
        (answer.status.as_u16(), answer.json())
    }

    /// Looks all of these up in one go, which is one batch where there is one thread.
    async fn look_up_together(&self, tokens: &[ShareToken]) -> Vec<Result<(), ErrorCode>> {
        let here = Visitor { source: Ipv4Addr::LOCALHOST.into(), secure: true };
        let core = self.broker.core();
        let found = tokens.iter().map(|token| look_up(core, None, here, token.as_str(), Wanted::Grant));
        join_all(found)
            .await
            .into_iter()
            .map(|found| found.map(drop).map_err(|refusal| refusal.code))
            .collect()
    }

    /// So many shares of the first user's.
    async fn shares(&self, count: usize) -> Vec<ShareToken> {
        let mut tokens = Vec::new();
        for _ in 0..count {
            tokens.push(self.publish().await.2);
        }
        tokens
    }

    /// A refusal with the reason, when and in what shape to expect it.
    async fn is_unavailable(&self, token: &ShareToken) {
        let started = Instant::now();
        let path = format!("/api/shares/{}", token.as_str());
        let answer = self.broker.ask(Request::get(&path).by(&self.token)).await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (503, "UNAVAILABLE"), "{answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("cannot reach one of its stores"), "{detail}");
        for inner in ["postgres", "redis", "sqlx", "127.0.0.1", "pool"] {
            assert!(!detail.to_lowercase().contains(inner), "internals in {detail}");
        }
        assert!(started.elapsed() < 20 * BACKEND, "refused only after {:?}", started.elapsed());
    }

    async fn works_again(&self, token: &ShareToken) {
        until("look-ups work again", async || self.look_up(token).await.0 == 200).await;
        until("publications work again", async || self.publish().await.0 == 201).await;
    }
}

/// Settings of a broker on these.
async fn on(postgres: &PostgresServer, redis: &RedisServer) -> Config {
    let mut config = config(Path::new("unused"));
    config.database = Database::Postgres(postgres.create_database().await.unwrap().into());
    config.redis = Some(settings(redis, "faults"));
    config.timing.backend = BACKEND;
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_away_is_a_503_with_a_reason_and_nothing_acknowledged_is_lost() {
    let mut world = World::start().await;
    let (status, _, token) = world.publish().await;
    assert_eq!(status, 201);
    world.postgres.kill().await.unwrap();
    world.is_unavailable(&token).await;
    assert_eq!(world.publish().await.0, 503);
    // A broker that could serve stays ready, and says what is missing.
    until("readiness says why", async || {
        let ready = Request::get("/readyz").send(world.broker.admin_addr()).await.expect(200);
        ready["reason"] == "the database does not answer"
    })
    .await;
    assert!(world.broker.counted("culvert_broker_backend_failures_total", "database") >= 1.0);
    assert_eq!(world.broker.counted("culvert_broker_backend_up", "database"), 0.0);
    world.postgres.start_again().await.unwrap();
    world.works_again(&token).await;
    until("it counts as up", async || world.broker.counted("culvert_broker_backend_up", "") == 2.0).await;
}

#[tokio::test]
async fn a_share_that_cannot_be_read_fails_alone_among_those_that_are_looked_up_together() {
    let world = World::start().await;
    let tokens = world.shares(9).await;
    let Database::Postgres(url) = &world.broker.core().config.database else { panic!("it is on Postgres") };
    // A number that the table takes and no share has.
    let hash = HEXLOWER.encode(&tokens[3].hash());
    let damage =
        format!("UPDATE shared_results SET max_downloads = 5000000000 WHERE token_hash = '\\x{hash}'");
    world.postgres.ask(url.expose(), &damage).await.unwrap();
    let mut expected = vec![Ok(()); tokens.len()];
    expected[3] = Err(ErrorCode::Internal);
    assert_eq!(world.look_up_together(&tokens).await, expected);
}

#[tokio::test]
async fn an_owner_whose_presence_cannot_be_read_fails_alone_among_those_that_are_asked_for_together() {
    let world = World::start().await;
    let bob = world.broker.signed_in("bob").await;
    let _socket = world.broker.online("bob", &bob).await;
    let mut tokens = world.shares(8).await;
    tokens.insert(5, world.publish_by(&bob).await.2);
    let keys: Vec<String> = world.redis.ask(&["KEYS", "faults:b:*:u:bob"]).await.unwrap();
    let _: String = world.redis.ask(&["SET", &keys[0], "no hash"]).await.unwrap();
    let mut expected = vec![Ok(()); tokens.len()];
    expected[5] = Err(ErrorCode::Internal);
    assert_eq!(world.look_up_together(&tokens).await, expected);
}

#[tokio::test]
async fn a_store_that_stalls_is_asked_once_for_all_that_are_looked_up_together() {
    let world = World::start().await;
    let tokens = world.shares(32).await;
    world.postgres.pause().unwrap();
    let started = Instant::now();
    assert_eq!(world.look_up_together(&tokens).await, [Err(ErrorCode::Unavailable); 32]);
    // Asked again in halves it would be 63 times.
    assert!(started.elapsed() < 20 * BACKEND, "refused only after {:?}", started.elapsed());
    world.postgres.resume().unwrap();
    world.redis.pause().unwrap();
    let started = Instant::now();
    assert_eq!(world.look_up_together(&tokens).await, [Err(ErrorCode::Unavailable); 32]);
    assert!(started.elapsed() < 20 * BACKEND, "refused only after {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_that_stalls_is_a_503_in_time_and_no_request_hangs() {
    let world = World::start().await;
    let (_, _, token) = world.publish().await;
    world.postgres.pause().unwrap();
    world.is_unavailable(&token).await;
    world.postgres.resume().unwrap();
    world.works_again(&token).await;
}

/// Publications run while Postgres is killed again and again: each that was acknowledged is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_restarted_in_the_middle_of_transactions_loses_nothing_that_was_acknowledged() {
    let mut world = World::start().await;
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        // The kill falls into whatever is under way after some were acknowledged.
        let some = Notify::new();
        let publish = async {
            let mut done = Vec::new();
            loop {
                match world.publish().await {
                    (201, _, token) => done.push(token),
                    (503, ..) => return done,
                    (status, code, _) => panic!("{status} {code} in round {round}"),
                }
                if done.len() == 5 {
                    some.notify_one();
                }
            }
        };
        let kill = async {
            some.notified().await;
            // At once, without a word to anybody.
            world.postgres.process().unwrap().signal(Signal::QUIT).unwrap();
        };
        let (done, ()) = tokio::time::timeout(DEADLINE, async { tokio::join!(publish, kill) }).await.unwrap();
        acknowledged.extend(done);
        world.postgres.kill().await.unwrap();
        world.postgres.start_again().await.unwrap();
        let last = acknowledged.last().expect("something was acknowledged before the first kill");
        world.works_again(last).await;
    }
    for token in &acknowledged {
        assert_eq!(world.look_up(token).await.0, 200, "an acknowledged share is gone");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_away_is_a_503_with_a_reason_and_comes_back_by_itself() {
    let mut world = World::start().await;
    let (_, _, token) = world.publish().await;
    world.redis.kill().await.unwrap();
    world.is_unavailable(&token).await;
    until("it counts as down", async || world.broker.counted("culvert_broker_backend_up", "live") == 0.0)
        .await;
    world.redis.start_again().await.unwrap();
    world.works_again(&token).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_emptied_forgets_nobody_who_is_connected() {
    let world = World::start().await;
    let mut socket = world.broker.online("alice", &world.token).await;
    let (_, _, token) = world.publish().await;
    until("alice is online", async || world.look_up(&token).await.1["owner_online"] == true).await;
    let _: String = world.redis.ask(&["FLUSHALL"]).await.unwrap();
    until("alice is online again", async || world.look_up(&token).await.1["owner_online"] == true).await;
    socket.expect(json!({"type": "heartbeat", "user_id": "alice"}), "ack").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_both_stores_down_everything_is_refused_with_a_reason_and_works_again_when_they_are_back() {
    let mut world = World::start().await;
    let (_, _, token) = world.publish().await;
    world.redis.kill().await.unwrap();
    world.postgres.kill().await.unwrap();
    world.is_unavailable(&token).await;
    until("readiness says why", async || {
        let ready = Request::get("/readyz").send(world.broker.admin_addr()).await.expect(200);
        ready["reason"] == "neither the database nor Redis answers"
    })
    .await;
    world.postgres.start_again().await.unwrap();
    world.redis.start_again().await.unwrap();
    world.works_again(&token).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_starts_while_both_stores_are_down_waits_and_says_so() {
    let mut postgres = PostgresPlan::new().unwrap().start().await.unwrap();
    let mut redis = RedisPlan::new().unwrap().start().await.unwrap();
    let settings = on(&postgres, &redis).await;
    redis.kill().await.unwrap();
    postgres.kill().await.unwrap();
    let mut broker = Starting::new(settings, Clock::system());
    until("readiness says what is waited for", async || {
        let ready = Request::get("/readyz").send(broker.admin_addr()).await.expect(503);
        ready["reason"].as_str().unwrap().starts_with("waiting for the stores")
    })
    .await;
    let answer = Request::get("/api/info").send(broker.addr()).await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (503, "UNAVAILABLE"));
    postgres.start_again().await.unwrap();
    redis.start_again().await.unwrap();
    broker.opened().await;
}

/// A relay verifies tickets offline, with the keys that it has fetched from the broker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_both_stores_down_relays_still_admit_peers_with_tickets_issued_before() {
    let mut world = World::start().await;
    let keys = format!("http://{}/.well-known/jwks.json", world.broker.addr());
    let mut config = Embedded::config();
    config.admission = AdmissionPolicy {
        tickets: Some(TicketPolicy {
            keys: vec![KeySource::Url(keys.parse().unwrap())],
            ..TicketPolicy::files([], Duration::from_secs(24 * 3600))
        }),
        ..AdmissionPolicy::default()
    };
    let relay = Embedded::start(config).await.unwrap();
    let identity = Identity::random().unwrap();
    let topic = TopicId([7; 32]);
    let wanted = json!({"peer_id": identity.peer(), "topics": [topic]});
    let issued = world.broker.ask(Request::post("/api/relay-tickets", &wanted).by(&world.token)).await;
    let ticket = issued.expect(201)["ticket"].as_str().unwrap().to_owned();
    let admitted = async || {
        let mut peer = RawPeer::connect(relay.addr(), &RawOptions::plain("localhost")).await.unwrap();
        peer.hello(&HelloOptions::new(&identity).ticket(&*ticket)).await.map(|_| peer)
    };
    until("the relay has the broker's keys", async || admitted().await.is_ok()).await;

    world.redis.kill().await.unwrap();
    world.postgres.kill().await.unwrap();
    let again = world.broker.ask(Request::post("/api/relay-tickets", &wanted).by(&world.token)).await;
    assert_eq!((again.status.as_u16(), &*again.code()), (503, "UNAVAILABLE"));
    let mut peer = admitted().await.unwrap();
    peer.join(topic).await.unwrap();
    world.broker.crash().await;
    let mut other = admitted().await.unwrap();
    assert_eq!(other.join(topic).await.unwrap().1.total, 1);
}
