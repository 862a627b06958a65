//! Killed processes, Ctrl-C and full disks: what arrived is kept, and the rest comes later.

use anyhow::Result;
use culvert_testkit::process::{Process, Signal};

use crate::support::{Home, LONG, Relay, content, ended, has_bytes, link, names};

/// Large enough to be interrupted at this rate, small enough to be tested.
const SIZE: usize = 24_000_000;
const SLOW: &[&str] = &["--open", "--connection-bytes", "8MiB"];
/// A journal is written after 16 MiB or 2 s; by here one was, at the rate above.
const LATER: u64 = 18_500_000;

async fn sending(relay: &Relay, home: &Home) -> Result<(Process, String)> {
    home.file("x", SIZE)?;
    let sends = relay.send(home, ["x"]).start()?;
    let link = link(&sends).await?;
    Ok((sends, link))
}

fn arrived(home: &Home) -> Result<()> {
    assert!(std::fs::read(home.path("out/x"))? == content(SIZE));
    assert_eq!(names(&home.path("out"))?, ["x"], "no partial file is left");
    Ok(())
}

#[tokio::test]
async fn a_killed_receiver_goes_on_where_it_was() -> Result<()> {
    let relay = Relay::start(SLOW).await?;
    let (sender, receiver) = (Home::new()?, Home::new()?);
    let (mut sends, link) = sending(&relay, &sender).await?;
    let receives = relay.receive(&receiver, &link, ["--json"]).start()?;
    has_bytes(&receives, LATER).await?;
    receives.kill().await?;
    assert_eq!(names(&receiver.path("out"))?, ["x.part", "x.part.journal"]);

    let mut again = relay.receive(&receiver, &link, [""; 0]).start()?;
    let (code, _, err) = ended(&mut again).await?;
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("x: going on at"), "it starts over: {err}");
    arrived(&receiver)?;
    sends.succeeds(LONG).await
}

#[tokio::test]
async fn a_killed_relay_that_comes_back_costs_nothing() -> Result<()> {
    let mut relay = Relay::start(SLOW).await?;
    let (sender, receiver) = (Home::new()?, Home::new()?);
    let (mut sends, link) = sending(&relay, &sender).await?;
    let mut receives = relay.receive(&receiver, &link, ["--json"]).start()?;
    has_bytes(&receives, 6_000_000).await?;
    relay.kill().await?;
    relay.again().await?;
    receives.succeeds(LONG).await?;
    sends.succeeds(LONG).await?;
    arrived(&receiver)
}

#[tokio::test]
async fn ctrl_c_keeps_what_arrived_tells_the_sender_and_ends_with_4() -> Result<()> {
    let relay = Relay::start(SLOW).await?;
    let (sender, receiver) = (Home::new()?, Home::new()?);
    let (mut sends, link) = sending(&relay, &sender).await?;
    let mut receives = relay.receive(&receiver, &link, ["--json"]).start()?;
    has_bytes(&receives, 4_000_000).await?;
    receives.signal(Signal::INT)?;
    let (code, _, err) = ended(&mut receives).await?;
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("run the same command again"), "{err}");
    sends.line(LONG, |line| line.contains("it can go on with the same link").then_some(())).await?;
    let (code, _, err) = ended(&mut relay.receive(&receiver, &link, [""; 0]).start()?).await?;
    assert_eq!(code, 0, "{err}");
    // Nothing that arrived before the signal is fetched again.
    assert!(err.contains("x: going on at"), "{err}");
    arrived(&receiver)?;
    sends.succeeds(LONG).await
}

#[tokio::test]
async fn a_killed_sender_is_replaced_by_a_new_link() -> Result<()> {
    let relay = Relay::start(SLOW).await?;
    let (sender, receiver) = (Home::new()?, Home::new()?);
    let (sends, link) = sending(&relay, &sender).await?;
    let mut receives = relay.receive(&receiver, &link, ["--json"]).start()?;
    has_bytes(&receives, LATER).await?;
    sends.kill().await?;
    receives.signal(Signal::TERM)?;
    assert_eq!(ended(&mut receives).await?.0, 4);
    let (mut sends, link) = sending(&relay, &sender).await?;
    let (code, _, err) = ended(&mut relay.receive(&receiver, &link, [""; 0]).start()?).await?;
    assert!(code == 0 && err.contains("x: going on at"), "{err}");
    arrived(&receiver)?;
    sends.succeeds(LONG).await
}

/// The end of the killed receiver may not have been noticed yet when the next one comes.
#[tokio::test]
async fn a_killed_receiver_of_standard_input_goes_on_at_the_last_whole_segment() -> Result<()> {
    let relay = Relay::start(SLOW).await?;
    let (sender, receiver) = (Home::new()?, Home::new()?);
    let mut sends = relay.send(&sender, ["-", "--name", "x"]).with_stdin().start()?;
    let link = link(&sends).await?;
    sends.feed(&content(SIZE)).await?;
    sends.end_stdin();
    let receives = relay.receive(&receiver, &link, ["--json"]).start()?;
    has_bytes(&receives, LATER).await?;
    receives.kill().await?;
    let (code, _, err) = ended(&mut relay.receive(&receiver, &link, [""; 0]).start()?).await?;
    assert!(code == 0 && err.contains("x: going on at 16.00 MiB"), "{code}: {err}");
    arrived(&receiver)?;
    sends.succeeds(LONG).await
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_sent_is_reported_on_both_sides() -> Result<()> {
    let relay = Relay::start(SLOW).await?;
    let (sender, receiver) = (Home::new()?, Home::new()?);
    let (mut sends, link) = sending(&relay, &sender).await?;
    let mut receives = relay.receive(&receiver, &link, ["--json"]).start()?;
    has_bytes(&receives, 2_000_000).await?;
    let mut file = std::fs::File::options().append(true).open(sender.path("x"))?;
    std::io::Write::write_all(&mut file, b"more")?;
    let (code, _, err) = ended(&mut receives).await?;
    assert!(code == 1 && err.contains("it changed while it was being sent"), "{code}: {err}");
    assert!(names(&receiver.path("out"))?.is_empty(), "nothing wrong lands");
    let (code, _, err) = ended(&mut sends).await?;
    assert!(code == 1 && err.contains("changed while they were being sent"), "{code}: {err}");
    Ok(())
}

/// A real file system of 2 MiB, in a mount namespace of its own: full, then made larger.
#[tokio::test]
async fn a_full_disk_is_told_to_both_and_the_rest_comes_when_there_is_room() -> Result<()> {
    let relay = Relay::start(&["--open"]).await?;
    let (sender, receiver) = (Home::new()?, Home::new()?);
    sender.file("x", 5_000_000)?;
    let mut sends = relay.send(&sender, ["x"]).start()?;
    let link = link(&sends).await?;
    std::fs::create_dir(receiver.path("out"))?;
    let script = r#"
        set -u
        mount -t tmpfs -o size=2m tmpfs "$OUT" || exit 90
        "$CULVERT" receive "$LINK" --out "$OUT" --ca-file "$CA"; echo "first $?"
        ls "$OUT"
        mount -o remount,size=20m "$OUT" || exit 91
        "$CULVERT" receive "$LINK" --out "$OUT" --ca-file "$CA"; echo "second $?"
        cmp "$OUT/x" "$FILE" && echo same
        ls "$OUT"
    "#;
    let mut plan = receiver.run("unshare").args(["--mount"]);
    if !is_root() {
        plan = plan.args(["--user", "--map-root-user"]);
    }
    let mut shell = plan
        .args(["sh", "-c", script])
        .env("OUT", receiver.path("out"))
        .env("CULVERT", env!("CARGO_BIN_EXE_culvert"))
        .env("LINK", &link)
        .env("CA", relay.ca_file())
        .env("FILE", sender.path("x"))
        .start()?;
    let (_, out, err) = ended(&mut shell).await?;
    let lines: Vec<&str> = out.lines().collect();
    let expected = ["first 1", "x.part", "x.part.journal", "second 0", "same", "x"];
    let results: Vec<&str> = lines.iter().copied().filter(|line| !line.starts_with('/')).collect();
    assert_eq!(results, expected, "{err}");
    assert!(err.contains("no room for") && err.contains("x: going on at"), "{err}");
    sends.succeeds(LONG).await?;
    assert!(sends.output().contains("the disk there is full"), "{}", sends.output().tail());
    Ok(())
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    // The owner of this process' own entry.
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

#[tokio::test]
async fn a_sender_that_is_not_there_is_waited_for_only_as_long_as_said() -> Result<()> {
    let relay = Relay::start(&["--open"]).await?;
    let (sender, receiver) = (Home::new()?, Home::new()?);
    let (sends, link) = sending(&relay, &sender).await?;
    sends.kill().await?;
    let (code, _, err) = ended(&mut relay.receive(&receiver, &link, ["--wait", "1"]).start()?).await?;
    assert_eq!(code, 4);
    assert!(err.contains("is `culvert send` still running"), "{err}");
    Ok(())
}
