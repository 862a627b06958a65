//! `slow`.

use std::time::Duration;

use culvert_loadtest::measure::{Count, Series};
use culvert_testkit::relay::Embedded;

use super::support::{plan, recorded, run, test};

fn words(more: &str) -> String {
    format!(
        "slow --pairs 4 --rate-per-pair 50 --slow-pairs 2 --slow-rate 600 --slow-size 16KiB \
         --receive-buffer 64KiB {more}"
    )
}

#[test]
fn what_does_not_fit_is_reported_and_the_others_go_on() {
    test(async || {
        let mut config = Embedded::config();
        config.limits.queue_bytes = 256 << 10;
        let relay = Embedded::start(config).await.unwrap();
        let mut plan = plan(&words(""), &[relay.url()]);
        plan.duration = Duration::from_secs(4);
        let alone = run(plan).await;
        assert_eq!(alone.ending.failures, Vec::<String>::new());
        let total = &alone.total;
        assert!(total.undelivered.get("full").is_some_and(|full| *full > 0), "{total:?}");
        assert_eq!(total.count(Count::Disconnected), 0, "nobody is slow for 30 s: {total:?}");
        let (before, beside) = (recorded(total, Series::OneWay), recorded(total, Series::OneWayBeside));
        assert!((300..=400).contains(&before), "{before}");
        assert!((300..=400).contains(&beside), "{beside}");
    });
}

#[test]
fn a_reader_that_is_closed_as_slow_leaves_no_frame_unaccounted_for() {
    test(async || {
        let mut config = Embedded::config();
        config.limits.queue_bytes = 256 << 10;
        config.timing.write = Duration::from_millis(500);
        let relay = Embedded::start(config).await.unwrap();
        let mut plan = plan(&words("--stop-for 3s"), &[relay.url()]);
        plan.duration = Duration::from_secs(8);
        let alone = run(plan).await;
        assert_eq!(alone.ending.failures, Vec::<String>::new());
        let total = &alone.total;
        let closed = relay.metrics().sum("culvert_relay_closed_total", &[("close", "slow")]);
        assert!(closed >= 2.0, "{closed} closed as slow");
        assert!(total.count(Count::Disconnected) >= 2, "{total:?}");
        assert!(total.undelivered.get("gone").is_some_and(|gone| *gone > 0), "{total:?}");
        assert!(alone.ending.notes.iter().any(|note| note.contains("connections ended")), "{alone:?}");
    });
}
