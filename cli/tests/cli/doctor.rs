//! `culvert doctor`: stage by stage, and with a file that really passes.

use anyhow::Result;
use culvert_testkit::relay::RelayPlan;
use serde_json::Value;

use crate::support::{Home, Relay};

#[tokio::test]
async fn doctor_finds_a_way_or_says_what_blocks_it() -> Result<()> {
    let relay = Relay::start(&["--open"]).await?;
    let home = Home::new()?;
    let ca = relay.ca_file().display().to_string();
    let url = relay.url();
    let (code, out, err) = home.ends(["doctor", &url, "--ca-file", &ca]).await?;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("This network lets you use"), "{out}");
    let (code, out, err) = home.ends(["doctor", &url, "--json"]).await?;
    assert_eq!(code, 1, "{err}");
    let report: Value = serde_json::from_str(&out)?;
    assert_eq!(report["usable"], false);
    let checks = report["checks"].as_array().expect("checks");
    let failed: Vec<_> = checks.iter().filter(|check| check["outcome"] == "failed").collect();
    assert!(failed[0]["stage"] == "tls" && failed[0]["advice"].is_string(), "{out}");
    Ok(())
}

#[tokio::test]
async fn doctor_tells_a_refusal_from_a_blocked_network() -> Result<()> {
    let home = Home::new()?;
    std::fs::write(home.path("token"), "correct horse battery staple")?;
    let token = home.path("token").display().to_string();
    let relay = Relay::start(&["--access-token-file", &token]).await?;
    let ca = relay.ca_file().display().to_string();
    let (code, out, err) = home.ends(["doctor", &relay.url(), "--ca-file", &ca]).await?;
    assert_eq!(code, 3, "{out}{err}");
    let args = ["doctor", &relay.url(), "--ca-file", &ca, "--access-token-file", "token"];
    assert_eq!(home.ends(args).await?.0, 0);
    Ok(())
}

/// What `--transfer` prints as JSON.
async fn transfer(home: &Home, args: &[&str]) -> Result<(i32, Value, String)> {
    let (code, out, err) = home.ends([&["doctor", "--transfer", "--json"], args].concat()).await?;
    Ok((code, serde_json::from_str(&out)?, err))
}

#[tokio::test]
async fn doctor_passes_a_file_through_the_relay_when_asked() -> Result<()> {
    let relay = Relay::start(&["--open"]).await?;
    let home = Home::new()?;
    let (url, ca) = (relay.url(), relay.ca_file().display().to_string());
    let (code, out, err) = home.ends(["doctor", &url, "--ca-file", &ca, "--transfer"]).await?;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("passed a file to") && out.contains("1.00 MiB") && out.contains("BLAKE3"), "{out}");
    // Nobody's key was needed, so none was made.
    assert!(!home.path("config").exists());

    let size = ["--transfer-size", "3MiB"];
    let (code, answer, err) = transfer(&home, &[&[&*url, "--ca-file", &ca], &size[..]].concat()).await?;
    assert_eq!(code, 0, "{err}");
    assert_eq!((&answer["usable"], &answer["transfer"]["bytes"]), (&true.into(), &(3 << 20).into()));
    assert_eq!(answer["transfer"]["blake3"].as_str().map(str::len), Some(64), "{answer}");
    assert_ne!(answer["transfer"]["sender"], answer["transfer"]["receiver"]);
    let (code, _, err) = home.ends(["doctor", &url, "--transfer-size", "3MiB"]).await?;
    assert!(code == 2 && err.contains("--transfer"), "{err}");
    Ok(())
}

#[tokio::test]
async fn doctor_passes_a_file_in_clear_text_and_with_no_folder_for_temporary_files() -> Result<()> {
    let relay =
        RelayPlan::open(culvert_testkit::process::Program::from(env!("CARGO_BIN_EXE_culvert")).arg("relay"))?;
    let relay = relay.start().await?;
    let home = Home::new()?;
    let plan = home.culvert(["doctor", &relay.url(), "--transfer"]).env("TMPDIR", home.path("missing"));
    let mut doctor = plan.start()?;
    doctor.succeeds(crate::support::LONG).await?;
    assert!(doctor.output().contains("passed a file to"), "{}", doctor.output().tail());
    // It went over the relay, on two connections beside the one that looked.
    let metrics = relay.metrics().await?;
    assert!(metrics.sum("culvert_relay_bytes_forwarded_total", &[]) > f64::from(1 << 20));
    assert!(metrics.sum("culvert_relay_accepted_total", &[]) >= 3.0);
    Ok(())
}

#[tokio::test]
async fn doctor_passes_a_file_with_whatever_lets_a_user_in() -> Result<()> {
    let (operator, user) = (Home::new()?, Home::new()?);
    assert_eq!(operator.ends(["ticket", "keygen", "tickets"]).await?.0, 0);
    std::fs::write(user.path("token"), "correct horse battery staple")?;
    let keys = operator.path("tickets.pub").display().to_string();
    let token = user.path("token").display().to_string();
    let relay = Relay::start(&["--ticket-keys", &keys, "--access-token-file", &token]).await?;
    let (url, ca, me) = (relay.url(), relay.ca_file().display().to_string(), user.id().await?);
    let (code, answer, err) =
        transfer(&user, &[&url, "--ca-file", &ca, "--access-token-file", "token"]).await?;
    assert_eq!(code, 0, "{answer}{err}");
    for (invites, expected) in [("1", 0), ("0", 2)] {
        let issue = ["ticket", "issue", "--key", "tickets.key", "--peer", &me, "--invites", invites];
        std::fs::write(user.path("t"), operator.ends(issue).await?.1)?;
        let (code, answer, err) = transfer(&user, &[&url, "--ca-file", &ca, "--ticket", "t"]).await?;
        assert_eq!(code, expected, "{answer}{err}");
        assert!(code == 0 || err.contains("--invites 1"), "{err}");
    }
    Ok(())
}

/// The relay can be reached and lets peers in, so every stage passes, and yet nothing passes through it.
#[tokio::test]
async fn doctor_says_that_no_file_passes_although_every_stage_does() -> Result<()> {
    // 64 MiB would take a quarter of an hour.
    let relay = Relay::start(&["--open", "--connection-bytes", "64KiB"]).await?;
    let home = Home::new()?;
    let (url, ca) = (relay.url(), relay.ca_file().display().to_string());
    let args = [&*url, "--ca-file", &ca, "--transfer-timeout", "2", "--transfer-size", "64MiB"];
    let (code, answer, err) = transfer(&home, &args).await?;
    assert_eq!(code, 1, "{err}");
    assert_eq!(answer["usable"], true);
    assert!(answer["transfer"]["error"].as_str().is_some_and(|error| error.contains("2 s")), "{answer}");
    assert!(err.contains("no file passes") && err.contains("--transfer-timeout"), "{err}");
    Ok(())
}

#[tokio::test]
async fn doctor_passes_nothing_where_the_relay_cannot_be_used() -> Result<()> {
    let home = Home::new()?;
    let (code, answer, _) = transfer(&home, &["ws://127.0.0.1:9"]).await?;
    assert_eq!(code, 1);
    assert!(answer["usable"] == false && answer.get("transfer").is_none(), "{answer}");
    Ok(())
}
