//! Faults beside load, and hours of load, with the real program: what balances, and what must not.

use std::path::PathBuf;
use std::time::Duration;

use culvert_loadtest::measure::{Count, Series};
use culvert_loadtest::report::{Report, Role};
use culvert_testkit::Identity;
use culvert_testkit::process::Plan;
use culvert_testkit::relay::Embedded;
use culvert_testkit::report::{full, measured};
use tempfile::TempDir;

/// Beside what is measured: starting, connecting, the accounts.
const BESIDE: Duration = Duration::from_secs(200);

/// How a run ended.
struct Ran {
    code: Option<i32>,
    printed: String,
    report: Option<Report>,
}

/// Runs the load test for so many seconds, with these further arguments, and these fault commands.
async fn run_with(seconds: u64, args: &str, commands: &[&str]) -> Ran {
    let folder = TempDir::new().unwrap();
    let json: PathBuf = folder.path().join("report.json");
    let plan = Plan::new("culvert-loadtest", PathBuf::from(env!("CARGO_BIN_EXE_culvert-loadtest")))
        .args(args.split_whitespace())
        .args(["--warm-up", "1s", "--duration", &format!("{seconds}s"), "--no-html", "--json"])
        .arg(&json)
        .args(commands.iter().flat_map(|command| ["--fault-command", command]));
    let mut process = plan.start().unwrap();
    let status = process.wait(Duration::from_secs(seconds) + BESIDE).await.unwrap();
    Ran { code: status.code(), printed: process.output().tail(), report: Report::read(&json).ok() }
}

async fn run(seconds: u64, args: &str) -> Ran {
    run_with(seconds, args, &[]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_unreported_while_relays_and_redis_die() {
    let (seconds, every) = if full() { (180, 20) } else { (40, 8) };
    let ran = run(seconds, &format!("chaos --spawn 3 --every {every}s --pairs 10 --lanes 10")).await;
    assert_eq!(ran.code, Some(0), "{}", ran.printed);
    let report = ran.report.unwrap();
    assert_eq!(report.failures, Vec::<String>::new());
    assert!(report.faults.len() >= 2, "{:?}", report.faults);
    assert!(report.total.count(Count::Disconnected) > 0, "no fault was felt: {:?}", report.faults);
    for wrong in [Count::Missing, Count::Duplicated, Count::Reordered] {
        assert_eq!(report.total.count(wrong), 0, "{}", wrong.name());
    }
    for kind in ["messages", "frames"] {
        let ledger = format!("the ledger of {kind} has ");
        assert!(report.notes.iter().any(|note| note.starts_with(&ledger)), "{:?}", report.notes);
    }
    let pauses = report.total.times.get(&Series::Pause).map(|times| times.decode().unwrap());
    let longest = pauses.map_or(0, |pauses| pauses.max());
    measured(&format!(
        "chaos: {} faults in {seconds} s, {} messages and frames delivered, {} reported as undelivered, {} cut \
         with a connection, none missing; the longest pause of a session was {:.1} s",
        report.faults.len(),
        report.total.count(Count::Delivered),
        report.total.undelivered.values().sum::<u64>(),
        report.total.count(Count::Cut),
        longest as f64 / 1e9,
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_are_made_by_commands_where_the_relays_are_not_ours() {
    let relay = Embedded::open().await.unwrap();
    let chaos = format!("chaos --url {} --every 1s --pairs 2 --lanes 2", relay.url());
    let ran = run_with(4, &chaos, &["true", "exit 0"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.printed);
    let report = ran.report.unwrap();
    let made: Vec<_> = report.faults.iter().map(|fault| fault.what.as_str()).collect();
    assert_eq!(made, ["`true`", "`exit 0`", "`true`"]);

    let ran = run_with(4, &chaos, &["echo no such pod >&2; exit 3"]).await;
    assert_eq!(ran.code, Some(1), "{}", ran.printed);
    let failures = ran.report.unwrap().failures.join("\n");
    assert!(failures.contains("no such pod") && failures.contains("exit status: 3"), "{failures}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_with_nothing_to_break_is_refused() {
    let relay = Embedded::open().await.unwrap();
    let ran = run(4, &format!("chaos --url {} --every 1s", relay.url())).await;
    assert!(ran.code.is_some_and(|code| code != 0), "{}", ran.printed);
    assert!(ran.printed.contains("--fault-command"), "{}", ran.printed);
    let ran = run(4, "chaos --spawn 1 --every 3s").await;
    assert!(ran.code.is_some_and(|code| code != 0), "{}", ran.printed);
    assert!(ran.printed.contains("--duration must be more than twice --every"), "{}", ran.printed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soak_whose_memory_does_not_grow_passes_and_one_whose_memory_does_fails() {
    // In a few seconds a relay is still finding its size, so that the bound is a wide one here.
    let (seconds, bound) = if full() { (180, "5%") } else { (6, "60%") };
    let soak = format!("soak --spawn 1 --pairs 5 --lanes 5 --comers 5 --max-growth {bound}");
    let ran = run(seconds, &soak).await;
    assert_eq!(ran.code, Some(0), "{}", ran.printed);
    let mut report = ran.report.unwrap();
    assert!(report.total.count(Count::Delivered) > 100, "{:?}", report.total.counts);

    // The same run, had the relay taken twice as much in the end.
    let relay = report.processes.iter_mut().find(|process| process.role == Role::Relay).unwrap();
    let most = relay.points.iter().map(|point| point.resident).max().unwrap();
    relay.points.last_mut().unwrap().resident = 2 * most;
    let failures = report.scenario.judge(&report);
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].contains("relay 1 grew by") && failures[0].contains("--max-growth"), "{failures:?}");

    report.processes.clear();
    let failures = report.scenario.judge(&report);
    assert!(failures[0].contains("nothing is known of the relays' memory"), "{failures:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chaos_in_which_nothing_happened_is_a_failure() {
    let relay = Embedded::open().await.unwrap();
    let chaos = format!("chaos --url {} --every 1s --pairs 1 --lanes 1 --fault-command true", relay.url());
    let mut report = run(3, &chaos).await.report.unwrap();
    assert_eq!(report.scenario.judge(&report), Vec::<String>::new());
    report.faults.clear();
    assert_eq!(report.scenario.judge(&report).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steady_and_latency_run_with_sessions_too() {
    for settings in ["steady --pairs 4 --window 16 --mode sessions", "latency --pairs 4 --mode sessions"] {
        let ran = run(2, &format!("{settings} --spawn 1")).await;
        assert_eq!(ran.code, Some(0), "{settings}: {}", ran.printed);
        let report = ran.report.unwrap();
        assert!(report.total.count(Count::Delivered) > 50, "{settings}: {:?}", report.total.counts);
        assert!(report.notes.iter().any(|note| note.starts_with("the ledger of messages has 4 flows")));
    }
    // Two workers, TLS with an authority of its own, and a ticket for every peer.
    let folder = TempDir::new().unwrap();
    let key = folder.path().join("key.pem");
    std::fs::write(&key, Identity::random().unwrap().private_pem().unwrap()).unwrap();
    let closed = format!(
        "steady --pairs 4 --rate 200 --mode sessions --spawn 2 --workers 2 --tls --ticket-key {}",
        key.display()
    );
    let ran = run(2, &closed).await;
    assert_eq!(ran.code, Some(0), "{}", ran.printed);
    assert!(ran.report.unwrap().total.count(Count::Delivered) > 200, "{}", ran.printed);

    let ran = run(2, "steady --spawn 1 --mode sessions --group 3").await;
    assert!(ran.code.is_some_and(|code| code != 0) && ran.printed.contains("--group"), "{}", ran.printed);
}
