//! The JSON that the first protocol's documents print, said literally by somebody who was let in at the upgrade.

use culvert_client::broker::{AccessPolicy, Credentials};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::world::{DEADLINE, World};

/// The access policy as the document of the first client passes it on.
#[test]
fn the_access_policy_of_the_commands_is_read() {
    let policy: AccessPolicy = serde_json::from_value(json!({ "type": "public" })).unwrap();
    assert_eq!(policy, AccessPolicy::Public);
}

async fn socket(world: &World, user: &str) -> WebSocketStream<TcpStream> {
    let Credentials::Session(token) = world.user(user).await else { panic!("a session") };
    let mut request = world.url().into_client_request().unwrap();
    request.headers_mut().insert("Authorization", format!("Bearer {}", *token).parse().unwrap());
    let stream = TcpStream::connect(world.addr).await.unwrap();
    tokio_tungstenite::client_async(request, stream).await.unwrap().0
}

async fn say(socket: &mut WebSocketStream<TcpStream>, text: &str) -> Value {
    socket.send(Message::text(text.to_owned())).await.unwrap();
    let answer = async {
        loop {
            if let Message::Text(text) = socket.next().await.unwrap().unwrap() {
                let answer: Value = serde_json::from_str(&text).unwrap();
                if !answer["type"].as_str().unwrap().ends_with("_event") {
                    return answer;
                }
            }
        }
    };
    tokio::time::timeout(DEADLINE, answer).await.unwrap()
}

#[tokio::test]
async fn the_messages_of_the_first_protocol_work_literally() {
    let world = World::new().await;
    let mut alice = socket(&world, "alice@institution.edu").await;
    let registered = say(
        &mut alice,
        r#"{
  "type": "register_user",
  "user_id": "alice@institution.edu",
  "endpoint": "http://192.168.1.50:3001"
}"#,
    );
    assert_eq!(registered.await["type"], "connected");
    let beat = say(&mut alice, r#"{"type": "heartbeat", "user_id": "alice@institution.edu"}"#).await;
    assert_eq!(beat, json!({"type": "ack", "message_id": null}));
    let published = say(
        &mut alice,
        r#"{
  "type": "publish_share",
  "token": "abc123xyz",
  "metadata": {
    "owner_user_id": "alice@institution.edu",
    "result_id": "result-uuid",
    "title": "My DDA Analysis",
    "description": "EEG analysis from experiment X",
    "created_at": "2025-10-03T12:00:00Z",
    "access_policy": {
      "type": "public"
    }
  }
}"#,
    );
    assert_eq!(published.await, json!({"type": "ack", "message_id": null}));
    let mut bob = socket(&world, "bob@institution.edu").await;
    let asked = r#"{"type": "request_share", "token": "abc123xyz", "requester_id": "bob@institution.edu"}"#;
    let share = say(&mut bob, asked).await;
    assert_eq!((&share["type"], &share["info"]["owner_online"]), (&json!("share_info"), &json!(true)));
    assert_eq!(share["info"]["metadata"]["title"], "My DDA Analysis");
    let revoked = say(&mut alice, r#"{"type": "revoke_share", "token": "abc123xyz"}"#).await;
    assert_eq!(revoked, json!({"type": "ack", "message_id": null}));
    assert_eq!(say(&mut bob, asked).await["code"], "SHARE_NOT_FOUND");
}
