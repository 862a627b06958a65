//! One file while it arrives: what is there of it already, and where its pieces go.

use std::io;
use std::path::{Path, PathBuf};

use crate::transfer::message::{Entry, PIECE};
use crate::transfer::part::{Meta, Part};
use crate::transfer::path::{SafePath, make_folder};
use crate::transfer::tree::{self, Root, VerifyError};

/// A file or segment that is under way.
pub(super) struct Job {
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) root: Root,
    /// Ranges that were not asked for yet, the last one first.
    pub(super) missing: Vec<(u64, u64)>,
    /// Bytes that have not come yet.
    pub(super) left: u64,
    pub(super) sink: Sink,
}

pub(super) enum Sink {
    /// At most one piece: written in one go.
    Small {
        target: PathBuf,
        meta: Meta,
    },
    Part {
        target: PathBuf,
        meta: Meta,
        part: Part,
    },
    Segment {
        base: u64,
        index: u64,
    },
}

/// What became of an entry when it was begun.
pub(super) enum Begun {
    Complete { bytes: u64 },
    Job(Box<Job>),
    Problem(String),
}

impl Job {
    /// Writes a verified piece; a small file is given back whole instead.
    pub(super) fn write(
        &mut self,
        stream: Option<&mut Part>,
        encoded: &[u8],
        start: u64,
        end: u64,
    ) -> Result<Option<Vec<u8>>, VerifyError> {
        let what = (self.size, self.root);
        match &mut self.sink {
            Sink::Small { .. } => {
                let mut content = Vec::new();
                tree::verify(encoded, what, (start, end), |_, bytes| {
                    content.extend_from_slice(bytes);
                    Ok(())
                })?;
                return Ok(Some(content));
            }
            Sink::Part { part, .. } => {
                tree::verify(encoded, what, (start, end), |offset, bytes| part.write(offset, bytes))?;
                part.note(start, end)?;
            }
            Sink::Segment { base, .. } => {
                let part = stream.ok_or_else(|| io::Error::other("the stream is closed"))?;
                tree::verify(encoded, what, (start, end), |offset, bytes| part.write(*base + offset, bytes))?;
            }
        }
        Ok(None)
    }
}

/// Looks what is there of an entry. Errors end the transfer; what concerns this entry only does not.
pub(super) fn begin(out: &Path, path: &SafePath, entry: &Entry, overwrite: bool) -> io::Result<Begun> {
    let target = match path.locate(out) {
        Ok(target) => target,
        Err(error) if is_disk(&error) => return Err(error),
        Err(error) => return Ok(Begun::Problem(error.to_string())),
    };
    let (size, root, meta) = match entry {
        Entry::File { size, root, executable, modified, .. } => {
            (*size, *root, Meta { executable: *executable, modified: *modified })
        }
        _ => {
            return match make_folder(&target) {
                Ok(()) => Ok(Begun::Complete { bytes: 0 }),
                Err(error) if is_disk(&error) => Err(error),
                Err(error) => Ok(Begun::Problem(error.to_string())),
            };
        }
    };
    if let Ok(there) = target.symlink_metadata() {
        if there.is_file() && there.len() == size && tree::root_of(std::fs::File::open(&target)?)? == root {
            return Ok(Begun::Complete { bytes: size });
        }
        if there.is_dir() {
            return Ok(Begun::Problem("a folder of that name is there".to_owned()));
        }
        if !overwrite {
            let reason = "a different file of that name is there: say that it may be overwritten, or choose \
                          another folder";
            return Ok(Begun::Problem(reason.to_owned()));
        }
    }
    let job = |left, missing, sink| {
        let path = path.display();
        Ok(Begun::Job(Box::new(Job { path, size, root, missing, left, sink })))
    };
    if size == 0 && root.0 != *blake3::hash(b"").as_bytes() {
        return Ok(Begun::Problem("the sender's checksum of an empty file is wrong".to_owned()));
    }
    if size <= PIECE {
        let missing = if size > 0 { vec![(0, size)] } else { Vec::new() };
        return job(size, missing, Sink::Small { target, meta });
    }
    match Part::open(&target, root, Some(size)) {
        Ok(part) => {
            let mut missing = part.verified().missing(size);
            missing.reverse();
            let left = missing.iter().map(|(start, end)| end - start).sum();
            job(left, missing, Sink::Part { target, meta, part })
        }
        Err(error) if is_disk(&error) => Err(error),
        Err(error) => Ok(Begun::Problem(error.to_string())),
    }
}

pub(super) fn is_disk(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
