//! What is pushed, to whom, and what happens to presence when replicas or Redis go away.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod common;

use std::time::Duration;

use common::{Request, Running, Socket, until};
use culvert_service_kit::Clock;
use culvert_testkit::postgres::PostgresPlan;
use culvert_testkit::redis::RedisPlan;
use serde_json::{Value, json};

const TOKEN: &str = "qM5RyH1d4m0Zr9vTtX2u8w";

fn publish(owner: &str, title: &str, policy: &Value) -> Value {
    json!({"type": "publish_share", "token": TOKEN, "metadata": {
        "owner_user_id": owner, "result_id": "r", "title": title,
        "created_at": "2025-10-03T12:00:00Z", "access_policy": policy,
    }})
}

/// What is heard of shares up to now, as event and title.
async fn shares(socket: &mut Socket) -> Vec<(String, String)> {
    let events = socket.events_until_now().await;
    let of_shares = events.iter().filter(|event| event["type"] == "share_event");
    let heard = of_shares.map(|event| {
        assert!(event["share"].get("token").is_none(), "{event}");
        assert!(event.get("request_id").is_none(), "{event}");
        let title = event["share"]["metadata"]["title"].as_str().unwrap();
        (event["event"].as_str().unwrap().to_owned(), title.to_owned())
    });
    heard.collect()
}

/// Publishes, and waits until the owner's other device has heard of it: then everybody has.
async fn change(owner: &mut Socket, device: &mut Socket, message: Value) {
    owner.expect(message, "ack").await;
    device.event("share_event").await;
}

fn heard(events: &[(&str, &str)]) -> Vec<(String, String)> {
    events.iter().map(|(event, title)| ((*event).to_owned(), (*title).to_owned())).collect()
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
    change(owner, device, publish("alice", "one", &users(&["bob"]))).await;
    assert_eq!(shares(&mut bob).await, heard(&[("published", "one")]));
    change(owner, device, publish("alice", "two", &users(&["bob", "carol"]))).await;
    assert_eq!(shares(&mut bob).await, heard(&[("updated", "two")]));
    assert_eq!(shares(&mut carol).await, heard(&[("published", "two")]));
    change(owner, device, publish("alice", "three", &json!({"type": "team", "team_id": "lab"}))).await;
    assert_eq!(shares(&mut bob).await, heard(&[("revoked", "three")]));
    assert_eq!(shares(&mut carol).await, heard(&[("revoked", "three")]));
    let member = json!({"user_id": "carol", "role": "member"});
    broker.ask(Request::post("/api/teams/lab/members", &member).by(&tokens[0])).await.expect_ok();
    change(owner, device, publish("alice", "four", &json!({"type": "team", "team_id": "lab"}))).await;
    assert_eq!(shares(&mut carol).await, heard(&[("updated", "four")]));
    assert_eq!(shares(&mut dave).await, []);
    change(owner, device, publish("alice", "five", &json!({"type": "institution"}))).await;
    assert_eq!(shares(&mut dave).await, heard(&[("published", "five")]));
    assert_eq!(shares(&mut carol).await, heard(&[("updated", "five")]));
    change(owner, device, publish("alice", "six", &json!({"type": "public"}))).await;
    // Whoever was named by the institution is named no longer.
    assert_eq!(shares(&mut dave).await, heard(&[("revoked", "six")]));
    change(owner, device, json!({"type": "revoke_share", "token": TOKEN})).await;
    assert_eq!(shares(&mut dave).await, []);
    assert_eq!(shares(&mut bob).await, heard(&[("published", "five"), ("revoked", "six")]));
    assert_eq!(shares(&mut carol).await, heard(&[("revoked", "six")]));
    assert!(broker.counted("culvert_broker_events_total", "share_event") >= 14.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_is_told_to_those_who_share_a_team_or_a_share_and_to_nobody_else() {
    let broker = Running::sqlite().await;
    let mut tokens = Vec::new();
    for user in ["alice", "bob", "carol"] {
        tokens.push(broker.signed_in(user).await);
    }
    let mut owner = broker.online("alice", &tokens[0]).await;
    let mut stranger = broker.online("carol", &tokens[2]).await;
    let mut bob = broker.online("bob", &tokens[1]).await;
    bob.expect(json!({"type": "disconnect", "user_id": "bob"}), "ack").await;
    // Nothing relates them yet; a share does, and what was known of bob's relations is not.
    owner.expect(publish("alice", "for bob", &json!({"type": "users", "user_ids": ["bob"]})), "ack").await;
    bob.register("bob", "").await;
    let came = owner.event("presence_event").await;
    assert_eq!((&came["user_id"], &came["online"]), (&json!("bob"), &json!(true)));
    // A second device changes nothing; the last one that goes does.
    let second = broker.online("bob", &tokens[1]).await;
    bob.close().await;
    second.close().await;
    let went = owner.event("presence_event").await;
    assert_eq!((&went["user_id"], &went["online"]), (&json!("bob"), &json!(false)));
    assert!(went["last_seen"].is_string());
    let told = stranger.events_until_now().await;
    assert_eq!(told.iter().filter(|event| event["type"] == "presence_event").count(), 0, "{told:?}");
    assert_eq!(broker.counted("culvert_broker_events_total", "presence_event"), 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_on_one_replica_is_told_on_the_others_and_outlives_redis() {
    let postgres = PostgresPlan::new().unwrap().start().await.unwrap();
    let mut redis = RedisPlan::new().unwrap().start().await.unwrap();
    let quick = |config: &mut culvert_broker_api::Config| {
        config.timing.heartbeat_timeout = Duration::from_secs(6);
    };
    let mut replicas = Running::replicas_with(3, &postgres, &redis, &Clock::system(), quick).await;
    let (alice, bob) = (replicas[0].signed_in("alice").await, replicas[0].signed_in("bob").await);
    let mut owner = replicas[0].online("alice", &alice).await;
    let mut bob_socket = replicas[1].online("bob", &bob).await;
    let share = publish("alice", "one", &json!({"type": "users", "user_ids": ["bob"]}));
    owner.expect(share, "ack").await;
    assert_eq!(bob_socket.event("share_event").await["share"]["metadata"]["title"], "one");
    bob_socket.expect(json!({"type": "disconnect", "user_id": "bob"}), "ack").await;
    assert_eq!(owner.event("presence_event").await["online"], false);
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
    let titles = (2..).map(|number| number.to_string());
    let mut heard = false;
    for title in titles {
        let share = publish("alice", &title, &json!({"type": "users", "user_ids": ["bob"]}));
        owner.expect(share, "ack").await;
        let events = bob_socket.events_until_now().await;
        heard |= events.iter().any(|event| event["type"] == "share_event");
        if heard {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(heard);

    // A replica dies: bob is offline for the others within the timeout, and they say so once.
    let dead = replicas.remove(1);
    dead.crash().await;
    loop {
        let event = owner.event("presence_event").await;
        if event["online"] == false {
            assert_eq!(event["user_id"], "bob");
            break;
        }
    }
    assert_eq!(live.presences("bob").await.unwrap(), []);
    let noted = async || replicas[0].core().store.user("bob").await.unwrap().unwrap().last_seen.is_some();
    until("when he was last seen is noted", noted).await;
    let mut again = replicas[1].online("bob", &bob).await;
    assert_eq!(owner.event("presence_event").await["online"], true);
    again.expect(json!({"type": "heartbeat", "user_id": "bob"}), "ack").await;
}
