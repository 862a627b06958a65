//! By the institution's password, which admits and nothing more.

use culvert_broker_api::store::Outcome;

use super::*;

#[tokio::test]
async fn the_first_registration_binds_the_user_id_to_its_device() {
    let (broker, _) = broker().await;
    let device = Device::new();
    let session = token(&admitted(&broker, "alice", &device).await);
    let who = broker.ask(Request::get("/api/auth/session").by(&session)).await.expect(200);
    assert_eq!((&who["way"], &who["device"]), (&json!("institution"), &json!(device.key().to_string())));
    let log = log(&broker, AuditAction::UserAdmitted).await;
    assert_eq!((log.len(), log[0].actor.as_deref(), log[0].outcome), (1, Some("alice"), Outcome::Done));
    // From now on with the password, or without it.
    admitted(&broker, "alice", &device).await.expect(200);
    device.log_in(&broker, "alice").await.expect(200);
    assert_eq!(broker.core().store.devices("alice").await.unwrap()[0].name, "laptop");
}

/// Anyone could register as anybody, and be sent what was meant for them.
#[tokio::test]
async fn hole_1_b_1_nobody_registers_as_alice_with_a_device_of_their_own() {
    let (broker, _) = broker().await;
    let (hers, mallorys) = (Device::new(), Device::new());
    admitted(&broker, "alice", &hers).await.expect(200);
    account(&broker, "bob").await;
    for victim in ["alice", "bob"] {
        // By OPAQUE, with the right password of the institution.
        let answer = admitted(&broker, victim, &mallorys).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, "AUTH_FAILED"));
        // With the plain password on a WebSocket.
        let mut socket = broker.socket().await;
        let challenge = socket.expect(json!({"type": "get_challenge"}), "challenge").await;
        let proof = mallorys.prove(victim, challenge["challenge"].as_str().unwrap());
        let register = json!({
            "type": "register_user", "user_id": victim, "endpoint": "http://203.0.113.66",
            "password": ADMISSION, "device": proof,
        });
        assert_eq!(socket.refused(register).await, "AUTH_FAILED");
        // With the password alone, with the device alone, and with nothing.
        let alone = json!({"type": "register_user", "user_id": victim, "password": ADMISSION});
        assert_eq!(socket.refused(alone).await, "AUTH_FAILED");
        let challenge = socket.expect(json!({"type": "get_challenge"}), "challenge").await;
        let proof = mallorys.prove(victim, challenge["challenge"].as_str().unwrap());
        let device = json!({"type": "register_user", "user_id": victim, "device": proof});
        assert_eq!(socket.refused(device).await, "AUTH_FAILED");
        let bare = json!({"type": "register_user", "user_id": victim, "endpoint": "http://203.0.113.66"});
        assert_eq!(socket.refused(bare).await, "AUTH_REQUIRED");
    }
    // As somebody else who proved who they are.
    let mallory = token(&admitted(&broker, "mallory", &mallorys).await);
    let mut socket = broker.socket_of(&mallory).await;
    assert_eq!(socket.refused(json!({"type": "register_user", "user_id": "alice"})).await, "FORBIDDEN");
    assert_eq!(log(&broker, AuditAction::IdentityMismatch).await.len(), 1);
    let admissions = log(&broker, AuditAction::UserAdmitted).await;
    let done = admissions.iter().filter(|record| record.outcome == Outcome::Done).count();
    assert_eq!(done, 2, "alice and mallory: {admissions:?}");
    assert_eq!(broker.core().store.devices("alice").await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_plain_password_admits_a_device_over_tls() {
    let (broker, _) = broker().await;
    let device = Device::new();
    let register = async |password: &str| {
        let mut socket = broker.socket().await;
        let challenge = socket.expect(json!({"type": "get_challenge"}), "challenge").await;
        let proof = device.prove("alice", challenge["challenge"].as_str().unwrap());
        socket
            .ask(json!({"type": "register_user", "user_id": "alice", "password": password, "device": proof}))
            .await
    };
    assert_eq!(register("wrong password").await["code"], "AUTH_FAILED");
    assert_eq!(register(ADMISSION).await["type"], "connected");
    assert_eq!(log(&broker, AuditAction::UserAdmitted).await.len(), 1);
    // Who has both an account and a device may send the device along.
    account(&broker, "bob").await;
    let mut socket = broker.socket().await;
    let challenge = socket.expect(json!({"type": "get_challenge"}), "challenge").await;
    let proof = device.prove("bob", challenge["challenge"].as_str().unwrap());
    let register = json!({"type": "register_user", "user_id": "bob", "password": PASSWORD, "device": proof});
    socket.expect(register, "connected").await;
}

#[tokio::test]
async fn a_wrong_password_ends_at_the_client_and_is_a_guess() {
    let (broker, _) = broker().await;
    let device = Device::new();
    for _ in 0..10 {
        assert!(opaque(&broker, "open sesame", "alice", &device).await.is_none());
    }
    let (_, request) = Opaque::start(ADMISSION);
    let refused = post(&broker, "/api/auth/opaque/start", &request).await;
    assert_eq!((refused.code().as_str(), refused.header("retry-after")), ("RATE_LIMITED", Some("6")));
    assert!(broker.core().store.user("alice").await.unwrap().is_none());
}

#[tokio::test]
async fn a_login_is_finished_once_by_whom_it_was_begun_for_and_in_time() {
    let (broker, clock) = broker().await;
    let (device, other) = (Device::new(), Device::new());
    let finish = async |finish: OpaqueFinish| {
        let answer = post(&broker, "/api/auth/opaque/finish", &finish).await;
        answer.status.is_success().then_some(()).ok_or_else(|| answer.code())
    };
    let failed = Err("AUTH_FAILED".to_owned());
    let begun = async || opaque(&broker, ADMISSION, "alice", &device).await.unwrap();
    let late = begun().await;
    clock.advance(MINUTE + Duration::from_secs(1));
    assert_eq!(finish(late).await, failed, "after a minute");
    let other_user = OpaqueFinish { user_id: "bob".into(), ..begun().await };
    assert_eq!(finish(other_user).await, failed, "for another user");
    let mut signed_again = begun().await;
    signed_again.device = device.prove("bob", &signed_again.device.challenge);
    signed_again.user_id = "bob".into();
    assert_eq!(finish(signed_again).await, failed, "signed again for another user");
    let (one, two) = (begun().await, begun().await);
    let spliced = OpaqueFinish { device: one.device.clone(), ..two.clone() };
    assert_eq!(finish(spliced).await, failed, "with the proof of another login");
    assert_eq!(finish(two).await, failed, "after it was tried");
    let mut elsewhere = begun().await;
    elsewhere.device = device.prove_at("evil.example", "alice", &elsewhere.device.challenge);
    assert_eq!(finish(elsewhere).await, failed, "with a proof made for another host");
    let mut foreign = begun().await;
    foreign.device.key = other.key();
    assert_eq!(finish(foreign).await, failed, "with another device's key");
    assert_eq!(finish(one.clone()).await, Ok(()));
    assert_eq!(finish(one).await, failed, "twice");
    for field in ["credential_finalization", "login_id"] {
        let mut broken = serde_json::to_value(begun().await).unwrap();
        broken[field] = "!".into();
        assert!(!post(&broker, "/api/auth/opaque/finish", &broken).await.status.is_success(), "{field}");
    }
}

#[tokio::test]
async fn admissions_that_are_right_are_not_guesses() {
    let (broker, _) = broker().await;
    let device = Device::new();
    for _ in 0..12 {
        admitted(&broker, "alice", &device).await.expect(200);
    }
}

/// The hash of the password was announced to the whole network, and there was one by default.
#[tokio::test]
async fn hole_1_b_4_nothing_that_leaves_depends_on_the_password_and_there_is_none_by_default() {
    let (broker, _) = broker().await;
    let info = broker.ask(Request::get("/api/info")).await;
    info.expect_ok();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, ADMISSION.as_bytes());
    let text = String::from_utf8(info.body.to_vec()).unwrap();
    assert!(!text.contains(&data_encoding::HEXLOWER.encode(hash.as_ref())), "{text}");
    // What the broker answers is random, also for the same question.
    let (_, request) = Opaque::start(ADMISSION);
    let one = post(&broker, "/api/auth/opaque/start", &request).await.expect(200);
    let two = post(&broker, "/api/auth/opaque/start", &request).await.expect(200);
    assert_ne!(one["credential_response"], two["credential_response"]);

    let open = Running::sqlite().await;
    assert_eq!(post(&open, "/api/auth/opaque/start", &request).await.code(), "FORBIDDEN");
    let device = Device::new();
    for password in ["default_password", ""] {
        let mut socket = open.socket().await;
        let challenge = socket.expect(json!({"type": "get_challenge"}), "challenge").await;
        let proof = device.prove("alice", challenge["challenge"].as_str().unwrap());
        let register =
            json!({"type": "register_user", "user_id": "alice", "password": password, "device": proof});
        assert_eq!(socket.refused(register).await, "AUTH_FAILED");
    }
}
