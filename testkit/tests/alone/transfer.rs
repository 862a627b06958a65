//! A large file between two `culvert` commands through a `culvert-relay` over TLS, all of them killed on the
//! way: it arrives whole, nothing starts over, and none of the three needs much memory.
//!
//! `CULVERT_TRANSFER_BYTES` sets the size; `scripts/big-transfer.sh` runs it with 1 GiB.

use std::time::Duration;

use culvert_testkit::certs::TestCa;
use culvert_testkit::chaos::ChaosProxy;
use culvert_testkit::process::Process;
use culvert_testkit::relay::RelayPlan;
use culvert_testkit::report::{measured, mib};
use culvert_testkit::{binaries, user};
use tokio::time::Instant;
use user::User;

use crate::alone;
use crate::files::{MIB, Peaks, hash, patience, size, write_random};

/// What a killed receiver may fetch again: 16 MiB that were not synced to disk yet, and what was on the way.
const NOT_YET_KEPT: u64 = 24 * MIB;

/// Bytes that reached clients through the proxy, over all connections that were ever open.
async fn down_reaches(proxy: &ChaosProxy, bytes: u64, patience: Duration) {
    let deadline = Instant::now() + patience;
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    let mut total = 0;
    while total < bytes {
        ticks.tick().await;
        assert!(Instant::now() < deadline, "only {total} of {bytes} bytes arrived");
        total = proxy.connections().iter().map(|connection| connection.moved().down).sum();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_survives_a_killed_relay_and_a_killed_receiver_in_64_mib_each() {
    let _alone = alone().await;
    let (size, start) = (size(), Instant::now());
    let patience = patience(size);
    let ca = TestCa::new("Culvert test").unwrap();
    let leaf = ca.loopback().unwrap();
    let plan = RelayPlan::open(binaries::relay().await.unwrap()).unwrap().tls(&leaf, &ca).unwrap();
    let mut relay = plan.start().await.unwrap();
    // In front of the relay, to know how far the file is.
    let way = ChaosProxy::start(relay.addr()).await.unwrap();
    let url = format!("wss://localhost:{}", way.addr().port());
    let (anna, ben) = (User::new().await.unwrap(), User::new().await.unwrap());
    let original = anna.home().join("large.bin");
    let expected = write_random(&original, size);
    let mut peaks = Peaks::default();
    peaks.watch("the relay", relay.process().pid());

    let send =
        anna.culvert("send").args(["--proxy", "none", "--relay", &url]).arg("--ca-file").arg(ca.path());
    let mut sender = send.arg(&original).start().unwrap();
    peaks.watch("the sender", sender.pid());
    let link = user::link(&sender).await.unwrap();
    let out = ben.home().join("in");
    let receive = || -> Process {
        let plan =
            ben.culvert("receive").arg(&link).args(["--proxy", "none"]).arg("--ca-file").arg(ca.path());
        plan.arg("--out").arg(&out).start().unwrap()
    };

    let receiver = receive();
    peaks.watch("the receiver", receiver.pid());
    down_reaches(&way, size / 4, patience).await;
    let killed = Instant::now();
    let plan = relay.kill().await.unwrap();
    let mut relay = plan.start().await.unwrap();
    peaks.watch("the relay, restarted", relay.process().pid());
    // Both come back by themselves. Only their new connections are counted from here on.
    down_reaches(&way, size / 4, patience).await;
    measured(&format!(
        "after kill -9 of the relay a quarter of {} later: {:.1} s",
        mib(size),
        killed.elapsed().as_secs_f64()
    ));
    receiver.kill().await.unwrap();
    let arrived_at_least = size / 2 - size / 16;

    let again = Instant::now();
    let accepted = way.accepted_so_far();
    let mut second = receive();
    peaks.watch("the second receiver", second.pid());
    way.accepted(accepted + 1, patience).await.unwrap();
    let connection = way.connections().pop().unwrap();
    second.succeeds(patience).await.unwrap();
    let (fetched, fetching) = (connection.moved().down, again.elapsed().as_secs_f64());
    sender.succeeds(patience).await.unwrap();
    let took = start.elapsed().as_secs_f64();
    assert_eq!(hash(&out.join("large.bin")), expected, "the file differs");
    measured(&format!(
        "{} through a relay that was killed, to a receiver that was killed: same BLAKE3, {took:.1} s",
        mib(size)
    ));
    measured(&format!("the second receiver fetched {} of {} in {fetching:.1} s", mib(fetched), mib(size)));
    let most = size - arrived_at_least + NOT_YET_KEPT;
    assert!(most < size, "{} is too small to tell resuming from starting over", mib(size));
    assert!(fetched < most, "the second receive started over: {}", mib(fetched));
    relay.kill().await.unwrap();
    peaks.judge().await;
}
