//! What is pushed, to whom, and what happens to presence when replicas or Redis go away.

use std::time::Duration;

use culvert_broker_api::live::Rate;
use culvert_service_kit::Clock;
use culvert_testkit::postgres::PostgresPlan;
use culvert_testkit::redis::RedisPlan;
use serde_json::{Value, json};

use crate::common::{Request, Running, Socket, until};

const TOKEN: &str = "qM5RyH1d4m0Zr9vTtX2u8w";

fn publish(owner: &str, token: &str, title: &str, policy: &Value) -> Value {
    json!({"type": "publish_share", "token": token, "metadata": {
        "owner_user_id": owner, "result_id": "r", "title": title,
        "created_at": "2025-10-03T12:00:00Z", "access_policy": policy,
    }})
}

/// Asserts that these changes of shares, as event and title, are what is heard next, and nothing else so far.
async fn hears(socket: &mut Socket, expected: &[(&str, &str)]) {
    for (event, title) in expected {
        let heard = socket.event("share_event").await;
        assert!(heard["share"].get("token").is_none() && heard.get("request_id").is_none(), "{heard}");
        assert_eq!((&heard["event"], &heard["share"]["metadata"]["title"]), (&json!(event), &json!(title)));
    }
    let more = socket.events_until_now().await;
    assert!(more.iter().all(|event| event["type"] != "share_event"), "{more:?}");
}

/// Publishes, and waits until the owner's other device has heard of it: then everybody has.
async fn change(owner: &mut Socket, device: &mut Socket, message: Value) {
    owner.expect(message, "ack").await;
    device.event("share_event").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hole_1b_7_a_share_is_announced_to_whom_its_policy_names_and_to_nobody_else() {
    let broker = Running::sqlite().await;
    let mut tokens = Vec::new();
    for user in ["alice", "bob", "carol", "dave"] {
        tokens.push(broker.signed_in(user).await);
    }
    let team = json!({"id": "lab", "name": "Lab"});
    broker.ask(Request::post("/api/teams", &team).by(&tokens[0])).await.expect_ok();
    let mut owner = broker.online("alice", &tokens[0]).await;
    let mut device = broker.online("alice", &tokens[0]).await;
    let mut bob = broker.online("bob", &tokens[1]).await;
    let mut carol = broker.online("carol", &tokens[2]).await;
    let mut dave = broker.online("dave", &tokens[3]).await;

    // To bob; to bob and carol; to the team, which carol joins later; to everybody; to nobody by name.
    let users = |users: &[&str]| json!({"type": "users", "user_ids": users});
    let (owner, device) = (&mut owner, &mut device);
    change(owner, device, publish("alice", TOKEN, "one", &users(&["bob"]))).await;
    hears(&mut bob, &[("published", "one")]).await;
    change(owner, device, publish("alice", TOKEN, "two", &users(&["bob", "carol"]))).await;
    hears(&mut bob, &[("updated", "two")]).await;
    hears(&mut carol, &[("published", "two")]).await;
    change(owner, device, publish("alice", TOKEN, "three", &json!({"type": "team", "team_id": "lab"}))).await;
    hears(&mut bob, &[("revoked", "three")]).await;
    hears(&mut carol, &[("revoked", "three")]).await;
    let member = Request::put("/api/teams/lab/members/carol", &json!({"role": "member"}));
    broker.ask(member.by(&tokens[0])).await.expect_ok();
    change(owner, device, publish("alice", TOKEN, "four", &json!({"type": "team", "team_id": "lab"}))).await;
    hears(&mut carol, &[("updated", "four")]).await;
    hears(&mut dave, &[]).await;
    change(owner, device, publish("alice", TOKEN, "five", &json!({"type": "institution"}))).await;
    hears(&mut dave, &[("published", "five")]).await;
    hears(&mut carol, &[("updated", "five")]).await;
    change(owner, device, publish("alice", TOKEN, "six", &json!({"type": "public"}))).await;
    // Whoever was named by the institution is named no longer.
    hears(&mut dave, &[("revoked", "six")]).await;
    change(owner, device, json!({"type": "revoke_share", "token": TOKEN})).await;
    hears(&mut dave, &[]).await;
    hears(&mut bob, &[("published", "five"), ("revoked", "six")]).await;
    hears(&mut carol, &[("revoked", "six")]).await;
    assert!(broker.counted("culvert_broker_events_total", "share_event") >= 14.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_team_is_told_to_those_who_lose_its_shares() {
    let broker = Running::sqlite().await;
    let mut tokens = Vec::new();
    for user in ["alice", "bob", "carol"] {
        tokens.push(broker.signed_in(user).await);
    }
    for (id, member) in [("lab", "bob"), ("club", "carol")] {
        let team = json!({"id": id, "name": id});
        broker.ask(Request::post("/api/teams", &team).by(&tokens[0])).await.expect_ok();
        let member = Request::put(&format!("/api/teams/{id}/members/{member}"), &json!({"role": "member"}));
        broker.ask(member.by(&tokens[0])).await.expect_ok();
    }
    let mut owner = broker.online("alice", &tokens[0]).await;
    let mut bob = broker.online("bob", &tokens[1]).await;
    let mut carol = broker.online("carol", &tokens[2]).await;
    let team = |id: &str| json!({"type": "team", "team_id": id});
    for (token, title, id) in [(TOKEN, "one", "lab"), ("nE7Lr2Kc9vXw0Yb3Qd5SaA", "two", "club")] {
        owner.expect(publish("alice", token, title, &team(id)), "ack").await;
        owner.event("share_event").await;
    }
    hears(&mut bob, &[("published", "one")]).await;
    hears(&mut carol, &[("published", "two")]).await;
    broker.ask(Request::delete("/api/teams/lab").by(&tokens[0])).await.expect_ok();
    let told = owner.event("share_event").await;
    assert_eq!((&told["event"], &told["share"]["metadata"]["title"]), (&json!("revoked"), &json!("one")));
    hears(&mut bob, &[("revoked", "one")]).await;
    hears(&mut carol, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_is_told_to_those_who_share_a_team_or_a_share_and_to_nobody_else() {
    let broker = Running::sqlite().await;
    let mut tokens = Vec::new();
    for user in ["alice", "bob", "carol"] {
        tokens.push(broker.signed_in(user).await);
    }
    let mut alice = broker.online("alice", &tokens[0]).await;
    let mut carol = broker.online("carol", &tokens[2]).await;
    alice
        .expect(publish("alice", TOKEN, "for bob", &json!({"type": "users", "user_ids": ["bob"]})), "ack")
        .await;
    let mut bob = broker.online("bob", &tokens[1]).await;
    let came = alice.event("presence_event").await;
    assert_eq!((&came["user_id"], &came["online"]), (&json!("bob"), &json!(true)));
    // A second device changes nothing; the last one that goes does.
    let second = broker.online("bob", &tokens[1]).await;
    second.close().await;
    bob.expect(json!({"type": "disconnect", "user_id": "bob"}), "ack").await;
    let went = alice.event("presence_event").await;
    assert_eq!((&went["user_id"], &went["online"]), (&json!("bob"), &json!(false)));
    assert!(went["last_seen"].is_string());
    let told = carol.events_until_now().await;
    assert!(told.iter().all(|event| event["type"] != "presence_event"), "{told:?}");
    // A share relates them, and what was known of bob's relations is not what is.
    let other = "nE7Lr2Kc9vXw0Yb3Qd5SaA";
    bob.expect(publish("bob", other, "for carol", &json!({"type": "users", "user_ids": ["carol"]})), "ack")
        .await;
    bob.register("bob", "").await;
    for socket in [&mut alice, &mut carol] {
        assert_eq!(socket.event("presence_event").await["user_id"], "bob");
    }
    assert_eq!(broker.counted("culvert_broker_events_total", "presence_event"), 4.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_on_one_replica_is_told_on_the_others_and_outlives_redis() {
    let postgres = PostgresPlan::new().unwrap().start().await.unwrap();
    let mut redis = RedisPlan::new().unwrap().start().await.unwrap();
    let quick = |config: &mut culvert_broker_api::Config| {
        config.timing.heartbeat_timeout = Duration::from_secs(6);
        config.limits.messages = Rate { per_second: 1e6, burst: 1_000_000 };
    };
    let mut replicas = Running::replicas_with(3, &postgres, &redis, &Clock::system(), quick).await;
    let (alice, bob) = (replicas[0].signed_in("alice").await, replicas[0].signed_in("bob").await);
    let mut owner = replicas[0].online("alice", &alice).await;
    let mut bob_socket = replicas[1].online("bob", &bob).await;
    let share = publish("alice", TOKEN, "one", &json!({"type": "users", "user_ids": ["bob"]}));
    owner.expect(share, "ack").await;
    assert_eq!(bob_socket.event("share_event").await["share"]["metadata"]["title"], "one");
    bob_socket.expect(json!({"type": "disconnect", "user_id": "bob"}), "ack").await;
    // His coming may be told as well: it is looked up whom it concerns when it is heard.
    while owner.event("presence_event").await["online"] == true {}
    bob_socket.register("bob", "").await;
    assert_eq!(owner.event("presence_event").await["online"], true);

    // Emptied: both are entered again by their replicas, without a word of theirs.
    let everybody = ["alice", "bob"].map(str::to_owned);
    let live = replicas[2].core().live.clone();
    redis.ask::<()>(&["FLUSHALL"]).await.unwrap();
    until("both are back", async || live.online(&everybody).await.unwrap() == [true, true]).await;
    // Away and back, empty: the same, and events are heard again.
    redis.kill().await.unwrap();
    assert_eq!(owner.refused(json!({"type": "get_challenge"})).await, "UNAVAILABLE");
    redis.start_again().await.unwrap();
    let both = async || live.online(&everybody).await.is_ok_and(|online| online == [true, true]);
    until("both are back after a restart", both).await;
    let mut titles = (2..).map(|number| number.to_string());
    until("bob hears of shares again", async || {
        let share =
            publish("alice", TOKEN, &titles.next().unwrap(), &json!({"type": "users", "user_ids": ["bob"]}));
        owner.expect(share, "ack").await;
        bob_socket.events_until_now().await.iter().any(|event| event["type"] == "share_event")
    })
    .await;

    // A replica dies: bob is offline for the others within the timeout, and they say so once.
    let dead = replicas.remove(1);
    dead.crash().await;
    let mut told = Vec::new();
    until("bob is said to be offline", async || {
        // Each question is a sign of life of hers.
        let events = owner.events_until_now().await;
        told.extend(events.into_iter().filter(|event| event["online"] == false));
        !told.is_empty()
    })
    .await;
    assert_eq!((told.len(), &told[0]["user_id"]), (1, &json!("bob")));
    assert_eq!(live.presences("bob").await.unwrap(), []);
    let noted = async || replicas[0].core().store.user("bob").await.unwrap().unwrap().last_seen.is_some();
    until("when he was last seen is noted", noted).await;
    let mut again = replicas[1].online("bob", &bob).await;
    assert_eq!(owner.event("presence_event").await["online"], true);
    again.expect(json!({"type": "heartbeat", "user_id": "bob"}), "ack").await;
}
