//! Where the programs under test are, and those of others that the tests run.
//!
//! `test.sh` builds them once and says where (`CULVERT_BIN_DIR`); without it the first test that needs
//! one builds all, in release, as users run them. The others are installed by `test.sh`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use thiserror::Error;
use tokio::process::Command;
use tokio::sync::OnceCell;

/// The variable that names the folder with the release binaries.
pub const BIN_DIR: &str = "CULVERT_BIN_DIR";

/// The `culvert` command.
///
/// # Errors
/// It is not where `CULVERT_BIN_DIR` says, or does not build.
pub async fn culvert() -> Result<PathBuf> {
    find("culvert").await
}

/// The `culvert-relay` server.
///
/// # Errors
/// As for [`culvert`].
pub async fn relay() -> Result<PathBuf> {
    find("culvert-relay").await
}

/// The `culvert-broker-api` server.
///
/// # Errors
/// As for [`culvert`].
pub async fn broker() -> Result<PathBuf> {
    find("culvert-broker-api").await
}

/// The workspace's folder.
pub fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A program of others that is not installed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{program} is missing: run ./test.sh once, or apt-get install {package}")]
pub struct Missing {
    /// Where it was looked for.
    pub program: String,
    /// The Debian package that has it.
    pub package: &'static str,
}

/// The first of these programs that exists.
pub(crate) fn installed(candidates: &[&str], package: &'static str) -> Result<PathBuf, Missing> {
    let found = candidates.iter().map(Path::new).find(|path| path.is_file());
    found.map(Path::to_owned).ok_or_else(|| Missing { program: candidates.join(", "), package })
}

async fn find(name: &str) -> Result<PathBuf> {
    static FOLDER: OnceCell<PathBuf> = OnceCell::const_new();
    let folder = FOLDER.get_or_try_init(folder).await?;
    let path = folder.join(name);
    if !path.is_file() {
        bail!("{} does not exist; build it, or point {BIN_DIR} at the binaries", path.display());
    }
    Ok(path)
}

async fn folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(BIN_DIR) {
        return Ok(folder.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--bins",
            "-p",
            "culvert",
            "-p",
            "culvert-relay",
            "-p",
            "culvert-broker-api",
        ])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(workspace())
        .stderr(std::process::Stdio::inherit())
        .output()
        .await
        .context("cargo does not start")?;
    if !built.status.success() {
        bail!("the binaries do not build");
    }
    let messages = String::from_utf8_lossy(&built.stdout);
    let executable = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    });
    let folder = executable.as_deref().and_then(Path::parent);
    folder.map(Path::to_owned).context("cargo named no executable")
}
