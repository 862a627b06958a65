//! The sender's list: pages of entries with their roots, made in the background, kept in files.
//!
//! One thread makes it (a [`Maker`]), any number of conversations read it. In memory are the place of
//! each page and, for a stream, the few segments that the receiver has not confirmed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use bao_tree::io::sync::ReadAt;
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::message::{Entry, GoneReason, MAX_PAGE, PAGE_BYTES};
use super::progress::{Event, Progress};
use super::tree::{self, Root};
use super::walk::{self, Base, Item};

/// Bytes hashed after which a page is given out although it is not full.
const PAGE_CONTENT: u64 = 64 * 1024 * 1024;
/// Segments of a stream that wait for their confirmation; further input is not read.
const MAX_SEGMENTS: usize = 4;
/// Least time between two reports of how far the hashing is.
const REPORT: Duration = Duration::from_millis(200);

/// The sender's list.
#[derive(Debug)]
pub(super) struct Catalogue {
    status: watch::Sender<Status>,
    pages: Mutex<Vec<Place>>,
    page_file: File,
    outboards: File,
    bases: Vec<Base>,
    segments: Mutex<BTreeMap<u64, Arc<Segment>>>,
    forgotten: Condvar,
    is_cancelled: AtomicBool,
}

/// How far the list is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// Entries and bytes, once they are counted; for a stream at once, and both 0.
    pub(super) announced: Option<(u64, u64)>,
    /// Bytes hashed.
    pub(super) hashed: u64,
    /// Entries that can be asked for.
    pub(super) entries: u64,
    /// Whether the list is complete, and if not for a reason, why it never will be.
    pub(super) end: Option<Result<(), String>>,
}

/// An entry with what only the sender needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Listed {
    pub(super) entry: Entry,
    base: usize,
    outboard: u64,
}

/// A part of a stream that is not confirmed yet.
#[derive(Debug)]
pub(super) struct Segment {
    data: File,
    outboard: Vec<u8>,
}

/// What a range is read from.
#[derive(Debug)]
pub(super) enum Content {
    File { file: File, outboard: u64, size: u64, modified: Option<u64> },
    Segment(Arc<Segment>),
}

#[derive(Debug, Clone, Copy)]
struct Place {
    first: u64,
    offset: u64,
    len: usize,
}

impl Catalogue {
    pub(super) fn new(bases: Vec<Base>) -> io::Result<Self> {
        Ok(Self {
            status: watch::Sender::new(Status::default()),
            pages: Mutex::default(),
            page_file: tempfile::tempfile()?,
            outboards: tempfile::tempfile()?,
            bases,
            segments: Mutex::default(),
            forgotten: Condvar::new(),
            is_cancelled: AtomicBool::new(false),
        })
    }

    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Makes the maker stop at its next step.
    pub(super) fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
        self.forgotten.notify_all();
    }

    /// The page that holds an entry, from that entry on; `None` if it is not made yet.
    pub(super) fn page(&self, from: u64) -> io::Result<Option<Vec<Listed>>> {
        let place = {
            let pages = self.pages.lock();
            match pages.partition_point(|place| place.first <= from).checked_sub(1) {
                Some(index) => pages[index],
                None => return Ok(None),
            }
        };
        let mut json = vec![0; place.len];
        self.page_file.read_exact_at(place.offset, &mut json)?;
        let mut page: Vec<Listed> = serde_json::from_slice(&json)?;
        let skip = usize::try_from(from - place.first).unwrap_or(usize::MAX);
        page.drain(..skip.min(page.len()));
        Ok(Some(page).filter(|page| !page.is_empty()))
    }

    /// Opens what an entry's ranges are read from.
    pub(super) fn open(&self, index: u64, listed: &Listed) -> Result<Content, GoneReason> {
        match &listed.entry {
            Entry::File { path, size, modified, .. } => {
                let file =
                    File::open(self.bases[listed.base].locate(path)).map_err(|_| GoneReason::Unreadable)?;
                let (size, modified, outboard) = (*size, *modified, listed.outboard);
                let content = Content::File { file, outboard, size, modified };
                if content.is_unchanged() { Ok(content) } else { Err(GoneReason::Changed) }
            }
            Entry::Segment { .. } => {
                let segment = self.segments.lock().get(&index).cloned();
                segment.map(Content::Segment).ok_or(GoneReason::Forgotten)
            }
            Entry::Folder { .. } | Entry::Missing { .. } => Err(GoneReason::Unreadable),
        }
    }

    /// Appends a range of an entry with its proof.
    pub(super) fn encode(
        &self,
        content: &Content,
        (size, root): (u64, Root),
        range: (u64, u64),
        out: &mut Vec<u8>,
    ) -> Result<(), tree::EncodePieceError> {
        match content {
            Content::File { file, outboard, .. } => {
                let outboard = Shifted { file: &self.outboards, base: *outboard };
                tree::encode(file, (size, root), outboard, range, out)
            }
            Content::Segment(segment) => {
                tree::encode(&segment.data, (size, root), &segment.outboard[..], range, out)
            }
        }
    }

    /// Drops the segments before this entry: the receiver has them on its disk.
    pub(super) fn forget(&self, before: u64) {
        let mut segments = self.segments.lock();
        let kept = segments.split_off(&before);
        *segments = kept;
        self.forgotten.notify_all();
    }
}

impl Content {
    /// Whether a file still has the size and time it was listed with.
    pub(super) fn is_unchanged(&self) -> bool {
        match self {
            Content::File { file, size, modified, .. } => {
                file.metadata().is_ok_and(|meta| meta.len() == *size && modified_nanos(&meta) == *modified)
            }
            Content::Segment(_) => true,
        }
    }
}

/// Makes a catalogue; runs on a thread of its own.
pub(super) struct Maker {
    catalogue: Arc<Catalogue>,
    progress: Progress,
    page: Vec<Listed>,
    page_bytes: usize,
    page_content: u64,
    entries: u64,
    page_end: u64,
    outboard_end: u64,
    hashed: u64,
    reported: Instant,
}

impl Maker {
    pub(super) fn new(catalogue: Arc<Catalogue>, progress: Progress) -> Self {
        Self {
            catalogue,
            progress,
            page: Vec::new(),
            page_bytes: 0,
            page_content: 0,
            entries: 0,
            page_end: 0,
            outboard_end: 0,
            hashed: 0,
            reported: Instant::now(),
        }
    }

    /// Lists and hashes the paths.
    pub(super) fn make_paths(mut self) {
        let result = self.paths();
        self.end(result);
    }

    /// Reads a stream to its end, in segments of `segment` bytes.
    pub(super) fn make_stream(mut self, mut reader: impl Read, segment: u64) {
        let result = self.stream(&mut reader, segment);
        self.end(result);
    }

    fn paths(&mut self) -> io::Result<()> {
        let catalogue = Arc::clone(&self.catalogue);
        let is_cancelled = || catalogue.is_cancelled.load(Ordering::Relaxed);
        let mut listing = walk::walk(&catalogue.bases, &self.progress, is_cancelled)?;
        let (entries, bytes) = (listing.entries, listing.bytes);
        catalogue.status.send_modify(|status| status.announced = Some((entries, bytes)));
        (self.progress)(Event::Listed { entries, bytes });
        for item in listing.read()? {
            if is_cancelled() {
                return Ok(());
            }
            let listed = self.list(item?)?;
            self.push(listed)?;
        }
        self.flush()
    }

    fn list(&mut self, item: Item) -> io::Result<Listed> {
        let base = item.base;
        let outboard = self.outboard_end;
        if item.folder {
            return Ok(Listed { entry: Entry::Folder { path: item.path }, base, outboard });
        }
        let path = self.catalogue.bases[base].locate(&item.path);
        // A file that is being written while it is hashed gets a second chance.
        let mut reason = GoneReason::Changed;
        for _ in 0..2 {
            match self.hash(&path)? {
                Ok((size, root, executable, modified)) => {
                    let entry = Entry::File { path: item.path, size, root, executable, modified };
                    self.outboard_end += tree::outboard_len(size);
                    return Ok(Listed { entry, base, outboard });
                }
                Err(Refused::Changed) => reason = GoneReason::Changed,
                Err(Refused::Unreadable(error)) => {
                    tracing::debug!(path = %path.display(), %error, "a file cannot be read");
                    reason = GoneReason::Unreadable;
                    break;
                }
            }
        }
        (self.progress)(Event::Skipped { path: path.display().to_string(), reason: reason.to_string() });
        Ok(Listed { entry: Entry::Missing { path: item.path, reason }, base, outboard })
    }

    #[expect(clippy::type_complexity, reason = "read once, above")]
    fn hash(
        &mut self,
        path: &std::path::Path,
    ) -> io::Result<Result<(u64, Root, bool, Option<u64>), Refused>> {
        let unreadable = |error| Ok(Err(Refused::Unreadable(error)));
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) => return unreadable(error),
        };
        let before = match file.metadata() {
            Ok(meta) if meta.is_file() => meta,
            Ok(_) => return Ok(Err(Refused::Changed)),
            Err(error) => return unreadable(error),
        };
        let size = before.len();
        let mut failed = None;
        let mut spool = &self.catalogue.outboards;
        spool.seek(SeekFrom::Start(self.outboard_end))?;
        let mut outboard = io::BufWriter::with_capacity(256 * 1024, spool);
        let total = self.catalogue.status.borrow().announced.map_or(0, |(_, bytes)| bytes);
        let counted = Counted {
            inner: &file,
            failed: &mut failed,
            count: |n| {
                self.hashed += n;
                if self.reported.elapsed() >= REPORT {
                    self.reported = Instant::now();
                    let hashed = self.hashed;
                    self.catalogue.status.send_modify(|status| status.hashed = hashed);
                    (self.progress)(Event::Hashing { done: hashed, total });
                }
                !self.catalogue.is_cancelled.load(Ordering::Relaxed)
            },
        };
        let hashed = tree::hash(io::BufReader::with_capacity(256 * 1024, counted), size, &mut outboard);
        let root = match (hashed, failed) {
            (Ok(root), _) => root,
            (Err(_), Some(error)) => return unreadable(error),
            (Err(error), None) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(Err(Refused::Changed));
            }
            // The spool could not be written: no later file fares better.
            (Err(error), None) => return Err(error),
        };
        outboard.flush()?;
        let after = match file.metadata() {
            Ok(meta) => meta,
            Err(error) => return unreadable(error),
        };
        if after.len() != size || modified_nanos(&after) != modified_nanos(&before) {
            return Ok(Err(Refused::Changed));
        }
        Ok(Ok((size, root, is_executable(&after), modified_nanos(&after))))
    }

    fn stream(&mut self, reader: &mut dyn Read, segment: u64) -> io::Result<()> {
        self.catalogue.status.send_modify(|status| status.announced = Some((0, 0)));
        loop {
            let mut data = tempfile::tempfile()?;
            let size = io::copy(&mut (&mut *reader).take(segment), &mut data)?;
            if size == 0 {
                return Ok(());
            }
            data.rewind()?;
            let mut outboard = Vec::new();
            let root = tree::hash(&data, size, &mut outboard)?;
            {
                let mut segments = self.catalogue.segments.lock();
                while segments.len() >= MAX_SEGMENTS && !self.catalogue.is_cancelled.load(Ordering::Relaxed) {
                    self.catalogue.forgotten.wait(&mut segments);
                }
                if self.catalogue.is_cancelled.load(Ordering::Relaxed) {
                    return Ok(());
                }
                segments.insert(self.entries, Arc::new(Segment { data, outboard }));
            }
            self.hashed += size;
            self.push(Listed { entry: Entry::Segment { size, root }, base: 0, outboard: 0 })?;
            self.flush()?;
            (self.progress)(Event::Hashing { done: self.hashed, total: 0 });
        }
    }

    fn push(&mut self, listed: Listed) -> io::Result<()> {
        let len = serde_json::to_vec(&listed)?.len() + 1;
        if self.page.len() >= MAX_PAGE || self.page_bytes + len > PAGE_BYTES {
            self.flush()?;
        }
        if let Entry::File { size, .. } = listed.entry {
            self.page_content += size;
        }
        self.page_bytes += len;
        self.page.push(listed);
        self.entries += 1;
        if self.page_content >= PAGE_CONTENT { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.page.is_empty() {
            return Ok(());
        }
        let json = serde_json::to_vec(&self.page)?;
        let first = self.entries - self.page.len() as u64;
        let mut file = &self.catalogue.page_file;
        file.seek(SeekFrom::Start(self.page_end))?;
        file.write_all(&json)?;
        self.catalogue.pages.lock().push(Place { first, offset: self.page_end, len: json.len() });
        self.page_end += json.len() as u64;
        self.page.clear();
        self.page_bytes = 0;
        self.page_content = 0;
        let (entries, hashed) = (self.entries, self.hashed);
        self.catalogue.status.send_modify(|status| {
            status.entries = entries;
            status.hashed = hashed;
        });
        Ok(())
    }

    fn end(self, result: io::Result<()>) {
        let result = result.map_err(|error| error.to_string());
        self.catalogue.status.send_modify(|status| status.end = Some(result));
    }
}

enum Refused {
    Changed,
    Unreadable(io::Error),
}

/// A reader that counts, can be stopped, and keeps its own errors apart from the writer's.
struct Counted<'a, F> {
    inner: &'a File,
    failed: &'a mut Option<io::Error>,
    count: F,
}

impl<F: FnMut(u64) -> bool> Read for Counted<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(n) if (self.count)(n as u64) => Ok(n),
            Ok(_) => Err(io::Error::other("cancelled")),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let copy = io::Error::new(error.kind(), "cannot read");
                *self.failed = Some(error);
                Err(copy)
            }
        }
    }
}

/// A part of a file, from `base` on.
struct Shifted<'a> {
    file: &'a File,
    base: u64,
}

impl ReadAt for Shifted<'_> {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(self.base + at, buffer)
    }
}

fn modified_nanos(meta: &std::fs::Metadata) -> Option<u64> {
    let since = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

fn is_executable(meta: &std::fs::Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        meta.permissions().mode() & 0o100 != 0
    }
    #[cfg(not(unix))]
    {
        let _ = meta;
        false
    }
}
