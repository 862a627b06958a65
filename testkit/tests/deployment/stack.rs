//! The services of the compose file on loopback: its settings, secrets of `deploy/secrets.sh`, `deploy/haproxy.cfg`
//! in front, real Redis and Postgres behind. Only addresses and ports are others.

mod tunnel;
mod world;

use std::time::Duration;

use anyhow::Result;
use culvert_testkit::process::Signal;
use culvert_testkit::user::{self, User};
use tokio::time::{Instant, interval};

use crate::LONG;
use world::{PACE, World};

/// So large that it takes ten seconds at that pace.
const SIZE: u64 = 10 * PACE;
/// With what the world sets, a relay ends within this.
const DRAINED: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_and_shares_pass_through_the_one_port_and_a_relay_that_stops_costs_nothing() -> Result<()> {
    let mut world = World::start().await?;
    let (anna, ben) = (User::new().await?, User::new().await?);

    // What an operator does first.
    let ticket = world.ticket(&anna).await?;
    let mut doctor = world
        .culvert(&anna, "doctor")
        .args([&*world.relay_url(), "--transfer", "--ticket"])
        .arg(&ticket)
        .start()?;
    doctor.succeeds(LONG).await?;
    assert!(doctor.output().contains("passed a file to"), "{}", doctor.output().tail());
    // Another name leads nowhere.
    let mut doctor = world.culvert(&anna, "doctor").arg("wss://other.culvert.test").start()?;
    assert!(!doctor.wait(LONG).await?.success(), "{}", doctor.output().tail());

    // A file, while the relay of one of the two is stopped.
    let sent = world::random_file(anna.home(), SIZE)?;
    let send = world.culvert(&anna, "send").args(["--relay", &world.relay_url(), "--ticket"]).arg(&ticket);
    let mut sender = send.arg(&sent).start()?;
    let link = user::link(&sender).await?;
    let mut receiver = world.culvert(&ben, "receive").args([&link, "--json", "--out", "in"]).start()?;
    let under_way = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        (event["event"] == "progress" && event["bytes"].as_u64()? > SIZE / 20).then_some(())
    };
    receiver.line(LONG, under_way).await?;
    let stopped = world.busiest_relay().await?;
    world.relays[stopped].process.signal(Signal::TERM)?;
    world.relays[stopped].process.succeeds(DRAINED).await?;
    assert!(receiver.is_running(), "the transfer was over before the relay had stopped");
    receiver.succeeds(LONG).await?;
    sender.succeeds(LONG).await?;
    assert!(std::fs::read(ben.home().join("in/file"))? == std::fs::read(&sent)?, "another file arrived");
    for (who, process) in [("sender", &sender), ("receiver", &receiver)] {
        let said = process.output().tail();
        assert!(!said.contains("Waiting for it to come back") && !said.contains("stopped"), "{who}: {said}");
    }
    world.start_relay_again(stopped).await?;

    // A share, by the broker behind the other name.
    world.log_in(&anna, "anna").await?;
    world.log_in(&ben, "ben").await?;
    std::fs::create_dir(anna.home().join("shared"))?;
    let shared = world::random_file(&anna.home().join("shared"), PACE)?;
    let serves = world.culvert(&anna, "serve").arg("shared").start()?;
    serves.line(LONG, |line| line.starts_with("Serving ").then_some(())).await?;
    let mut shares = world.culvert(&anna, "share").args(["shared/file", "--to", "users:ben"]).start()?;
    let link = user::link(&shares).await?;
    shares.succeeds(LONG).await?;
    let mut fetches = world.culvert(&ben, "fetch").args([&link, "--out", "fetched"]).start()?;
    fetches.succeeds(LONG).await?;
    assert!(fetches.output().contains("through the relay"), "{}", fetches.output().tail());
    assert!(
        std::fs::read(ben.home().join("fetched/file"))? == std::fs::read(&shared)?,
        "another file arrived"
    );

    // The users of Redis had all the rights that they needed.
    assert_eq!(world.refused_by_redis().await?, Vec::<String>::new());
    Ok(())
}

/// Asks until it is so.
async fn until(what: &str, asked: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + LONG;
    let mut ticks = interval(Duration::from_millis(100));
    loop {
        ticks.tick().await;
        if asked().await? {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < end, "{what}: not after {LONG:?}");
    }
}
