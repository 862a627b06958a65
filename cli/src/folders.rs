//! Where this user's keys and certificates are kept.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use etcetera::BaseStrategy;

/// The user's configuration folder for culvert.
pub(crate) fn config() -> Result<PathBuf> {
    Ok(strategy()?.config_dir().join("culvert"))
}

/// The user's data folder for culvert.
pub(crate) fn data() -> Result<PathBuf> {
    Ok(strategy()?.data_dir().join("culvert"))
}

fn strategy() -> Result<impl BaseStrategy> {
    etcetera::choose_base_strategy().context("this user has no home folder: set HOME")
}

/// Makes a folder that only this user can look into.
pub(crate) fn make_private(path: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).with_context(|| format!("cannot make the folder {}", path.display()))
}

/// Writes a file that only this user can read; one that exists is left alone and is an error.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Refuses a secret that others can read.
pub(crate) fn check_private(path: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path)?.permissions().mode();
        anyhow::ensure!(
            mode & 0o077 == 0,
            "{} can be read by others (mode {:o}); run: chmod 600 {}",
            path.display(),
            mode & 0o777,
            path.display()
        );
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}
