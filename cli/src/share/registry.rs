//! Which paths of this machine stand behind which shares.
//!
//! `culvert share` writes it, `culvert serve` reads it at every request, so that a share can be given out, or
//! is no longer, at once. It holds tokens, so only this user can read it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use culvert_client::broker::ShareToken;
use serde::{Deserialize, Serialize};

use crate::folders;

/// A share and what stands behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shared {
    pub(crate) broker_url: String,
    pub(crate) user_id: String,
    pub(crate) result_id: String,
    pub(crate) token: ShareToken,
    pub(crate) title: String,
    pub(crate) paths: Vec<PathBuf>,
}

/// All shares of this user of this machine.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    folder: PathBuf,
}

impl Registry {
    pub(crate) fn of_this_user() -> Result<Self> {
        Self::in_folder(folders::data()?.join("broker"))
    }

    fn in_folder(folder: PathBuf) -> Result<Self> {
        folders::make_private(&folder)?;
        Ok(Self { folder })
    }

    fn file(&self) -> PathBuf {
        self.folder.join("shared.json")
    }

    pub(crate) fn list(&self) -> Result<Vec<Shared>> {
        let file = self.file();
        match fs::read(&file) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", file.display()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    pub(crate) fn add(&self, shared: Shared) -> Result<()> {
        self.change(|list| {
            list.retain(|known| known.token != shared.token);
            list.push(shared);
        })
    }

    pub(crate) fn remove(&self, token: &ShareToken) -> Result<()> {
        self.change(|list| list.retain(|known| known.token != *token))
    }

    /// One command at a time changes it; it is replaced in one step.
    fn change(&self, change: impl FnOnce(&mut Vec<Shared>)) -> Result<()> {
        let lock = self.folder.join("shared.lock");
        let locked = lock_file(&lock).with_context(|| format!("cannot lock {}", lock.display()))?;
        let mut list = self.list()?;
        change(&mut list);
        let file = self.file();
        let write = || {
            // Mode 0600, by tempfile's promise.
            let mut new = tempfile::NamedTempFile::new_in(&self.folder)?;
            new.write_all(&serde_json::to_vec_pretty(&list)?)?;
            new.as_file().sync_all()?;
            new.persist(&file).map_err(|error| error.error)?;
            io::Result::Ok(())
        };
        write().with_context(|| format!("cannot write {}", file.display()))?;
        drop(locked);
        Ok(())
    }
}

fn lock_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    file.lock()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_added_and_removed_by_several_commands_at_once_and_none_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::in_folder(dir.path().join("broker")).unwrap();
        let shared = |n: usize| Shared {
            broker_url: "wss://b/ws".into(),
            user_id: "alice".into(),
            result_id: n.to_string(),
            token: ShareToken::generate(),
            title: "t".into(),
            paths: vec!["/tmp/x".into()],
        };
        std::thread::scope(|scope| {
            for n in 0..8 {
                let registry = registry.clone();
                scope.spawn(move || registry.add(shared(n)).unwrap());
            }
        });
        let list = registry.list().unwrap();
        assert_eq!(list.len(), 8);
        registry.remove(&list[3].token).unwrap();
        assert_eq!(registry.list().unwrap().len(), 7);
        fs::write(registry.file(), "{").unwrap();
        assert!(registry.list().is_err());
    }
}
