//! The receiver's state from the first word to the last.
//!
//! What was asked for and has not come is a first-in-first-out list, because the sender answers in
//! order; a piece that is not the next one expected breaks the protocol. So memory holds at most one
//! page that was not begun, [`WINDOW`] bytes that were asked for (on the wire, not here), and the files
//! those belong to.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use super::job::{Begun, Job, Sink, begin, is_disk};
use super::{Problem, ReceiveError, ReceiveOptions, Received};
use crate::transfer::line::Line;
use crate::transfer::message::{
    self, Control, Entry, GoneReason, MAX_ENTRIES, MAX_PAGE, MAX_RANGE, MAX_RANGES, Message, PIECE, Range,
    StopReason, VERSION,
};
use crate::transfer::part::{self, FinishError, Meta, Part};
use crate::transfer::path::{SafePath, harmless};
use crate::transfer::progress::{Event, Progress};
use crate::transfer::serve::blocking;
use crate::transfer::tree::{Root, VerifyError};

/// Bytes asked for at once: what a line of 1 Gbit/s carries in 130 ms.
const WINDOW: u64 = 16 * 1024 * 1024;
/// Ranges asked for at once: bounds the open files where all are small.
const MAX_ASKED: usize = 256;
/// Problems that are remembered one by one.
const MAX_PROBLEMS: usize = 100;
/// Names at the top of the output folder that are remembered.
const MAX_TOPS: usize = 1000;

pub(super) struct Receiver<'a> {
    options: &'a ReceiveOptions,
    progress: &'a Progress,
    offer: Announced,
    /// Entries that were listed and not begun.
    listed: VecDeque<(u64, Entry)>,
    /// The next entry to be listed.
    next: u64,
    more: bool,
    page_asked: bool,
    /// Bytes of files listed so far.
    listed_bytes: u64,
    /// Files that are under way.
    jobs: BTreeMap<u64, Job>,
    /// Ranges asked for, in order; the first begins at the next byte expected.
    asked: VecDeque<Range>,
    asked_bytes: u64,
    stream: Option<Stream>,
    /// The folder of the last small files, whose names are not synced yet.
    unsynced: Option<PathBuf>,
    received: Received,
}

#[derive(Default)]
struct Announced {
    stream: bool,
    entries: u64,
    bytes: u64,
}

/// A stream while it arrives.
pub(super) struct Stream {
    /// Taken while a piece is written.
    part: Option<Part>,
    target: PathBuf,
    /// Where the next segment begins.
    end: u64,
}

impl<'a> Receiver<'a> {
    pub(super) fn new(options: &'a ReceiveOptions, progress: &'a Progress) -> Self {
        Self {
            options,
            progress,
            offer: Announced::default(),
            listed: VecDeque::new(),
            next: 0,
            more: true,
            page_asked: false,
            listed_bytes: 0,
            jobs: BTreeMap::new(),
            asked: VecDeque::new(),
            asked_bytes: 0,
            stream: None,
            unsynced: None,
            received: Received::default(),
        }
    }

    pub(super) fn release(&mut self) -> (BTreeMap<u64, Job>, Option<Stream>) {
        (std::mem::take(&mut self.jobs), self.stream.take())
    }

    pub(super) async fn run(&mut self, line: &mut Line<'_>) -> Result<Received, ReceiveError> {
        line.tell(&Control::Hello { version: VERSION }).await?;
        self.greet(line).await?;
        loop {
            self.ask(line).await?;
            if self.jobs.is_empty() && self.listed.is_empty() && !self.more {
                return self.finish(line).await;
            }
            let bytes = line.hear().await?;
            match decode(&bytes)? {
                Message::Piece(piece) => {
                    let (entry, offset) = (piece.entry, piece.offset);
                    self.take(line, entry, offset, bytes).await?;
                }
                Message::Control(control) => self.obey(control)?,
            }
        }
    }

    async fn greet(&mut self, line: &mut Line<'_>) -> Result<(), ReceiveError> {
        loop {
            match decode(&line.hear().await?)? {
                Message::Control(Control::Preparing { done, total }) => {
                    (self.progress)(Event::Hashing { done, total });
                }
                Message::Control(Control::Stop { reason }) => return Err(ReceiveError::Stopped(reason)),
                Message::Control(Control::Offer { version, id, name, stream, entries, bytes }) => {
                    if version != VERSION {
                        return Err(ReceiveError::Stopped(StopReason::Version));
                    }
                    self.offer = Announced { stream, entries, bytes };
                    self.received.name = harmless(&name);
                    let name_shown = self.received.name.clone();
                    (self.progress)(Event::Offered { name: name_shown, stream, entries, bytes });
                    return self.prepare(id, name).await;
                }
                _ => return Err(unexpected()),
            }
        }
    }

    /// Makes the output folder, and opens what is there of a stream.
    async fn prepare(&mut self, id: Root, name: String) -> Result<(), ReceiveError> {
        let out = self.options.out.clone();
        let made = blocking({
            let out = out.clone();
            move || std::fs::create_dir_all(&out)
        });
        made.await.map_err(|source| broken(&out, source))?;
        if !self.offer.stream {
            return Ok(());
        }
        let path = SafePath::new(&[name]).map_err(|error| ReceiveError::Unsafe(error.to_string()))?;
        let target = out.join(path.display());
        if !self.options.overwrite && target.symlink_metadata().is_ok() {
            let source = io::Error::new(
                io::ErrorKind::AlreadyExists,
                "it exists already: say that it may be overwritten, or choose another folder",
            );
            return Err(ReceiveError::Write { path: target, source });
        }
        let opened = blocking({
            let target = target.clone();
            move || Part::open(&target, id, None)
        });
        let part = opened.await.map_err(|source| broken(&target, source))?;
        // Whole segments only: they are one range from the beginning.
        let end = if part.entries() > 0 { part.verified().len() } else { 0 };
        self.next = part.entries();
        self.received.kept = part.entries();
        self.received.bytes = end;
        self.received.present = end;
        self.received.paths.push(target.clone());
        (self.progress)(Event::Started { path: path.display(), size: 0, present: end });
        self.stream = Some(Stream { part: Some(part), target, end });
        Ok(())
    }

    /// Asks for as much as the window allows.
    async fn ask(&mut self, line: &mut Line<'_>) -> Result<(), ReceiveError> {
        let mut ranges = Vec::new();
        while self.asked_bytes < WINDOW && self.asked.len() < MAX_ASKED {
            let waiting = self.jobs.iter_mut().find(|(_, job)| !job.missing.is_empty());
            let Some((index, job)) = waiting else {
                let Some((index, entry)) = self.listed.pop_front() else { break };
                self.begin(index, entry).await?;
                continue;
            };
            let Some((start, end)) = job.missing.pop() else { continue };
            let cut = end.min(start + MAX_RANGE);
            if cut < end {
                job.missing.push((cut, end));
            }
            let range = Range { entry: *index, start, end: cut };
            self.asked_bytes += cut - start;
            self.asked.push_back(range);
            ranges.push(range);
        }
        for ranges in ranges.chunks(MAX_RANGES) {
            let (ranges, have) = (ranges.to_vec(), self.received.bytes);
            line.tell(&Control::Want { ranges, have }).await?;
        }
        if self.more && !self.page_asked && self.listed.len() < MAX_PAGE {
            self.page_asked = true;
            line.tell(&Control::Page { from: self.next }).await?;
        }
        Ok(())
    }

    fn obey(&mut self, control: Control) -> Result<(), ReceiveError> {
        match control {
            Control::Preparing { done, total } => (self.progress)(Event::Hashing { done, total }),
            Control::Entries { first, entries, more } => {
                if !self.page_asked || first != self.next || (entries.is_empty() && more) {
                    return Err(unexpected());
                }
                self.page_asked = false;
                self.more = more;
                self.next += entries.len() as u64;
                for entry in &entries {
                    if let Entry::File { size, .. } = entry {
                        self.listed_bytes = self.listed_bytes.saturating_add(*size);
                    }
                    if matches!(entry, Entry::Segment { .. }) != self.offer.stream {
                        return Err(unexpected());
                    }
                }
                // A file that grew between being counted and being hashed is more than announced too,
                // but honest: twice the bytes is where that stops being the explanation.
                let most = if self.offer.stream { MAX_ENTRIES } else { self.offer.entries };
                let bytes = self.offer.bytes.saturating_mul(2).saturating_add(1 << 30);
                if self.next > most || self.listed_bytes > bytes {
                    return Err(ReceiveError::Protocol("it lists more than it announced".to_owned()));
                }
                self.listed.extend((first..).zip(entries));
            }
            Control::Gone { entry, reason } => self.gone(entry, reason)?,
            Control::Stop { reason } => return Err(ReceiveError::Stopped(reason)),
            _ => return Err(unexpected()),
        }
        Ok(())
    }

    fn gone(&mut self, entry: u64, reason: GoneReason) -> Result<(), ReceiveError> {
        let freed: u64 = self.asked.iter().filter(|r| r.entry == entry).map(|r| r.end - r.start).sum();
        self.asked.retain(|range| range.entry != entry);
        self.asked_bytes -= freed;
        // Ranges asked for before this word came are answered by a second one.
        let Some(job) = self.jobs.remove(&entry) else { return Ok(()) };
        self.received.bytes -= job.size - job.left;
        match job.sink {
            Sink::Segment { .. } => return Err(ReceiveError::Forgotten),
            Sink::Part { mut part, target, .. } if reason == GoneReason::Changed => {
                part.abandon().map_err(|source| broken(&target, source))?;
            }
            Sink::Part { .. } | Sink::Small { .. } => {}
        }
        self.problem(job.path, reason.to_string());
        Ok(())
    }

    fn problem(&mut self, path: String, reason: String) {
        (self.progress)(Event::Skipped { path: path.clone(), reason: reason.clone() });
        self.received.left += 1;
        if self.received.problems.len() < MAX_PROBLEMS {
            self.received.problems.push(Problem { path, reason });
        }
    }

    async fn begin(&mut self, index: u64, entry: Entry) -> Result<(), ReceiveError> {
        let components = match &entry {
            Entry::Folder { path } | Entry::File { path, .. } | Entry::Missing { path, .. } => path.clone(),
            Entry::Segment { size, root } => {
                let Some(stream) = &mut self.stream else { return Err(unexpected()) };
                let base = stream.end;
                stream.end += size;
                let job = Job {
                    path: stream.target.display().to_string(),
                    size: *size,
                    root: *root,
                    missing: vec![(0, *size)],
                    left: *size,
                    sink: Sink::Segment { base, index },
                };
                if *size == 0 {
                    return Err(unexpected());
                }
                self.jobs.insert(index, job);
                return Ok(());
            }
        };
        let shown = harmless(&components.join("/"));
        let path = SafePath::new(&components)
            .map_err(|error| ReceiveError::Unsafe(format!("{error} ({shown:?})")))?;
        if let Entry::Missing { reason, .. } = entry {
            self.problem(shown, reason.to_string());
            return Ok(());
        }
        if path.renamed {
            (self.progress)(Event::Renamed { from: shown, to: path.display() });
        }
        let top = self.options.out.join(path.top());
        let (out, overwrite) = (self.options.out.clone(), self.options.overwrite);
        let name = path.display();
        let begun = blocking(move || begin(&out, &path, &entry, overwrite)).await;
        let begun = begun.map_err(|source| broken(&self.options.out.join(&name), source))?;
        if !matches!(begun, Begun::Problem(_))
            && self.received.paths.len() < MAX_TOPS
            && !self.received.paths.contains(&top)
        {
            self.received.paths.push(top);
        }
        match begun {
            Begun::Problem(reason) => self.problem(name, reason),
            Begun::Complete { bytes } => {
                self.received.kept += 1;
                self.received.bytes += bytes;
                self.received.present += bytes;
                self.advanced();
            }
            Begun::Job(job) => {
                let present = job.size - job.left;
                if present > 0 {
                    (self.progress)(Event::Started { path: name, size: job.size, present });
                }
                self.received.bytes += present;
                self.received.present += present;
                self.advanced();
                if job.left == 0 {
                    self.complete(index, *job, None).await?;
                } else {
                    self.jobs.insert(index, *job);
                }
            }
        }
        Ok(())
    }

    /// Verifies and writes the next piece.
    async fn take(
        &mut self,
        line: &mut Line<'_>,
        entry: u64,
        offset: u64,
        bytes: Vec<u8>,
    ) -> Result<(), ReceiveError> {
        let Some(range) = self.asked.front_mut() else { return Err(unexpected()) };
        let (expected, start, end) = (range.entry, range.start, range.end.min(range.start + PIECE));
        if (expected, start) != (entry, offset) {
            return Err(unexpected());
        }
        range.start = end;
        let range_ends = range.start == range.end;
        if range_ends {
            self.asked.pop_front();
        }
        self.asked_bytes -= end - start;
        let Some(mut job) = self.jobs.remove(&entry) else { return Err(unexpected()) };
        let mut part = self.stream.as_mut().and_then(|stream| stream.part.take());
        let (mut job, part, content) = blocking(move || {
            let content = job.write(part.as_mut(), &bytes[1 + 8 + 8..], start, end);
            (job, part, content)
        })
        .await;
        if let Some(stream) = &mut self.stream {
            stream.part = part;
        }
        let content = match content {
            Ok(content) => content,
            Err(VerifyError::Mismatch) => return Err(ReceiveError::Corrupt { path: job.path }),
            Err(VerifyError::Write(source)) => {
                let path = self.target(&job);
                return Err(broken(&path, source));
            }
        };
        job.left -= end - start;
        self.received.bytes += end - start;
        self.advanced();
        if job.left > 0 {
            self.jobs.insert(entry, job);
        } else {
            self.complete(entry, job, content).await?;
            // Also lets the sender forget a segment, and shows it the end of the last file.
            let entries = if self.offer.stream { self.received.kept } else { 0 };
            line.tell(&Control::Kept { entries, have: self.received.bytes }).await?;
        }
        Ok(())
    }

    fn target(&self, job: &Job) -> PathBuf {
        match &job.sink {
            Sink::Small { target, .. } | Sink::Part { target, .. } => target.clone(),
            Sink::Segment { .. } => self.stream.as_ref().map(|s| s.target.clone()).unwrap_or_default(),
        }
    }

    fn advanced(&self) {
        (self.progress)(Event::Advanced { have: self.received.bytes });
    }

    /// Gives a file its name, or notes that a segment is complete.
    async fn complete(&mut self, index: u64, job: Job, content: Option<Vec<u8>>) -> Result<(), ReceiveError> {
        let target = self.target(&job);
        let overwrite = self.options.overwrite;
        let (size, root) = (job.size, job.root);
        let finished = match job.sink {
            Sink::Segment { base, index } => {
                let Some(stream) = &mut self.stream else { return Err(unexpected()) };
                let Some(mut part) = stream.part.take() else { return Err(unexpected()) };
                let (part, noted) = blocking(move || {
                    let noted = part.note_segment(base, base + size, index + 1);
                    (part, noted)
                })
                .await;
                stream.part = Some(part);
                noted.map_err(|source| broken(&target, source))?;
                self.received.kept = index + 1;
                return Ok(());
            }
            Sink::Small { target, meta } => {
                let content = content.unwrap_or_default();
                let folder = target.parent().map(Path::to_owned);
                let before = if folder == self.unsynced { None } else { self.unsynced.take() };
                self.unsynced = folder;
                blocking(move || {
                    part::sync_folder(before.as_deref());
                    part::write_small(&target, &content, meta, overwrite)
                })
                .await
            }
            Sink::Part { part, meta, .. } => {
                blocking(move || part.finish(Some(root), size, meta, overwrite)).await
            }
        };
        tracing::trace!(index, "an entry is complete");
        match finished {
            Ok(()) => {
                self.received.kept += 1;
                (self.progress)(Event::Finished { path: job.path });
            }
            Err(FinishError::Io(source)) => return Err(broken(&target, source)),
            Err(error @ (FinishError::Exists | FinishError::Altered)) => {
                self.received.bytes -= size;
                self.problem(job.path, error.to_string());
            }
        }
        Ok(())
    }

    async fn finish(&mut self, line: &mut Line<'_>) -> Result<Received, ReceiveError> {
        if let Some(Stream { part: Some(part), target, end }) = self.stream.take() {
            let overwrite = self.options.overwrite;
            let finished = blocking(move || part.finish(None, end, Meta::default(), overwrite)).await;
            match finished {
                Ok(()) => (self.progress)(Event::Finished { path: target.display().to_string() }),
                Err(FinishError::Io(source)) => return Err(broken(&target, source)),
                Err(error) => self.problem(target.display().to_string(), error.to_string()),
            }
        }
        let folder = self.unsynced.take();
        blocking(move || part::sync_folder(folder.as_deref())).await;
        let Received { kept, left, bytes: have, .. } = self.received;
        line.tell(&Control::Done { kept, left, have }).await?;
        // The sender ends when it has this; whether it did is its affair.
        line.flush().await;
        Ok(std::mem::take(&mut self.received))
    }
}

fn broken(path: &Path, source: io::Error) -> ReceiveError {
    let path = path.to_owned();
    if is_disk(&source) {
        ReceiveError::DiskFull { path, source }
    } else {
        ReceiveError::Write { path, source }
    }
}

fn decode(bytes: &[u8]) -> Result<Message<'_>, ReceiveError> {
    message::decode(bytes).map_err(|error| ReceiveError::Protocol(error.to_string()))
}

fn unexpected() -> ReceiveError {
    ReceiveError::Protocol("a message that does not belong here".to_owned())
}
