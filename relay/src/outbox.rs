//! What waits to be written to one connection: bounded in bytes, three classes, fair between senders.
//!
//! Anyone may [push](Outbox::push); one writer [takes](Outbox::poll_take). Full means refused, never
//! waited for and never at the cost of what another sender has queued:
//!
//! - over the byte limit, or over what all queues of the node may hold together ([`crate::budget`]), every
//!   frame is refused as `full`;
//! - over half of it, a sender that holds more than an equal share is refused, so a flood from one
//!   peer leaves room for the others;
//! - the last sixteenth is shared with one sender more than there are: whoever has nothing queued finds
//!   room there, however long the flood has lasted;
//! - the relay's own frames (members, notices) have a bound of their own; a connection that lets even
//!   those pile up is closed as slow, because losing one would leave it with a wrong picture;
//! - verdicts are merged by address and reason, so they are never dropped; the number of different
//!   ones is bounded by the reader, which stops reading until [`Outbox::poll_verdicts_below`] lets it go on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use culvert_wire::{Class, Close, ConnId, Frame, Handle, Header, Verdict};
use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::budget::{Budget, Share};
use crate::websocket::Message;

/// What a queued frame costs beyond its bytes: the entry, its allocation and the sender's account.
pub const PARCEL_OVERHEAD: usize = 64;

/// The part of the queue in which a sender that has nothing queued finds room: 64 KiB of the default
/// 1 MiB, some handshakes. Clients leave an eighth free, so it costs a lone sender nothing.
const RESERVE: usize = 16;

/// Bytes that each class may send, per round, while the others wait: 16 to 4 to 1.
const QUANTUM: [usize; 3] = [64 << 10, 16 << 10, 4 << 10];

/// Most bytes of verdicts and notices that the relay itself keeps for one connection.
const OWN_LIMIT: usize = 1 << 20;

/// Which frames a verdict speaks of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VerdictKey {
    /// The topic, by the sender's own number.
    pub handle: Handle,
    /// To whom they were; [`ConnId::NONE`] for a broadcast.
    pub to: ConnId,
    /// Whether they were broadcasts.
    pub broadcast: bool,
    /// Why they were not delivered.
    pub verdict: Verdict,
}

/// Frames of one sender that a connection did not take before it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rest {
    /// Whose they were.
    pub sender: ConnId,
    /// The topic, by the number it has at the receiver.
    pub handle: Handle,
    /// Whether they were broadcasts.
    pub broadcast: bool,
    /// How many.
    pub count: u32,
}

/// One connection's outgoing queue.
pub struct Outbox {
    limit: usize,
    queue: Mutex<Queue>,
}

struct Queue {
    share: Share,
    own: VecDeque<Message>,
    own_bytes: usize,
    verdicts: HashMap<VerdictKey, u32>,
    classes: [VecDeque<Parcel>; 3],
    credit: [usize; 3],
    bytes: usize,
    senders: HashMap<ConnId, Sender>,
    writer: Option<Waker>,
    reader: Option<Waker>,
    close: Option<Close>,
    held: bool,
}

struct Parcel {
    message: Message,
    sender: ConnId,
}

#[derive(Default)]
struct Sender {
    bytes: usize,
    /// News of this sender that must not overtake what it sent.
    news: Vec<Message>,
}

impl Outbox {
    /// An empty queue that holds at most `limit` bytes of peers' frames, all of them within `budget`.
    pub fn new(limit: usize, budget: &Arc<Budget>) -> Self {
        Self { limit, queue: Mutex::new(Queue::new(Share::of(budget))) }
    }

    /// Queues a peer's frame.
    ///
    /// # Errors
    /// [`Verdict::Full`] over the limits above; [`Verdict::Gone`] once closed.
    pub fn push(&self, sender: ConnId, class: Class, message: Message) -> Result<(), Verdict> {
        let cost = cost(&message);
        let mut queue = self.queue.lock();
        let queue = &mut *queue;
        if queue.close.is_some() {
            return Err(Verdict::Gone);
        }
        let total = queue.bytes + cost;
        if total > self.limit {
            return Err(Verdict::Full);
        }
        if total > self.limit / 2 {
            let held = queue.senders.get(&sender).map_or(0, |account| account.bytes);
            let newcomer = usize::from(total > self.limit - self.limit / RESERVE);
            let sharers = queue.senders.len() + usize::from(held == 0) + newcomer;
            if sharers > 1 && held + cost > self.limit / sharers {
                return Err(Verdict::Full);
            }
        }
        if !queue.share.cover(total) {
            return Err(Verdict::Full);
        }
        queue.senders.entry(sender).or_default().bytes += cost;
        queue.bytes = total;
        queue.classes[usize::from(class.number())].push_back(Parcel { message, sender });
        queue.wake_writer();
        Ok(())
    }

    /// Queues a frame of the relay itself, ahead of what peers sent.
    pub fn push_own(&self, frame: &Frame) {
        self.push_own_message(encode(frame));
    }

    /// The same for what is no frame: the answer to a WebSocket's ping.
    pub fn push_own_message(&self, message: Message) {
        self.queue.lock().push_own(message);
    }

    /// Queues news about another connection: behind all that it sent, if `after_its_frames` or if other
    /// such news waits there; ahead of everything otherwise.
    pub fn push_news(&self, about: ConnId, frame: &Frame, after_its_frames: bool) {
        let mut queue = self.queue.lock();
        match queue.senders.get_mut(&about) {
            Some(sender) if sender.bytes > 0 && (after_its_frames || !sender.news.is_empty()) => {
                let message = encode(frame);
                let cost = cost(&message);
                sender.news.push(message);
                queue.count_own(cost);
            }
            _ => queue.push_own(encode(frame)),
        }
    }

    /// Writes nothing until [`Outbox::release`], so that what is said about a topic that is being
    /// joined does not come before the answer to the join.
    pub fn hold(&self) {
        self.queue.lock().held = true;
    }

    /// Goes on writing, with `first` ahead of everything that waits.
    pub fn release(&self, first: &Frame) {
        let mut queue = self.queue.lock();
        queue.held = false;
        if queue.close.is_none() {
            let message = encode(first);
            queue.count_own(cost(&message));
            queue.own.push_front(message);
            queue.wake_writer();
        }
    }

    /// Reports `count` more undelivered frames; `false` once closed, when nobody can be told.
    pub fn report(&self, key: VerdictKey, count: u32) -> bool {
        let mut queue = self.queue.lock();
        if queue.close.is_some() {
            return false;
        }
        let total = queue.verdicts.entry(key).or_default();
        *total = total.saturating_add(count);
        queue.wake_writer();
        true
    }

    /// Waits until fewer than `below` different verdicts wait. One waiter at a time; cancel safe.
    ///
    /// # Errors
    /// The reason of [`Outbox::close`]: whoever is closed need not be read any more.
    pub fn poll_verdicts_below(&self, below: usize, cx: &Context<'_>) -> Poll<Result<(), Close>> {
        let mut queue = self.queue.lock();
        if let Some(close) = queue.close {
            return Poll::Ready(Err(close));
        }
        if queue.verdicts.len() < below {
            return Poll::Ready(Ok(()));
        }
        queue.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ends the connection: the writer gets `Err` once what the relay itself queued is written, and what
    /// peers sent waits for [`Outbox::take_rest`]. The first reason stays.
    pub fn close(&self, close: Close) {
        let mut queue = self.queue.lock();
        if queue.close.is_none() {
            queue.close = Some(close);
            queue.wake_writer();
            if let Some(reader) = queue.reader.take() {
                reader.wake();
            }
        }
    }

    /// Empties a closed queue of what peers sent, and says whose frames those were.
    pub fn take_rest(&self) -> Vec<Rest> {
        let mut queue = self.queue.lock();
        let mut rest: HashMap<(ConnId, Handle, bool), u32> = HashMap::new();
        for parcel in queue.classes.iter_mut().flat_map(std::mem::take) {
            if let Ok((header, _)) = Header::split(parcel.message.frame()) {
                *rest.entry((parcel.sender, header.handle, header.broadcast)).or_default() += 1;
            }
        }
        queue.senders = HashMap::new();
        queue.bytes = 0;
        queue.share.shrink_to(0);
        rest.into_iter()
            .map(|((sender, handle, broadcast), count)| Rest { sender, handle, broadcast, count })
            .collect()
    }

    /// Moves what is ready, at most about `max_bytes`, into `out`, and says how many of those frames are
    /// peers'. One waiter at a time; cancel safe.
    ///
    /// # Errors
    /// The reason of [`Outbox::close`], after everything of the relay's own was taken.
    pub fn poll_take(
        &self,
        out: &mut Vec<Message>,
        max_bytes: usize,
        cx: &Context<'_>,
    ) -> Poll<Result<usize, Close>> {
        let mut queue = self.queue.lock();
        let queue = &mut *queue;
        let mut room = max_bytes;
        let mut own = out.len();
        if !queue.held || queue.close.is_some() {
            queue.take_own(out, &mut room);
            own = out.len();
            if queue.close.is_none() {
                queue.take_classes(out, &mut room);
            }
        }
        if !out.is_empty() {
            return Poll::Ready(Ok(out.len() - own));
        }
        if let Some(close) = queue.close {
            return Poll::Ready(Err(close));
        }
        match &mut queue.writer {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Frees the room that a burst made and that nothing is in any more.
    ///
    /// Not done by whoever empties the queue, because under load it would be made again at once.
    pub fn give_back_room(&self) {
        let mut queue = self.queue.lock();
        let Queue { own, classes, verdicts, senders, .. } = &mut *queue;
        if own.is_empty() {
            own.shrink_to_fit();
        }
        for class in classes.iter_mut().filter(|class| class.is_empty()) {
            class.shrink_to_fit();
        }
        if verdicts.is_empty() {
            verdicts.shrink_to_fit();
        }
        if senders.is_empty() {
            senders.shrink_to_fit();
        }
    }

    /// Bytes of peers' frames that wait, overhead included.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.queue.lock().bytes
    }
}

impl Queue {
    fn new(share: Share) -> Self {
        Self {
            share,
            own: VecDeque::new(),
            own_bytes: 0,
            verdicts: HashMap::new(),
            classes: Default::default(),
            credit: [0; 3],
            bytes: 0,
            senders: HashMap::new(),
            writer: None,
            reader: None,
            close: None,
            held: false,
        }
    }

    fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    fn push_own(&mut self, message: Message) {
        if self.close.is_none() {
            self.count_own(cost(&message));
            self.own.push_back(message);
            self.wake_writer();
        }
    }

    fn count_own(&mut self, cost: usize) {
        self.own_bytes += cost;
        if self.own_bytes > OWN_LIMIT {
            self.close.get_or_insert(Close::Slow);
            self.wake_writer();
        }
    }

    /// Verdicts first: whoever pings behind its frames has all verdicts about them when the pong comes.
    fn take_own(&mut self, out: &mut Vec<Message>, room: &mut usize) {
        if !self.verdicts.is_empty() {
            for (key, count) in self.verdicts.drain() {
                let VerdictKey { handle, to, broadcast, verdict } = key;
                let message = encode(&Frame::Undeliverable { broadcast, handle, to, verdict, count });
                *room = room.saturating_sub(message.frame().len());
                out.push(message);
            }
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
        }
        while *room > 0
            && let Some(message) = self.own.pop_front()
        {
            self.own_bytes -= cost(&message);
            *room = room.saturating_sub(message.frame().len());
            out.push(message);
        }
    }

    /// Deficit round robin over the classes: the most urgent class with credit goes first, and credit
    /// is given anew only when none of those that wait has any.
    fn take_classes(&mut self, out: &mut Vec<Message>, room: &mut usize) {
        while *room > 0 && self.bytes > 0 {
            let waiting = |class: &usize| !self.classes[*class].is_empty();
            let Some(class) = (0..3).filter(waiting).find(|class| self.credit[*class] > 0) else {
                self.credit = QUANTUM;
                continue;
            };
            let Some(parcel) = self.classes[class].pop_front() else { break };
            let Parcel { message, sender } = parcel;
            let len = message.frame().len();
            self.credit[class] = self.credit[class].saturating_sub(len);
            *room = room.saturating_sub(len);
            self.discharge(sender, cost(&message));
            out.push(message);
        }
        self.share.shrink_to(self.bytes);
    }

    fn discharge(&mut self, sender: ConnId, cost: usize) {
        self.bytes -= cost;
        if let Some(account) = self.senders.get_mut(&sender) {
            account.bytes -= cost;
            if account.bytes == 0
                && let Some(done) = self.senders.remove(&sender)
            {
                self.own.extend(done.news);
            }
        }
    }
}

/// What a queued message counts as.
fn cost(message: &Message) -> usize {
    message.frame().len() + PARCEL_OVERHEAD
}

#[expect(clippy::expect_used, reason = "the relay builds these frames itself, within the limits")]
fn encode(frame: &Frame) -> Message {
    Message::binary(&frame.encode().expect("the relay's own frames keep the wire's limits"))
}

#[cfg(test)]
mod tests;
