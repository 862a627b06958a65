//! A cluster through a real Redis: what it looks like, and what is revoked there.

use std::time::Instant;

use anyhow::Result;
use culvert_testkit::process::Source;
use culvert_testkit::redis::{RedisPlan, RedisServer};

use crate::support::{Home, LONG, Relay, ended, has_bytes, link, names};

async fn redis() -> Result<(RedisServer, String)> {
    let server = RedisPlan::new()?.start().await?;
    let url = server.reach().url();
    Ok((server, url))
}

#[tokio::test]
async fn the_status_shows_every_node_to_people_and_to_programs() -> Result<()> {
    let (_server, url) = redis().await?;
    let home = Home::new()?;
    let status = ["cluster", "status", "--redis", &url];
    let (code, out, err) = home.ends(status).await?;
    assert!(code == 1 && out.is_empty() && err.contains("no node is registered"), "{err}");

    let token = home.path("token");
    std::fs::write(&token, "correct horse battery staple")?;
    let flags = ["--access-token-file", &token.display().to_string(), "--redis", &url].map(str::to_owned);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let (left, right) = (Relay::start(&flags).await?, Relay::start(&flags).await?);
    let nodes = async || -> Result<serde_json::Value> {
        let (code, out, err) = home.ends([&status[..], &["--json"]].concat()).await?;
        assert_eq!(code, 0, "{err}");
        Ok(serde_json::from_str(&out)?)
    };
    let shown = nodes().await?;
    assert_eq!(shown["nodes"].as_array().map(Vec::len), Some(2), "{shown}");
    for node in shown["nodes"].as_array().into_iter().flatten() {
        assert_eq!((&node["live"], &node["version"]), (&true.into(), &env!("CARGO_PKG_VERSION").into()));
        let left = node["lease_ends_in_ms"].as_u64();
        assert!(left.is_some_and(|left| left > 0 && Some(left) <= node["lease_ms"].as_u64()), "{node}");
        assert_eq!(node["instance"].as_str().map(str::len), Some(16), "{node}");
    }
    assert_eq!(shown["redis"]["problems"], serde_json::json!([]));
    // A node is in touch with the cluster a moment after it has its place there.
    let deadline = Instant::now() + LONG;
    let out = loop {
        let (code, out, err) = home.ends(status).await?;
        assert_eq!(code, 0, "{err}");
        if out.matches(" ok").count() == 2 {
            break out;
        }
        assert!(Instant::now() < deadline, "{out}");
    };
    assert!(out.trim_start().starts_with("NODE"), "{out}");
    assert_eq!(out.matches(" of 7.0 s").count(), 2, "{out}");
    assert!(out.contains("2 live nodes, 0 connections, 0 memberships; 0 revocations in force."), "{out}");
    drop((left, right));
    Ok(())
}

#[tokio::test]
async fn a_redis_that_is_not_given_or_not_there_is_said_with_what_to_do() -> Result<()> {
    let home = Home::new()?;
    let peer = "ab".repeat(32);
    for command in [vec!["cluster", "status"], vec!["ticket", "revoke", "--peer", &peer]] {
        let (code, _, err) = home.ends(&command).await?;
        assert!(code == 2 && err.contains("--redis") && err.contains("CULVERT_RELAY_REDIS"), "{err}");
        let wrong = ["--redis", "redis://user:secret@localhost"];
        let (code, _, err) = home.ends([&command[..], &wrong].concat()).await?;
        assert!(code == 2 && err.contains("must not hold a user") && !err.contains("secret"), "{err}");
        let nobody = ["--redis", "redis://127.0.0.1:9", "--redis-timeout", "500ms"];
        let (code, _, err) = home.ends([&command[..], &nobody].concat()).await?;
        assert!(code == 1 && err.contains("127.0.0.1:9"), "{code}: {err}");
    }
    for neither_or_both in [vec![], vec!["--peer", &peer, "--ticket", "x"]] {
        let (code, _, _) = home.ends([&["ticket", "revoke"], &neither_or_both[..]].concat()).await?;
        assert_eq!(code, 2);
    }
    Ok(())
}

#[tokio::test]
async fn a_revoked_ticket_ends_a_transfer_and_lets_nobody_in_again() -> Result<()> {
    let (_server, url) = redis().await?;
    let (operator, sender) = (Home::new()?, Home::new()?);
    assert_eq!(operator.ends(["ticket", "keygen", "tickets"]).await?.0, 0);
    let keys = operator.path("tickets.pub").display().to_string();
    let relay = Relay::start(&["--ticket-keys", &keys, "--redis", &url]).await?;
    let me = sender.id().await?;
    let issue = async || -> Result<String> {
        let args = ["ticket", "issue", "--key", "tickets.key", "--peer", &me, "--invites", "1"];
        Ok(operator.ends(args).await?.1.trim().to_owned())
    };
    let revoke = async |what: &[&str]| -> Result<String> {
        let args = [&["ticket", "revoke", "--redis", &url], what].concat();
        let (code, _, err) = operator.ends(args).await?;
        assert_eq!(code, 0, "{err}");
        Ok(err)
    };
    sender.file("x", 1000)?;
    let first = issue().await?;
    std::fs::write(sender.path("t"), &first)?;
    let mut sends = relay.send(&sender, ["x", "--ticket", "t"]).start()?;
    link(&sends).await?;
    let said = revoke(&["--ticket", &first]).await?;
    assert!(said.contains("for 59 min") || said.contains("for 1 h 0 min"), "as long as it lives: {said}");
    let (code, _, err) = ended(&mut sends).await?;
    assert!(code == 3 && err.contains("revoked"), "{code}: {err}");
    let (code, _, err) = ended(&mut relay.send(&sender, ["x", "--ticket", "t"]).start()?).await?;
    assert!(code == 3 && err.contains("revoked"), "{code}: {err}");

    // Another ticket of the same peer is not touched, until the peer itself is.
    std::fs::write(sender.path("t"), issue().await?)?;
    let mut sends = relay.send(&sender, ["x", "--ticket", "t"]).start()?;
    link(&sends).await?;
    let said = revoke(&["--peer", &me, "--for", "2h"]).await?;
    assert!(said.contains(&me), "{said}");
    let (code, _, err) = ended(&mut sends).await?;
    assert!(code == 3 && err.contains("revoked"), "{code}: {err}");
    let (_, out, _) = operator.ends(["cluster", "status", "--redis", &url]).await?;
    assert!(out.contains("2 revocations in force"), "{out}");
    assert!(sends.output().text(Source::Stderr).contains("ask the operator"));
    Ok(())
}

#[tokio::test]
async fn a_receiver_whose_way_in_is_revoked_in_mid_transfer_says_so_and_keeps_what_it_has() -> Result<()> {
    const SIZE: usize = 8 << 20;
    let (_server, url) = redis().await?;
    let (operator, sender, receiver) = (Home::new()?, Home::new()?, Home::new()?);
    assert_eq!(operator.ends(["ticket", "keygen", "tickets"]).await?.0, 0);
    let keys = operator.path("tickets.pub").display().to_string();
    // So slow that the transfer is under way when the ticket is revoked.
    let slow = ["--ticket-keys", &keys, "--redis", &url, "--connection-bytes", "512KiB"];
    let relay = Relay::start(&slow).await?;
    let me = sender.id().await?;
    let issue = ["ticket", "issue", "--key", "tickets.key", "--peer", &me, "--invites", "1"];
    let (_, ticket, _) = operator.ends(issue).await?;
    std::fs::write(sender.path("t"), ticket.trim())?;
    sender.file("large", SIZE)?;
    let sends = relay.send(&sender, ["large", "--ticket", "t"]).start()?;
    let mut receives = relay.receive(&receiver, &link(&sends).await?, ["--json"]).start()?;
    has_bytes(&receives, 1 << 20).await?;
    assert!(receives.is_running(), "the transfer was over before the ticket was revoked");

    let revoke = ["ticket", "revoke", "--redis", &url, "--ticket", ticket.trim()];
    assert_eq!(operator.ends(revoke).await?.0, 0);
    let (code, _, err) = ended(&mut receives).await?;
    assert!(code == 3 && err.contains("revoked"), "{code}: {err}");
    let out = receiver.path("out");
    let kept = names(&out)?;
    assert!(!kept.is_empty() && !kept.contains(&"large".to_owned()), "{kept:?}");
    Ok(())
}
