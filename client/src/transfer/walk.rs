//! What the paths to send hold, listed into a temporary file before anything is hashed.
//!
//! Symbolic links inside a folder are skipped with a notice, whatever they point at: following them
//! could send what the person did not mean. A path that was named itself may be a link.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, Write};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use super::path::{MAX_DEPTH, MAX_NAME, MAX_PATH, harmless};
use super::progress::{Event, Progress};

/// A file or folder that was found.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Item {
    /// Which of the paths to send it is under.
    pub(super) base: usize,
    /// Its components, from the name that the receiver will see at the top.
    pub(super) path: Vec<String>,
    pub(super) folder: bool,
}

/// Everything that was found.
#[derive(Debug)]
pub(super) struct Listing {
    file: File,
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

impl Listing {
    /// Reads it from the beginning.
    pub(super) fn read(&mut self) -> io::Result<impl Iterator<Item = io::Result<Item>> + '_> {
        self.file.rewind()?;
        let lines = BufReader::new(&self.file).lines();
        Ok(lines.map(|line| Ok(serde_json::from_str(&line?)?)))
    }
}

/// A path to send: where it is, and the name the receiver sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) path: PathBuf,
    pub(super) name: String,
}

impl Base {
    /// Finds the name, also of `.`, `..` and `/`.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let absolute = path.canonicalize()?;
        let named = match path.components().next_back() {
            Some(Component::Normal(name)) => Some(name),
            _ => absolute.file_name(),
        };
        let name = match named {
            Some(name) => name.to_str().map(str::to_owned).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, "its name is not valid UTF-8: rename it")
            })?,
            None => "root".to_owned(),
        };
        Ok(Self { path: absolute, name })
    }

    /// Where an item under it is.
    pub(super) fn locate(&self, item: &[String]) -> PathBuf {
        let mut path = self.path.clone();
        path.extend(item.iter().skip(1));
        path
    }
}

/// Lists everything under the bases.
pub(super) fn walk(
    bases: &[Base],
    progress: &Progress,
    is_cancelled: impl Fn() -> bool,
) -> io::Result<Listing> {
    let mut out = BufWriter::new(tempfile::tempfile()?);
    let (mut entries, mut bytes) = (0, 0);
    for (base, root) in bases.iter().enumerate() {
        for found in WalkDir::new(&root.path).follow_root_links(true) {
            if is_cancelled() {
                break;
            }
            let (path, is_folder, size) = match look(root, found) {
                Ok(found) => found,
                Err((path, reason)) => {
                    progress(Event::Skipped { path: harmless(&path), reason });
                    continue;
                }
            };
            entries += 1;
            bytes += size;
            serde_json::to_writer(&mut out, &Item { base, path, folder: is_folder })?;
            out.write_all(b"\n")?;
        }
    }
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(Listing { file, entries, bytes })
}

/// Components, whether it is a folder, and bytes; or what is skipped and why.
fn look(
    base: &Base,
    found: walkdir::Result<walkdir::DirEntry>,
) -> Result<(Vec<String>, bool, u64), (String, String)> {
    let found = found.map_err(|error| {
        let path = error.path().map(|p| p.display().to_string()).unwrap_or_default();
        (path, error.into_io_error().map_or_else(|| "it is a loop".to_owned(), |e| e.to_string()))
    })?;
    let shown = || found.path().display().to_string();
    let relative = found.path().strip_prefix(&base.path).unwrap_or(Path::new(""));
    let mut path = vec![base.name.clone()];
    for component in relative.components() {
        match component.as_os_str().to_str() {
            Some(name) => path.push(name.to_owned()),
            None => return Err((shown(), "its name is not valid UTF-8".to_owned())),
        }
    }
    let length: usize = path.iter().map(|name| name.len() + 1).sum();
    if length > MAX_PATH || path.len() > MAX_DEPTH || path.iter().any(|name| name.len() > MAX_NAME) {
        return Err((shown(), "its path is too long to be sent".to_owned()));
    }
    // The base itself was canonicalised, so its type is that of what it points at.
    let kind = found.file_type();
    if kind.is_dir() {
        return Ok((path, true, 0));
    }
    if kind.is_symlink() {
        return Err((shown(), "it is a symbolic link".to_owned()));
    }
    if !kind.is_file() {
        return Err((shown(), "it is not a regular file".to_owned()));
    }
    let size = found.metadata().map(|meta| meta.len()).map_err(|error| (shown(), error.to_string()))?;
    Ok((path, false, size))
}
