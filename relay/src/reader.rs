//! What a connection sends: every frame of it, in batches.
//!
//! A batch is what one read of the socket brought, at most 32 frames; between batches the writer of the
//! same connection gets its turn, counts are settled and limits paid for. Data frames are forwarded by
//! their header alone.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use culvert_wire::frame::Kind;
use culvert_wire::limits::HEADER_LEN;
use culvert_wire::{Class, Close, ConnId, Frame, Handle, Header, JoinRefusal, Notice, TopicId, Verdict};

use crate::accounts::Seat;
use crate::admission::Grant;
use crate::bus::{Arrival, Inbox, Letter, Undelivered};
use crate::ledger::Ledger;
use crate::link::Link;
use crate::metrics::{Route, Whose};
use crate::node::{Node, Seats, deliver_header};
use crate::outbox::VerdictKey;
use crate::quota::{Bucket, Rate};
use crate::routes::Routes;
use crate::topics::LocalMember;
use crate::turns::yield_once;
use crate::websocket::{Event, Incoming, Message, Received};

/// Frames after which the writer gets its turn.
const BATCH: usize = 32;
/// Bytes after which it does, whatever they are.
const BATCH_BYTES: usize = 64 * 1024;

/// The reading half of one connection.
pub struct Reader {
    node: Arc<Node>,
    link: Arc<Link>,
    replaces: ConnId,
    grant: Grant,
    seats: Seats,
    frames: Bucket,
    bytes: Bucket,
    max_topics: usize,
    most_urgent: Class,
    routes: Routes,
    ledger: Ledger,
    throttled: bool,
    expiry: tokio::sync::watch::Sender<Option<u64>>,
}

/// What a batch ended with.
enum Step {
    /// Everything that was there.
    Batch,
    /// As many frames as one turn allows; there may be more.
    ManyFrames,
    /// As many bytes.
    ManyBytes,
    Join(TopicId),
    Lookup(TopicId),
    Close(Close),
}

impl Reader {
    /// A reader for an admitted connection. `expiry` is told when a renewed ticket ends.
    pub fn new(
        node: Arc<Node>,
        link: Arc<Link>,
        replaces: ConnId,
        grant: Grant,
        seats: Seats,
        expiry: tokio::sync::watch::Sender<Option<u64>>,
    ) -> Self {
        let (frames, bytes) = rates(&node, &grant);
        let limits = &node.config.limits;
        Self {
            frames: Bucket::new(frames),
            bytes: Bucket::new(bytes),
            max_topics: usize::from(max_topics(limits.topics_per_connection, &grant)),
            most_urgent: grant.limits.highest_class.unwrap_or(Class::Control),
            node,
            link,
            replaces,
            grant,
            seats,
            routes: Routes::default(),
            ledger: Ledger::default(),
            throttled: false,
            expiry,
        }
    }

    /// Reads until the connection ends, and says why it did.
    pub async fn run(&mut self, incoming: &mut Incoming<'_>) -> Close {
        loop {
            let step = std::future::poll_fn(|cx| self.poll_batch(incoming, cx)).await;
            match step {
                Step::Batch => {}
                Step::ManyFrames => yield_once().await,
                Step::ManyBytes => self.node.turns.give_way().await,
                Step::Join(topic) => self.join(topic).await,
                Step::Lookup(topic) => self.lookup(topic).await,
                Step::Close(close) => {
                    self.settle();
                    return close;
                }
            }
            let (pause, whose) = self.settle();
            if !pause.is_zero() {
                self.pause(pause, whose).await;
            }
            let backlog = self.node.config.limits.verdict_backlog;
            let closed = std::future::poll_fn(|cx| self.link.outbox.poll_verdicts_below(backlog, cx)).await;
            if let Err(close) = closed {
                return close;
            }
        }
    }

    fn poll_batch(&mut self, incoming: &mut Incoming<'_>, cx: &mut Context<'_>) -> Poll<Step> {
        let (mut frames, mut bytes, mut step) = (0, 0, None);
        while frames < BATCH && bytes < BATCH_BYTES {
            let polled = incoming.poll_events(cx, |event| {
                frames += 1;
                step = self.take(event);
                step.is_none() && frames < BATCH
            });
            match polled {
                Poll::Ready(Ok(more)) => bytes += more,
                Poll::Ready(Err(close)) => return Poll::Ready(Step::Close(close)),
                Poll::Pending if frames == 0 => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Step::Batch),
            }
            if let Some(step) = step {
                return Poll::Ready(step);
            }
        }
        Poll::Ready(if bytes < BATCH_BYTES { Step::ManyFrames } else { Step::ManyBytes })
    }

    fn take(&mut self, event: Event) -> Option<Step> {
        match event {
            Event::Message(message) => return self.frame(message),
            Event::Close => return Some(Step::Close(Close::Done)),
            Event::Ping(content) => self.link.outbox.push_own_message(Message::pong(&content)),
            Event::Pong | Event::Part => {}
        }
        // WebSocket's own; they cost as much as a frame.
        self.ledger.received(None);
        None
    }

    fn frame(&mut self, message: Received) -> Option<Step> {
        let Ok((header, _)) = Header::split(message.frame()) else {
            return Some(Step::Close(Close::Protocol));
        };
        if header.kind == Kind::Send.number() {
            self.ledger.received_send();
            self.send(header, message);
            return None;
        }
        self.other(message.into_frame())
    }

    fn other(&mut self, frame: Bytes) -> Option<Step> {
        let Ok(frame) = Frame::decode(frame) else { return Some(Step::Close(Close::Protocol)) };
        self.ledger.received(Kind::from_number(frame.kind()));
        match frame {
            Frame::Join { topic } => {
                self.ledger.frames += self.node.config.limits.membership_cost;
                Some(Step::Join(topic))
            }
            Frame::Lookup { topic } => {
                self.ledger.frames += self.node.config.limits.membership_cost;
                Some(Step::Lookup(topic))
            }
            Frame::Leave { handle } => {
                self.ledger.frames += self.node.config.limits.membership_cost;
                if let Some(topic) = self.routes.exit(handle) {
                    self.exit(topic);
                }
                None
            }
            Frame::Broadcast { class, handle, payload } => {
                self.broadcast(class, handle, payload);
                None
            }
            Frame::Renew { ticket } => {
                self.renew(&ticket);
                None
            }
            Frame::Ping { token, padding } => {
                self.ledger.bytes += padding.len() as u64;
                self.link.outbox.push_own(&Frame::Pong { token, padding });
                None
            }
            Frame::Unknown { .. } => None,
            // The relay's own kinds, and a second hello.
            _ => Some(Step::Close(Close::Protocol)),
        }
    }

    /// Forwards one payload by its header; whatever becomes of it, somebody is told.
    fn send(&mut self, header: Header, message: Received) {
        let Header { class, handle, conn: to, .. } = header;
        let len = message.frame().len() - HEADER_LEN;
        self.ledger.bytes += len as u64;
        let sent = match self.routes.topic(handle) {
            None => Err(Verdict::NotAllowed),
            Some(_) if class < self.most_urgent => Err(Verdict::NotAllowed),
            Some(_) if self.node.local().is_own(to) => self.send_local(class, handle, to, message),
            Some(topic) => self.send_remote(class, topic, to, &message.frame()[HEADER_LEN..]),
        };
        match sent {
            Ok(route) => self.ledger.forwarded(route, class, len),
            Err(verdict) => self.undelivered(VerdictKey { handle, to, broadcast: false, verdict }, 1),
        }
    }

    fn send_local(
        &mut self,
        class: Class,
        handle: Handle,
        to: ConnId,
        message: Received,
    ) -> Result<Route, Verdict> {
        let route = self.routes.find(&self.node.topics, handle, to).ok_or(Verdict::Gone)?;
        let header = deliver_header(class, false, route.handle, self.link.id);
        route.link.outbox.push(self.link.id, class, message.into_message(header))?;
        Ok(Route::Local)
    }

    fn send_remote(
        &self,
        class: Class,
        topic: TopicId,
        to: ConnId,
        payload: &[u8],
    ) -> Result<Route, Verdict> {
        self.node.bus.forward(&self.letter(class, topic, to, payload))?;
        Ok(Route::Remote)
    }

    fn letter<'a>(&self, class: Class, topic: TopicId, to: ConnId, payload: &'a [u8]) -> Letter<'a> {
        let (from, sender) = (self.link.id, self.link.peer);
        Letter { topic, from, to, sender, class, payload }
    }

    fn broadcast(&mut self, class: Class, handle: Handle, payload: Bytes) {
        let key = |verdict| VerdictKey { handle, to: ConnId::NONE, broadcast: true, verdict };
        let topic = match self.routes.topic(handle) {
            Some(topic) if class >= self.most_urgent => topic,
            _ => return self.undelivered(key(Verdict::NotAllowed), 1),
        };
        let (id, peer) = (self.link.id, self.link.peer);
        let (taken, refused) = self.node.local().broadcast(&topic, id, peer, class, &payload);
        for _ in 0..taken {
            self.ledger.forwarded(Route::Local, class, payload.len());
        }
        // Charged for every recipient, reached or not, and never for less than one.
        let recipients = u64::from(taken + refused).max(1);
        self.ledger.bytes += payload.len() as u64 * recipients;
        self.ledger.frames += recipients - 1;
        if refused > 0 {
            self.undelivered(key(Verdict::Full), refused);
        }
        if let Err((count, verdict)) =
            self.node.bus.broadcast(&self.letter(class, topic, ConnId::NONE, &payload))
        {
            self.undelivered(key(verdict), count);
        }
    }

    fn undelivered(&mut self, key: VerdictKey, count: u32) {
        self.ledger.undelivered(key.verdict, count);
        if !self.link.outbox.report(key, count) {
            self.node.metrics.verdicts_orphaned.increment(u64::from(count));
        }
    }

    /// Tells the senders of what this connection did not take before it was closed.
    fn report_rest(&self) {
        for rest in self.link.outbox.take_rest() {
            let undelivered = Undelivered {
                topic: self.routes.topic(rest.handle),
                from: rest.sender,
                to: if rest.broadcast { ConnId::NONE } else { self.link.id },
                verdict: Verdict::Gone,
                count: rest.count,
            };
            if self.node.local().is_own(rest.sender) {
                self.node.local().verdict(undelivered);
            } else {
                self.node.bus.report(undelivered);
            }
        }
    }

    async fn join(&mut self, topic: TopicId) {
        let refusal = if !self.grant.opens(&topic) {
            Some(JoinRefusal::NotAllowed)
        } else if self.routes.handle_of(&topic).is_none() && self.routes.joined() >= self.max_topics {
            Some(JoinRefusal::TooManyTopics)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return self.refuse(topic, refusal);
        }
        // From here on nothing but the answer is written, ahead of all that is said meanwhile.
        self.link.outbox.hold();
        let known = self.routes.handle_of(&topic);
        let handle = known.unwrap_or_else(|| self.routes.enter(topic));
        let arrival = Arrival { member: self.link.member(), replaces: self.replaces };
        if known.is_none() {
            // Entered first, read after: of two that join at the same time, one sees the other.
            let member = LocalMember { link: self.link.clone(), handle };
            if self.node.topics.enter(topic, member).is_err() {
                return self.undo_join(topic, handle);
            }
            self.node.metrics.memberships.increment(1.0);
            self.node.local().announce(topic, &arrival);
        }
        let limit = self.node.config.limits.members_listed;
        let mut members = self.node.topics.list(&topic, self.link.id, limit);
        let room = limit - members.list.len();
        let remote = match known {
            None => self.node.bus.join(topic, arrival, room).await,
            Some(_) => self.node.bus.lookup(topic, room).await,
        };
        members.total += remote.total;
        members.degraded = remote.degraded;
        members.list.extend(remote.list);
        // Nobody but the cluster knows how many members there are, and it says so only when asked to join.
        let most = self.node.config.limits.members_per_topic;
        if known.is_none() && usize::try_from(members.total).is_ok_and(|others| others >= most) {
            return self.undo_join(topic, handle);
        }
        self.link.outbox.release(&Frame::Joined { handle, topic, members });
    }

    fn undo_join(&mut self, topic: TopicId, handle: Handle) {
        self.routes.exit(handle);
        self.exit(topic);
        let refusal = JoinRefusal::Limited;
        self.node.metrics.joins_refused[refusal].increment(1);
        self.link.outbox.release(&Frame::JoinRefused { topic, refusal });
    }

    async fn lookup(&mut self, topic: TopicId) {
        if !self.grant.opens(&topic) {
            return self.refuse(topic, JoinRefusal::NotAllowed);
        }
        let limit = self.node.config.limits.members_listed;
        let mut members = self.node.topics.list(&topic, self.link.id, limit);
        let remote = self.node.bus.lookup(topic, limit - members.list.len()).await;
        members.total += remote.total;
        members.degraded = remote.degraded;
        members.list.extend(remote.list);
        self.link.outbox.push_own(&Frame::Peers { topic, members });
    }

    fn refuse(&self, topic: TopicId, refusal: JoinRefusal) {
        self.node.metrics.joins_refused[refusal].increment(1);
        self.link.outbox.push_own(&Frame::JoinRefused { topic, refusal });
    }

    /// Leaves a topic that [`Routes`] has forgotten already.
    fn exit(&self, topic: TopicId) {
        if self.node.topics.exit(&topic, self.link.id) {
            self.node.metrics.memberships.decrement(1.0);
            let member = self.link.member();
            self.node.local().bid_farewell(topic, &member);
            self.node.bus.leave(topic, member);
        }
    }

    fn renew(&mut self, ticket: &str) {
        let notice = match self.node.gate.renew(&self.link.peer, &self.grant, ticket) {
            Ok(grant) => {
                let (frames, bytes) = rates(&self.node, &grant);
                self.frames = Bucket::new(frames);
                self.bytes = Bucket::new(bytes);
                self.max_topics =
                    usize::from(max_topics(self.node.config.limits.topics_per_connection, &grant));
                self.most_urgent = grant.limits.highest_class.unwrap_or(Class::Control);
                let expires_at = grant.expires_at;
                self.link.renew(grant.credentials(self.link.peer));
                self.node.local().close_if_revoked(&self.link);
                self.grant = grant;
                self.leave_closed_topics();
                self.expiry.send_replace(expires_at);
                Notice::Renewed { expires_at: expires_at.unwrap_or(0) }
            }
            Err(close) => Notice::RenewRefused { code: close.code() },
        };
        self.link.outbox.push_own(&Frame::Notice(notice));
    }

    /// A new ticket may open less than the old one did.
    fn leave_closed_topics(&mut self) {
        let closed: Vec<_> = self.routes.topics().filter(|(_, topic)| !self.grant.opens(topic)).collect();
        for (handle, topic) in closed {
            self.routes.exit(handle);
            self.exit(topic);
            self.refuse(topic, JoinRefusal::NotAllowed);
        }
    }

    /// Charges what was done since the last time; gives the pause that pays for it, and whose rate asks for
    /// so long a one.
    fn settle(&mut self) -> (Duration, Whose) {
        let now = self.node.nanos();
        let (frames, bytes) = (self.ledger.frames, self.ledger.bytes);
        let own = self.frames.charge(now, frames).max(self.bytes.charge(now, bytes));
        let charge = |(whose, seat): &(Whose, Seat)| (seat.account().charge(now, frames, bytes), *whose);
        let shared = self.seats.charged.iter().map(charge);
        let longest = shared.fold((own, Whose::Connection), |a, b| if b.0 > a.0 { b } else { a });
        self.link.count_received(self.ledger.received_frames());
        self.ledger.settle(&self.node.metrics);
        longest
    }

    /// Stops reading: the peer feels it as backpressure, and is told once.
    async fn pause(&mut self, pause: Duration, whose: Whose) {
        self.node.metrics.throttled[whose].increment(1);
        if !self.throttled {
            self.throttled = true;
            self.link.outbox.push_own(&Frame::Notice(Notice::Throttled));
        }
        self.link.set_paused(true);
        tokio::time::sleep(pause).await;
        self.link.set_paused(false);
    }
}

impl Drop for Reader {
    /// However the connection ends, nobody keeps it as a member and every frame is accounted for.
    fn drop(&mut self) {
        // Its own reason comes first; there is none if its task panicked or the node is killed.
        self.link.outbox.close(Close::Internal);
        self.ledger.settle(&self.node.metrics);
        self.report_rest();
        let topics: Vec<TopicId> = self.routes.topics().map(|(_, topic)| topic).collect();
        for topic in topics {
            self.exit(topic);
        }
        self.node.local().remove(self.link.id);
    }
}

/// What a connection with this grant may send a second, frames and bytes.
pub fn rates(node: &Node, grant: &Grant) -> (Rate, Rate) {
    let limits = &node.config.limits;
    (
        limits.connection_frames.at_most(grant.limits.frames_per_second.map(u64::from)),
        limits.connection_bytes.at_most(grant.limits.bytes_per_second),
    )
}

/// The topics that a connection with this grant may be in.
pub fn max_topics(limit: u16, grant: &Grant) -> u16 {
    grant.limits.topics.map_or(limit, |topics| topics.min(limit))
}
