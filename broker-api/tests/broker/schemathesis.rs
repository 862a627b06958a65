//! Schemathesis makes requests from the OpenAPI document: no server error, and no answer that it does not
//! describe.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use culvert_broker_api::live::Rate;
use culvert_broker_api::store::Role;
use culvert_service_kit::Clock;
use tokio::process::Command;

use crate::common::Running;

/// Where the program is, unless test.sh says otherwise.
const PROGRAM: &str = "CULVERT_SCHEMATHESIS";
/// What an answer must be.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,unsupported_method,\
                      missing_required_header";
/// How long one run makes requests up.
const SECONDS: u64 = 25;
/// How long it may take in all, on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(300);

fn program() -> PathBuf {
    std::env::var_os(PROGRAM).map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/test-tools/schemathesis/bin/st"),
        PathBuf::from,
    )
}

/// Runs it against a broker, as whoever has this session, if anybody.
async fn run(broker: &Running, session: Option<&str>) {
    let program = program();
    assert!(
        program.exists(),
        "{} is missing: ./test.sh installs it, or set {PROGRAM} to the `st` of schemathesis",
        program.display()
    );
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{}/openapi.json", broker.addr());
    let mut command = Command::new(program);
    command.args(["run", &url, "--checks", CHECKS, "--max-time", &SECONDS.to_string(), "--no-color"]);
    command.args(["--suppress-health-check", "all", "--warnings", "off", "--generation-database", "none"]);
    if let Some(session) = session {
        command.args(["--header", &format!("Authorization: Bearer {session}")]);
        // Who ends the session with which it is asked is refused from then on.
        command.args(["--exclude-operation-id-regex", "^(log_out|change_password)$"]);
    }
    command.current_dir(folder.path()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await.expect("it ends in time").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("No issues found"), "{said}");
}

async fn broker() -> Running {
    Running::sqlite_with(Clock::system(), |config| {
        config.limits.requests = Rate { per_second: 1e6, burst: 1_000_000 };
        config.institution_password = Some("the institution's password".to_owned().into());
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_gets_no_answer_that_the_document_does_not_describe() {
    let broker = broker().await;
    broker.user_as("root", Role::Admin).await;
    let session = broker.session("root").await;
    run(&broker, Some(&session)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_an_answer_that_the_document_does_not_describe() {
    run(&broker().await, None).await;
}
