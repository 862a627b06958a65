//! A file while it arrives: `NAME.part`, its journal, and how it becomes `NAME`.
//!
//! Dropping a [`Part`] keeps it for the next attempt, with everything that is verified recorded.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::journal::{self, Found, Journal, Record};
use super::ranges::Ranges;
use super::tree::{self, GROUP, Root};

/// Bytes after which a partial file is synced and its journal written: what a crash can cost.
const SYNC_BYTES: u64 = 16 * 1024 * 1024;
/// Time after which the same happens on a slow line.
const SYNC_AFTER: Duration = Duration::from_secs(2);

/// What a finished file gets besides its content.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Meta {
    pub(super) executable: bool,
    /// Nanoseconds since 1970.
    pub(super) modified: Option<u64>,
}

/// Why a complete file did not get its name.
#[derive(Debug, thiserror::Error)]
pub(super) enum FinishError {
    /// Someone else created it meanwhile.
    #[error("it exists already")]
    Exists,
    /// What an earlier attempt had verified was altered since; the partial file is gone.
    #[error("what was there of it had been altered, and was removed: receive it again")]
    Altered,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A partial file.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    path: PathBuf,
    target: PathBuf,
    /// `None` once the file is finished or given up.
    journal: Option<Journal>,
    record: Record,
    /// Whether some of it is from an earlier attempt.
    pub(super) resumed: bool,
    unsynced: u64,
    synced: Instant,
}

impl Part {
    /// Opens the partial file of `target`, or creates it.
    ///
    /// A `NAME.part` that is not ours is left alone; the name then carries the root as well.
    pub(super) fn open(target: &Path, identity: Root, size: Option<u64>) -> io::Result<Self> {
        let short = &identity.to_string()[..8];
        for suffix in [".part".to_owned(), format!(".{short}.part")] {
            let mut name = target.as_os_str().to_owned();
            name.push(suffix);
            if let Some(part) = Self::open_at(name.into(), target, identity, size)? {
                return Ok(part);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{}.part is in the way: move it elsewhere", target.display()),
        ))
    }

    fn open_at(path: PathBuf, target: &Path, identity: Root, size: Option<u64>) -> io::Result<Option<Self>> {
        let journal_path = journal::beside(&path);
        let is_there = match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() => true,
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        let empty = Record { identity, verified: Ranges::default(), entries: 0 };
        let (mut journal, mut record) = match Journal::find(journal_path.clone())? {
            Found::Foreign => return Ok(None),
            Found::Nothing if is_there => return Ok(None),
            Found::Nothing => (Journal::create(journal_path, &empty)?, empty.clone()),
            Found::Ours(journal, record) => (journal, record),
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let file = if is_there { options.open(&path)? } else { options.create_new(true).open(&path)? };
        if record.identity != identity {
            // The rest of another version of the same name: it can never be completed.
            record = empty;
            journal.store(&record)?;
            file.set_len(0)?;
        }
        let len = file.metadata()?.len();
        // For a stream only whole segments count, and they are one range from the beginning.
        let group = if size.is_some() { GROUP } else { 1 };
        record.verified = record.verified.normalised(size.unwrap_or(len), len, group);
        if size.is_none() && record.verified.missing(len).first().is_some_and(|(start, _)| *start == 0) {
            record.entries = 0;
        }
        if size.is_some_and(|size| len > size) {
            file.set_len(size.unwrap_or_default())?;
        }
        Ok(Some(Self {
            file,
            path,
            target: target.to_owned(),
            journal: Some(journal),
            resumed: record.verified.len() > 0,
            record,
            unsynced: 0,
            synced: Instant::now(),
        }))
    }

    /// What is verified.
    pub(super) fn verified(&self) -> &Ranges {
        &self.record.verified
    }

    /// Entries of a stream that are complete.
    pub(super) fn entries(&self) -> u64 {
        self.record.entries
    }

    /// Writes verified bytes.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.write_all(bytes)
    }

    /// Notes that this range is written; syncs from time to time.
    pub(super) fn note(&mut self, start: u64, end: u64) -> io::Result<()> {
        self.record.verified.insert(start, end);
        self.unsynced += end - start;
        if self.unsynced >= SYNC_BYTES || self.synced.elapsed() >= SYNC_AFTER { self.sync() } else { Ok(()) }
    }

    /// Notes that a stream's segment `start..end` is complete, the `entries`th, and syncs.
    pub(super) fn note_segment(&mut self, start: u64, end: u64, entries: u64) -> io::Result<()> {
        self.record.verified.insert(start, end);
        self.record.entries = entries;
        self.sync()
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        if let Some(journal) = &mut self.journal {
            journal.store(&self.record)?;
        }
        self.unsynced = 0;
        self.synced = Instant::now();
        Ok(())
    }

    /// Gives the complete file its name.
    pub(super) fn finish(
        mut self,
        root: Option<Root>,
        size: u64,
        meta: Meta,
        overwrite: bool,
    ) -> Result<(), FinishError> {
        if let (true, Some(root)) = (self.resumed, root) {
            self.file.seek(SeekFrom::Start(0))?;
            if tree::root_of(&self.file)? != root {
                self.abandon()?;
                return Err(FinishError::Altered);
            }
        }
        self.file.set_len(size)?;
        dress(&self.file, meta)?;
        self.file.sync_all()?;
        put(&self.path, &self.target, overwrite)?;
        if let Some(journal) = self.journal.take() {
            journal.remove()?;
        }
        sync_folder(self.target.parent());
        Ok(())
    }

    /// Removes it: it can never be completed.
    pub(super) fn abandon(&mut self) -> io::Result<()> {
        if let Some(journal) = self.journal.take() {
            fs::remove_file(&self.path)?;
            journal.remove()?;
        }
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.journal.is_some()
            && self.unsynced > 0
            && let Err(error) = self.sync()
        {
            tracing::debug!(%error, "the end of a partial file was not recorded and will be fetched again");
        }
    }
}

/// Writes a file that is small enough to be verified in memory: no partial file, no journal. Its name
/// survives a power cut only after [`sync_folder`], which is worth doing once for many of them.
pub(super) fn write_small(
    target: &Path,
    content: &[u8],
    meta: Meta,
    overwrite: bool,
) -> Result<(), FinishError> {
    let folder = target.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".culvert-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(content)?;
    dress(file.as_file(), meta)?;
    file.as_file().sync_all()?;
    let persisted = if overwrite { file.persist(target) } else { file.persist_noclobber(target) };
    match persisted {
        Ok(_) => Ok(()),
        Err(failed) => Err(exists_or(failed.error)),
    }
}

fn put(part: &Path, target: &Path, overwrite: bool) -> Result<(), FinishError> {
    if overwrite {
        return Ok(fs::rename(part, target)?);
    }
    match tempfile::TempPath::try_from_path(part)?.persist_noclobber(target) {
        Ok(()) => Ok(()),
        Err(failed) => {
            // Dropping the path would delete the file.
            if let Err(kept) = failed.path.keep() {
                tracing::debug!(error = %kept.error, "a partial file could not be kept");
            }
            Err(exists_or(failed.error))
        }
    }
}

fn exists_or(error: io::Error) -> FinishError {
    match error.kind() {
        io::ErrorKind::AlreadyExists => FinishError::Exists,
        _ => FinishError::Io(error),
    }
}

fn dress(file: &File, meta: Meta) -> io::Result<()> {
    #[cfg(unix)]
    if meta.executable {
        use std::os::unix::fs::PermissionsExt;
        let mode = file.metadata()?.permissions().mode();
        // Whoever may read it may execute it.
        file.set_permissions(PermissionsExt::from_mode(mode | ((mode & 0o444) >> 2)))?;
    }
    match meta.modified {
        Some(nanos) => file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)),
        None => Ok(()),
    }
}

/// Makes a rename survive a power cut, where the system can.
pub(super) fn sync_folder(folder: Option<&Path>) {
    #[cfg(unix)]
    if let Some(folder) = folder.filter(|f| !f.as_os_str().is_empty())
        && let Err(error) = File::open(folder).and_then(|folder| folder.sync_all())
    {
        tracing::debug!(%error, folder = %folder.display(), "a folder could not be synced");
    }
    #[cfg(not(unix))]
    let _ = folder;
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 100_000;

    fn fill(part: &mut Part, start: u64, end: u64) {
        let bytes = vec![7; usize::try_from(end - start).unwrap()];
        part.write(start, &bytes).unwrap();
        part.note(start, end).unwrap();
    }

    fn root() -> Root {
        tree::root_of(&vec![7; 100_000][..]).unwrap()
    }

    #[test]
    fn a_dropped_part_goes_on_where_it_was_and_gets_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x");
        let mut part = Part::open(&target, root(), Some(SIZE)).unwrap();
        assert!(!part.resumed);
        fill(&mut part, 0, 49152);
        drop(part);
        let mut part = Part::open(&target, root(), Some(SIZE)).unwrap();
        assert!(part.resumed);
        assert_eq!(part.verified().missing(SIZE), [(49152, SIZE)]);
        fill(&mut part, 49152, SIZE);
        let meta = Meta { executable: true, modified: Some(1_000_000_000_000_000_000) };
        part.finish(Some(root()), SIZE, meta, false).unwrap();
        assert_eq!(fs::read(&target).unwrap(), vec![7; 100_000]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let modified = fs::metadata(&target).unwrap().modified().unwrap();
        assert_eq!(modified.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(), 1_000_000_000);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o100, 0o100);
        }
    }

    #[test]
    fn a_part_that_was_altered_never_gets_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x");
        let mut part = Part::open(&target, root(), Some(SIZE)).unwrap();
        fill(&mut part, 0, 49152);
        drop(part);
        let mut bytes = fs::read(dir.path().join("x.part")).unwrap();
        bytes[100] ^= 1;
        fs::write(dir.path().join("x.part"), bytes).unwrap();
        let mut part = Part::open(&target, root(), Some(SIZE)).unwrap();
        fill(&mut part, 49152, SIZE);
        assert!(matches!(part.finish(Some(root()), SIZE, Meta::default(), false), Err(FinishError::Altered)));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_part_that_is_shorter_than_its_journal_says_is_fetched_again_from_there() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x");
        let mut part = Part::open(&target, root(), Some(SIZE)).unwrap();
        fill(&mut part, 0, 65536);
        drop(part);
        File::options().write(true).open(dir.path().join("x.part")).unwrap().set_len(20_000).unwrap();
        let part = Part::open(&target, root(), Some(SIZE)).unwrap();
        assert_eq!(part.verified().missing(SIZE), [(16384, SIZE)]);
    }

    #[test]
    fn a_foreign_part_is_left_alone_and_another_version_starts_over() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x");
        fs::write(dir.path().join("x.part"), "mine").unwrap();
        let mut part = Part::open(&target, root(), Some(SIZE)).unwrap();
        fill(&mut part, 0, 65536);
        drop(part);
        assert_eq!(fs::read(dir.path().join("x.part")).unwrap(), b"mine");
        let other = dir.path().join("y");
        let mut part = Part::open(&other, root(), Some(SIZE)).unwrap();
        fill(&mut part, 0, 65536);
        drop(part);
        let part = Part::open(&other, Root([1; 32]), Some(SIZE)).unwrap();
        assert!(!part.resumed);
        assert_eq!(part.verified().len(), 0);
    }

    #[test]
    fn nothing_is_overwritten_without_being_told() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x");
        fs::write(&target, "mine").unwrap();
        let meta = Meta::default();
        assert!(matches!(write_small(&target, b"new", meta, false), Err(FinishError::Exists)));
        let mut part = Part::open(&target, root(), Some(SIZE)).unwrap();
        fill(&mut part, 0, SIZE);
        assert!(matches!(part.finish(Some(root()), SIZE, meta, false), Err(FinishError::Exists)));
        assert_eq!(fs::read(&target).unwrap(), b"mine");
        assert!(dir.path().join("x.part").exists(), "what arrived is kept");
        write_small(&target, b"new", meta, true).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }
}
