//! Keys, tickets, and who gets in with what.

use std::os::unix::fs::PermissionsExt;

use anyhow::Result;

use crate::support::{Home, LONG, Relay, content, ended, link};

/// A home whose owner issues tickets: `tickets.key` and `tickets.pub`.
async fn issuer() -> Result<Home> {
    let home = Home::new()?;
    assert_eq!(home.ends(["ticket", "keygen", "tickets"]).await?.0, 0);
    Ok(home)
}

async fn issue(issuer: &Home, peer: &str, more: &[&str]) -> Result<String> {
    let args = [&["ticket", "issue", "--key", "tickets.key", "--peer", peer], more].concat();
    let (code, out, err) = issuer.ends(args).await?;
    assert_eq!(code, 0, "{err}");
    Ok(out)
}

#[tokio::test]
async fn keys_are_private_and_never_replaced() -> Result<()> {
    let home = issuer().await?;
    let before = std::fs::read(home.path("tickets.key"))?;
    assert_eq!(home.path("tickets.key").metadata()?.permissions().mode() & 0o777, 0o600);
    let (code, _, err) = home.ends(["ticket", "keygen", "tickets"]).await?;
    assert!(code == 1 && err.contains("exists"), "{err}");
    assert_eq!(std::fs::read(home.path("tickets.key"))?, before);
    Ok(())
}

#[tokio::test]
async fn a_ticket_shows_its_claims_and_whether_it_verifies() -> Result<()> {
    let home = issuer().await?;
    let me = home.id().await?;
    let ticket =
        issue(&home, &me, &["--invites", "3", "--tenant", "lab", "--frames-per-second", "50"]).await?;
    std::fs::write(home.path("t"), &ticket)?;
    let (code, out, err) = home.ends(["ticket", "show", "t", "--key", "tickets.pub"]).await?;
    assert_eq!(code, 0, "{err}");
    let claims: serde_json::Value = serde_json::from_str(&out)?;
    assert_eq!(claims["sub"], me.as_str());
    assert_eq!((&claims["invites"], &claims["tenant"]), (&3.into(), &"lab".into()));
    assert_eq!(claims["limits"]["frames_per_second"], 50);
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 3600);
    assert!(err.contains("verifies"), "{err}");

    let other = issuer().await?;
    std::fs::write(other.path("t"), &ticket)?;
    let (code, _, err) = other.ends(["ticket", "show", "t", "--key", "tickets.pub"]).await?;
    assert!(code == 3 && err.contains("does not verify"), "{err}");
    let (code, _, err) = other.ends(["ticket", "show", "t"]).await?;
    assert!(code == 0 && err.contains("not checked"), "{err}");
    Ok(())
}

/// The whole way on a relay that admits nobody without a ticket: the sender has one, the receiver has
/// nothing but the link.
#[tokio::test]
async fn an_invitation_in_the_link_lets_the_receiver_in() -> Result<()> {
    let operator = issuer().await?;
    let keys = operator.path("tickets.pub").display().to_string();
    let relay = Relay::start(&["--ticket-keys", &keys]).await?;
    let (sender, receiver) = (Home::new()?, Home::new()?);
    sender.file("x", 300_000)?;

    let (code, _, err) = ended(&mut relay.send(&sender, ["x"]).start()?).await?;
    assert_eq!(code, 3, "without a ticket the relay refuses: {err}");
    assert!(err.contains("not_admitted"), "{err}");

    let ticket = issue(&operator, &sender.id().await?, &["--invites", "1"]).await?;
    std::fs::write(sender.path("me.ticket"), ticket)?;
    let mut sends = relay.send(&sender, ["x", "--ticket", "me.ticket"]).start()?;
    let link = link(&sends).await?;
    let (code, out, err) = ended(&mut relay.receive(&receiver, &link, [""; 0]).start()?).await?;
    assert_eq!(code, 0, "{err}");
    assert_eq!(out.trim(), receiver.path("out/x").display().to_string());
    assert_eq!(std::fs::read(receiver.path("out/x"))?, content(300_000));
    sends.succeeds(LONG).await
}

#[tokio::test]
async fn tickets_that_cannot_work_are_refused_before_the_relay_is_asked() -> Result<()> {
    let home = issuer().await?;
    home.file("x", 10)?;
    let me = home.id().await?;
    let topic = "ab".repeat(32);
    for (peer, more, sentence) in [
        ("cd".repeat(32), vec![], "is for the peer cdcd"),
        (me.clone(), vec!["--topics", &topic], "certain topics only"),
    ] {
        std::fs::write(home.path("t"), issue(&home, &peer, &more).await?)?;
        let args = ["send", "x", "--relay", "wss://localhost:1", "--ticket", "t"];
        let (code, _, err) = home.ends(args).await?;
        assert_eq!(code, 3, "{err}");
        assert!(err.contains(sentence), "{err}");
    }
    Ok(())
}

#[tokio::test]
async fn a_link_can_carry_the_relays_access_token_and_says_so() -> Result<()> {
    let (sender, receiver) = (Home::new()?, Home::new()?);
    sender.file("x", 1000)?;
    std::fs::write(sender.path("token"), "correct horse battery staple\n")?;
    let token = sender.path("token").display().to_string();
    let relay = Relay::start(&["--access-token-file", &token]).await?;
    let (code, _, err) = ended(&mut relay.send(&sender, ["x"]).start()?).await?;
    assert_eq!(code, 3, "{err}");
    let mut sends = relay.send(&sender, ["x", "--access-token-file", "token"]).start()?;
    let link = link(&sends).await?;
    sends.line(LONG, |line| line.contains("carries the relay's access token").then_some(())).await?;
    relay.receive(&receiver, &link, [""; 0]).start()?.succeeds(LONG).await?;
    assert_eq!(std::fs::read(receiver.path("out/x"))?, content(1000));
    sends.succeeds(LONG).await
}
