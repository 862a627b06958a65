//! One session, from the driver's side: its lanes, what waits to enter it, and how it ended.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use culvert_session::{
    CloseReason, Counters, Event, Failure, PathId, Priority, SendError, Session, StreamId,
};
use culvert_wire::PeerId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::channel::{Command, End, Incoming, Lane, Shared, Status, incoming, send_credit};
use super::connection::RelayConnection;
use super::roster::Run;

/// What happened in a conversation that concerns the driver.
#[derive(Debug)]
pub(crate) enum Happened {
    /// The peer has proved who it is; the driver answers with [`Conversation::authorize`].
    Authenticated(PeerId),
    /// Both sides accepted; the application's side of it.
    Established(RelayConnection),
    /// The peer is heard on another path.
    PathChanged,
    /// It is over.
    Closed(CloseReason),
}

/// A session and everything around it.
pub(crate) struct Conversation {
    pub(crate) session: Session,
    /// Who it is with: proven from `Authenticated` on, before that what the relay said.
    pub(crate) peer: Option<PeerId>,
    /// The peer's run, as far as the relay told.
    pub(crate) run: Option<Run>,
    pub(crate) is_established: bool,
    pub(crate) is_closed: bool,
    /// When another session with the same peer took over: by then this one must have been heard.
    pub(crate) superseded: Option<(Duration, u64)>,
    /// Ways that were tried, and when; the last is the one in use.
    pub(crate) tried: Vec<(PathId, Duration)>,
    /// How often it was moved since the peer was last heard.
    pub(crate) moves_in_vain: u32,
    /// Something came from the peer's application.
    pub(crate) has_read: bool,
    /// When to ask the peer for a sign, if it says nothing more until then.
    pub(crate) quiet_at: Option<Duration>,
    /// Something speaks against the way in use.
    pub(crate) is_questioned: bool,
    /// When to look whether the way still works.
    pub(crate) review_at: Option<Duration>,
    lanes: Option<[DriverLane; 2]>,
    status: watch::Sender<Status>,
    counters: Arc<Mutex<Counters>>,
    is_closing: bool,
    /// Why the driver ended it, where the session's own reason says less.
    relay_reason: Option<String>,
}

struct DriverLane {
    /// This side sends on `ours` and reads `theirs`.
    ours: StreamId,
    theirs: StreamId,
    /// Messages that the application gave so far.
    sent: u64,
    /// Messages that the session does not take yet, with the senders' credit.
    waiting: VecDeque<(Bytes, OwnedSemaphorePermit)>,
    credit: Arc<Semaphore>,
    incoming: Incoming,
}

impl Conversation {
    pub(crate) fn new(session: Session, peer: Option<PeerId>, run: Option<Run>) -> Self {
        Self {
            session,
            peer,
            run,
            is_established: false,
            is_closed: false,
            superseded: None,
            tried: Vec::new(),
            moves_in_vain: 0,
            has_read: false,
            quiet_at: None,
            is_questioned: false,
            review_at: None,
            lanes: None,
            status: watch::Sender::default(),
            counters: Arc::default(),
            is_closing: false,
            relay_reason: None,
        }
    }

    /// The next thing that the driver must know; call until `None` after touching the session.
    pub(crate) fn next(
        &mut self,
        commands: &mpsc::UnboundedSender<Command>,
        close_limit: Duration,
    ) -> Option<Happened> {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Authenticated { peer } => {
                    self.peer = Some(peer);
                    return Some(Happened::Authenticated(peer));
                }
                Event::Established => match self.establish(commands, close_limit) {
                    Some(connection) => return Some(Happened::Established(connection)),
                    None => tracing::warn!("a peer allows no streams; the conversation cannot begin"),
                },
                Event::Readable { .. } => {
                    self.has_read = true;
                    self.read();
                }
                Event::Writable { .. } => self.write(),
                Event::Acked { stream, up_to } => self.acknowledged(stream, up_to.0 + 1),
                Event::PathChanged { .. } => return Some(Happened::PathChanged),
                Event::Closed { reason, .. } => {
                    self.closed(reason);
                    return Some(Happened::Closed(reason));
                }
            }
        }
        None
    }

    /// Whether the driver and the application talk to that peer.
    pub(crate) fn authorize(&mut self, now: Duration, accept: bool) {
        self.session.authorize(now, accept);
    }

    /// Takes a message from the application.
    pub(crate) fn send(&mut self, lane: Lane, message: Bytes, credit: OwnedSemaphorePermit) {
        if let Some(lanes) = &mut self.lanes {
            let lane = &mut lanes[lane.index()];
            lane.sent += 1;
            lane.waiting.push_back((message, credit));
        }
        self.write();
    }

    /// How many messages the peer has not acknowledged yet.
    pub(crate) fn outstanding(&self) -> u64 {
        let acknowledged = self.status.borrow().acknowledged;
        let lanes = self.lanes.iter().flatten().zip(acknowledged);
        lanes.map(|(lane, acknowledged)| lane.sent.saturating_sub(acknowledged)).sum()
    }

    /// Gives the application what it has room for.
    pub(crate) fn read(&mut self) {
        let Some(lanes) = &mut self.lanes else { return };
        for lane in lanes {
            while lane.incoming.has_room()
                && let Some(message) = self.session.read(lane.theirs)
            {
                lane.incoming.push(message);
            }
        }
    }

    /// Gives the session what it has room for.
    pub(crate) fn write(&mut self) {
        let Some(lanes) = &mut self.lanes else { return };
        for lane in lanes {
            while let Some((message, credit)) = lane.waiting.pop_front() {
                match self.session.send(lane.ours, message.clone()) {
                    Ok(_) => drop(credit),
                    Err(SendError::Blocked) => {
                        lane.waiting.push_front((message, credit));
                        break;
                    }
                    // The session has ended or is ending: what waits is told as not acknowledged.
                    Err(error) => {
                        tracing::debug!(%error, "a message came too late for its session");
                        break;
                    }
                }
            }
        }
    }

    /// Ends it when everything that was sent is delivered.
    pub(crate) fn close(&mut self) {
        self.is_closing = true;
    }

    /// Ends the session once nothing waits to enter it any more.
    pub(crate) fn close_when_empty(&mut self, now: Duration) {
        let is_empty = self.lanes.iter().flatten().all(|lane| lane.waiting.is_empty());
        if self.is_closing && is_empty {
            self.is_closing = false;
            self.session.close(now);
        }
    }

    /// Ends it at once, for a reason that the relay or the driver gave.
    pub(crate) fn fail(&mut self, now: Duration, reason: String) {
        self.relay_reason = Some(reason);
        self.session.fail(now, Failure::Unreachable);
    }

    /// Shows the application the session's counters.
    pub(crate) fn publish_counters(&self) {
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner) = self.session.counters();
    }

    fn establish(
        &mut self,
        commands: &mpsc::UnboundedSender<Command>,
        close_limit: Duration,
    ) -> Option<RelayConnection> {
        self.is_established = true;
        let peer = self.peer?;
        let mut ours = [StreamId(0); 2];
        for (stream, priority) in ours.iter_mut().zip([Priority::NORMAL, Priority::BULK]) {
            *stream = self.session.open_stream(priority).ok()?;
        }
        let credit = [send_credit(), send_credit()];
        let ((one, one_outlet), (two, two_outlet)) = (incoming(), incoming());
        let lane = |ours: StreamId, credit: &Arc<Semaphore>, incoming| DriverLane {
            ours,
            // Each side sends on the streams that it opened itself: one end has the even numbers, the
            // other the odd ones, and both open two in the same order.
            theirs: StreamId(ours.0 ^ 1),
            sent: 0,
            waiting: VecDeque::new(),
            credit: Arc::clone(credit),
            incoming,
        };
        self.lanes = Some([lane(ours[0], &credit[0], one), lane(ours[1], &credit[1], two)]);
        let shared = Shared {
            session: self.session.id(),
            peer,
            commands: commands.clone(),
            status: self.status.subscribe(),
            bytes_sent: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            counters: Arc::clone(&self.counters),
            close_limit,
        };
        Some(RelayConnection::new(shared, credit, [one_outlet, two_outlet]))
    }

    fn acknowledged(&mut self, stream: StreamId, count: u64) {
        let Some(lanes) = &self.lanes else { return };
        let Some(lane) = Lane::ALL.into_iter().find(|lane| lanes[lane.index()].ours == stream) else {
            return;
        };
        self.status.send_modify(|status| {
            let acknowledged = &mut status.acknowledged[lane.index()];
            *acknowledged = count.max(*acknowledged);
        });
    }

    /// Hands the application everything that still arrived, then the end.
    fn closed(&mut self, reason: CloseReason) {
        self.is_closed = true;
        self.publish_counters();
        let end = match (&self.relay_reason, reason) {
            (Some(reason), _) => End::Relay(reason.clone()),
            (None, CloseReason::Done) => End::Here,
            (None, CloseReason::ByPeer) => End::ByPeer,
            (None, other) => End::PeerGone(other.to_string()),
        };
        // The last acknowledgement may come with the end itself, without an event of its own.
        for lane in Lane::ALL {
            let Some(lanes) = &self.lanes else { break };
            let ours = lanes[lane.index()].ours;
            if let Some(number) = self.session.acked(ours) {
                self.acknowledged(ours, number.0 + 1);
            }
        }
        self.status.send_modify(|status| status.ended = Some(end));
        for lane in self.lanes.iter_mut().flatten() {
            // Within the session's windows, so bounded, and nobody gives credit for more any more.
            while let Some(message) = self.session.read(lane.theirs) {
                lane.incoming.push(message);
            }
            lane.incoming.finish();
            lane.waiting.clear();
            lane.credit.close();
        }
    }
}
