//! A fault that a command of the operator makes.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::time::timeout;

/// Characters of what a failed command said that are repeated.
const SAID: usize = 300;

/// Runs it in a shell and waits for its end.
///
/// # Errors
/// It fails, or does not end in time; then it is killed.
pub(super) async fn run(command: &str, deadline: Duration) -> Result<()> {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let ended = timeout(deadline, shell.output()).await;
    let ended = ended.with_context(|| format!("the fault command `{command}` runs after {deadline:?}"))?;
    let ended = ended.with_context(|| format!("the fault command `{command}` does not start"))?;
    let said: String = String::from_utf8_lossy(&ended.stderr).trim().chars().take(SAID).collect();
    ensure!(ended.status.success(), "the fault command `{command}` ended with {}: {said}", ended.status);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_command_that_fails_says_what_it_said() {
        run("true", DEADLINE).await.unwrap();
        let error = run("echo no such pod >&2; exit 3", DEADLINE).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("no such pod"), "{error}");
    }

    #[tokio::test]
    async fn a_command_that_does_not_end_is_given_up() {
        let error = run("sleep 60", Duration::from_millis(100)).await.unwrap_err().to_string();
        assert!(error.contains("sleep 60"), "{error}");
    }
}
