//! A person with the `culvert` command: a home of their own, nothing of the caller's settings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::binaries;
use crate::process::{Plan, Process};

/// From the start of `culvert send` to its link: the relay is reached in between.
const LINK: Duration = Duration::from_secs(60);

/// Somebody who runs `culvert`; keys, data and received files are in a folder that goes with them.
pub struct User {
    binary: PathBuf,
    home: TempDir,
}

impl User {
    /// A new one.
    ///
    /// # Errors
    /// The `culvert` command is not there and does not build.
    pub async fn new() -> Result<Self> {
        let home = tempfile::Builder::new().prefix("culvert-home-").tempdir()?;
        Ok(Self { binary: binaries::culvert().await?, home })
    }

    /// Their home.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// A `culvert` command that they type.
    pub fn culvert(&self, subcommand: &str) -> Plan {
        let home = self.home.path();
        Plan::new(&format!("culvert {subcommand}"), &self.binary)
            .arg(subcommand)
            .env("HOME", home)
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("XDG_DATA_HOME", home.join("data"))
            .current_dir(home)
    }
}

/// The link that a running `culvert send` prints.
///
/// # Errors
/// It prints none; the error shows what it printed.
pub async fn link(sender: &Process) -> Result<String> {
    let link = sender.line(LINK, |line| line.starts_with("culvert:").then(|| line.to_owned()));
    link.await.context("no link")
}
