//! The third promise over a bad network: whatever happens to the connections, every message arrives once
//! and in order.

use std::time::Duration;

use culvert_client::{Connection, TopicSecret};
use culvert_testkit::certs::TestCa;
use culvert_testkit::chaos::{ChaosProxy, Cut, Mode};
use culvert_testkit::relay::RelayProcess;
use culvert_testkit::report::measured;
use tokio::time::{Instant, timeout};

use crate::common::{self, PATIENCE, Pair, message, options, pair, tls_relay, transport};

/// Two peers, each behind its own chaos proxy.
struct Bad {
    pair: Pair,
    anna: ChaosProxy,
    ben: ChaosProxy,
    relay: RelayProcess,
    ca: TestCa,
    leaf: culvert_testkit::certs::Leaf,
}

async fn bad_network() -> Bad {
    let common::Tls { ca, leaf, relay } = tls_relay().await;
    let (anna, ben) =
        (ChaosProxy::start(relay.addr()).await.unwrap(), ChaosProxy::start(relay.addr()).await.unwrap());
    let secret = TopicSecret::generate();
    let through = |proxy: &ChaosProxy| {
        let url = format!("wss://localhost:{}", proxy.addr().port());
        transport(&url, options(&secret, Some(ca.path())))
    };
    let pair = pair(&secret, through(&anna), through(&ben)).await;
    Bad { pair, anna, ben, relay, ca, leaf }
}

fn numbered(n: u32) -> Vec<u8> {
    let mut bytes = vec![0x5a; 5_000];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    bytes
}

async fn send_all(connection: &mut Box<dyn Connection>, messages: std::ops::Range<u32>) {
    for n in messages {
        connection.send(&numbered(n)).await.unwrap();
    }
    timeout(PATIENCE, connection.flush()).await.expect("not acknowledged").unwrap();
}

async fn receive_all(connection: &mut Box<dyn Connection>, messages: std::ops::Range<u32>) {
    for n in messages {
        let bytes = message(connection).await;
        assert_eq!(bytes[..4], n.to_be_bytes(), "expected message {n}");
        assert_eq!(bytes.len(), 5_000);
    }
}

/// Sends 2,000 messages each way while `fault` happens.
async fn survives(what: &str, pair: &mut Pair, fault: impl Future<Output = ()>) {
    const MESSAGES: u32 = 2_000;
    let start = Instant::now();
    let Pair { anna, ben, .. } = pair;
    // Each side sends first and receives then, in two rounds, so that both directions carry data.
    let traffic = async {
        tokio::join!(send_all(anna, 0..MESSAGES), receive_all(ben, 0..MESSAGES));
        tokio::join!(send_all(ben, 0..MESSAGES), receive_all(anna, 0..MESSAGES));
    };
    let (done, ()) = tokio::join!(timeout(Duration::from_secs(180), traffic), fault);
    done.unwrap_or_else(|_| panic!("not all messages arrived: {what}"));
    measured(&format!("4,000 messages of 5,000 bytes, {what}: {:.1} s", start.elapsed().as_secs_f64()));
}

async fn moved(proxy: &ChaosProxy, bytes: u64) {
    let connection = proxy.connections().pop().expect("a peer is connected");
    // A connection that ended has done its part.
    let _ = connection.moved_until(PATIENCE, |moved| moved.up + moved.down > bytes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_reset_again_and_again_lose_nothing() {
    let Bad { mut pair, anna, ben, relay: _relay, ca: _ca, .. } = bad_network().await;
    let fault = async {
        for round in 1..=3 {
            for (proxy, how) in [(&anna, Cut::Reset), (&ben, Cut::Finish)] {
                proxy.accepted(round, PATIENCE).await.unwrap();
                moved(proxy, 500_000).await;
                proxy.cut(how).await;
            }
        }
    };
    survives("6 connections cut", &mut pair, fault).await;
    anna.accepted(4, PATIENCE).await.unwrap();
    ben.accepted(4, PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_network_loses_nothing() {
    let Bad { mut pair, anna, ben, relay: _relay, ca: _ca, .. } = bad_network().await;
    let fault = async {
        for proxy in [&anna, &ben] {
            moved(proxy, 1_000_000).await;
            proxy.stall();
            tokio::time::sleep(Duration::from_secs(3)).await;
            proxy.pass();
        }
    };
    survives("two stalls of 3 s", &mut pair, fault).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_deaf_in_one_direction_is_replaced() {
    let Bad { mut pair, ben, relay: _relay, ca: _ca, anna: _anna, .. } = bad_network().await;
    let fault = async {
        moved(&ben, 1_000_000).await;
        // The connections of now stay deaf for ever; those that come after them hear.
        for connection in ben.connections() {
            connection.set(|faults| faults.down.mode = Mode::Deaf);
        }
    };
    survives("one connection deaf for good", &mut pair, fault).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_killed_and_comes_back_with_a_new_certificate_loses_nothing() {
    let Bad { mut pair, anna, relay, ca, leaf, ben: _ben } = bad_network().await;
    let mut relay = Some(relay);
    let fault = async {
        for round in 1..=2 {
            anna.accepted(round, PATIENCE).await.unwrap();
            moved(&anna, 1_000_000).await;
            let plan = relay.take().unwrap().kill().await.unwrap();
            ca.reissue(&leaf).unwrap();
            relay = Some(plan.start().await.unwrap());
        }
    };
    survives("relay killed twice, new certificate each time", &mut pair, fault).await;
    anna.accepted(3, PATIENCE).await.unwrap();
}
