//! Scenarios at the level of sessions, in this process, against a relay in this process.

use std::time::Duration;

use culvert_loadtest::measure::{Count, Series};
use culvert_loadtest::plan::{Admission, Plan, Reach, Share};
use culvert_loadtest::scenario::size::Size;
use culvert_loadtest::scenario::{Scenario, files, soak};
use culvert_loadtest::sessions::{Load, Pace, run};
use culvert_loadtest::stage::{self, Alone, Director, Phase, Stage};
use culvert_testkit::relay::Embedded;
use tokio::task::LocalSet;
use tokio::time::timeout;

/// Longer than any run here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

fn plan(relay: &Embedded, scenario: Scenario, duration: Duration) -> Plan {
    let reach =
        Reach { urls: vec![relay.url().parse().unwrap()], admission: Admission::Open, authority: None };
    let warm_up = Duration::from_millis(200);
    Plan { scenario, reach, share: Share::WHOLE, warm_up, duration, seed: 7 }
}

async fn alone(plan: Plan) -> anyhow::Result<Alone> {
    timeout(DEADLINE, LocalSet::new().run_until(stage::alone(plan))).await.expect("the run does not end")
}

fn a_file_of(sizes: &str) -> files::Files {
    let sizes = sizes.split(',').map(|size| size.parse().unwrap()).collect();
    files::Files { transfers: 2, sizes, folder: None }
}

fn a_short_soak() -> soak::Soak {
    let settle = Duration::from_secs(15);
    soak::Soak { pairs: 2, lanes: 2, rate: 50.0, size: Size(256), comers: 5.0, max_growth: 0.05, settle }
}

/// Runs sessions in a scenario's surroundings, whatever the scenario of the plan.
async fn sessions(load: Load) -> Alone {
    let relay = Embedded::open().await.unwrap();
    let plan = plan(&relay, Scenario::Soak(a_short_soak()), Duration::from_secs(2));
    let (warm_up, duration) = (plan.warm_up, plan.duration);
    let (stage, director) = Stage::new(plan);
    let direct = async {
        let Director { phase, mut ready, recorder } = director;
        ready.wait_for(|ready| *ready).await.unwrap();
        phase.send_replace(Phase::WarmUp);
        tokio::time::sleep(warm_up).await;
        drop(recorder.take(Duration::ZERO, Duration::ZERO));
        phase.send_replace(Phase::Measuring);
        tokio::time::sleep(duration).await;
        phase.send_replace(Phase::Over);
        recorder
    };
    let both = async { tokio::join!(run(load, &stage), direct) };
    let (ending, recorder) = timeout(DEADLINE, LocalSet::new().run_until(both)).await.unwrap();
    Alone { ending: ending.unwrap(), total: recorder.take(duration, duration) }
}

#[tokio::test]
async fn sessions_at_a_rate_deliver_everything_and_are_timed_from_the_due_moment() {
    let Alone { ending, total } =
        sessions(Load { pairs: 4, pace: Pace::Rate(100.0), sizes: vec![100], stay: None }).await;
    assert_eq!(ending.failures, Vec::<String>::new());
    let delivered = total.count(Count::Delivered);
    // 4 pairs, 100 a second, 2 seconds; on a busy machine some are due before the beginning or not sent at
    // the end.
    assert!((400..=900).contains(&delivered), "{delivered}");
    assert_eq!(total.count(Count::DeliveredBytes), delivered * 100);
    for wrong in [Count::Missing, Count::Duplicated, Count::Reordered, Count::Disconnected] {
        assert_eq!(total.count(wrong), 0, "{}", wrong.name());
    }
    let times = total.times[&Series::OneWay].decode().unwrap();
    assert_eq!(times.len(), delivered);
    assert!(ending.notes.iter().any(|note| note.contains("ledger of messages has 4 flows")), "{ending:?}");
}

#[tokio::test]
async fn sessions_keep_a_window_in_flight() {
    let Alone { ending, total } =
        sessions(Load { pairs: 2, pace: Pace::Window(8), sizes: vec![1000], stay: None }).await;
    assert_eq!(ending.failures, Vec::<String>::new());
    assert!(total.count(Count::Delivered) > 1000, "{total:?}");
    assert_eq!(total.count(Count::Missing), 0);
}

#[tokio::test]
async fn files_arrive_with_the_hash_that_they_were_sent_with() {
    let relay = Embedded::open().await.unwrap();
    let files = a_file_of("300KiB,1MiB");
    let Alone { ending, total } =
        alone(plan(&relay, Scenario::Files(files), Duration::from_secs(3))).await.unwrap();
    assert_eq!(ending.failures, Vec::<String>::new());
    let files = total.count(Count::Files);
    assert!(files >= 2, "{total:?}");
    assert!(total.count(Count::DeliveredBytes) >= files * 300 * 1024, "{total:?}");
    assert_eq!(total.times[&Series::Transfer].decode().unwrap().len(), files);
}

#[tokio::test]
async fn files_for_which_there_is_no_room_are_a_sentence() {
    let relay = Embedded::open().await.unwrap();
    let plan = plan(&relay, Scenario::Files(a_file_of("800PiB")), Duration::from_secs(1));
    let error = alone(plan).await.unwrap_err().to_string();
    assert!(error.contains("no room in") && error.contains("--folder"), "{error}");
}

#[tokio::test]
async fn a_soak_has_sessions_and_frames_and_peers_that_come_and_go() {
    let relay = Embedded::open().await.unwrap();
    let Alone { ending, total } =
        alone(plan(&relay, Scenario::Soak(a_short_soak()), Duration::from_secs(3))).await.unwrap();
    assert_eq!(ending.failures, Vec::<String>::new());
    for ledger in ["ledger of messages has 2 flows", "ledger of frames has 2 flows"] {
        assert!(ending.notes.iter().any(|note| note.contains(ledger)), "{ending:?}");
    }
    let delivered = total.count(Count::Delivered);
    assert!((300..=700).contains(&delivered), "{delivered} of 4 × 50 × 3");
    assert!(total.count(Count::Connected) >= 10, "{total:?}");
}
