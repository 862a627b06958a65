//! The world that k6 loads: a broker process on real Postgres and Redis, users with sessions, shares, and
//! idle WebSockets whose memory is measured. The broker has the settings that operators get, and every core.
//! `loadtest/k6/run` starts it; without that it is small and runs the same look-ups itself, so that what k6
//! measures is known to work.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Request, Socket, admit, session};
use culvert_broker_api::store::postgres::PostgresStore;
use culvert_broker_api::store::{Role, Store};
use culvert_service_kit::Clock;
use culvert_testkit::broker::{BrokerPlan, BrokerProcess};
use culvert_testkit::postgres::PostgresPlan;
use culvert_testkit::process::{Plan, Program, allow_open_files};
use culvert_testkit::redis::RedisPlan;
use culvert_testkit::report::measured;
use serde_json::{Value, json};

/// The k6 to run; without it the test looks up itself.
const K6: &str = "CULVERT_K6";
/// Users with sessions.
const USERS: usize = 20;
/// Shares of the first user's.
const SHARES: usize = 50;
/// Look-ups of the test itself.
const LOOK_UPS: u32 = 200;
/// Idle WebSocket users: so many that what the allocator takes in one piece, some MiB, does not count.
const IDLE: usize = 2000;
/// Resident bytes for each of them.
const IDLE_BYTES: u64 = 24 * 1024;

fn program() -> Program {
    std::env::var_os("CULVERT_BIN_DIR").map_or_else(
        || Path::new(env!("CARGO_BIN_EXE_culvert-broker-api")).into(),
        |folder| Path::new(&folder).join("culvert-broker-api").into(),
    )
}

/// Resident bytes and processor time up to now.
fn used(broker: &BrokerProcess) -> (u64, Duration) {
    let used = broker.resources().unwrap();
    (used.resident, used.cpu)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn look_ups_publications_and_idle_users_cost_what_is_promised() {
    let k6 = std::env::var_os(K6);
    allow_open_files(8192).unwrap();
    let postgres = PostgresPlan::new().unwrap().start().await.unwrap();
    let redis = RedisPlan::new().unwrap().start().await.unwrap();
    let url = postgres.create_database().await.unwrap();
    let plan = BrokerPlan::postgres(program(), &url).unwrap().redis(&redis.reach(), "load");
    let plan = plan.set("request-rate", "1000000/1s").set("message-rate", "1000000/1s");
    let broker = plan.start().await.unwrap();
    let store: Arc<dyn Store> = Arc::new(PostgresStore::connect(&url, 4, Duration::from_secs(30)).unwrap());
    let clock = Clock::system();
    let mut sessions = Vec::new();
    for index in 0..USERS {
        let name = format!("user{index}");
        admit(store.as_ref(), &clock, &name, Role::User).await;
        sessions.push(session(store.as_ref(), &clock, &name).await);
    }
    let mut shares = Vec::new();
    for index in 0..SHARES {
        let share = json!({"result_id": format!("r{index}"), "title": "t",
            "created_at": "2025-10-03T12:00:00Z", "access_policy": {"type": "institution"}});
        let answer = Request::post("/api/shares", &share).by(&sessions[0]).send(broker.addr()).await;
        shares.push(answer.expect(201)["token"].as_str().unwrap().to_owned());
    }
    let mut owner = Socket::open(broker.addr(), Some(&sessions[0])).await.unwrap();
    owner.register("user0", "").await;

    match k6 {
        None => look_up(&broker, &sessions, &shares).await,
        Some(k6) => {
            let folder = tempfile::tempdir().unwrap();
            let given = json!({"sessions": &sessions[1..], "shares": shares});
            let file = folder.path().join("tokens.json");
            std::fs::write(&file, given.to_string()).unwrap();
            for (script, rate) in [("lookup.js", 1000_u32), ("publish.js", 100)] {
                run_k6(Path::new(&k6), script, rate, &broker, &file).await;
            }
        }
    }

    // Warm: what the first connections make the process take is not theirs.
    let mut sockets = Vec::new();
    let mut before = 0;
    for index in 0..IDLE + 100 {
        if index == 100 {
            before = used(&broker).0;
        }
        // Many names, as in life: one user has few connections.
        let name = format!("idle{index}");
        admit(store.as_ref(), &clock, &name, Role::User).await;
        let token = session(store.as_ref(), &clock, &name).await;
        let mut socket = Socket::open(broker.addr(), Some(&token)).await.unwrap();
        socket.register(&name, "").await;
        sockets.push(socket);
    }
    let each = used(&broker).0.saturating_sub(before) / IDLE as u64;
    measured(&format!("broker: {each} bytes resident for each of {IDLE} idle WebSocket users"));
    assert!(each <= IDLE_BYTES, "{each} bytes are more than {IDLE_BYTES}");
}

/// Without k6: that what it asks is answered as it expects.
async fn look_up(broker: &BrokerProcess, sessions: &[String], shares: &[String]) {
    let (started, (_, before)) = (Instant::now(), used(broker));
    for turn in 0..LOOK_UPS as usize {
        let path = format!("/api/shares/{}", shares[turn % shares.len()]);
        let user = &sessions[1 + turn % (sessions.len() - 1)];
        let info: Value = Request::get(&path).by(user).send(broker.addr()).await.expect(200);
        assert!(info["grant"].is_string() && info["owner_online"] == true, "{info}");
    }
    let cpu = (used(broker).1 - before) / LOOK_UPS;
    let took = started.elapsed() / LOOK_UPS;
    measured(&format!("broker: {cpu:?} of CPU and {took:?} for a look-up on a connection of its own"));
}

async fn run_k6(k6: &Path, script: &str, rate: u32, broker: &BrokerProcess, tokens: &Path) {
    let script = culvert_testkit::binaries::workspace().join("loadtest/k6").join(script);
    let seconds = 30;
    let (_, before) = used(broker);
    let mut run = Plan::new("k6", k6)
        .args(["run", "--quiet", "--no-usage-report"])
        .args(["-e", &format!("BROKER={}", broker.url()), "-e", &format!("TOKENS={}", tokens.display())])
        .args(["-e", &format!("RATE={rate}"), "-e", &format!("DURATION={seconds}s")])
        .arg(&script)
        .start()
        .unwrap();
    run.succeeds(Duration::from_secs(180)).await.unwrap();
    let cpu = (used(broker).1 - before) / (rate * seconds);
    let duration = run.output().find(|line| {
        (line.contains("http_req_duration") && line.contains("avg="))
            .then(|| line.split_whitespace().collect::<Vec<_>>().join(" "))
    });
    let duration = duration.await.unwrap_or_default();
    let name = script.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    measured(&format!("broker: k6 {name} at {rate}/s: {cpu:?} of CPU each, {duration}"));
}
