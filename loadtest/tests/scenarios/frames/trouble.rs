//! Relays that cannot be reached, refuse, cut off, or lose what they were given.

use std::time::Duration;

use culvert_loadtest::measure::{Count, Series};
use culvert_loadtest::plan::Admission;
use culvert_relay::config::AdmissionPolicy;
use culvert_testkit::certs::TestCa;
use culvert_testkit::chaos::{ChaosProxy, Cut, Mode};
use culvert_testkit::relay::Embedded;
use tokio::net::TcpListener;

use super::support::{directed, failure, plan, recorded, relay, run, test, until};

#[test]
fn nobody_at_the_address_is_a_sentence_at_once() {
    test(async || {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let said = failure(plan("steady --pairs 2", &[format!("ws://127.0.0.1:{}", free.port())])).await;
        assert!(said.contains("does not answer") && said.contains("is the relay running"), "{said}");
        let said = failure(plan("steady --pairs 2", &["ws://relay.invalid".to_owned()])).await;
        assert!(said.contains("relay.invalid") && said.contains("cannot be used"), "{said}");
    });
}

#[test]
fn something_that_is_no_relay_is_a_sentence() {
    test(async || {
        let mut config = Embedded::config();
        config.admin_listen = Some("127.0.0.1:0".parse().unwrap());
        let relay = Embedded::start(config).await.unwrap();
        let admin = relay.admin_addr().unwrap();
        let said = failure(plan("steady --pairs 1", &[format!("ws://127.0.0.1:{}", admin.port())])).await;
        assert!(said.contains("refuses the upgrade") && said.contains("is this a Culvert relay?"), "{said}");
    });
}

#[test]
fn a_peer_without_admission_is_told_which_setting_to_give() {
    test(async || {
        let mut config = Embedded::config();
        let token = Some(culvert_service_kit::Secret::new("correct horse battery staple".to_owned()));
        config.admission = AdmissionPolicy { access_token: token, ..AdmissionPolicy::default() };
        let relay = Embedded::start(config).await.unwrap();
        let mut plan = plan("steady --pairs 1", &[relay.url()]);
        let said = failure(plan.clone()).await;
        assert!(said.contains("not_admitted (4505)") && said.contains("--access-token-file"), "{said}");
        plan.reach.admission = Admission::AccessToken("correct horse battery staple".to_owned());
        assert!(run(plan).await.total.count(Count::Delivered) > 0);
    });
}

#[test]
fn with_tls_an_authority_that_nobody_knows_must_be_given() {
    test(async || {
        let ca = TestCa::new("Load").unwrap();
        let leaf = ca.loopback().unwrap();
        let mut config = Embedded::config();
        config.tls = culvert_relay::config::Tls::Files(culvert_service_kit::tls::Files {
            certificate: leaf.cert_path(),
            key: leaf.key_path(),
        });
        let relay = Embedded::start(config).await.unwrap();
        let url = format!("wss://localhost:{}", relay.addr().port());
        let mut plan = plan("steady --pairs 2 --size 1KiB", &[url]);
        let said = failure(plan.clone()).await;
        assert!(said.contains("no TLS with localhost") && said.contains("--ca"), "{said}");
        plan.reach.authority = Some(std::fs::read_to_string(ca.path()).unwrap());
        let alone = run(plan).await;
        assert!(alone.total.count(Count::Delivered) > 0);
        assert_eq!(alone.ending.failures, Vec::<String>::new());
    });
}

#[test]
fn connections_that_are_cut_are_counted_and_made_anew() {
    test(async || {
        let relay = relay().await;
        let proxy = ChaosProxy::start(relay.addr()).await.unwrap();
        let url = format!("ws://localhost:{}", proxy.addr().port());
        let (ending, total) = directed(plan("steady --pairs 3", &[url]), async |director| {
            let recorder = &director.recorder;
            until(|| recorder.count(Count::Delivered) > 1000).await;
            proxy.cut(Cut::Reset).await;
            until(|| recorder.count(Count::Disconnected) >= 3 && recorder.connections() == 6).await;
            let before = recorder.count(Count::Delivered);
            until(|| recorder.count(Count::Delivered) > before + 1000).await;
        })
        .await
        .unwrap();
        assert_eq!(ending.failures, Vec::<String>::new());
        assert_eq!(total.count(Count::Disconnected), 3, "the other end of a pair is ended by the load");
        assert_eq!(recorded(&total, Series::Reconnect), 3);
        assert_eq!(total.count(Count::Missing), 0);
        let ended: u64 = (ending.notes.iter())
            .filter(|note| {
                note.contains("connections ended that the load did not end: the connection was cut")
            })
            .map(|note| note.split(' ').next().unwrap().parse::<u64>().unwrap())
            .sum();
        assert_eq!(ended, 3, "{ending:?}");
    });
}

#[test]
fn frames_that_never_arrive_and_are_never_reported_fail_the_run() {
    test(async || {
        let relay = relay().await;
        let proxy = ChaosProxy::start(relay.addr()).await.unwrap();
        let url = format!("ws://localhost:{}", proxy.addr().port());
        let (ending, total) = directed(plan("steady --pairs 1 --rate 200", &[url]), async |director| {
            let recorder = &director.recorder;
            until(|| recorder.count(Count::Delivered) > 20).await;
            proxy.set(|faults| faults.down.mode = Mode::Stall);
            let before = recorder.count(Count::Sent);
            until(|| recorder.count(Count::Sent) > before + 20).await;
        })
        .await
        .unwrap();
        assert!(total.count(Count::Missing) > 0, "{total:?}");
        assert!(ending.failures[0].contains("the ledger does not balance"), "{ending:?}");
    });
}

#[test]
fn a_relay_that_says_why_it_closes_is_quoted_by_its_code() {
    test(async || {
        let mut config = Embedded::config();
        config.drain.delay = Duration::ZERO;
        config.drain.window = Duration::from_millis(100);
        config.drain.grace = Duration::from_millis(100);
        let relay = Embedded::start(config).await.unwrap();
        let (ending, total) = directed(plan("steady --pairs 2", &[relay.url()]), async |director| {
            until(|| director.recorder.count(Count::Delivered) > 100).await;
            relay.shutdown().request_drain();
            until(|| director.recorder.count(Count::Disconnected) >= 2).await;
        })
        .await
        .unwrap();
        assert_eq!(ending.failures, Vec::<String>::new());
        assert_eq!(total.closed.get("drained"), Some(&2), "{total:?}");
    });
}
