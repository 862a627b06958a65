//! Arguments, help, exit codes, and the commands that need nobody else.

use std::os::unix::fs::PermissionsExt;

use anyhow::Result;

use crate::support::Home;

#[tokio::test]
async fn help_is_on_standard_output_and_documents_the_exit_codes() -> Result<()> {
    let home = Home::new()?;
    let (code, out, _) = home.ends(["--help"]).await?;
    assert_eq!(code, 0);
    for expected in ["Exit codes:", "culvert demo", "interrupted", "send", "receive", "doctor", "ticket"] {
        assert!(out.contains(expected), "{expected}:\n{out}");
    }
    for command in
        ["send", "receive", "demo", "dev", "id", "ticket", "cluster", "doctor", "completions", "relay"]
    {
        let (code, out, _) = home.ends([command, "--help"]).await?;
        assert!(code == 0 && out.contains("Usage:"), "{command}: {code}\n{out}");
    }
    Ok(())
}

#[tokio::test]
async fn wrong_arguments_end_with_2_and_a_sentence() -> Result<()> {
    let home = Home::new()?;
    home.file("x", 10)?;
    let relay = ["--relay", "wss://localhost:1"];
    let cases: [(Vec<&str>, &str); 8] = [
        (vec!["nonsense"], "unrecognized subcommand"),
        (vec!["send", "x"], "--relay"),
        (vec!["send", "x", "--relay", "https://relay.example"], "wss://"),
        ([&["send", "-", "x"], &relay[..]].concat(), "together"),
        ([&["send", "-", "--keep"], &relay[..]].concat(), "only once"),
        (vec!["receive", "hello"], "not a link"),
        (vec!["receive", "eyJhbGciOiJFZERTQSJ9.e30.x"], "admission ticket"),
        (vec!["receive", "culvert:AQBX"], "damaged"),
    ];
    for (args, sentence) in cases {
        let (code, out, err) = home.ends(&args).await?;
        assert_eq!(code, 2, "{args:?}: {err}");
        assert!(err.contains(sentence), "{args:?}: {err}");
        assert!(out.is_empty(), "{args:?}: {out}");
    }
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_sent_is_said_before_anything_else_happens() -> Result<()> {
    let home = Home::new()?;
    let (code, out, err) = home.ends(["send", "missing", "--relay", "wss://localhost:1"]).await?;
    assert_eq!(code, 1);
    assert!(err.contains("cannot send missing") && out.is_empty(), "{err}");
    Ok(())
}

#[tokio::test]
async fn a_relay_that_is_not_there_is_a_failure_that_says_what_to_check() -> Result<()> {
    let home = Home::new()?;
    home.file("x", 10)?;
    let (code, _, err) = home.ends(["send", "x", "--relay", "ws://127.0.0.1:9"]).await?;
    assert_eq!(code, 1);
    assert!(err.contains("cannot use the relay") && err.contains("is it up"), "{err}");
    Ok(())
}

#[tokio::test]
async fn the_identity_is_made_once_and_only_its_owner_can_read_it() -> Result<()> {
    let home = Home::new()?;
    let (code, out, _) = home.ends(["id", "--show"]).await?;
    assert_eq!(code, 0);
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].len() == 64 && lines[0].bytes().all(|b| b.is_ascii_hexdigit()), "{out}");
    assert_eq!(home.id().await?, lines[0]);
    let path = std::path::Path::new(lines[1]);
    assert_eq!(path, home.path("config/culvert/identity.pem"));
    assert_eq!(path.metadata()?.permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o644))?;
    let (code, _, err) = home.ends(["id"]).await?;
    assert!(code == 1 && err.contains("chmod 600"), "{err}");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    std::fs::write(path, "nonsense")?;
    let (code, _, err) = home.ends(["id"]).await?;
    assert!(code == 1 && err.contains("no Ed25519 private key"), "{err}");
    Ok(())
}

#[tokio::test]
async fn completions_name_every_command() -> Result<()> {
    let home = Home::new()?;
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = home.ends(["completions", shell]).await?;
        assert_eq!(code, 0);
        assert!(
            ["send", "receive", "doctor", "ticket", "revoke", "cluster", "status"]
                .iter()
                .all(|c| out.contains(c)),
            "{shell}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_relay_command_is_the_relays_own_program() -> Result<()> {
    let home = Home::new()?;
    let (code, _, err) = home.ends(["relay", "--listen", "127.0.0.1:0"]).await?;
    assert_eq!(code, 64, "{err}");
    assert!(err.contains("open"), "{err}");
    let (code, out, _) =
        home.ends(["relay", "check-config", "--open", "--plain-text", "--listen", "127.0.0.1:0"]).await?;
    assert!(code == 0 && out.contains("127.0.0.1:0"), "{out}");
    Ok(())
}
