//! Several workers, workers elsewhere, and workers that go wrong.

use culvert_loadtest::measure::Count;
use culvert_loadtest::report::Role;
use culvert_loadtest::worker::LISTENING;
use culvert_testkit::process::{Process, Signal};

use super::program::{Bench, PATIENCE, relay, signal};

/// A worker that was started by hand, and its address.
async fn worker(bench: &Bench, more: &str) -> (Process, String) {
    let secret = bench.file("secret", "shared by both\n");
    let line = format!("worker --listen 127.0.0.1:0 --secret-file {secret}{more}");
    let worker = bench.plan(&line).start().unwrap();
    let address =
        worker.line(PATIENCE, |line| line.strip_prefix(LISTENING).map(str::to_owned)).await.unwrap();
    (worker, address)
}

#[tokio::test]
async fn two_workers_share_the_load_and_their_samples_add_up() {
    let bench = Bench::new();
    let line = "steady --spawn 1 --pairs 3 --workers 2 --duration 2s --warm-up 0s --json run.json --no-html";
    bench.run(line).await.succeeded();
    let report = bench.report("run.json");
    let workers = report.processes.iter().filter(|process| process.role == Role::Load).count();
    assert_eq!((report.run.workers, workers), (2, 2));
    assert_eq!((report.total.connections, report.timeline.len()), (6, 2), "all pairs of both");
    assert!(report.timeline.iter().all(|second| second.count(Count::Delivered) > 0));
}

#[tokio::test]
async fn workers_elsewhere_do_one_run_after_the_other() {
    let bench = Bench::new();
    let relay = relay(|plan| plan.flag("open")).await;
    let (worker, address) = worker(&bench, "").await;
    let line = format!(
        "steady --url {} --worker {address} --worker-secret-file {} --workers 1 --pairs 2 --duration 1s \
         --warm-up 0s --json run.json --no-html",
        relay.url(),
        bench.path("secret").display()
    );
    for _ in 0..2 {
        let mut run = bench.plan(&line).start().unwrap();
        assert!(run.wait(PATIENCE).await.unwrap().success(), "{}", run.output().tail());
        let report = bench.report("run.json");
        assert_eq!((report.run.workers, report.total.connections), (2, 4));
        let load: Vec<_> = report.processes.iter().filter(|process| process.role == Role::Load).collect();
        assert!(load[1].name.contains(&address) && !load[1].points.is_empty(), "{load:?}");
    }
    worker.kill().await.unwrap();
}

#[tokio::test]
async fn a_worker_works_for_nobody_who_has_another_secret() {
    let bench = Bench::new();
    let relay = relay(|plan| plan.flag("open")).await;
    let (worker, address) = worker(&bench, "").await;
    let wrong = bench.file("wrong", "another one");
    let line = format!("steady --url {} --worker {address} --pairs 1 --no-html", relay.url());
    let mut run = bench.plan(&format!("{line} --worker-secret-file {wrong}")).start().unwrap();
    assert_eq!(run.wait(PATIENCE).await.unwrap().code(), Some(1));
    assert!(run.output().contains("another secret"), "{}", run.output().tail());
    worker.line(PATIENCE, |line| line.contains("refused 127.0.0.1").then_some(())).await.unwrap();

    let right = bench.path("secret").display().to_string();
    let line = format!("{line} --duration 1s --warm-up 0s --worker-secret-file {right}");
    let mut run = bench.plan(&line).start().unwrap();
    run.succeeds(PATIENCE).await.unwrap();
    worker.kill().await.unwrap();
}

#[tokio::test]
async fn a_worker_that_is_at_work_says_so_to_whoever_else_comes() {
    let bench = Bench::new();
    let relay = relay(|plan| plan.flag("open")).await;
    let (mut worker, address) = worker(&bench, " --once").await;
    let line = format!(
        "steady --url {} --worker {address} --worker-secret-file {} --pairs 1 --duration 10m --no-html",
        relay.url(),
        bench.path("secret").display()
    );
    let first = bench.plan(&line).start().unwrap();
    first.line(PATIENCE, |line| line.contains("warming up").then_some(())).await.unwrap();
    let mut second = bench.plan(&line).start().unwrap();
    assert_eq!(second.wait(PATIENCE).await.unwrap().code(), Some(1));
    assert!(second.output().contains("at work for another coordinator"), "{}", second.output().tail());

    // It does not go on without the one that it works for.
    first.kill().await.unwrap();
    assert_eq!(worker.wait(PATIENCE).await.unwrap().code(), Some(1));
    assert!(worker.output().contains("the coordinator is gone"), "{}", worker.output().tail());
}

#[tokio::test]
async fn a_worker_that_is_killed_ends_the_run_as_a_failure() {
    let bench = Bench::new();
    let line = "steady --spawn 1 --pairs 2 --workers 2 --duration 10m --warm-up 0s --json run.json --no-html";
    let mut run = bench.plan(line).start().unwrap();
    run.line(PATIENCE, |line| line.contains("4 connections").then_some(())).await.unwrap();
    signal(bench.pid_of(" worker --listen").await, Signal::KILL);
    let ended = bench.end(&mut run).await;
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    let report = bench.report("run.json");
    assert!(report.failures.len() == 1 && report.failures[0].contains("died: signal: 9"), "{report:?}");
    assert!(ended.out.contains(&report.failures[0]), "{ended:#?}");
}

#[tokio::test]
async fn a_worker_that_hangs_ends_the_run_as_a_failure() {
    let bench = Bench::new();
    let line = "steady --spawn 1 --pairs 2 --workers 2 --duration 10m --warm-up 0s --json run.json --no-html";
    let mut run = bench.plan(line).start().unwrap();
    run.line(PATIENCE, |line| line.contains("4 connections").then_some(())).await.unwrap();
    signal(bench.pid_of(" worker --listen").await, Signal::STOP);
    let ended = bench.end(&mut run).await;
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    let failures = bench.report("run.json").failures;
    assert!(
        failures.len() == 1 && failures[0].contains("hangs: it has said nothing for 10s"),
        "{failures:?}"
    );
}
