//! Every way in and every refusal, against a running broker.

mod accounts;
mod devices;
mod institution;
mod keyed;
mod replicas;
mod sessions;

use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use culvert_broker_api::config::Config;
use culvert_broker_api::core::Visitor;
use culvert_broker_api::identity::password::hash_now;
use culvert_broker_api::store::{AuditAction, AuditFilter, AuditRecord, NewUser, PageRequest, Role};
use culvert_broker_wire::auth::{DeviceProof, device_transcript};
use culvert_broker_wire::login::{OpaqueFinish, OpaqueStart, OpaqueStarted};
use culvert_broker_wire::opaque::{CONTEXT, Random, Suite, device_challenge, stretching};
use culvert_service_kit::{Clock, Secret};
use culvert_wire::PeerId;
use data_encoding::BASE64URL_NOPAD;
use opaque_ke::{ClientLogin, ClientLoginFinishParameters, CredentialResponse};
use serde_json::{Value, json};

use crate::common::{Answer, Request, Running};

/// A date of the tests, for clocks that stand still.
const NOW: u64 = 1_760_000_000;
/// The host of a broker's public URL in these tests.
const HOST: &str = "127.0.0.1";
/// The institution's password.
const ADMISSION: &str = "open sesame, wide and slowly";
/// An account's password.
const PASSWORD: &str = "correct horse battery";

/// A broker whose clock stands still, with an institution's password.
async fn broker() -> (Running, Clock) {
    broker_with(|_| {}).await
}

async fn broker_with(change: impl FnOnce(&mut Config)) -> (Running, Clock) {
    let clock = Clock::manual(NOW);
    let broker = Running::sqlite_with(clock.clone(), |config| {
        config.institution_password = Some(Secret::new(ADMISSION.to_owned()));
        change(config);
    })
    .await;
    (broker, clock)
}

/// A user with an account.
async fn account(broker: &Running, id: &str) {
    let hash = hash_now(&Secret::new(PASSWORD.to_owned())).unwrap();
    let new = NewUser { id: id.to_owned(), role: Role::User, password_hash: Some(hash), device: None };
    broker.core().store.admit(new, broker.core().now()).await.unwrap();
}

/// The entries of the audit log about this, newest first.
async fn log(broker: &Running, action: AuditAction) -> Vec<AuditRecord> {
    let filter = AuditFilter { action: Some(action), ..AuditFilter::default() };
    let page = PageRequest { after: None, limit: 1000 };
    let found = broker.core().store.entries(filter, page).await.unwrap();
    found.items.into_iter().map(|entry| entry.record).collect()
}

/// Somebody at this address, over TLS.
fn visitor(address: &str) -> Visitor {
    Visitor { source: address.parse::<IpAddr>().unwrap(), secure: true }
}

/// A device.
struct Device(Ed25519KeyPair);

impl Device {
    fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }

    fn key(&self) -> PeerId {
        PeerId(self.0.public_key().as_ref().try_into().unwrap())
    }

    fn prove_at(&self, host: &str, user: &str, challenge: &str) -> DeviceProof {
        let signed = self.0.sign(&device_transcript(&self.key(), user, host, challenge));
        DeviceProof {
            key: self.key(),
            challenge: challenge.to_owned(),
            host: host.to_owned(),
            signature: BASE64URL_NOPAD.encode(signed.as_ref()),
        }
    }

    fn prove(&self, user: &str, challenge: &str) -> DeviceProof {
        self.prove_at(HOST, user, challenge)
    }

    /// Logs in by its key.
    async fn log_in(&self, broker: &Running, user: &str) -> Answer {
        let challenge = challenge(broker).await;
        let body = json!({"user_id": user, "device": self.prove(user, &challenge)});
        broker.ask(Request::post("/api/auth/device", &body)).await
    }
}

async fn challenge(broker: &Running) -> String {
    let answer = broker.ask(Request::post("/api/auth/challenge", &json!({}))).await.expect(200);
    answer["challenge"].as_str().unwrap().to_owned()
}

/// A login by OPAQUE that waits for the broker's answer, and the key that its device will sign with.
struct Opaque(ClientLogin<Suite>, String);

impl Opaque {
    fn start(password: &str) -> (Self, OpaqueStart) {
        let started = ClientLogin::<Suite>::start(&mut Random, password.as_bytes()).unwrap();
        let credential_request = BASE64URL_NOPAD.encode(&started.message.serialize());
        (Self(started.state, password.to_owned()), OpaqueStart { credential_request })
    }

    /// The last message; `None` if the broker knows another password.
    fn finish(self, answer: &OpaqueStarted, user: &str, device: &Device) -> Option<OpaqueFinish> {
        let bytes = BASE64URL_NOPAD.decode(answer.credential_response.as_bytes()).unwrap();
        let response = CredentialResponse::<Suite>::deserialize(&bytes).unwrap();
        let stretching = stretching();
        let parameters = ClientLoginFinishParameters {
            context: Some(CONTEXT),
            ksf: Some(&stretching),
            ..Default::default()
        };
        let finished = self.0.finish(&mut Random, self.1.as_bytes(), response, parameters).ok()?;
        let challenge = device_challenge(&finished.session_key, &answer.login_id, user);
        Some(OpaqueFinish {
            login_id: answer.login_id.clone(),
            user_id: user.to_owned(),
            credential_finalization: BASE64URL_NOPAD.encode(&finished.message.serialize()),
            device: device.prove(user, &challenge),
            device_name: Some("laptop".to_owned()),
        })
    }
}

/// A login by the institution's password up to its last message.
async fn opaque(broker: &Running, password: &str, user: &str, device: &Device) -> Option<OpaqueFinish> {
    let (login, request) = Opaque::start(password);
    let answer = post(broker, "/api/auth/opaque/start", &request).await.expect(200);
    login.finish(&serde_json::from_value(answer).unwrap(), user, device)
}

/// The whole of it.
async fn admitted(broker: &Running, user: &str, device: &Device) -> Answer {
    let finish = opaque(broker, ADMISSION, user, device).await.unwrap();
    post(broker, "/api/auth/opaque/finish", &finish).await
}

async fn post<T: serde::Serialize>(broker: &Running, path: &str, body: &T) -> Answer {
    broker.ask(Request::post(path, &serde_json::to_value(body).unwrap())).await
}

async fn log_in(broker: &Running, user: &str, password: &str) -> Answer {
    broker.ask(Request::post("/api/auth/login", &json!({"user_id": user, "password": password}))).await
}

/// The token that a login gave.
fn token(answer: &Answer) -> String {
    let given: Value = answer.expect(200);
    given["session_token"].as_str().unwrap().to_owned()
}

/// Whether a session holds.
async fn holds(broker: &Running, token: &str) -> bool {
    let answer = broker.ask(Request::get("/api/auth/session").by(token)).await;
    if answer.status.is_success() {
        return true;
    }
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, "AUTH_FAILED"));
    false
}

const MINUTE: Duration = Duration::from_secs(60);
