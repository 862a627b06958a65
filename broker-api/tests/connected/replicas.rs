//! Three replicas as processes on real Postgres and Redis behind haproxy: what happens on one is known on
//! all, and one that is killed takes nothing with it but its connections.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_broker_api::store::postgres::PostgresStore;
use culvert_broker_api::store::{Role, Store};
use culvert_broker_wire::ShareToken;
use culvert_service_kit::Clock;
use culvert_testkit::broker::{BrokerReplicas, BrokerReplicasPlan};
use culvert_testkit::postgres::{PostgresPlan, PostgresServer};
use culvert_testkit::process::{Program, allow_open_files};
use culvert_testkit::redis::{RedisPlan, RedisServer};
use culvert_testkit::report::{full, measured};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::common::{self, Request, Socket, admit, session, until};

const REPLICAS: usize = 3;
/// Users of the test of events.
const USERS: usize = 500;
/// Shares that it publishes.
const SHARES: usize = 20;
/// What 99 of 100 events may take from the publication on; the machine is given to it in full size only.
const QUICK: Duration = Duration::from_millis(200);
/// The same on a machine that runs other tests as well, with programs that are not optimised.
const PATIENT: Duration = Duration::from_secs(3);
/// The heartbeat timeout where a replica is killed.
const TTL: Duration = Duration::from_secs(6);

struct World {
    replicas: BrokerReplicas,
    store: Arc<dyn Store>,
    clock: Clock,
    _stores: (PostgresServer, RedisServer),
}

impl World {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let postgres = PostgresPlan::new().unwrap().start().await.unwrap();
        let redis = RedisPlan::new().unwrap().start().await.unwrap();
        let url = postgres.create_database().await.unwrap();
        let program = Program::from(Path::new(env!("CARGO_BIN_EXE_culvert-broker-api")));
        let plan = BrokerReplicasPlan::new(&program, REPLICAS, &url, &redis.reach(), "cluster").unwrap();
        // All clients of a test come from one address.
        let plan = plan.each(|plan| plan.set("request-rate", "10000/1s"));
        let plan = plan.each(|plan| settings.iter().fold(plan, |plan, (name, value)| plan.set(name, *value)));
        let replicas = plan.start().await.unwrap();
        let store = Arc::new(PostgresStore::connect(&url, 4, Duration::from_secs(30)).unwrap());
        Self { replicas, store, clock: Clock::system(), _stores: (postgres, redis) }
    }

    /// A new user with a session.
    async fn user(&self, name: &str) -> String {
        admit(self.store.as_ref(), &self.clock, name, Role::User).await;
        session(self.store.as_ref(), &self.clock, name).await
    }

    fn replica(&self, index: usize) -> SocketAddr {
        self.replicas.replica(index).unwrap().addr()
    }
}

fn publication(owner: &str, token: &str) -> Value {
    json!({"type": "publish_share", "token": token, "metadata": {
        "owner_user_id": owner, "result_id": "r1", "title": "A share", "description": null,
        "created_at": "2025-10-03T12:00:00Z", "access_policy": {"type": "institution"}}})
}

/// A socket of a user who is online.
async fn online(to: SocketAddr, user: &str, token: &str) -> Socket {
    let mut socket = Socket::open(to, Some(token)).await.unwrap();
    socket.register(user, "").await;
    socket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_on_one_replica_is_announced_to_500_users_on_all() {
    allow_open_files(4096).unwrap();
    let world = World::start(&[]).await;
    let mut tokens = Vec::new();
    for index in 0..USERS {
        tokens.push(world.user(&format!("user{index}")).await);
    }
    let publisher_token = world.user("publisher").await;
    let mut publisher = online(world.replica(0), "publisher", &publisher_token).await;

    let through = world.replicas.addr();
    let mut listeners = JoinSet::new();
    let ready = Arc::new(tokio::sync::Semaphore::new(0));
    for (index, token) in tokens.into_iter().enumerate() {
        let ready = ready.clone();
        listeners.spawn(async move {
            let mut socket = online(through, &format!("user{index}"), &token).await;
            ready.add_permits(1);
            let mut arrivals = Vec::with_capacity(SHARES);
            while arrivals.len() < SHARES {
                let event = socket.event("share_event").await;
                assert_eq!(event["event"], "published", "{event}");
                arrivals.push(Instant::now());
            }
            arrivals
        });
    }
    let all = tokio::time::timeout(common::DEADLINE, ready.acquire_many(USERS.try_into().unwrap())).await;
    let _all = all.expect("everybody is online in time").unwrap();
    for index in 0..REPLICAS {
        let held = world.replicas.replica(index).unwrap().metrics().await.unwrap();
        let held = held.sum("culvert_broker_connections", &[]);
        assert!(held >= (USERS / REPLICAS / 2) as f64, "replica {index} has {held} WebSockets only");
    }

    let mut published = Vec::new();
    for _ in 0..SHARES {
        published.push(Instant::now());
        let message = publication("publisher", ShareToken::generate().as_str());
        publisher.expect(message, "ack").await;
    }
    let mut delays = Vec::new();
    while let Some(arrivals) = listeners.join_next().await {
        let arrivals = arrivals.unwrap();
        delays.extend(arrivals.iter().zip(&published).map(|(arrived, sent)| *arrived - *sent));
    }
    assert_eq!(delays.len(), USERS * SHARES);
    delays.sort_unstable();
    let (median, late) = (delays[delays.len() / 2], delays[delays.len() * 99 / 100]);
    measured(&format!(
        "broker: {USERS} users on {REPLICAS} replicas hear of a share after {median:?} (median), {late:?} \
         (99 of 100)"
    ));
    let bound = if full() { QUICK } else { PATIENT };
    assert!(late <= bound, "{late:?} is more than {bound:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_killed_takes_its_users_offline_within_the_ttl_and_loses_no_share() {
    let ttl = TTL.as_secs().to_string();
    let mut world = World::start(&[("heartbeat-timeout", &ttl)]).await;
    let (doomed, watcher_token) = (world.user("doomed").await, world.user("watcher").await);
    let team = json!({"name": "team", "members": []});
    let answer = Request::post("/api/teams", &team).by(&watcher_token).send(world.replica(1)).await;
    let team = answer.expect(201)["id"].as_str().unwrap().to_owned();
    let member = Request::put(&format!("/api/teams/{team}/members/doomed"), &json!({"role": "member"}));
    let answer = member.by(&watcher_token).send(world.replica(1)).await;
    assert!(answer.status.is_success(), "{answer:?}");

    let mut watcher = online(world.replica(1), "watcher", &watcher_token).await;
    let mut socket = online(world.replica(0), "doomed", &doomed).await;
    let event = watcher.event("presence_event").await;
    assert_eq!((&event["user_id"], &event["online"]), (&json!("doomed"), &json!(true)));
    let token = ShareToken::generate();
    socket.expect(publication("doomed", token.as_str()), "ack").await;

    let killed = Instant::now();
    world.replicas.kill(0).await.unwrap();
    // The watcher stays only if it says that it is there.
    let event = loop {
        let beat = json!({"type": "heartbeat", "user_id": "watcher"});
        watcher.expect(beat, "ack").await;
        let heard = tokio::time::timeout(Duration::from_secs(1), watcher.event("presence_event")).await;
        if let Ok(event) = heard {
            break event;
        }
        assert!(killed.elapsed() < common::DEADLINE, "nobody says that the user is offline");
    };
    let took = killed.elapsed();
    assert_eq!((&event["user_id"], &event["online"]), (&json!("doomed"), &json!(false)));
    // A sweep is made once a second.
    assert!(took < TTL + Duration::from_secs(3), "offline only after {took:?}");
    let path = format!("/api/shares/{}", token.as_str());
    for replica in [1, 2] {
        let info = Request::get(&path).by(&watcher_token).send(world.replica(replica)).await.expect(200);
        assert_eq!(info["owner_online"], false, "on replica {replica}: {info}");
        assert_eq!(info["metadata"]["owner_user_id"], "doomed");
    }

    // Through the balancer, which knows by now that the replica is gone.
    world.replicas.balancer().sees(0, false).await.unwrap();
    let _again = online(world.replicas.addr(), "doomed", &doomed).await;
    let event = watcher.event("presence_event").await;
    assert_eq!((&event["user_id"], &event["online"]), (&json!("doomed"), &json!(true)));
    for replica in [1, 2] {
        until("the owner is online everywhere", async || {
            let info = Request::get(&path).by(&watcher_token).send(world.replica(replica)).await.expect(200);
            info["owner_online"] == true
        })
        .await;
    }
    world.replicas.start(0).await.unwrap();
    let info = Request::get(&path).by(&watcher_token).send(world.replica(0)).await.expect(200);
    assert_eq!(info["owner_online"], true, "{info}");
    measured(&format!(
        "broker: users of a killed replica are offline for others after {took:?} (TTL {TTL:?})"
    ));
}
