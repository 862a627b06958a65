//! Files, folders and standard input through a real relay.

use anyhow::Result;
use culvert_testkit::process::Source;

use crate::support::{Home, LONG, Relay, content, ended, link, names};

#[tokio::test]
async fn files_and_folders_arrive_and_both_sides_end() -> Result<()> {
    let relay = Relay::start(&["--open"]).await?;
    let (sender, receiver) = (Home::new()?, Home::new()?);
    sender.file("notes.txt", 1234)?;
    sender.file("dir/a/large", 2_000_000)?;
    sender.file("dir/small", 10)?;
    std::fs::create_dir(sender.path("dir/empty"))?;
    let mut sends = relay.send(&sender, ["notes.txt", "dir"]).start()?;
    let link = link(&sends).await?;
    let mut receives = relay.receive(&receiver, &link, [""; 0]).start()?;
    let (code, out, err) = ended(&mut receives).await?;
    assert_eq!(code, 0, "{err}");
    let paths: Vec<&str> = out.lines().collect();
    assert_eq!(
        paths,
        [
            receiver.path("out/notes.txt").display().to_string(),
            receiver.path("out/dir").display().to_string()
        ]
    );
    assert_eq!(std::fs::read(receiver.path("out/notes.txt"))?, content(1234));
    assert_eq!(std::fs::read(receiver.path("out/dir/a/large"))?, content(2_000_000));
    assert_eq!(names(&receiver.path("out/dir"))?, ["a", "empty", "small"]);
    sends.succeeds(LONG).await?;
    assert_eq!(sends.output().text(Source::Stdout).lines().count(), 1, "the link is the only result");
    Ok(())
}

#[tokio::test]
async fn standard_input_arrives_under_the_name_it_was_given() -> Result<()> {
    let relay = Relay::start(&["--open"]).await?;
    let (sender, receiver) = (Home::new()?, Home::new()?);
    let mut sends = relay.send(&sender, ["-", "--name", "piped.bin"]).with_stdin().start()?;
    let link = link(&sends).await?;
    let mut receives = relay.receive(&receiver, &link, [""; 0]).start()?;
    sends.feed(&content(700_000)).await?;
    sends.feed(&content(50_000)).await?;
    sends.end_stdin();
    receives.succeeds(LONG).await?;
    sends.succeeds(LONG).await?;
    let expected = [content(700_000), content(50_000)].concat();
    assert!(std::fs::read(receiver.path("out/piped.bin"))? == expected);
    Ok(())
}

#[tokio::test]
async fn one_sender_serves_several_receivers_when_told_to_stay() -> Result<()> {
    let relay = Relay::start(&["--open"]).await?;
    let sender = Home::new()?;
    sender.file("x", 500_000)?;
    let mut sends = relay.send(&sender, ["x", "--keep"]).start()?;
    let link = link(&sends).await?;
    for _ in 0..2 {
        let receiver = Home::new()?;
        relay.receive(&receiver, &link, [""; 0]).start()?.succeeds(LONG).await?;
        assert_eq!(std::fs::read(receiver.path("out/x"))?, content(500_000));
    }
    sends.signal(culvert_testkit::process::Signal::INT)?;
    sends.succeeds(LONG).await
}

#[tokio::test]
async fn a_file_that_exists_is_replaced_only_when_told() -> Result<()> {
    let relay = Relay::start(&["--open"]).await?;
    let (sender, receiver) = (Home::new()?, Home::new()?);
    sender.file("x", 5000)?;
    receiver.file("out/x", 100)?;
    let mut sends = relay.send(&sender, ["x"]).start()?;
    let link = link(&sends).await?;
    let (code, out, err) = ended(&mut relay.receive(&receiver, &link, [""; 0]).start()?).await?;
    assert_eq!(code, 1);
    assert!(err.contains("--overwrite") && out.is_empty(), "{err}");
    assert_eq!(std::fs::read(receiver.path("out/x"))?, content(100));
    // The link may come by standard input, where `ps` does not show it.
    let mut receives = relay.receive(&receiver, "-", ["--overwrite"]).with_stdin().start()?;
    receives.feed(format!("{link}\n").as_bytes()).await?;
    receives.end_stdin();
    receives.succeeds(LONG).await?;
    assert_eq!(std::fs::read(receiver.path("out/x"))?, content(5000));
    sends.succeeds(LONG).await
}

#[tokio::test]
async fn json_gives_the_link_the_progress_and_the_paths() -> Result<()> {
    let relay = Relay::start(&["--open"]).await?;
    let (sender, receiver) = (Home::new()?, Home::new()?);
    sender.file("x", 200_000)?;
    let mut sends = relay.send(&sender, ["x", "--json"]).start()?;
    let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok();
    let link = sends.line(LONG, |line| parse(line)?["link"].as_str().map(str::to_owned)).await?;
    let (code, out, _) = ended(&mut relay.receive(&receiver, &link, ["--json"]).start()?).await?;
    assert_eq!(code, 0);
    let events: Vec<_> = out.lines().map(|line| parse(line).expect(line)).collect();
    let path = receiver.path("out/x").display().to_string();
    let has = |event: &str| events.iter().any(|e| e["event"] == event);
    assert!(has("progress") && has("finished"), "{out}");
    assert!(events.iter().any(|e| e["event"] == "received" && e["path"] == path.as_str()), "{out}");
    sends.succeeds(LONG).await
}

#[tokio::test]
async fn without_the_relays_authority_the_error_says_what_to_do() -> Result<()> {
    let relay = Relay::start(&["--open"]).await?;
    let home = Home::new()?;
    home.file("x", 10)?;
    let (code, _, err) = home.ends(["send", "x", "--relay", &relay.url()]).await?;
    assert_eq!(code, 1);
    assert!(err.contains("culvert test authority") && err.contains("CA file"), "{err}");
    Ok(())
}
