//! `mixed`.

use std::time::Duration;

use culvert_loadtest::measure::{Count, Series};
use culvert_loadtest::plan::Share;

use super::support::{plan, recorded, relay, run, scenario, test};

#[test]
fn one_half_is_with_bulk_and_the_other_without_and_both_are_timed() {
    test(async || {
        let relay = relay().await;
        for words in
            ["mixed --pairs 5 --rate-per-pair 40", "mixed --pairs 5 --rate-per-pair 40 --loaded-first"]
        {
            let mut plan = plan(words, &[relay.url()]);
            plan.duration = Duration::from_secs(2);
            let alone = run(plan).await;
            assert_eq!(alone.ending.failures, Vec::<String>::new());
            let total = &alone.total;
            let (unloaded, loaded) = (recorded(total, Series::OneWay), recorded(total, Series::OneWayLoaded));
            // Half of 400 each, but for a tenth of a second on both sides of the change.
            assert!((150..=200).contains(&unloaded), "{words}: {unloaded} without bulk");
            assert!((150..=200).contains(&loaded), "{words}: {loaded} with bulk");
            let interactive = 400 * 64;
            assert!(total.count(Count::DeliveredBytes) > interactive + 100 * 16384, "{words}: {total:?}");
        }
    });
}

#[test]
fn the_first_worker_has_the_interactive_pairs_and_the_others_have_bulk() {
    test(async || {
        let words = "mixed --pairs 3 --bulk-pairs 2";
        assert_eq!(scenario(words).workers_at_least(), 2);
        for (index, connections) in [(0, 6), (1, 2), (2, 2)] {
            let relay = relay().await;
            let mut plan = plan(words, &[relay.url()]);
            plan.share = Share { index, of: 3 };
            plan.duration = Duration::from_millis(400);
            let alone = run(plan).await;
            assert_eq!(alone.total.connections, connections, "worker {index}");
            assert_eq!(recorded(&alone.total, Series::OneWay) > 0, index == 0);
        }
    });
}
