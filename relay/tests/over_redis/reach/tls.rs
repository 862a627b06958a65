//! TLS, users and passwords.

use culvert_relay::bus::redis::reach::{Reach, ReachError};
use culvert_relay::bus::redis::settings::{self, Settings};
use culvert_service_kit::Secret;
use culvert_testkit::certs::TestCa;
use culvert_testkit::redis::{Mode, RedisPlan, RedisServer, relay_rights};

use super::listener::{self, Listener};

/// A server that speaks only TLS, to a user with the rights of a relay.
async fn server(ca: &TestCa) -> RedisServer {
    let leaf = ca.loopback().unwrap();
    let plan =
        RedisPlan::new().unwrap().password("admin").user("relay", "right", &relay_rights(Mode::Standalone));
    plan.tls(&leaf, ca).start().await.unwrap()
}

fn as_relay(server: &RedisServer, ca: &TestCa, password: &str) -> Settings {
    let mut settings = listener::settings(&server.reach());
    settings.user = Some("relay".to_owned());
    settings.password = Some(Secret::new(password.to_owned()));
    settings.ca = Some(std::fs::read(ca.path()).unwrap());
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_works_over_tls_for_a_user_with_few_rights() {
    let ca = TestCa::new("redis").unwrap();
    let server = server(&ca).await;
    let mut listener = Listener::start(&as_relay(&server, &ca, "right")).await;
    listener.hears_all_shards().await;
    let users: Vec<String> = server
        .clients()
        .await
        .unwrap()
        .into_iter()
        .filter(|client| client.subscriptions > 0)
        .map(|client| client.user)
        .collect();
    assert!(!users.is_empty() && users.iter().all(|user| user == "relay"), "{users:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said_to_be_one() {
    let ca = TestCa::new("redis").unwrap();
    let server = server(&ca).await;
    let reach = Reach::new(&as_relay(&server, &ca, "wrong")).unwrap();
    let place = reach.place("any").await.unwrap();
    for error in [reach.publisher(&place).await.map(|_| ()), reach.ask().await.map(|_| ())] {
        let error = error.unwrap_err();
        assert!(matches!(error, ReachError::Refused { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains(&server.addr().to_string()) && text.contains("refuses the user or the password"),
            "{text}"
        );
        assert!(!text.contains("wrong\"") && !text.contains("admin"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_not_believed() {
    let (ca, other) = (TestCa::new("redis").unwrap(), TestCa::new("other").unwrap());
    let server = server(&ca).await;
    let reach = Reach::new(&as_relay(&server, &other, "right")).unwrap();
    let place = reach.place("any").await.unwrap();
    let error = reach.publisher(&place).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, ReachError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[test]
fn a_file_without_certificates_is_refused_at_the_start() {
    let mut settings =
        Settings::new(Settings::parse_servers("rediss://localhost").unwrap(), settings::Mode::Standalone);
    settings.ca = Some(b"nothing".to_vec());
    let error = Reach::new(&settings).unwrap_err();
    assert!(error.to_string().contains("redis-ca holds no certificate"), "{error}");
}
