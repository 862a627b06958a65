//! The program as operators run it: exit codes, what it prints, signals.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use culvert_testkit::process::Signal;
use culvert_testkit::redis::RedisPlan;
use culvert_testkit::relay::RelayPlan;

/// Far beyond what any step here takes; reached only where something hangs.
const DEADLINE: Duration = Duration::from_secs(60);

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_culvert-relay"))
}

/// Runs the program to its end, without settings in its environment.
fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(binary())
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the program prints text")
}

#[test]
fn bad_settings_are_all_listed_and_exit_with_64() {
    let output = run(
        &["--keepalive=soon", "--config=/nonexistent/relay.toml"],
        &[("CULVERT_RELAY_IDLE_TIMEOUT", "later")],
    );
    let problems = text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{problems}");
    for part in [
        "5 problems with the configuration:",
        "config: /nonexistent/relay.toml: No such file",
        "keepalive (--keepalive): `soon` is not a duration such as 30s or 500ms",
        "idle-timeout (CULVERT_RELAY_IDLE_TIMEOUT): `later` is not a duration",
        "tls-certificate: and tls-key are required",
        "admission: is not configured",
    ] {
        assert!(problems.contains(part), "{part} not in\n{problems}");
    }
}

#[test]
fn an_unknown_flag_exits_with_64_and_help_and_version_with_0() {
    let output = run(&["--keepalives=1s"], &[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("--keepalive"), "no suggestion: {}", text(&output.stderr));
    let help = run(&["--help"], &[]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("--ticket-keys"));
    let version = run(&["--version"], &[]);
    assert_eq!(text(&version.stdout), concat!("culvert-relay ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_would_forget_peers_exits_with_1_and_says_what_to_set() {
    let plan = RedisPlan::new().unwrap().set("maxmemory", "100mb").set("maxmemory-policy", "allkeys-lru");
    let server = plan.start().await.unwrap();
    let url = server.reach().url();
    let flags = ["--open", "--plain-text", "--listen=127.0.0.1:0", "--admin-listen=none", "--redis", &url];
    let output = tokio::task::block_in_place(|| run(&flags, &[]));
    let log = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("the relay does not start") && log.contains("maxmemory-policy noeviction"), "{log}");
}

#[test]
fn check_config_prints_what_is_in_effect_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    std::fs::write(&file, "plain-text = true\nnames = [\"relay.example\"]\nmax-connections = 100\n").unwrap();
    let config = file.display().to_string();
    let output = run(
        &["check-config", "--keepalive=20s"],
        &[("CULVERT_RELAY_CONFIG", &config), ("CULVERT_RELAY_ACCESS_TOKEN", "hunter2")],
    );
    let effective = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for line in [
        "keepalive = \"20s\"  # flag",
        "idle-timeout = \"45s\"  # default",
        "max-connections = \"100\"  # file",
        "names = \"relay.example\"  # file",
        "# access-token = ***  # CULVERT_RELAY_ACCESS_TOKEN",
        "# tls-key is not set",
    ] {
        assert!(effective.lines().any(|other| other == line), "{line} not in\n{effective}");
    }
    assert!(!effective.contains("hunter2") && !text(&output.stderr).contains("hunter2"));
}

#[test]
fn a_port_in_use_is_a_failed_start_with_its_cause() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("--listen={}", taken.local_addr().unwrap());
    let output = run(&[&listen, "--admin-listen=none", "--plain-text", "--open"], &[]);
    let log = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("the relay does not start"), "{log}");
    assert!(log.contains("Address already in use"), "{log}");
}

#[tokio::test]
async fn the_first_signal_turns_readiness_red_and_ends_with_0() {
    // The delay is what the test looks into; no peers are there to be moved.
    let plan = RelayPlan::open(binary()).unwrap().set("drain-delay", "3s").set("log-format", "json");
    let mut relay = plan.start().await.unwrap();
    let (status, ready) = relay.admin("/readyz").await.unwrap();
    assert_eq!((status, &*ready), (200, "{\"ready\":true,\"reason\":\"serving\"}\n"));
    let (_, version) = relay.admin("/version").await.unwrap();
    assert!(
        version.contains("\"name\":\"culvert-relay\"") && version.contains("\"protocols\":[1]"),
        "{version}"
    );

    relay.terminate().unwrap();
    let logged =
        relay.process().line(DEADLINE, |line| line.contains("\"ready\":false").then(|| line.to_owned()));
    let line = logged.await.unwrap();
    assert!(line.starts_with('{') && line.contains("\"reason\":\"draining\""), "{line}");
    let (status, red) = relay.admin("/readyz").await.unwrap();
    assert_eq!((status, &*red), (503, "{\"ready\":false,\"reason\":\"draining\"}\n"));
    assert_eq!(relay.process().wait(DEADLINE).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_stops_at_once_and_says_so() {
    let plan = RelayPlan::open(binary()).unwrap().set("drain-delay", "1h");
    let mut relay = plan.start().await.unwrap();
    let asked = Instant::now();
    relay.process().signal(Signal::TERM).unwrap();
    relay
        .process()
        .line(DEADLINE, |line| line.contains("a second signal stops").then_some(()))
        .await
        .unwrap();
    relay.process().signal(Signal::INT).unwrap();
    assert_eq!(relay.process().wait(DEADLINE).await.unwrap().code(), Some(1));
    assert!(asked.elapsed() < DEADLINE);
}

#[tokio::test]
async fn what_is_open_is_said_at_start() {
    let open = RelayPlan::open(binary()).unwrap();
    let guessable = RelayPlan::closed(binary()).unwrap().access_token("hunter2");
    let without_tls = "peers connect without TLS";
    for (plan, sentences) in [
        (open, ["everybody who reaches this relay may use it", without_tls]),
        (guessable, ["the access token is short enough to be guessed", without_tls]),
    ] {
        let mut relay = plan.start().await.unwrap();
        for sentence in sentences {
            relay.process().line(DEADLINE, |line| line.contains(sentence).then_some(())).await.unwrap();
        }
        assert!(!relay.process().output().contains("hunter2"));
    }
}

#[tokio::test]
async fn a_hangup_without_a_certificate_is_logged_and_changes_nothing() {
    let mut relay = RelayPlan::open(binary()).unwrap().start().await.unwrap();
    relay.process().signal(Signal::HUP).unwrap();
    let logged = relay.process().line(DEADLINE, |line| line.contains("SIGHUP").then_some(()));
    logged.await.unwrap();
    let (status, _) = relay.admin("/readyz").await.unwrap();
    assert_eq!(status, 200);
}
