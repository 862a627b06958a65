//! `culvert id`: this user's key, made when it is first needed.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use culvert_client::{Identity, SystemRng};

use crate::cli::IdArgs;
use crate::{folders, keys};

pub(crate) fn run(args: &IdArgs) -> Result<()> {
    let path = path()?;
    let identity = load_or_make(&path)?;
    let mut out = io::stdout();
    writeln!(out, "{}", identity.peer_id())?;
    if args.show {
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}

/// This user's identity.
pub(crate) fn identity() -> Result<Identity> {
    load_or_make(&path()?)
}

fn path() -> Result<PathBuf> {
    Ok(folders::config()?.join("identity.pem"))
}

fn load_or_make(path: &Path) -> Result<Identity> {
    if !path.exists() {
        if let Some(folder) = path.parent() {
            folders::make_private(folder)?;
        }
        let identity = Identity::generate(&mut SystemRng);
        match folders::write_private(path, keys::private_pem(&identity).as_bytes()) {
            Ok(()) => return Ok(identity),
            // Another culvert was faster; its key counts.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("cannot write {}", path.display())),
        }
    }
    folders::check_private(path)?;
    keys::read_private(path)
}
