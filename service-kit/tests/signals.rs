//! Real signals to a real process: the first drains, the second kills.
//!
//! Without the test harness, because the process under test is this file itself, started again with
//! [`ROLE`] set: it prints a line at each stage and ends when it is killed.
#![expect(clippy::print_stdout, reason = "the lines are what the two processes talk with")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use culvert_service_kit::Shutdown;
use culvert_service_kit::lifecycle::signals;
use rustix::process::{Pid, Signal, kill_process};

const ROLE: &str = "CULVERT_TEST_SERVER";

fn main() {
    if std::env::var_os(ROLE).is_some() {
        return server();
    }
    for (first, second) in
        [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::INT), (Signal::TERM, Signal::INT)]
    {
        the_first_signal_drains_and_the_second_kills(first, second);
        println!("test {first:?} then {second:?} ... ok");
    }
}

fn server() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        let handle = signals(shutdown.clone()).expect("handlers can be installed");
        println!("serving");
        let stages = async {
            shutdown.drain_requested().await;
            assert!(!shutdown.is_killed(), "the first signal must not kill");
            println!("draining");
            shutdown.killed().await;
            println!("killed");
        };
        tokio::join!(handle, stages);
    });
}

fn the_first_signal_drains_and_the_second_kills(first: Signal, second: Signal) {
    let mut server = Command::new(std::env::current_exe().expect("this test has a path"))
        .env(ROLE, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test can be started again");
    let pid = Pid::from_child(&server);
    let mut lines = BufReader::new(server.stdout.take().expect("piped")).lines();
    let mut expect = |stage: &str| {
        let line = lines.next().expect("the server says how far it is").expect("a line of text");
        assert_eq!(line, stage);
    };
    expect("serving");
    kill_process(pid, first).expect("the server runs");
    expect("draining");
    kill_process(pid, second).expect("the server still runs");
    expect("killed");
    assert!(server.wait().expect("the server ends").success());
}
