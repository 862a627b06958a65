//! Two peers of the client library on one topic, and many such pairs.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests: what fails here fails the test")]

pub(crate) mod frames;
pub(crate) mod pairs;

use std::path::PathBuf;
use std::time::Duration;

use culvert_client::{
    Connection, ProxyChoice, RelayOptions, TopicSecret, Transport, TransportConfig, TransportMode,
    create_transport_with,
};
use culvert_testkit::binaries;
use culvert_testkit::certs::{Leaf, TestCa};
use culvert_testkit::relay::{RelayPlan, RelayProcess};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Longer than any single step takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) type Arrivals = mpsc::Receiver<Box<dyn Connection>>;

/// The relay as users run it, with TLS.
pub(crate) struct Tls {
    pub(crate) ca: TestCa,
    pub(crate) leaf: Leaf,
    pub(crate) relay: RelayProcess,
}

pub(crate) async fn tls_relay() -> Tls {
    let ca = TestCa::new("Culvert test").unwrap();
    let leaf = ca.loopback().unwrap();
    let plan = RelayPlan::open(binaries::relay().await.unwrap()).unwrap();
    let relay = plan.tls(&leaf, &ca).unwrap().start().await.unwrap();
    Tls { ca, leaf, relay }
}

/// Options of a member of `secret` that trusts `ca` and goes out directly.
pub(crate) fn options(secret: &TopicSecret, ca: Option<PathBuf>) -> RelayOptions {
    RelayOptions {
        topic_secret: Some(secret.clone()),
        ca_file: ca,
        proxy: ProxyChoice::Direct,
        ..RelayOptions::default()
    }
}

pub(crate) fn transport(url: &str, options: RelayOptions) -> Box<dyn Transport> {
    let config = TransportConfig {
        mode: TransportMode::Relay,
        relay_url: Some(url.to_owned()),
        ..TransportConfig::default()
    };
    create_transport_with(config, options).unwrap()
}

/// The next conversation.
pub(crate) async fn arrival(arrivals: &mut Arrivals) -> Box<dyn Connection> {
    timeout(PATIENCE, arrivals.recv()).await.expect("no conversation began").expect("the transport ended")
}

/// Two transports in conversation. The receivers are kept, because dropping one leaves the topic.
pub(crate) struct Pair {
    pub(crate) anna: Box<dyn Connection>,
    pub(crate) ben: Box<dyn Connection>,
    pub(crate) transports: (Box<dyn Transport>, Box<dyn Transport>),
    pub(crate) arrivals: (Arrivals, Arrivals),
}

pub(crate) async fn pair(
    secret: &TopicSecret,
    mut anna: Box<dyn Transport>,
    mut ben: Box<dyn Transport>,
) -> Pair {
    let mut to_anna = timeout(PATIENCE, anna.connect(secret.topic())).await.unwrap().unwrap();
    let mut to_ben = timeout(PATIENCE, ben.connect(secret.topic())).await.unwrap().unwrap();
    let (with_ben, with_anna) = tokio::join!(arrival(&mut to_anna), arrival(&mut to_ben));
    Pair { anna: with_ben, ben: with_anna, transports: (anna, ben), arrivals: (to_anna, to_ben) }
}

/// The next message.
pub(crate) async fn message(connection: &mut Box<dyn Connection>) -> Vec<u8> {
    timeout(PATIENCE, connection.receive()).await.expect("no message came").unwrap().expect("closed")
}
