//! Processes of the shell: ready, told, heard, measured and gone.

use super::*;

const SOON: Duration = Duration::from_secs(10);

fn shell(script: &str) -> Process {
    Plan::new("script", "/bin/sh").args(["-c", script]).with_stdin().start().unwrap()
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn a_line_is_found_whether_it_was_printed_before_or_after_the_call() {
    let mut process = shell("echo port=4711; read x; echo got $x >&2; read y");
    let port = process.line(SOON, |line| line.strip_prefix("port=")?.parse::<u16>().ok()).await.unwrap();
    assert_eq!(port, 4711);
    process.feed(b"bytes\n").await.unwrap();
    process.line(SOON, |line| (line == "got bytes").then_some(())).await.unwrap();
    process.line(SOON, |line| line.starts_with("port=").then_some(())).await.unwrap();
    process.end_stdin();
    process.wait(SOON).await.unwrap();
    assert_eq!(process.output().text(Source::Stderr), "got bytes\n");
}

#[tokio::test]
async fn an_end_before_the_line_shows_what_was_printed() {
    let mut process = shell("echo cannot bind: address in use >&2; exit 3");
    let error = process.line(SOON, |line| (line == "ready").then_some(())).await.unwrap_err();
    assert!(error.to_string().contains("! cannot bind: address in use"), "{error}");
    assert_eq!(process.wait(SOON).await.unwrap().code(), Some(3));
    assert!(process.succeeds(SOON).await.unwrap_err().to_string().contains("exit status: 3"));
}

#[tokio::test]
async fn a_process_that_never_gets_ready_is_a_failure_at_the_deadline() {
    let mut process = shell("read x");
    let short = Duration::from_millis(100);
    assert!(process.line(short, |_| Some(())).await.is_err());
    let addr = ([127, 0, 0, 1], free_port().unwrap()).into();
    assert!(process.answers(addr, short).await.is_err());
    assert!(process.wait(short).await.is_err());
}

#[tokio::test]
async fn signals_reach_it_and_kill_and_drop_leave_nothing_behind() {
    let mut process =
        shell("trap 'echo told; exit 0' TERM; echo armed; while :; do read x || sleep 0.05; done");
    process.line(SOON, |line| (line == "armed").then_some(())).await.unwrap();
    process.end_stdin();
    process.signal(Signal::TERM).unwrap();
    process.succeeds(SOON).await.unwrap();
    assert!(process.output().contains("told"));
    assert!(process.signal(Signal::TERM).is_err(), "a pid that may be another's by now is not signalled");

    let process = shell("read x");
    let pid = process.pid();
    process.kill().await.unwrap();
    assert!(!exists(pid));
}

#[tokio::test]
async fn the_peak_of_memory_and_the_processor_time_are_those_of_the_process() {
    let mut process = shell("x=$(head -c 20000000 /dev/zero | tr '\\0' a); echo full; read y");
    let watch = peak_resident(process.pid());
    let end = async {
        process.line(SOON, |line| (line == "full").then_some(())).await.unwrap();
        let used = process.resources().unwrap();
        assert!(used.peak_resident >= 20_000_000 && used.resident <= used.peak_resident, "{used:?}");
        assert!(used.cpu > Duration::ZERO);
        let threads = process.threads().unwrap();
        assert_eq!((threads.len(), threads[0].id, &*threads[0].name), (1, process.pid(), "sh"));
        assert!(threads[0].cpu > Duration::ZERO);
        process.end_stdin();
        process.wait(SOON).await.unwrap();
    };
    let (peak, ()) = tokio::join!(watch, end);
    assert!(peak >= 20_000_000, "{peak}");
    assert!(process.resources().is_err());
}

#[tokio::test]
async fn the_callers_proxy_settings_do_not_leak_into_it() {
    let mut process = Plan::new("env", "/usr/bin/env").env("HTTPS_PROXY", "http://stated").start().unwrap();
    process.succeeds(SOON).await.unwrap();
    let text = process.output().text(Source::Stdout);
    let proxies: Vec<&str> = text.lines().filter(|l| l.to_ascii_lowercase().contains("_proxy=")).collect();
    assert_eq!(proxies, ["HTTPS_PROXY=http://stated"]);
}
