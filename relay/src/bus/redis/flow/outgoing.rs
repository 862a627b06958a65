//! What one node has for another: waiting, under way, or kept until it is confirmed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use culvert_wire::{Class, NodeId, Verdict};
use hashbrown::HashMap;

use super::{Confirm, FIRST_CREDIT, Numbers};
use crate::bus::redis::message::{ASK, Chunk, EMPTY, HEADER, Header, Item, Part, Parts, RESYNC};
use crate::bus::{Letter, Undelivered};

/// A message is closed at so many bytes of letters and membership: beyond, Redis carries no more for it,
/// and subscribers are more likely to be cut off.
const CHUNK_BYTES: usize = 4 << 10;
/// Letters of one message.
const CHUNK_LETTERS: u32 = 64;
/// Verdicts of one message.
const CHUNK_VERDICTS: usize = 32;
/// Verdicts among which a new one looks for its like.
const MERGED: usize = 16;
/// How often a sender without credit asks for it.
const ASK_BLOCKED: Duration = Duration::from_millis(200);
/// How often a sender asks for confirmation of what it has sent.
const ASK_UNCONFIRMED: Duration = Duration::from_secs(1);

/// The sending half.
#[derive(Debug)]
pub struct Outgoing {
    numbers: Arc<Numbers>,
    version: u8,
    target: u64,
    epoch: u32,
    sequence: u64,
    offset: u64,
    letters: u64,
    granted: u64,
    stream: VecDeque<Chunk>,
    stream_bytes: usize,
    queue_bytes: usize,
    /// Verdicts of epochs that have ended, as they were written.
    again: VecDeque<Bytes>,
    verdicts: VecDeque<Undelivered>,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    reachable: bool,
    ask: bool,
    asked: Instant,
}

/// A message that was handed to Redis and is not confirmed.
#[derive(Debug)]
struct Kept {
    sequence: u64,
    offset: u64,
    letters: u64,
    message: Bytes,
    since: Instant,
}

/// A message to be published.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The whole of it.
    pub message: Bytes,
    /// Its sequence number; `None` if it has no items.
    pub sequence: Option<u64>,
    /// Letters in it.
    pub letters: u32,
}

impl Outgoing {
    /// Nothing waits. `target` is the other node's process, `version` what both speak.
    pub fn new(numbers: Arc<Numbers>, target: u64, version: u8, queue_bytes: usize, now: Instant) -> Self {
        Self {
            epoch: numbers.epoch(),
            numbers,
            version,
            target,
            sequence: 0,
            offset: 0,
            letters: 0,
            granted: FIRST_CREDIT,
            stream: VecDeque::new(),
            stream_bytes: 0,
            queue_bytes,
            again: VecDeque::new(),
            verdicts: VecDeque::new(),
            kept: VecDeque::new(),
            kept_bytes: 0,
            reachable: true,
            ask: false,
            asked: now,
        }
    }

    /// Queues a letter.
    ///
    /// # Errors
    /// `Unreachable` while the way is known to be closed, `Full` over the bound. The last quarter of the
    /// queue is not for bulk, the last sixteenth for control only.
    pub fn letter(&mut self, letter: &Letter<'_>) -> Result<(), Verdict> {
        if !self.reachable {
            return Err(Verdict::Unreachable);
        }
        let bound = match letter.class {
            Class::Control => self.queue_bytes,
            Class::Normal => self.queue_bytes / 16 * 15,
            Class::Bulk => self.queue_bytes / 4 * 3,
        };
        if self.stream_bytes + letter.payload.len() > bound {
            return Err(Verdict::Full);
        }
        self.push(letter.payload.len(), |chunk| chunk.letter(letter));
        Ok(())
    }

    /// Queues an item: membership in order with the letters, verdicts ahead of them.
    pub fn item(&mut self, item: &Item) {
        let Item::Undelivered(undelivered) = item else {
            let number = self.numbers.item();
            return self.push(0, |chunk| chunk.item(number, item));
        };
        let like = |other: &&mut Undelivered| {
            (other.topic, other.from, other.to, other.verdict)
                == (undelivered.topic, undelivered.from, undelivered.to, undelivered.verdict)
        };
        match self.verdicts.iter_mut().rev().take(MERGED).find(like) {
            Some(merged) => merged.count = merged.count.saturating_add(undelivered.count),
            None => self.verdicts.push_back(*undelivered),
        }
    }

    /// Appends to the last chunk, or to a new one if that is full.
    fn push(&mut self, bytes: usize, put: impl FnOnce(&mut Chunk)) {
        let has_room =
            |chunk: &&mut Chunk| chunk.letters() < CHUNK_LETTERS && chunk.len() + bytes < CHUNK_BYTES;
        if self.stream.back_mut().filter(has_room).is_none() {
            self.stream.push_back(Chunk::new(self.version));
        }
        if let Some(chunk) = self.stream.back_mut() {
            let before = chunk.len();
            put(chunk);
            self.stream_bytes += chunk.len() - before;
        }
    }

    /// Whether [`Outgoing::take`] has something.
    pub fn is_ready(&self) -> bool {
        self.ask || (self.reachable && (self.has_verdicts() || self.may_stream()))
    }

    fn has_verdicts(&self) -> bool {
        !self.again.is_empty() || !self.verdicts.is_empty()
    }

    fn may_stream(&self) -> bool {
        self.stream.front().is_some_and(|chunk| self.offset + chunk.len() as u64 <= self.granted)
    }

    /// Takes the next message: verdicts, then one chunk of the stream if there is credit. With `say` there
    /// is always one.
    pub fn take(
        &mut self,
        node: NodeId,
        instance: u64,
        confirm: Confirm,
        say: bool,
        now: Instant,
    ) -> Option<Taken> {
        let mut verdicts = Chunk::new(self.version);
        let mut stream = None;
        if self.reachable {
            self.take_verdicts(&mut verdicts);
            if self.may_stream() {
                stream = self.stream.pop_front();
            }
        }
        let items = verdicts.len() + stream.as_ref().map_or(0, Chunk::len);
        if items == 0 && !say && !self.ask {
            return None;
        }
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let header = Header {
            version: self.version,
            flags: flag(items == 0, EMPTY) | flag(self.ask, ASK) | flag(confirm.resync, RESYNC),
            source: node,
            instance,
            target: self.target,
            epoch: self.epoch,
            sequence: self.sequence,
            offset: self.offset,
            letters: self.letters,
            confirmed_epoch: confirm.epoch,
            confirmed: confirm.next,
            granted: confirm.granted,
        };
        self.ask = false;
        let mut message = BytesMut::with_capacity(HEADER + items);
        header.put(&mut message);
        message.extend_from_slice(verdicts.bytes());
        let mut letters = 0;
        if let Some(chunk) = stream {
            message.extend_from_slice(chunk.bytes());
            self.stream_bytes -= chunk.len();
            letters = chunk.letters();
        }
        let message = message.freeze();
        if items == 0 {
            return Some(Taken { message, sequence: None, letters });
        }
        self.kept.push_back(Kept {
            sequence: self.sequence,
            offset: self.offset,
            letters: self.letters,
            message: message.clone(),
            since: now,
        });
        self.kept_bytes += message.len();
        self.sequence += 1;
        self.offset += items as u64;
        self.letters += u64::from(letters);
        Some(Taken { message, sequence: Some(header.sequence), letters })
    }

    fn take_verdicts(&mut self, chunk: &mut Chunk) {
        for _ in 0..CHUNK_VERDICTS {
            if let Some(item) = self.again.pop_front() {
                chunk.again(&item);
            } else if let Some(undelivered) = self.verdicts.pop_front() {
                chunk.item(self.numbers.item(), &Item::Undelivered(undelivered));
            } else {
                return;
            }
        }
    }

    /// Takes what the other node says of this direction; gives the letters that are lost if that ended
    /// the epoch.
    pub fn confirmed(&mut self, header: &Header) -> Option<Vec<Undelivered>> {
        if header.confirmed_epoch != self.epoch {
            return None;
        }
        while let Some(kept) = self.kept.pop_front_if(|kept| kept.sequence < header.confirmed) {
            self.kept_bytes -= kept.message.len();
        }
        self.granted = self.granted.max(header.granted);
        header.has(RESYNC).then(|| self.end_epoch(Verdict::Unknown))
    }

    /// Begins a new epoch: what is not confirmed is lost, letters with this verdict, items are sent again.
    pub fn end_epoch(&mut self, verdict: Verdict) -> Vec<Undelivered> {
        self.epoch = self.numbers.epoch();
        self.granted = FIRST_CREDIT;
        self.go_back(0, verdict)
    }

    /// Takes the messages from this one on back: they were not published. The epoch goes on.
    pub fn unpublished(&mut self, sequence: u64) -> Vec<Undelivered> {
        self.go_back(sequence, Verdict::Unreachable)
    }

    fn go_back(&mut self, sequence: u64, verdict: Verdict) -> Vec<Undelivered> {
        let first = self.kept.partition_point(|kept| kept.sequence < sequence);
        let back: Vec<Kept> = self.kept.drain(first..).collect();
        (self.sequence, self.offset, self.letters) = match back.first() {
            Some(kept) if sequence > 0 => (kept.sequence, kept.offset, kept.letters),
            _ if sequence > 0 => (self.sequence, self.offset, self.letters),
            _ => (0, 0, 0),
        };
        let mut lost = Losses::new(verdict);
        let mut membership = Vec::new();
        let mut verdicts = Vec::new();
        for kept in back {
            self.kept_bytes -= kept.message.len();
            lost.collect(self.version, &kept.message[HEADER..], |item, bytes| match item {
                Item::Undelivered(_) => verdicts.push(Bytes::copy_from_slice(bytes)),
                Item::Arrived { .. } | Item::Departed { .. } | Item::Resynced => {
                    again(&mut membership, self.version, bytes);
                }
            });
        }
        for item in verdicts.into_iter().rev() {
            self.again.push_front(item);
        }
        for chunk in membership.into_iter().rev() {
            self.stream_bytes += chunk.len();
            self.stream.push_front(chunk);
        }
        lost.into_vec()
    }

    /// Gives up the letters that wait; items stay. For when the way is closed for longer.
    pub fn give_up(&mut self, verdict: Verdict) -> Vec<Undelivered> {
        let mut lost = Losses::new(verdict);
        let mut membership = Vec::new();
        for chunk in self.stream.drain(..) {
            lost.collect(self.version, chunk.bytes(), |_, bytes| {
                again(&mut membership, self.version, bytes);
            });
        }
        self.stream_bytes = membership.iter().map(Chunk::len).sum();
        self.stream.extend(membership);
        lost.into_vec()
    }

    /// Opens or closes the way: while it is closed, letters are refused and only [`Outgoing::ask`] is heard.
    pub fn set_reachable(&mut self, reachable: bool) {
        self.reachable = reachable;
    }

    /// Has the next message ask for an answer.
    pub fn ask(&mut self, now: Instant) {
        self.ask = true;
        self.asked = now;
    }

    /// To be called about ten times a second; `true` if it is time to ask.
    pub fn tick(&mut self, now: Instant) -> bool {
        let blocked = self.reachable && !self.stream.is_empty() && !self.may_stream();
        let unconfirmed =
            self.kept.front().is_some_and(|kept| now.duration_since(kept.since) >= ASK_UNCONFIRMED);
        let pause = if blocked { ASK_BLOCKED } else { ASK_UNCONFIRMED };
        let due = (blocked || unconfirmed) && now.duration_since(self.asked) >= pause;
        if due {
            self.ask(now);
        }
        due
    }

    /// Whether it waits for credit.
    pub fn is_blocked(&self) -> bool {
        !self.stream.is_empty() && !self.may_stream()
    }

    /// Bytes that wait, and bytes that are not confirmed.
    pub fn held(&self) -> (usize, usize) {
        (self.stream_bytes, self.kept_bytes)
    }
}

/// Appends an item that was written before to the last of the chunks, or to a new one if that is full.
fn again(chunks: &mut Vec<Chunk>, version: u8, item: &[u8]) {
    if chunks.last().is_none_or(|chunk| chunk.len() >= CHUNK_BYTES) {
        chunks.push(Chunk::new(version));
    }
    if let Some(chunk) = chunks.last_mut() {
        chunk.again(item);
    }
}

/// Letters that were not delivered, merged by whom to tell what.
struct Losses {
    verdict: Verdict,
    by_route: HashMap<(culvert_wire::ConnId, culvert_wire::ConnId, culvert_wire::TopicId), u32>,
}

impl Losses {
    fn new(verdict: Verdict) -> Self {
        Self { verdict, by_route: HashMap::new() }
    }

    /// Counts the letters among these items and hands on the others.
    fn collect(&mut self, version: u8, items: &[u8], mut other: impl FnMut(&Item, &[u8])) {
        for part in Parts::new(version, items).flatten() {
            match part {
                Part::Letter(letter) => {
                    *self.by_route.entry((letter.from, letter.to, letter.topic)).or_default() += 1;
                }
                Part::Item { item, bytes, .. } => other(&item, bytes),
            }
        }
    }

    fn into_vec(self) -> Vec<Undelivered> {
        let verdict = self.verdict;
        let undelivered =
            |((from, to, topic), count)| Undelivered { topic: Some(topic), from, to, verdict, count };
        self.by_route.into_iter().map(undelivered).collect()
    }
}
