//! A renewed certificate is used by the next connection and disturbs none that is open.

use std::path::Path;
use std::time::Duration;

use culvert_testkit::certs::{Leaf, TestCa};
use culvert_testkit::process::Signal;
use culvert_testkit::relay::RelayPlan;
use culvert_testkit::{HelloOptions, Identity, RawOptions, RawPeer};

/// Far beyond what any step here takes; reached only where something hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// Puts one certificate's files in the place of another's.
fn replace(old: &Leaf, new: &Leaf) {
    std::fs::copy(new.key_path(), old.key_path()).expect("the key can be replaced");
    std::fs::copy(new.cert_path(), old.cert_path()).expect("the certificate can be replaced");
}

#[tokio::test]
async fn a_new_certificate_is_used_without_dropping_connections() {
    // Two authorities, so that who is trusted tells which certificate was shown.
    let (old_ca, new_ca) = (TestCa::new("old").unwrap(), TestCa::new("new").unwrap());
    let (old, new) = (old_ca.loopback().unwrap(), new_ca.loopback().unwrap());
    let plan = RelayPlan::open(Path::new(env!("CARGO_BIN_EXE_culvert-relay"))).unwrap();
    let mut relay = plan.tls(&old, &old_ca).unwrap().start().await.unwrap();
    let trusting_old = RawOptions::tls("localhost", old_ca.client_config().unwrap());
    let trusting_new = RawOptions::tls("localhost", new_ca.client_config().unwrap());

    let mut peer = RawPeer::connect(relay.addr(), &trusting_old).await.unwrap();
    peer.hello(&HelloOptions::new(&Identity::from_seed([1; 32]).unwrap())).await.unwrap();
    assert!(RawPeer::connect(relay.addr(), &trusting_new).await.is_err());

    std::fs::write(old.key_path(), "no key").unwrap();
    relay.process().signal(Signal::HUP).unwrap();
    let kept = |line: &str| line.contains("the old one stays in use").then_some(());
    relay.process().line(DEADLINE, kept).await.unwrap();
    RawPeer::connect(relay.addr(), &trusting_old).await.unwrap();

    replace(&old, &new);
    relay.process().signal(Signal::HUP).unwrap();
    let uses_new = async {
        while RawPeer::connect(relay.addr(), &trusting_new).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, uses_new).await.unwrap();
    assert!(RawPeer::connect(relay.addr(), &trusting_old).await.is_err());
    peer.sync(7).await.unwrap();

    let metrics = relay.metrics().await.unwrap();
    assert_eq!(metrics.sum("culvert_tls_reloads_total", &[("outcome", "replaced")]), 1.0);
    assert!(metrics.sum("culvert_tls_reloads_total", &[("outcome", "rejected")]) >= 1.0);
    assert!(metrics.sum("culvert_tls_certificate_expiry_timestamp_seconds", &[]) > 0.0);
}
