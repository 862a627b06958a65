//! `steady`.

use std::time::Duration;

use culvert_loadtest::measure::{Count, Series};
use culvert_loadtest::plan::Share;
use culvert_loadtest::stage::{Alone, Director};
use culvert_testkit::relay::{Cluster, Embedded};

use super::support::{directed, failure, plan, recorded, relay, run, test};

fn balanced(alone: &Alone) {
    assert_eq!(alone.ending.failures, Vec::<String>::new());
    let total = &alone.total;
    assert!(total.count(Count::Delivered) > 0, "{total:?}");
    for count in [Count::Missing, Count::Duplicated, Count::Reordered, Count::Disconnected, Count::Cut] {
        assert_eq!(total.count(count), 0, "{count:?}: {total:?}");
    }
    let undelivered: u64 = total.undelivered.values().sum();
    // What was under way when measuring began had been sent before.
    let before = total.count(Count::Delivered) + undelivered - total.count(Count::Sent);
    assert!(before <= 1000, "{before}");
}

#[test]
fn windows_of_frames_arrive_in_order_and_the_ledger_balances() {
    test(async || {
        let relay = relay().await;
        // Nothing is thrown away before it is measured, so that the relay's count can be compared.
        let plan = plan("steady --pairs 4 --idle-peers 6", &[relay.url()]);
        let script = async |_: &Director| tokio::time::sleep(plan.duration).await;
        let (ending, total) = directed(plan.clone(), script).await.unwrap();
        let alone = Alone { ending, total };
        balanced(&alone);
        let total = &alone.total;
        assert!(total.count(Count::Delivered) > 1000, "{total:?}");
        assert_eq!(total.count(Count::DeliveredBytes), 64 * total.count(Count::Delivered));
        assert!(recorded(total, Series::OneWay) > total.count(Count::Delivered) / 32);
        // Beside these, the relay forwards acknowledgements: one for sixteen.
        let forwarded = relay.metrics().sum("culvert_relay_frames_delivered_total", &[]);
        let ratio = forwarded / total.count(Count::Delivered) as f64;
        assert!((1.05..1.0626).contains(&ratio), "{ratio}");
    });
}

#[test]
fn a_mix_of_sizes_reaches_every_member_in_every_topic() {
    test(async || {
        let relay = relay().await;
        let words = "steady --pairs 3 --group 4 --topics 5 --size 16B,1KiB,16KiB --window 32 --class bulk";
        let alone = run(plan(words, &[relay.url()])).await;
        balanced(&alone);
        let mean =
            alone.total.count(Count::DeliveredBytes) as f64 / alone.total.count(Count::Delivered) as f64;
        assert!((1_000.0..16_000.0).contains(&mean), "{mean}");
    });
}

#[test]
fn a_rate_is_kept_and_every_frame_is_timed_from_when_it_was_due() {
    test(async || {
        let relay = relay().await;
        let alone = run(plan("steady --pairs 5 --rate 2000", &[relay.url()])).await;
        balanced(&alone);
        let (sent, late) = (alone.total.count(Count::Sent), alone.total.count(Count::Late));
        assert!((1_900..=2_100).contains(&sent), "{sent} sent");
        assert!(late <= sent);
        assert_eq!(recorded(&alone.total, Series::OneWay), alone.total.count(Count::Delivered));
    });
}

#[test]
fn with_two_relays_the_ends_of_a_pair_are_on_different_ones_unless_they_are_to_be_together() {
    test(async || {
        let cluster = Cluster::open(2).await.unwrap();
        let urls: Vec<_> = cluster.nodes().iter().map(Embedded::url).collect();
        let forwarded = |route| {
            let name = "culvert_relay_frames_forwarded_total";
            cluster.nodes().iter().map(|node| node.metrics().sum(name, &[("route", route)])).sum::<f64>()
        };
        balanced(&run(plan("steady --pairs 2 --same-node", &urls)).await);
        let local = forwarded("local");
        assert!(local > 0.0 && forwarded("remote") < 1.0);
        balanced(&run(plan("steady --pairs 2", &urls)).await);
        assert!(forwarded("remote") > 0.0, "every frame went to the other relay");
    });
}

#[test]
fn every_worker_takes_its_share() {
    test(async || {
        let relay = relay().await;
        let mut plan = plan("steady --pairs 3 --idle-peers 4", &[relay.url()]);
        plan.share = Share { index: 1, of: 2 };
        plan.duration = Duration::from_millis(300);
        let alone = run(plan).await;
        balanced(&alone);
        assert_eq!(alone.total.connections, 2 + 2);
    });
}

#[test]
fn settings_that_make_no_sense_are_refused_with_a_sentence() {
    test(async || {
        let url = &["ws://localhost:1".to_owned()];
        for (words, part) in [
            ("steady --pairs 0", "--pairs must be at least 1"),
            ("steady --window 15", "--window must be at least 16"),
            ("steady --size 8B", "--size must be from 16B"),
            ("steady --size 17KiB", "to 16KiB"),
            ("steady --rate 0", "--rate must be above 0"),
            ("steady --group 1", "--group must be from 2"),
            ("steady --topics 0", "--topics must be"),
            ("latency --rate-per-pair 0", "--rate-per-pair must be above 0"),
            ("idle --peers 0", "--peers must be at least 1"),
            ("idle --frame-first 20KiB", "--frame-first must be"),
        ] {
            let said = failure(plan(words, url)).await;
            assert!(said.contains(part), "{words}: {said}");
        }
    });
}
