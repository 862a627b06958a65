//! `latency`.

use std::time::Duration;

use culvert_loadtest::measure::{Count, Series};
use culvert_testkit::chaos::ChaosProxy;

use super::support::{plan, quantile, recorded, relay, run, test};

#[test]
fn every_frame_is_timed_one_way_and_there_and_back() {
    test(async || {
        let relay = relay().await;
        let alone = run(plan("latency --pairs 10 --rate-per-pair 50 --round-trip", &[relay.url()])).await;
        assert_eq!(alone.ending.failures, Vec::<String>::new());
        let total = &alone.total;
        let (one_way, round_trip) = (recorded(total, Series::OneWay), recorded(total, Series::RoundTrip));
        assert!((450..=550).contains(&one_way), "{one_way}");
        assert!(one_way.abs_diff(round_trip) < 20, "{one_way} and {round_trip}");
        assert_eq!(total.count(Count::Delivered), one_way + round_trip, "frames sent back are counted too");
        assert!(quantile(total, Series::OneWay, 0.5) < quantile(total, Series::RoundTrip, 0.5));
    });
}

#[test]
fn a_delay_on_the_way_is_found_and_counts_from_the_moment_a_frame_was_due() {
    test(async || {
        let relay = relay().await;
        let proxy = ChaosProxy::start(relay.addr()).await.unwrap();
        let delay = Duration::from_millis(20);
        // A frame passes the proxy twice: up and down.
        proxy.set(|faults| (faults.up.delay, faults.down.delay) = (delay, delay));
        let url = format!("ws://localhost:{}", proxy.addr().port());
        let alone = run(plan("latency --pairs 4 --rate-per-pair 20", &[url])).await;
        assert_eq!(alone.ending.failures, Vec::<String>::new());
        let median = quantile(&alone.total, Series::OneWay, 0.5);
        assert!((0.040..0.120).contains(&median), "{median}");
    });
}
