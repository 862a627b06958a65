//! `storm`.

use std::time::Duration;

use culvert_loadtest::measure::{Count, Series};
use culvert_relay::quota::Rate;
use culvert_testkit::relay::Embedded;

use super::support::{plan, recorded, relay, run, test};

#[test]
fn everybody_is_dropped_and_comes_back_in_every_round() {
    test(async || {
        let relay = relay().await;
        let mut plan = plan("storm --peers 40 --rounds 2 --pause 10ms", &[relay.url()]);
        plan.duration = Duration::from_secs(6);
        let alone = run(plan).await;
        assert_eq!(alone.ending.failures, Vec::<String>::new());
        let total = &alone.total;
        assert_eq!(recorded(total, Series::Reconnect), 80);
        assert_eq!((total.count(Count::Connected), total.count(Count::Joined)), (80, 80));
        assert_eq!(total.connections, 40);
        assert_eq!(total.count(Count::Disconnected), 0, "the load itself ended them");
    });
}

#[test]
fn a_relay_that_lets_too_few_in_fails_the_run_and_the_reasons_are_told() {
    test(async || {
        let mut config = Embedded::config();
        // Enough for everybody to gather, and next to nothing for coming back.
        config.limits.handshakes_per_source = Rate { per_second: 1, burst: 22 };
        let relay = Embedded::start(config).await.unwrap();
        let mut plan = plan("storm --peers 20", &[relay.url()]);
        plan.duration = Duration::from_secs(3);
        let alone = run(plan).await;
        assert!(alone.total.count(Count::ConnectFailures) > 0, "{alone:?}");
        assert!(alone.ending.failures[0].contains("of --rounds 1 only 0 came to an end"), "{alone:?}");
        let told =
            |note: &String| note.contains("cut in the handshake") && note.contains("handshakes-per-source");
        assert!(alone.ending.notes.iter().any(told), "{:?}", alone.ending.notes);
    });
}
