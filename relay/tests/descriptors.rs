//! Out of file descriptors: the accept loop pauses, says so, and goes on when there are some again.

#![allow(clippy::unwrap_used, reason = "helpers of tests: what fails here fails the test")]

mod common;

use std::time::Duration;

use common::{peer, relay};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn limit_files(current: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum }).unwrap();
}

/// Alone in its file, because the limit is the whole process's.
#[tokio::test]
async fn without_file_descriptors_the_port_pauses_and_then_goes_on() {
    let relay = relay(|_| {}).await;
    let mut first = peer(&relay).await;
    let in_use = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    // A client's socket takes one descriptor, the relay's end of it another: the fourth is missing.
    limit_files(in_use + 3);
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::net::TcpStream::connect(relay.addr()).await {
        waiting.push(stream);
    }
    let paused = async {
        while relay.metrics().sum("culvert_relay_accept_pauses_total", &[]) < 1.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), paused).await.expect("the accept loop pauses");
    first.peer.sync(1).await.unwrap();
    drop(waiting);
    limit_files(in_use + 100);
    let mut late = peer(&relay).await;
    late.peer.sync(2).await.unwrap();
    relay.kill().await.unwrap();
}
