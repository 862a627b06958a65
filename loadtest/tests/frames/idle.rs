//! `idle`.

use std::time::Duration;

use culvert_loadtest::measure::{Count, Series};
use culvert_testkit::relay::Embedded;

use crate::support::{plan, recorded, relay, run, test};

#[test]
fn peers_are_connected_joined_and_timed() {
    test(async || {
        let relay = relay().await;
        let mut plan = plan("idle --peers 40 --frame-first 16KiB", &[relay.url()]);
        plan.duration = Duration::from_millis(200);
        let alone = run(plan).await;
        assert_eq!(alone.ending.failures, Vec::<String>::new());
        assert_eq!(alone.total.connections, 40);
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
