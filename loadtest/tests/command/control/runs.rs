//! Runs that end as they should, by themselves or because somebody wants it.

use std::path::Path;
use std::time::Duration;

use culvert_loadtest::measure::{Count, Series};
use culvert_loadtest::report::{ProcessUse, Report, Role};
use culvert_testkit::Identity;
use culvert_testkit::process::Signal;
use tokio::time::Instant;

use super::program::{Bench, PATIENCE, relay};

fn of(report: &Report, role: Role) -> Vec<&ProcessUse> {
    report.processes.iter().filter(|process| process.role == role).collect()
}

#[tokio::test]
async fn a_spawned_relay_is_loaded_and_reported_as_table_page_and_raw_data() {
    let bench = Bench::new();
    let line = "steady --spawn 1 --pairs 2 --duration 1500ms --warm-up 200ms --json run.json --html run.html";
    let ended = bench.run(line).await;
    ended.succeeded();
    assert!(ended.out.contains("1 relay on this machine") && ended.out.contains("one_way"), "{ended:#?}");
    assert!(ended.err.contains("4 connections"), "progress: {ended:#?}");
    assert!(std::fs::read_to_string(bench.path("run.html")).unwrap().contains("</html>"));

    let report = bench.report("run.json");
    assert_eq!(report.run.command, format!("culvert-loadtest {line}"));
    assert_eq!((report.failures.as_slice(), report.timeline.len()), (&[][..], 2), "1 s and 0.5 s");
    assert!(report.run.measured >= Duration::from_millis(1500), "{:?}", report.run.measured);
    let of_timeline: u64 = report.timeline.iter().map(|sample| sample.count(Count::Delivered)).sum();
    assert!(of_timeline > 0 && report.total.count(Count::Delivered) >= of_timeline);
    assert!(!report.total.times[&Series::OneWay].decode().unwrap().is_empty());
    for (role, number) in [(Role::Relay, 1), (Role::Redis, 0), (Role::Balancer, 0), (Role::Load, 1)] {
        let processes = of(&report, role);
        assert_eq!(processes.len(), number, "{role:?}");
        for process in processes {
            assert_eq!(process.points.len(), 2, "{process:?}");
            assert!(process.resident_before > 1 << 20, "{process:?}");
            assert!(process.points.iter().all(|point| !point.cpu.is_zero()), "{process:?}");
        }
    }
}

#[tokio::test]
async fn two_relays_run_with_redis_behind_haproxy_and_all_of_them_are_watched() {
    let bench = Bench::new();
    let line = "steady --spawn 2 --tls --pairs 4 --duration 1s --warm-up 0s --json run.json --no-html";
    bench.run(line).await.succeeded();
    let report = bench.report("run.json");
    assert!(report.run.target.contains("2 relays with Redis behind haproxy"), "{}", report.run.target);
    assert_eq!(of(&report, Role::Relay).len(), 2);
    assert_eq!((of(&report, Role::Redis).len(), of(&report, Role::Balancer).len()), (1, 1));
    assert!(report.total.count(Count::Delivered) > 0);
    assert_eq!(bench.files(), ["run.json"]);
}

#[tokio::test]
async fn spawned_relays_let_in_by_token_or_ticket_what_the_run_is_given() {
    let bench = Bench::new();
    let token = bench.file("token", "correct horse battery staple\n");
    let key = bench.file("key.pem", &Identity::from_seed([5; 32]).unwrap().private_pem().unwrap());
    for admission in [format!("--access-token-file {token}"), format!("--ticket-key {key} --tenant acme")] {
        let line = format!("steady --spawn 1 --pairs 1 --duration 1s --warm-up 0s --no-html {admission}");
        bench.run(&line).await.succeeded();
    }
}

#[tokio::test]
async fn a_threshold_that_holds_makes_the_run_a_failure_and_says_so() {
    let bench = Bench::new();
    let line = "steady --spawn 1 --pairs 1 --duration 1s --warm-up 0s --html run.html --json run.json";
    let ended = bench.run(&format!("{line} --fail-if p99>1ns --fail-if delivered<1")).await;
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    let failures = bench.report("run.json").failures;
    assert!(failures.len() == 1 && failures[0].contains("p99"), "{failures:?}");
    assert!(ended.out.contains(&failures[0]), "{ended:#?}");
    bench.run(&format!("{line} --fail-if p99>1h")).await.succeeded();

    let compared = bench.run("compare run.json run.json").await;
    compared.succeeded();
    assert!(compared.out.contains("one_way"), "{compared:#?}");
}

#[tokio::test]
async fn a_page_that_was_not_named_is_named_after_the_scenario() {
    let bench = Bench::new();
    let ended = bench.run("steady --spawn 1 --pairs 1 --duration 1s --warm-up 0s --quiet").await;
    ended.succeeded();
    assert_eq!(ended.err, "", "--quiet shows no progress");
    let files = bench.files();
    assert_eq!(files.len(), 1, "{files:?}");
    assert!(files[0].starts_with("culvert-loadtest-steady-2") && files[0].ends_with(".html"), "{files:?}");
    assert!(ended.out.contains(&files[0]), "{ended:#?}");
}

#[tokio::test]
async fn target_and_load_get_cores_of_their_own() {
    let bench = Bench::new();
    let line = "steady --spawn 1 --pairs 1 --duration 1m --warm-up 0s --pin --no-html";
    let mut run = bench.plan(line).start().unwrap();
    let (relay, worker) = (bench.pid_of(" relay --listen").await, bench.pid_of(" worker --listen").await);
    let cores = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        cores.trim().to_owned()
    };
    assert!(!cores(relay).contains(['-', ',']), "one core: {}", cores(relay));
    assert_ne!(cores(relay), cores(worker));
    run.signal(Signal::INT).unwrap();
    assert_eq!(bench.end(&mut run).await.code, Some(1));
}

#[tokio::test]
async fn relays_that_are_there_already_are_watched_through_their_metrics() {
    let bench = Bench::new();
    let (one, two) = (relay(|plan| plan.flag("open")).await, relay(|plan| plan.flag("open")).await);
    let line = format!(
        "steady --url {} --metrics http://{} --metrics http://{}/metrics --pairs 2 --duration 2s --warm-up 0s \
         --json run.json --no-html",
        one.url(),
        one.admin_addr(),
        two.admin_addr()
    );
    bench.run(&line).await.succeeded();
    let report = bench.report("run.json");
    let relays = of(&report, Role::Relay);
    assert!(relays.len() == 2 && relays.iter().all(|relay| relay.resident_before > 1 << 20), "{relays:?}");
    let spent = |relay: &ProcessUse| relay.points.iter().map(|point| point.cpu).sum::<Duration>();
    assert!(spent(relays[0]) > spent(relays[1]), "the one that is loaded works: {relays:?}");
}

#[tokio::test]
async fn an_interrupt_ends_the_run_with_what_was_measured() {
    let bench = Bench::new();
    let line = "steady --spawn 1 --pairs 1 --duration 10m --warm-up 0s --json run.json --html run.html";
    let mut run = bench.plan(line).start().unwrap();
    // Progress of long runs is a line every ten seconds.
    run.line(PATIENCE, |line| line.contains("2 connections").then_some(())).await.unwrap();
    run.signal(Signal::INT).unwrap();
    let ended = bench.end(&mut run).await;
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    let report = bench.report("run.json");
    assert!(report.failures.len() == 1 && report.failures[0].contains("interrupted after"), "{report:?}");
    assert!(report.total.count(Count::Delivered) > 0 && !report.timeline.is_empty());
    assert!(ended.out.contains(&report.failures[0]), "{ended:#?}");
}

#[tokio::test]
async fn an_interrupt_before_anything_was_measured_ends_the_run_at_once() {
    let bench = Bench::new();
    let mut run = bench.plan("steady --spawn 1 --pairs 1 --warm-up 10m").start().unwrap();
    run.line(PATIENCE, |line| line.contains("warming up").then_some(())).await.unwrap();
    run.signal(Signal::TERM).unwrap();
    let ended = bench.end(&mut run).await;
    ended.said(1, "nothing was measured: it was interrupted");
    assert_eq!(bench.files(), [""; 0], "no report of nothing");
}

#[tokio::test]
async fn nothing_outlives_a_coordinator_that_is_killed() {
    let bench = Bench::new();
    let run = bench.plan("steady --spawn 2 --pairs 2 --duration 10m --workers 2").start().unwrap();
    run.line(PATIENCE, |line| line.contains("warming up").then_some(())).await.unwrap();
    // Redis writes its title over its environment, so it is known as a child only.
    let pid = run.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let children: Vec<&str> = children.split_whitespace().collect();
    assert_eq!(children.len(), 6, "two relays, Redis, haproxy and two workers");
    run.kill().await.unwrap();
    bench.nothing_runs().await;
    let end = Instant::now() + Duration::from_secs(10);
    while let Some(left) = children.iter().find(|child| Path::new("/proc").join(child).exists()) {
        assert!(Instant::now() < end, "process {left} still runs");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
