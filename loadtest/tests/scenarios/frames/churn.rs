//! `churn`.

use std::time::Duration;

use culvert_loadtest::measure::{Count, Series};
use culvert_testkit::chaos::{ChaosProxy, Mode};
use culvert_testkit::relay::{Cluster, Embedded};

use super::support::{directed, plan, recorded, relay, run, test, until};

#[test]
fn members_come_and_go_and_everybody_hears_of_it() {
    test(async || {
        let relay = relay().await;
        let words = "churn --peers 24 --topics 3 --rate 100 --reconnect-share 0.2";
        let alone = run(plan(words, &[relay.url()])).await;
        assert_eq!(alone.ending.failures, Vec::<String>::new());
        let total = &alone.total;
        let joined = total.count(Count::Joined);
        assert!((80..=130).contains(&joined), "{joined}");
        assert!((5..=40).contains(&total.count(Count::Connected)), "{total:?}");
        // On average there are eight in a topic.
        assert!(recorded(total, Series::MemberNotice) > 3 * joined, "{total:?}");
        assert!(recorded(total, Series::LeaveNotice) > 3 * joined, "{total:?}");
        assert_eq!(total.count(Count::Missing), 0);
    });
}

#[test]
fn members_on_two_relays_hear_of_each_other() {
    test(async || {
        let cluster = Cluster::open(2).await.unwrap();
        let urls: Vec<_> = cluster.nodes().iter().map(Embedded::url).collect();
        let alone = run(plan("churn --peers 16 --topics 2 --rate 40", &urls)).await;
        assert_eq!(alone.ending.failures, Vec::<String>::new());
        assert!(recorded(&alone.total, Series::MemberNotice) > 0);
    });
}

#[test]
fn a_member_that_is_never_told_is_found() {
    test(async || {
        let relay = relay().await;
        // One of two peers is behind a proxy that falls silent.
        let proxy = ChaosProxy::start(relay.addr()).await.unwrap();
        let urls = [relay.url(), format!("ws://localhost:{}", proxy.addr().port())];
        let mut plan = plan("churn --peers 10 --topics 2 --rate 50 --reconnect-share 0", &urls);
        plan.duration = Duration::from_secs(1);
        let (ending, total) = directed(plan, async |director| {
            until(|| director.recorder.count(Count::PeersJoined) > 20).await;
            proxy.set(|faults| faults.down.mode = Mode::Stall);
            let before = director.recorder.count(Count::PeersJoined);
            until(|| director.recorder.count(Count::PeersJoined) > before + 20).await;
        })
        .await
        .unwrap();
        assert!(total.count(Count::Missing) > 0, "{total:?}");
        assert!(ending.failures.iter().any(|failure| failure.contains("were never given")), "{ending:?}");
    });
}
