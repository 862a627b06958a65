//! `fanout`.

use culvert_loadtest::measure::{Count, Series};
use culvert_testkit::relay::{Cluster, Embedded};

use super::support::{directed, plan, recorded, relay, run, test, until};

#[test]
fn a_broadcast_reaches_every_other_member_and_so_do_frames_of_their_own() {
    test(async || {
        let relay = relay().await;
        for (words, received) in [
            ("fanout --groups 3 --members 6 --rate 60 --size 64B,1KiB", "broadcast"),
            ("fanout --groups 3 --members 6 --rate 60 --size 64B,1KiB --unicast", "send"),
        ] {
            let frames = || relay.metrics().sum("culvert_relay_frames_received_total", &[("kind", received)]);
            let before = frames();
            let alone = run(plan(words, &[relay.url()])).await;
            assert_eq!(alone.ending.failures, Vec::<String>::new(), "{words}");
            let delivered = alone.total.count(Count::Delivered);
            assert!((280..=320).contains(&delivered), "{words}: {delivered}");
            assert_eq!(recorded(&alone.total, Series::OneWay), delivered);
            let each = if received == "broadcast" { 5.0 } else { 1.0 };
            assert!(((frames() - before) * each - delivered as f64).abs() < 20.0, "{words}");
        }
    });
}

#[test]
fn members_on_two_relays_hear_each_other() {
    test(async || {
        let cluster = Cluster::open(2).await.unwrap();
        let urls: Vec<_> = cluster.nodes().iter().map(Embedded::url).collect();
        let (ending, total) =
            directed(plan("fanout --groups 2 --members 5 --rate 40", &urls), async |director| {
                until(|| director.recorder.count(Count::Delivered) >= 150).await;
            })
            .await
            .unwrap();
        assert_eq!(ending.failures, Vec::<String>::new());
        // Alone, a relay would give a broadcast to two of the four others at most.
        assert!(total.count(Count::Delivered) * 2 > total.count(Count::Sent), "{total:?}");
        assert!(total.undelivered.values().sum::<u64>() * 16 <= total.count(Count::Sent), "{total:?}");
    });
}
