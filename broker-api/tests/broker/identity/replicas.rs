//! What one replica accepts or ends, on the others: real Postgres and Redis.

use culvert_broker_wire::auth::signature;
use culvert_testkit::postgres::PostgresPlan;
use culvert_testkit::redis::RedisPlan;

use super::*;

use crate::common::until;

#[tokio::test]
async fn logins_sessions_and_replays_are_known_on_every_replica() {
    let postgres = PostgresPlan::new().unwrap().start().await.unwrap();
    let redis = RedisPlan::new().unwrap().start().await.unwrap();
    let replicas = Running::replicas_with(2, &postgres, &redis, &Clock::system(), |config| {
        config.institution_password = Some(Secret::new(ADMISSION.to_owned()));
    })
    .await;
    let [one, two] = <[Running; 2]>::try_from(replicas).unwrap_or_else(|_| panic!("two replicas"));

    // Begun on one, finished on the other.
    let device = Device::new();
    let finish = opaque(&one, ADMISSION, "alice", &device).await.unwrap();
    let session = token(&post(&two, "/api/auth/opaque/finish", &finish).await);
    assert_eq!(post(&one, "/api/auth/opaque/finish", &finish).await.code(), "AUTH_FAILED");
    let proof = device.prove("alice", &challenge(&one).await);
    let login = json!({"user_id": "alice", "device": proof});
    let other = token(&post(&two, "/api/auth/device", &login).await);
    assert_eq!(post(&one, "/api/auth/device", &login).await.code(), "AUTH_FAILED");

    // Ended on one, over on the other, which remembers it.
    assert!(holds(&one, &session).await && holds(&two, &session).await && holds(&two, &other).await);
    one.ask(Request::post("/api/auth/logout", &json!({})).by(&session)).await.expect(204);
    assert!(!holds(&one, &session).await);
    until("the other replica hears of it", async || !holds(&two, &session).await).await;
    assert!(holds(&two, &other).await);

    // Accepted on one, a replay on the other.
    let made = one.ask(Request::post("/api/credentials", &json!({"name": "script"})).by(&other)).await;
    let made = made.expect(201);
    let (api_key, secret) = (made["api_key"].as_str().unwrap(), made["api_secret"].as_str().unwrap());
    let now = one.core().clock.unix_seconds();
    let keyed = |timestamp: u64| {
        Request::get("/api/auth/session")
            .header("x-api-key", api_key)
            .header("x-api-email", "alice")
            .header("x-api-timestamp", &timestamp.to_string())
            .header("x-api-signature", &signature(secret, timestamp, "alice", api_key, b""))
    };
    one.ask(keyed(now + 1)).await.expect(200);
    assert_eq!(two.ask(keyed(now + 1)).await.code(), "AUTH_FAILED");
    two.ask(keyed(now + 2)).await.expect(200);
}
