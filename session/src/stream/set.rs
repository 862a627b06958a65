//! All streams of a session, and whose turn it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use culvert_wire::Class;

use crate::frame::Terms;
use crate::recovery::Chunk;
use crate::stream::PREFIX;
use crate::stream::receive::ReceiveHalf;
use crate::stream::send::SendHalf;
use crate::{
    Config, Event, MessageNumber, OpenError, Priority, SendError, StreamId, Unacknowledged, Violation,
};

struct Stream {
    priority: Priority,
    send: SendHalf,
    receive: ReceiveHalf,
    /// Its place in [`Streams::ready`], if it has one.
    turn: Option<u64>,
    /// Whether an event of the kind waits in [`Streams::news`], or the application knows already.
    told_readable: bool,
    told_writable: bool,
    told_acked: bool,
    /// Whether its credit waits to be announced.
    announcing: bool,
}

#[derive(Clone, Copy)]
enum News {
    Readable(StreamId),
    Writable(StreamId),
    Acked(StreamId),
}

/// The streams of a session.
///
/// Bounds: the peer opens at most `max_streams`; each stream keeps at most `stream_window` unread bytes
/// in its buffer and as much in pieces, except that messages larger than the window share one allowance
/// of `max_message`.
pub(crate) struct Streams {
    /// 0 or 1: the lowest bit of the numbers this end opens.
    own: u64,
    opened: u64,
    max_message: usize,
    max_streams: u16,
    stream_window: usize,
    send_buffer: usize,
    /// What the peer takes, once it said so.
    terms: Option<Terms>,
    streams: BTreeMap<StreamId, Stream>,
    /// Streams with something to send, the most urgent first, then by turn.
    ready: BTreeSet<(Priority, u64, StreamId)>,
    turns: u64,
    /// Streams with credit to announce.
    credits: VecDeque<StreamId>,
    /// What is left for messages larger than a window, and who waits for it.
    allowance: u64,
    waiting: VecDeque<StreamId>,
    news: VecDeque<News>,
    unacknowledged: usize,
}

impl Streams {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            own: 0,
            opened: 0,
            max_message: config.max_message,
            max_streams: config.max_streams,
            stream_window: config.stream_window,
            send_buffer: config.send_buffer,
            terms: None,
            streams: BTreeMap::new(),
            ready: BTreeSet::new(),
            turns: 0,
            credits: VecDeque::new(),
            allowance: (config.max_message + PREFIX) as u64,
            waiting: VecDeque::new(),
            news: VecDeque::new(),
            unacknowledged: 0,
        }
    }

    /// Settles who opens which numbers.
    pub(crate) fn set_role(&mut self, initiator: bool) {
        self.own = u64::from(!initiator);
    }

    /// The peer said what it takes.
    pub(crate) fn set_terms(&mut self, terms: Terms) {
        self.terms = Some(terms);
        for id in self.streams.keys().copied().collect::<Vec<_>>() {
            self.raise_limit(id, terms.stream_window);
        }
    }

    pub(crate) fn open(&mut self, priority: Priority) -> Result<StreamId, OpenError> {
        let terms = self.terms.ok_or(OpenError::NotOpen)?;
        if self.opened >= terms.max_streams {
            let limit = u16::try_from(terms.max_streams).unwrap_or(u16::MAX);
            return Err(OpenError::TooMany { limit });
        }
        let id = StreamId(self.opened * 2 + self.own);
        self.opened += 1;
        self.add(id, priority);
        Ok(id)
    }

    fn add(&mut self, id: StreamId, priority: Priority) {
        let limit = self.terms.map_or(0, |terms| terms.stream_window);
        self.streams.insert(
            id,
            Stream {
                priority,
                send: SendHalf::new(limit),
                receive: ReceiveHalf::new(self.stream_window),
                turn: None,
                told_readable: false,
                told_writable: false,
                told_acked: false,
                announcing: false,
            },
        );
    }

    pub(crate) fn send(&mut self, id: StreamId, message: Bytes) -> Result<MessageNumber, SendError> {
        let terms = self.terms.ok_or(SendError::NotOpen)?;
        let limit = usize::try_from(terms.max_message).unwrap_or(usize::MAX).min(self.max_message);
        if message.len() > limit {
            return Err(SendError::TooLarge { limit });
        }
        let stream = self.streams.get_mut(&id).ok_or(SendError::UnknownStream(id))?;
        let was_done = stream.send.is_done();
        let number = stream.send.push(message, self.send_buffer)?;
        self.unacknowledged += usize::from(was_done);
        self.refresh(id);
        Ok(number)
    }

    pub(crate) fn read(&mut self, id: StreamId) -> Option<Bytes> {
        let stream = self.streams.get_mut(&id)?;
        let Some((message, grant)) = stream.receive.read() else {
            stream.told_readable = false;
            return None;
        };
        stream.told_readable = stream.receive.is_readable();
        self.allowance += grant.unwrap_or(0);
        self.settle(id);
        if grant.is_some() {
            self.grant_waiting();
        }
        Some(message)
    }

    pub(crate) fn acked(&self, id: StreamId) -> Option<MessageNumber> {
        self.streams.get(&id)?.send.acked()
    }

    /// Whether a stream frame can be taken now; see [`ReceiveHalf::check`].
    pub(crate) fn check(&self, id: StreamId, offset: u64, len: usize) -> Result<bool, Violation> {
        match self.streams.get(&id) {
            Some(stream) => stream.receive.check(offset, len),
            None if id.0 % 2 == self.own || id.0 / 2 >= u64::from(self.max_streams) => {
                Err(Violation::InvalidStream)
            }
            None if offset + len as u64 > self.stream_window as u64 => Err(Violation::FlowControl),
            None => Ok(true),
        }
    }

    /// Takes the bytes of a stream frame that was checked.
    pub(crate) fn insert(
        &mut self,
        id: StreamId,
        priority: Priority,
        offset: u64,
        data: &[u8],
    ) -> Result<(), Violation> {
        if !self.streams.contains_key(&id) {
            self.add(id, priority);
        }
        let max = (self.max_message + PREFIX) as u64;
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.receive.insert(offset, data);
            if stream.receive.message_len().is_some_and(|len| len > max) {
                return Err(Violation::MessageTooLarge);
            }
        }
        self.settle(id);
        Ok(())
    }

    /// After the receiving half changed: its grant, its credit, whether it can be read.
    fn settle(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        // A message that is too large comes to light with the next bytes of its stream.
        let max = (self.max_message + PREFIX) as u64;
        if stream.receive.wants_grant().is_some_and(|size| size <= max) && !self.waiting.contains(&id) {
            self.waiting.push_back(id);
            self.grant_waiting();
        }
        self.announce(id);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.receive.is_readable() && !stream.told_readable {
            stream.told_readable = true;
            self.news.push_back(News::Readable(id));
        }
    }

    fn grant_waiting(&mut self) {
        while let Some(&id) = self.waiting.front() {
            let Some(stream) = self.streams.get_mut(&id) else { return };
            if let Some(size) = stream.receive.wants_grant() {
                // It fits once the others gave theirs back.
                let Some(left) = self.allowance.checked_sub(size) else { return };
                self.allowance = left;
                stream.receive.grant(size);
            }
            self.waiting.pop_front();
            self.announce(id);
        }
    }

    fn announce(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.receive.credit().is_some()
            && !stream.announcing
        {
            stream.announcing = true;
            self.credits.push_back(id);
        }
    }

    /// Announcements were lost: all of them go again.
    pub(crate) fn announce_all(&mut self) {
        for (&id, stream) in &mut self.streams {
            if !stream.announcing && stream.receive.limit() > self.stream_window as u64 {
                stream.announcing = true;
                self.credits.push_back(id);
            }
        }
    }

    pub(crate) fn has_credit(&self) -> bool {
        !self.credits.is_empty()
    }

    /// The next credit to announce.
    pub(crate) fn take_credit(&mut self) -> Option<(StreamId, u64)> {
        let id = self.credits.pop_front()?;
        let stream = self.streams.get_mut(&id)?;
        stream.announcing = false;
        Some((id, stream.receive.limit()))
    }

    /// The peer grants more of a stream.
    pub(crate) fn credited(&mut self, id: StreamId, limit: u64) -> Result<(), Violation> {
        if !self.streams.contains_key(&id) {
            return Err(Violation::InvalidStream);
        }
        self.raise_limit(id, limit);
        Ok(())
    }

    fn raise_limit(&mut self, id: StreamId, limit: u64) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.send.set_limit(limit);
            self.refresh(id);
        }
    }

    /// Lets a stream take its place among the ready ones, or leave it.
    fn refresh(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match (stream.send.is_ready(), stream.turn) {
            (true, None) => {
                stream.turn = Some(self.turns);
                self.ready.insert((stream.priority, self.turns, id));
                self.turns += 1;
            }
            (false, Some(turn)) => {
                stream.turn = None;
                self.ready.remove(&(stream.priority, turn, id));
            }
            _ => {}
        }
    }

    /// The class of the most urgent stream that has something to send.
    pub(crate) fn next_class(&self) -> Option<Class> {
        self.ready.first().map(|(priority, ..)| priority.class())
    }

    /// At most `most` bytes of the most urgent stream if it travels in `class`, and whether they were
    /// sent before. The stream then waits until the others of its priority had their turn.
    pub(crate) fn next_chunk(&mut self, class: Class, most: u64) -> Option<(Chunk, Priority, bool)> {
        let &(priority, turn, id) = self.ready.first()?;
        if priority.class() != class {
            return None;
        }
        let stream = self.streams.get_mut(&id)?;
        let (range, again) = stream.send.next(most)?;
        stream.turn = None;
        self.ready.remove(&(priority, turn, id));
        self.refresh(id);
        let chunk = Chunk { stream: id, offset: range.start, len: range.end - range.start };
        Some((chunk, priority, again))
    }

    pub(crate) fn copy(&self, chunk: Chunk, out: &mut Vec<u8>) {
        if let Some(stream) = self.streams.get(&chunk.stream) {
            stream.send.copy(range(chunk), out);
        }
    }

    pub(crate) fn acknowledge(&mut self, chunk: Chunk) {
        let buffer = self.send_buffer;
        let Some(stream) = self.streams.get_mut(&chunk.stream) else { return };
        let was_done = stream.send.is_done();
        if stream.send.acknowledge(range(chunk)) {
            self.unacknowledged -= usize::from(!was_done && stream.send.is_done());
            if !stream.told_acked {
                stream.told_acked = true;
                self.news.push_back(News::Acked(chunk.stream));
            }
            if stream.send.unblocked(buffer) && !stream.told_writable {
                stream.told_writable = true;
                self.news.push_back(News::Writable(chunk.stream));
            }
        }
        self.refresh(chunk.stream);
    }

    pub(crate) fn lose(&mut self, chunk: Chunk) {
        if let Some(stream) = self.streams.get_mut(&chunk.stream) {
            stream.send.lose(range(chunk));
            self.refresh(chunk.stream);
        }
    }

    /// Whether everything that was sent is acknowledged.
    pub(crate) fn is_done(&self) -> bool {
        self.unacknowledged == 0
    }

    pub(crate) fn unacknowledged(&self) -> Vec<Unacknowledged> {
        self.streams.iter().filter_map(|(&id, stream)| stream.send.unacknowledged(id)).collect()
    }

    #[cfg(test)]
    pub(crate) fn footprint(&self) -> usize {
        let news = self.news.len() + self.credits.len() + self.waiting.len();
        news * 16 + self.streams.values().map(|stream| stream.receive.footprint()).sum::<usize>()
    }

    /// The next event about a stream; at most three wait for each.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        Some(match self.news.pop_front()? {
            News::Readable(stream) => Event::Readable { stream },
            News::Writable(id) => {
                self.streams.get_mut(&id)?.told_writable = false;
                Event::Writable { stream: id }
            }
            News::Acked(id) => {
                let stream = self.streams.get_mut(&id)?;
                stream.told_acked = false;
                Event::Acked { stream: id, up_to: stream.send.acked()? }
            }
        })
    }
}

fn range(chunk: Chunk) -> Range<u64> {
    chunk.offset..chunk.offset + chunk.len
}
