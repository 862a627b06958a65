//! The program as an operator meets it: settings, exit codes, signals.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use culvert_testkit::broker::BrokerPlan;
use culvert_testkit::postgres::PostgresPlan;
use culvert_testkit::process::{Plan, Signal};
use data_encoding::BASE64;

/// Far beyond what any step here takes; reached only where something hangs.
const DEADLINE: Duration = Duration::from_secs(60);

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_culvert-broker-api"))
}

/// Runs the program to its end in a folder of its own, without settings in its environment.
fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    command.args(arguments).env_clear().envs(environment.iter().copied()).current_dir(folder.path());
    command.output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the program prints text")
}

#[test]
fn bad_settings_are_all_listed_and_exit_with_64() {
    let output = run(
        &["serve", "--grant-life=soon", "--worker-threads=0", "--config=/nonexistent/broker.toml"],
        &[
            ("CULVERT_BROKER_DATABASE_URL", "mysql://x:hunter2@y/z"),
            ("HEARTBEAT_TIMEOUT_SECONDS", "1"),
            ("CULVERT_BROKER_DATA_KEYS", "hunter2"),
        ],
    );
    let problems = text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{problems}");
    for part in [
        "config: /nonexistent/broker.toml: No such file",
        "grant-life (--grant-life): `soon` is not a duration",
        "worker-threads (--worker-threads): is 0 and must be from 1 to 256",
        "database-url: does not begin with postgres://",
        "data-keys: holds something else than keys of 32 bytes",
        "tls-certificate: and tls-key are required",
        "public-url: is required on an address that others can reach",
        "heartbeat-timeout (HEARTBEAT_TIMEOUT_SECONDS): is 1 and must be at least 2s",
    ] {
        assert!(problems.contains(part), "{part} not in\n{problems}");
    }
    assert!(!problems.contains("hunter2"), "{problems}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_has_one_worker_thread_unless_it_is_told_otherwise() {
    for (given, has) in [(&[][..], 1), (&["--worker-threads=3"], 3)] {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan::new("broker", binary()).args(["serve", "--plain-text", "--listen=127.0.0.1:0"]);
        let plan = plan.args(["--admin-listen=none", "--database-file=broker.db"]).args(given);
        let mut broker = plan.current_dir(folder.path()).start().unwrap();
        let says = format!("worker_threads={has}");
        broker.line(DEADLINE, |line| line.contains(&says).then_some(())).await.unwrap();
        broker.signal(Signal::TERM).unwrap();
        broker.succeeds(DEADLINE).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrate_says_that_it_waits_for_the_database_and_goes_on_when_that_is_there() {
    let postgres = PostgresPlan::new().unwrap();
    let url = format!("postgres://postgres@{}/postgres", postgres.addr());
    let key = BASE64.encode(&[7; 32]);
    let plan = Plan::new("migrate", binary()).args(["migrate", "--plain-text", "--listen=127.0.0.1:0"]);
    let mut migrate = plan.env("DATABASE_URL", &url).env("CULVERT_BROKER_DATA_KEYS", &key).start().unwrap();
    let waits = |line: &str| line.contains("the database does not answer; waiting for it").then_some(());
    migrate.line(DEADLINE, waits).await.unwrap();
    let _postgres = postgres.start().await.unwrap();
    migrate.succeeds(DEADLINE).await.unwrap();
}

#[test]
fn postgres_without_a_data_key_is_refused_with_the_way_to_make_one() {
    let output = run(
        &["check-config", "--plain-text", "--listen=127.0.0.1:0"],
        &[("DATABASE_URL", "postgres://u:p@localhost/d")],
    );
    let problems = text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{problems}");
    assert!(
        problems.contains("data-keys-file") && problems.contains("openssl rand -base64 32"),
        "{problems}"
    );
}

#[test]
fn use_tls_without_a_certificate_says_what_is_missing() {
    let output = run(&["check-config", "--listen=127.0.0.1:0"], &[("USE_TLS", "true")]);
    let problems = text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{problems}");
    assert!(problems.contains("require-tls: needs tls-certificate and tls-key, or behind-tls"), "{problems}");
    let plain = run(&["check-config", "--listen=127.0.0.1:0", "--plain-text"], &[("USE_TLS", "true")]);
    assert!(text(&plain.stderr).contains("plain-text: excludes require-tls"));
    let behind = run(&["check-config", "--listen=127.0.0.1:0", "--behind-tls"], &[("USE_TLS", "true")]);
    assert_eq!(behind.status.code(), Some(0), "{}", text(&behind.stderr));
}

#[test]
fn the_names_of_the_first_sync_broker_are_accepted_and_ours_win() {
    let key = BASE64.encode(&[1; 32]);
    let output = run(
        &["check-config", "--behind-tls", "--public-url=https://broker.example.org"],
        &[
            ("DATABASE_URL", "postgres://u:hunter2@localhost/d"),
            ("REDIS_URL", "redis://localhost:6379"),
            ("BIND_ADDR", "127.0.0.1:8090"),
            ("HEARTBEAT_TIMEOUT_SECONDS", "120"),
            ("INSTITUTION_NAME", "First"),
            ("CULVERT_BROKER_INSTITUTION", "Ours"),
            ("BROKER_PASSWORD", "hunter2"),
            ("USE_TLS", "true"),
            ("CHECK_FOR_UPDATES", "false"),
            ("RUST_LOG", "warn"),
            ("CULVERT_BROKER_DATA_KEYS", &key),
        ],
    );
    let effective = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for line in [
        "listen = \"127.0.0.1:8090\"  # BIND_ADDR",
        "heartbeat-timeout = \"120\"  # HEARTBEAT_TIMEOUT_SECONDS",
        "institution = \"Ours\"  # CULVERT_BROKER_INSTITUTION",
        "redis = \"redis://localhost:6379\"  # REDIS_URL",
        "check-for-updates = \"false\"  # CHECK_FOR_UPDATES",
        "require-tls = \"true\"  # USE_TLS",
        "# database-url = ***  # DATABASE_URL",
        "# institution-password = ***  # BROKER_PASSWORD",
        "# data-keys = ***  # CULVERT_BROKER_DATA_KEYS",
        "grant-life = \"5m\"  # default",
    ] {
        assert!(effective.lines().any(|other| other == line), "{line} not in\n{effective}");
    }
    assert!(!effective.contains("hunter2") && !text(&output.stderr).contains("hunter2"));
}

#[test]
fn help_version_and_the_api_s_description_need_no_settings() {
    let help = run(&["--help"], &[]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("--database-file"));
    assert_eq!(text(&run(&["serve", "--help"], &[]).stdout), text(&help.stdout));
    let version = run(&["--version"], &[]);
    assert_eq!(text(&version.stdout), concat!("culvert-broker-api ", env!("CARGO_PKG_VERSION"), "\n"));
    let openapi = run(&["openapi"], &[]);
    let document: serde_json::Value = serde_json::from_slice(&openapi.stdout).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{document}");
    assert_eq!(run(&["--grant-lifes=1s"], &[]).status.code(), Some(64));
}

#[test]
fn a_port_in_use_is_a_failed_start_with_its_cause() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("--listen={}", taken.local_addr().unwrap());
    let output = run(&["serve", &listen, "--admin-listen=none", "--plain-text"], &[]);
    let log = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("Address already in use"), "{log}");
    assert!(log.contains("clients connect without TLS"), "{log}");
}

#[test]
fn an_operator_makes_a_user_before_the_first_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broker.db");
    let settings = ["--plain-text", "--listen=127.0.0.1:0", "--database-file", file.to_str().unwrap()];
    let output = run(&[&settings[..], &["user", "list"]].concat(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(file.exists() && folder.path().join("broker.db.key").exists());
}

#[tokio::test]
async fn the_first_signal_turns_readiness_red_and_ends_with_0() {
    let plan = BrokerPlan::sqlite(binary()).unwrap().set("drain-delay", "3s").set("log-format", "json");
    let mut broker = plan.start().await.unwrap();
    let (_, version) = broker.admin("/version").await.unwrap();
    assert!(version.contains("\"name\":\"culvert-broker-api\""), "{version}");
    broker.process().signal(Signal::TERM).unwrap();
    let logged =
        broker.process().line(DEADLINE, |line| line.contains("\"ready\":false").then(|| line.to_owned()));
    assert!(logged.await.unwrap().contains("\"reason\":\"draining\""));
    let (status, red) = broker.admin("/readyz").await.unwrap();
    assert_eq!((status, &*red), (503, "{\"ready\":false,\"reason\":\"draining\"}\n"));
    assert_eq!(broker.process().wait(DEADLINE).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_stops_at_once_and_says_so() {
    let plan = BrokerPlan::sqlite(binary()).unwrap().set("drain-delay", "1h");
    let mut broker = plan.start().await.unwrap();
    let asked = Instant::now();
    broker.process().signal(Signal::TERM).unwrap();
    let said = |line: &str| line.contains("a second signal stops").then_some(());
    broker.process().line(DEADLINE, said).await.unwrap();
    broker.process().signal(Signal::INT).unwrap();
    assert_eq!(broker.process().wait(DEADLINE).await.unwrap().code(), Some(1));
    assert!(asked.elapsed() < DEADLINE);
}

#[tokio::test]
async fn a_short_institution_password_is_warned_of_and_not_shown() {
    let plan = BrokerPlan::sqlite(binary()).unwrap().env("BROKER_PASSWORD", "hunter2");
    let mut broker = plan.start().await.unwrap();
    let said = |line: &str| line.contains("short enough to be guessed").then_some(());
    broker.process().line(DEADLINE, said).await.unwrap();
    assert!(!broker.process().output().contains("hunter2"));
}
