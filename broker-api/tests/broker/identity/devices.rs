//! By a device's key, and how devices come and go.

use culvert_broker_api::store::Status;

use super::*;

#[tokio::test]
async fn a_challenge_is_answered_once_in_time_by_its_device_for_this_broker() {
    let (broker, clock) = broker().await;
    let (device, other) = (Device::new(), Device::new());
    admitted(&broker, "alice", &device).await.expect(200);
    admitted(&broker, "bob", &other).await.expect(200);
    let log_in = async |user: &str, proof: DeviceProof| {
        let answer = post(&broker, "/api/auth/device", &json!({"user_id": user, "device": proof})).await;
        answer.status.is_success().then_some(()).ok_or_else(|| answer.code())
    };
    let failed = Err("AUTH_FAILED".to_owned());
    let once = device.prove("alice", &challenge(&broker).await);
    assert_eq!(log_in("alice", once.clone()).await, Ok(()));
    assert_eq!(log_in("alice", once).await, failed, "twice");
    let upper = device.prove_at("127.0.0.1", "alice", &challenge(&broker).await);
    assert_eq!(log_in("bob", upper).await, failed, "as another user");
    let other_device = other.prove("alice", &challenge(&broker).await);
    assert_eq!(log_in("alice", other_device).await, failed, "by another user's device");
    let elsewhere = device.prove_at("evil.example", "alice", &challenge(&broker).await);
    assert_eq!(log_in("alice", elsewhere).await, failed, "for another host");
    let made_up = device.prove("alice", &BASE64URL_NOPAD.encode(&[7; 32]));
    assert_eq!(log_in("alice", made_up).await, failed, "over a challenge of nobody");
    let late = device.prove("alice", &challenge(&broker).await);
    clock.advance(MINUTE + Duration::from_secs(1));
    assert_eq!(log_in("alice", late).await, failed, "after a minute");
    assert_eq!(log_in("nobody", device.prove("nobody", &challenge(&broker).await)).await, failed);
    broker.core().store.set_status("alice", Status::Suspended).await.unwrap();
    let suspended = device.prove("alice", &challenge(&broker).await);
    assert_eq!(log_in("alice", suspended).await, failed, "while suspended");
}

#[tokio::test]
async fn a_device_registers_on_a_websocket() {
    let (broker, _) = broker().await;
    let device = Device::new();
    admitted(&broker, "alice", &device).await.expect(200);
    let mut socket = broker.socket().await;
    let challenge = socket.expect(json!({"type": "get_challenge"}), "challenge").await;
    let proof = device.prove("alice", challenge["challenge"].as_str().unwrap());
    let register = json!({"type": "register_user", "user_id": "alice", "device": proof});
    socket.expect(register.clone(), "connected").await;
    let mut again = broker.socket().await;
    assert_eq!(again.refused(register).await, "AUTH_FAILED");
}

#[tokio::test]
async fn devices_are_bound_by_proof_and_a_revoked_one_is_over_at_once_and_for_good() {
    let (broker, _) = broker().await;
    let (first, second, bobs) = (Device::new(), Device::new(), Device::new());
    let session = token(&admitted(&broker, "alice", &first).await);
    admitted(&broker, "bob", &bobs).await.expect(200);
    let bind = async |device: &Device, signed_for: &str| {
        let proof = device.prove(signed_for, &challenge(&broker).await);
        let body = json!({"device": proof, "name": "phone"});
        broker.ask(Request::post("/api/users/me/devices", &body).by(&session)).await
    };
    assert_eq!(bind(&second, "bob").await.code(), "AUTH_FAILED");
    assert_eq!(bind(&bobs, "alice").await.code(), "CONFLICT");
    assert_eq!(bind(&second, "alice").await.expect(201)["name"], "phone");
    let list = broker.ask(Request::get("/api/users/me/devices").by(&session)).await.expect(200);
    assert_eq!(list["devices"].as_array().unwrap().len(), 2);

    let of_second = token(&second.log_in(&broker, "alice").await);
    assert!(holds(&broker, &of_second).await);
    let mut socket = broker.online("alice", &of_second).await;
    let revoke = format!("/api/users/me/devices/{}", second.key());
    broker.ask(Request::delete(&revoke).by(&session)).await.expect(204);
    assert!(!holds(&broker, &of_second).await, "its sessions end");
    assert!(holds(&broker, &session).await, "those of other devices do not");
    socket.closed().await;
    assert_eq!(second.log_in(&broker, "alice").await.code(), "AUTH_FAILED");
    assert_eq!(bind(&second, "alice").await.code(), "CONFLICT", "never bound again");
    assert_eq!(admitted(&broker, "carol", &second).await.code(), "AUTH_FAILED");
    assert_eq!(broker.ask(Request::delete(&revoke).by(&session)).await.code(), "NOT_FOUND");
    let bobs_device = format!("/api/users/me/devices/{}", bobs.key());
    assert_eq!(broker.ask(Request::delete(&bobs_device).by(&session)).await.code(), "NOT_FOUND");
    assert_eq!(log(&broker, AuditAction::DeviceRevoked).await.len(), 1);
}

#[tokio::test]
async fn an_administrator_suspends_a_user_with_a_device_where_there_is_no_relay_to_tell() {
    let (broker, _) = broker().await;
    let device = Device::new();
    let session = token(&admitted(&broker, "alice", &device).await);
    broker.user_as("root", Role::Admin).await;
    let root = broker.session("root").await;
    let suspend =
        Request::new(hyper::Method::PATCH, "/api/users/alice").json(&json!({"status": "suspended"}));
    broker.ask(suspend.by(&root)).await.expect(200);
    assert!(!holds(&broker, &session).await);
    assert_eq!(device.log_in(&broker, "alice").await.code(), "AUTH_FAILED");
}
