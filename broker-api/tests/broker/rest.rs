//! REST over real connections, on SQLite and presence in memory.

mod admin;
mod backups;
mod credentials;
mod limits;
mod protocol;
mod relays;
mod repeated;
mod shares;
mod teams;

use std::time::Duration;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use culvert_service_kit::Clock;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use crate::common::{Answer, Request, Running};

/// When manual clocks begin.
const START: u64 = 1_760_000_000;

/// A broker whose time stands still until it is moved.
async fn at_a_time() -> (Running, Clock) {
    let clock = Clock::manual(START);
    let broker = Running::sqlite_with(clock.clone(), |config| {
        config.institution = "lab".to_owned();
        config.relays = vec!["wss://relay.example".to_owned()];
    })
    .await;
    (broker, clock)
}

/// A share as it is published.
fn share(policy: Value) -> Value {
    json!({ "result_id": "result-1", "title": "My analysis", "access_policy": policy })
}

/// Publishes a share and gives its token.
async fn published(broker: &Running, owner: &str, policy: Value) -> String {
    let answer = broker.ask(Request::post("/api/shares", &share(policy)).by(owner)).await;
    answer.expect(201)["token"].as_str().unwrap().to_owned()
}

/// Asks for a share, as somebody or nobody.
async fn look_up(broker: &Running, token: &str, who: Option<&str>) -> Answer {
    let request = Request::get(&format!("/api/shares/{token}"));
    broker.ask(who.into_iter().fold(request, Request::by)).await
}

/// Verifies a JSON Web Token with the key set that the broker publishes; gives header and claims.
async fn verified(broker: &Running, token: &str) -> (Value, Value) {
    let keys = broker.ask(Request::get("/.well-known/jwks.json")).await.expect(200);
    let [header, claims, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let part = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).unwrap();
    let parsed = |bytes: &str| -> Value { serde_json::from_slice(&part(bytes)).unwrap() };
    let (head, body) = (parsed(header), parsed(claims));
    assert_eq!(head["alg"], "EdDSA");
    let key = keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == head["kid"]).unwrap();
    let public = UnparsedPublicKey::new(&ED25519, part(key["x"].as_str().unwrap()));
    public.verify(format!("{header}.{claims}").as_bytes(), &part(signature)).unwrap();
    (head, body)
}

/// The audit log, newest first, as the administrator whose session this is sees it.
async fn audit(broker: &Running, admin: &str, query: &str) -> Vec<Value> {
    let answer = broker.ask(Request::get(&format!("/api/audit?{query}")).by(admin)).await;
    answer.expect(200)["entries"].as_array().unwrap().clone()
}

/// A new administrator's session.
async fn admin(broker: &Running) -> String {
    broker.user_as("root", culvert_broker_api::store::Role::Admin).await;
    broker.session("root").await
}

/// Much longer than a grant.
const AN_HOUR: Duration = Duration::from_secs(3600);
