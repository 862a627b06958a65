//! What cannot work is a sentence and an exit code that is not 0: never a hang, never a report that looks
//! fine.

use culvert_testkit::certs::TestCa;
use culvert_testkit::process::{Plan, free_port};

use super::program::{Bench, relay};

#[tokio::test]
async fn a_command_that_makes_no_sense_is_wrong_use() {
    let bench = Bench::new();
    for (line, sentence) in [
        ("steady", "--spawn"),
        ("steady --spawn 1 --pairs 0", "--pairs"),
        ("steady --spawn 1 --duration 0s", "--duration must be longer than 0s"),
        ("steady --spawn 1 --fail-if nonsense>1", "nonsense"),
        ("steady --url https://relay.example", "write wss://"),
        ("chaos --url ws://127.0.0.1:1 --duration 10m", "--fault-command"),
        ("unsteady --spawn 1", "unsteady"),
    ] {
        bench.run(line).await.said(64, sentence);
    }
    assert_eq!(bench.files(), [""; 0]);
}

#[tokio::test]
async fn a_target_that_cannot_be_used_says_why() {
    let bench = Bench::new();
    let closed = relay(|plan| plan.access_token("correct horse battery staple")).await;
    let authority = TestCa::new("Nobody's").unwrap();
    let leaf = authority.loopback().unwrap();
    let encrypted = relay(|plan| plan.tls(&leaf, &authority).unwrap().flag("open")).await;
    let token = bench.file("token", "another one");
    let nobody = format!("ws://127.0.0.1:{}", free_port().unwrap());
    for (line, sentence) in [
        (format!("--url {nobody}"), "does not answer"),
        ("--url ws://relay.invalid".to_owned(), "relay.invalid"),
        (format!("--url {}", closed.url()), "refuses"),
        (format!("--url {} --access-token-file {token}", closed.url()), "refuses"),
        (format!("--url {}", encrypted.url()), "--ca"),
        (format!("--url {} --metrics http://{}", closed.url(), closed.addr()), "--metrics"),
    ] {
        let ended = bench.run(&format!("steady --pairs 1 --no-html {line}")).await;
        ended.said(1, sentence);
    }
    let trusted = format!("--url {} --ca {}", encrypted.url(), authority.path().display());
    bench.run(&format!("steady --pairs 1 --duration 1s --warm-up 0s --no-html {trusted}")).await.succeeded();
}

#[tokio::test]
async fn a_setting_that_relays_refuse_is_shown_as_they_say_it() {
    let bench = Bench::new();
    let ended = bench.run("steady --spawn 1 --no-html --relay-arg queue-bytes=many").await;
    ended.said(1, "queue-bytes");
}

#[tokio::test]
async fn too_few_open_files_say_how_many_are_needed_and_how_many_there_are() {
    let bench = Bench::new();
    let mut run = bench
        .plan_of("prlimit", "/usr/bin/prlimit")
        .args(["--nofile=300:300", env!("CARGO_BIN_EXE_culvert-loadtest")])
        .args("steady --spawn 1 --pairs 200 --no-html".split(' '))
        .start()
        .unwrap();
    let ended = bench.end(&mut run).await;
    ended.said(69, "needs 500 open files for its 400 of 400 connections and may have 300");
    ended.said(69, "--workers 2");
}

#[tokio::test]
async fn a_report_that_cannot_be_written_is_found_out_before_the_run() {
    let bench = Bench::new();
    for (files, file) in [
        ("--no-html --json /nonexistent/run.json", "/nonexistent/run.json"),
        ("--html /proc/run.html", "/proc/run.html"),
        ("--no-html --json /tmp", "/tmp is a folder"),
    ] {
        let ended = bench.run(&format!("steady --spawn 1 --duration 10m {files}")).await;
        ended.said(1, file);
    }
}

/// A shell in which file systems can be mounted that nobody else sees.
fn unshared(bench: &Bench, script: &str) -> Plan {
    use std::os::unix::fs::MetadataExt;
    let mut plan = bench.plan_of("unshare", "/usr/bin/unshare").arg("--mount");
    if std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() != 0) {
        plan = plan.args(["--user", "--map-root-user"]);
    }
    plan.args(["sh", "-c", script]).env("LOADTEST", env!("CARGO_BIN_EXE_culvert-loadtest"))
}

#[tokio::test]
async fn a_disk_that_is_full_when_the_report_is_written_is_a_failure() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("small")).unwrap();
    let script = "mount -t tmpfs -o size=16k tmpfs small || exit 90
        exec \"$LOADTEST\" steady --spawn 1 --pairs 1 --duration 1s --warm-up 0s --html small/run.html";
    let ended = bench.end(&mut unshared(&bench, script).start().unwrap()).await;
    ended.said(1, "small is full");
    assert!(ended.out.contains("one_way"), "the table is there all the same: {ended:#?}");
}

#[tokio::test]
async fn a_program_that_is_missing_is_named_with_the_command_that_installs_it() {
    let bench = Bench::new();
    let script = "mount -t tmpfs tmpfs /usr/sbin || exit 90
        exec \"$LOADTEST\" steady --spawn 2 --pairs 1 --no-html";
    let ended = bench.end(&mut unshared(&bench, script).start().unwrap()).await;
    ended.said(69, "apt-get install haproxy");
}
