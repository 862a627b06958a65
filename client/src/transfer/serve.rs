//! The sender's half of a conversation: answers, in order, what the receiver asks for.
//!
//! It holds one page, one open file and a bounded queue of ranges. Between two pieces it looks whether
//! the receiver said something, so a `Stop` is heard at once.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::catalogue::{Catalogue, Content, Listed, Status};
use super::line::{Line, LineError, PATIENCE};
use super::message::{self, Control, Entry, GoneReason, Message, PIECE, Range, StopReason, VERSION};
use super::offer::Offer;
use super::progress::{Event, Progress};
use super::tree::EncodePieceError;
use crate::transport::Connection;

/// Ranges that may wait for their turn; the receiver keeps to fewer.
const MAX_QUEUE: usize = 1024;
/// How often a receiver that waits for a page hears that it is coming.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// What a receiver has when a conversation ended as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Entries that it kept.
    pub kept: u64,
    /// Entries that it could or would not take; it knows why.
    pub left: u64,
    /// Bytes that are verified on its disk.
    pub have: u64,
    /// Entries that this side could not give it: unreadable, or changed since they were listed. They
    /// are among those left; trying again cannot bring them.
    pub gone: u64,
}

impl Served {
    /// Whether it has everything.
    pub fn is_complete(&self) -> bool {
        self.left == 0
    }
}

/// Why a receiver did not get everything from this conversation. It may come back and go on.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Someone here wanted it to end.
    #[error("the transfer was cancelled")]
    Cancelled,
    /// The receiver closed without a word.
    #[error("the receiver left; it goes on where it was when it receives again")]
    Left,
    /// The receiver ended it.
    #[error("the receiver stopped: {0}")]
    Stopped(StopReason),
    /// The receiver is connected and silent.
    #[error("the receiver said nothing for {} minutes", PATIENCE.as_secs() / 60)]
    Silent,
    /// The receiver sent what the protocol does not allow.
    #[error("the receiver did not keep to the protocol: {0}")]
    Protocol(String),
    /// The receiver is of an incompatible version.
    #[error(
        "the receiver speaks version {0} of the transfer protocol, this side {VERSION}: update the older one"
    )]
    Version(u16),
    /// The list cannot be made or read.
    #[error("cannot read what is offered: {0}")]
    Unreadable(String),
    /// The conversation ended.
    #[error("the connection ended: {0:#}")]
    Connection(anyhow::Error),
}

impl From<LineError> for SendError {
    fn from(error: LineError) -> Self {
        match error {
            LineError::Cancelled => SendError::Cancelled,
            LineError::Left => SendError::Left,
            LineError::Silent => SendError::Silent,
            LineError::Broken(error) => SendError::Connection(error),
        }
    }
}

pub(super) async fn serve(
    offer: &Offer,
    connection: &mut dyn Connection,
    progress: &Progress,
    cancelled: &CancellationToken,
) -> Result<Served, SendError> {
    let mut line = Line::new(connection, cancelled);
    let mut conversation = Conversation {
        offer,
        status: offer.catalogue.status(),
        progress,
        queue: VecDeque::new(),
        page: None,
        open: None,
        cached: Vec::new(),
        cached_first: 0,
        gone: BTreeSet::new(),
        heartbeat: tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT),
    };
    conversation.heartbeat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let result = conversation.run(&mut line).await;
    let reason = match &result {
        Err(SendError::Cancelled) => StopReason::Cancelled,
        Err(SendError::Protocol(_)) => StopReason::Protocol,
        Err(SendError::Version(_)) => StopReason::Version,
        Err(SendError::Unreadable(_)) => StopReason::CannotRead,
        Err(SendError::Connection(_)) => {
            return match line.last_word().await {
                Some(reason) => Err(SendError::Stopped(reason)),
                None => result,
            };
        }
        _ => return result,
    };
    line.stop(reason).await;
    result
}

struct Conversation<'a> {
    offer: &'a Offer,
    status: tokio::sync::watch::Receiver<Status>,
    progress: &'a Progress,
    queue: VecDeque<Range>,
    /// The page that the receiver waits for.
    page: Option<u64>,
    /// The entry that is being sent.
    open: Option<(u64, Listed, Arc<Content>)>,
    /// The page that was read last.
    cached: Vec<Listed>,
    cached_first: u64,
    /// Entries that could not be given. Grows with what is wrong here, not with what the peer says.
    gone: BTreeSet<u64>,
    /// When a receiver that waits hears that something is done for it.
    heartbeat: tokio::time::Interval,
}

impl Conversation<'_> {
    async fn run(&mut self, line: &mut Line<'_>) -> Result<Served, SendError> {
        self.greet(line).await?;
        loop {
            let received =
                if self.queue.is_empty() { self.wait(line).await? } else { line.hear_now().transpose()? };
            if let Some(bytes) = received {
                if let Some(served) = self.hear(&bytes)? {
                    return Ok(served);
                }
                continue;
            }
            self.send_page(line).await?;
            self.send_piece(line).await?;
        }
    }

    async fn greet(&mut self, line: &mut Line<'_>) -> Result<(), SendError> {
        match decode(&line.hear().await?)? {
            Control::Hello { version: VERSION } => {}
            Control::Hello { version } => return Err(SendError::Version(version)),
            _ => return Err(unexpected()),
        }
        let announced = loop {
            let status = self.status.borrow_and_update().clone();
            match (status.announced, status.end) {
                (Some(announced), _) => break announced,
                (None, Some(end)) => return Err(SendError::Unreadable(end.err().unwrap_or_default())),
                (None, None) => {}
            }
            tokio::select! {
                changed = self.status.changed() => changed.map_err(|_| SendError::Unreadable(String::new()))?,
                heard = line.hear() => {
                    heard?;
                    return Err(unexpected());
                }
                _ = self.heartbeat.tick() => line.tell(&Control::Preparing { done: 0, total: 0 }).await?,
            }
        };
        let (entries, bytes) = announced;
        let (id, name, stream) = (self.offer.id, self.offer.name.clone(), self.offer.stream);
        Ok(line.tell(&Control::Offer { version: VERSION, id, name, stream, entries, bytes }).await?)
    }

    /// Waits for a word from the receiver, or until the page it waits for is there.
    async fn wait(&mut self, line: &mut Line<'_>) -> Result<Option<Vec<u8>>, SendError> {
        let Some(from) = self.page else {
            return Ok(Some(line.hear().await?));
        };
        let status = self.status.borrow_and_update().clone();
        if status.entries > from || status.end.is_some() {
            return Ok(line.hear_now().transpose()?);
        }
        let total = status.announced.map_or(0, |(_, bytes)| bytes);
        tokio::select! {
            heard = line.hear() => return Ok(Some(heard?)),
            _ = self.status.changed() => {}
            _ = self.heartbeat.tick() => {
                line.tell(&Control::Preparing { done: status.hashed, total }).await?;
            }
        }
        Ok(None)
    }

    /// Takes in what the receiver said; its last word ends the conversation.
    fn hear(&mut self, bytes: &[u8]) -> Result<Option<Served>, SendError> {
        match decode(bytes)? {
            Control::Page { from } if self.page.is_none() => self.page = Some(from),
            Control::Want { ranges, have } => {
                if self.queue.len() + ranges.len() > MAX_QUEUE {
                    return Err(SendError::Protocol("it asked for too much at once".to_owned()));
                }
                self.queue.extend(ranges);
                (self.progress)(Event::Advanced { have });
            }
            Control::Kept { entries, have } => {
                self.offer.catalogue.forget(entries);
                (self.progress)(Event::Advanced { have });
            }
            Control::Done { kept, left, have } => {
                self.offer.catalogue.forget(u64::MAX);
                (self.progress)(Event::Advanced { have });
                let gone = self.gone.len() as u64;
                return Ok(Some(Served { kept, left, have, gone }));
            }
            Control::Stop { reason } => return Err(SendError::Stopped(reason)),
            _ => return Err(unexpected()),
        }
        Ok(None)
    }

    async fn send_page(&mut self, line: &mut Line<'_>) -> Result<(), SendError> {
        let Some(first) = self.page else { return Ok(()) };
        let status = self.status.borrow().clone();
        if first >= status.entries {
            return match status.end {
                None => Ok(()),
                Some(Err(error)) => Err(SendError::Unreadable(error)),
                Some(Ok(())) => {
                    self.page = None;
                    Ok(line.tell(&Control::Entries { first, entries: Vec::new(), more: false }).await?)
                }
            };
        }
        self.load_page(first).await?;
        self.page = None;
        let missing = (first..).zip(&self.cached).filter(|(_, l)| matches!(l.entry, Entry::Missing { .. }));
        self.gone.extend(missing.map(|(index, _)| index));
        let entries: Vec<Entry> = self.cached.iter().map(|listed| listed.entry.clone()).collect();
        let more = status.end.is_none() || first + (entries.len() as u64) < status.entries;
        Ok(line.tell(&Control::Entries { first, entries, more }).await?)
    }

    async fn load_page(&mut self, from: u64) -> Result<(), SendError> {
        let catalogue = Arc::clone(&self.offer.catalogue);
        let page = blocking(move || catalogue.page(from)).await;
        let page = page.map_err(|error| SendError::Unreadable(error.to_string()))?;
        self.cached =
            page.ok_or_else(|| SendError::Protocol("it asked for what is not listed".to_owned()))?;
        self.cached_first = from;
        Ok(())
    }

    async fn send_piece(&mut self, line: &mut Line<'_>) -> Result<(), SendError> {
        let Some(range) = self.queue.front().copied() else { return Ok(()) };
        if let Err(reason) = self.open(range.entry).await? {
            return self.gone(line, range.entry, reason).await;
        }
        let Some((_, listed, content)) = &self.open else { return Ok(()) };
        let (Entry::File { size, root, .. } | Entry::Segment { size, root }) = listed.entry else {
            return Err(SendError::Protocol("it asked for the bytes of a folder".to_owned()));
        };
        if range.end > size {
            return Err(SendError::Protocol("it asked for bytes behind the end of a file".to_owned()));
        }
        let end = range.end.min(range.start + PIECE);
        let (catalogue, content) = (Arc::clone(&self.offer.catalogue), Arc::clone(content));
        let made = blocking(move || make_piece(&catalogue, &content, (size, root), (range, end))).await;
        match made {
            Ok(piece) => {
                line.send(&piece).await?;
                match self.queue.front_mut() {
                    Some(front) if end < front.end => front.start = end,
                    _ => drop(self.queue.pop_front()),
                }
                Ok(())
            }
            Err(EncodePieceError::Changed) => self.gone(line, range.entry, GoneReason::Changed).await,
            Err(EncodePieceError::Read(error)) => {
                tracing::debug!(%error, "a listed file cannot be read");
                self.gone(line, range.entry, GoneReason::Unreadable).await
            }
        }
    }

    async fn open(&mut self, index: u64) -> Result<Result<(), GoneReason>, SendError> {
        if self.open.as_ref().is_some_and(|(open, ..)| *open == index) {
            return Ok(Ok(()));
        }
        let position = |first: u64| index.checked_sub(first).and_then(|n| usize::try_from(n).ok());
        if position(self.cached_first).is_none_or(|n| n >= self.cached.len()) {
            self.load_page(index).await?;
        }
        let listed = position(self.cached_first).and_then(|n| self.cached.get(n)).cloned();
        let listed =
            listed.ok_or_else(|| SendError::Protocol("it asked for what is not listed".to_owned()))?;
        let catalogue = Arc::clone(&self.offer.catalogue);
        let (listed, opened) = blocking(move || {
            let opened = catalogue.open(index, &listed);
            (listed, opened)
        })
        .await;
        Ok(opened.map(|content| self.open = Some((index, listed, Arc::new(content)))))
    }

    /// Gives an entry up, and says so to both sides.
    async fn gone(&mut self, line: &mut Line<'_>, entry: u64, reason: GoneReason) -> Result<(), SendError> {
        self.queue.retain(|range| range.entry != entry);
        self.open = None;
        let listed = usize::try_from(entry - self.cached_first.min(entry)).ok();
        if let Some(Entry::File { path, .. }) = listed.and_then(|n| self.cached.get(n)).map(|l| &l.entry)
            && self.gone.insert(entry)
        {
            (self.progress)(Event::Skipped { path: path.join("/"), reason: reason.to_string() });
        }
        Ok(line.tell(&Control::Gone { entry, reason }).await?)
    }
}

/// Reads a piece. At the beginning of a range the file is compared with what was listed.
fn make_piece(
    catalogue: &Catalogue,
    content: &Content,
    what: (u64, super::tree::Root),
    (range, end): (Range, u64),
) -> Result<Vec<u8>, EncodePieceError> {
    if range.start.is_multiple_of(message::MAX_RANGE) && !content.is_unchanged() {
        return Err(EncodePieceError::Changed);
    }
    let mut piece = message::piece_header(range.entry, range.start);
    catalogue.encode(content, what, (range.start, end), &mut piece)?;
    Ok(piece)
}

fn decode(bytes: &[u8]) -> Result<Control, SendError> {
    match message::decode(bytes) {
        Ok(Message::Control(control)) => Ok(control),
        Ok(Message::Piece(_)) => Err(unexpected()),
        Err(error) => Err(SendError::Protocol(error.to_string())),
    }
}

fn unexpected() -> SendError {
    SendError::Protocol("a message that does not belong here".to_owned())
}

/// Runs what waits for a disk, on a thread that may.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        // It was not cancelled, nobody holds its handle: it panicked.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
