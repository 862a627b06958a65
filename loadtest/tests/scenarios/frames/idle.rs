//! `idle`.

use std::time::Duration;

use culvert_loadtest::measure::{Count, Series};
use culvert_testkit::relay::Embedded;

use super::support::{plan, recorded, relay, run, test};

#[test]
fn peers_are_connected_joined_and_timed() {
    test(async || {
        let relay = relay().await;
        let mut plan = plan("idle --peers 40 --frame-first 16KiB", &[relay.url()]);
        plan.duration = Duration::from_secs(2);
        let alone = run(plan).await;
        assert_eq!(alone.ending.failures, Vec::<String>::new());
        let total = &alone.total;
        assert_eq!(total.connections, 40);
        assert_eq!((total.count(Count::Connected), total.count(Count::Joined)), (40, 40));
        assert_eq!((recorded(total, Series::Connect), recorded(total, Series::Join)), (40, 40));
        let pings = relay.metrics().sum("culvert_relay_frames_received_total", &[("kind", "ping")]);
        assert!(pings >= 40.0, "the frame that everybody sends first is a ping: {pings}");
    });
}

#[test]
fn peers_that_are_not_connected_in_time_fail_the_run() {
    test(async || {
        let relay = relay().await;
        let alone = run(plan("idle --peers 100 --rate 10", &[relay.url()])).await;
        assert!(alone.ending.failures[0].contains("of 100 peers"), "{alone:?}");
        assert!((5..=15).contains(&alone.total.count(Count::Connected)), "{alone:?}");
    });
}

#[test]
fn silent_peers_outlive_the_idle_timeout_because_they_ping() {
    test(async || {
        let mut config = Embedded::config();
        config.timing.keepalive = Duration::from_millis(500);
        config.timing.idle = Duration::from_millis(1500);
        let relay = Embedded::start(config).await.unwrap();
        let mut plan = plan("idle --peers 10", &[relay.url()]);
        plan.duration = Duration::from_secs(4);
        let alone = run(plan).await;
        assert_eq!(alone.total.count(Count::Disconnected), 0, "{alone:?}");
        assert_eq!(alone.total.connections, 10);
        assert_eq!(recorded(&alone.total, Series::Reconnect), 0);
    });
}
