//! The task behind one topic: it owns the connections to the relay and every conversation over them.
//!
//! One turn of [`Driver::drive`]: wait for the first of a frame, a command, a timer or a finished dial;
//! take everything else that is ready; let the sessions say what happened ([`peers`]); write what they
//! want sent and flush once. So under load a turn handles many frames with one wake-up.
//!
//! Conversations outlive connections. When one is lost, or announces to go away, [`relay_side`] opens
//! the next; the peers find each other again by identity and the sessions go on where they were.

mod peers;
mod relay_side;
mod search;
mod ways;

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use culvert_session::{Session, SessionId};
use culvert_wire::{ConnId, PeerId, TopicId};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, poll_fn};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use self::search::Search;
use super::WAITING_CONNECTIONS;
use super::channel::{Accept, Command};
use super::connection::RelayConnection;
use super::conversation::Conversation;
use super::end::EndCell;
use super::leg::{Leg, Purpose};
use super::link::{Link, LinkError, LinkEvent};
use super::paths::{LegId, Paths};
use super::roster::Run;
use crate::broadcast::{SyncBroadcaster, SyncEvent};
use crate::dial::Dialer;
use crate::identity::Identity;
use crate::options::{AdmissionSource, LivenessPolicy, PeerPolicy, SearchPolicy};
use crate::reconnect::Reconnect;
use crate::transport::PeerInfo;

/// Frames, and commands, that one turn takes at most before it writes.
const BATCH: usize = 64;
/// Datagrams that one session writes before the next has its turn.
const FAIR_SHARE: usize = 16;

/// What a topic is driven with.
pub(crate) struct Settings {
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) identity: Identity,
    pub(crate) topic: TopicId,
    pub(crate) psk: Option<Zeroizing<[u8; 32]>>,
    pub(crate) admission: AdmissionSource,
    pub(crate) policy: PeerPolicy,
    pub(crate) broadcaster: Option<SyncBroadcaster>,
    pub(crate) reconnect: Reconnect,
    pub(crate) search: SearchPolicy,
    pub(crate) liveness: LivenessPolicy,
    pub(crate) run: Run,
    /// Bound of dialling, of closing, and of the first attempt to get in.
    pub(crate) limit: Duration,
}

/// Tells who started the driver whether the topic was entered.
pub(crate) type Ready = oneshot::Sender<anyhow::Result<()>>;

type Dialing = Pin<Box<dyn Future<Output = Result<Link, LinkError>> + Send>>;
type Renewal = Pin<Box<dyn Future<Output = anyhow::Result<String>> + Send>>;

/// When to try a peer again.
#[derive(Debug, Clone, Copy)]
struct Retry {
    at: Duration,
    delay: Duration,
}

/// See the module's description.
pub(crate) struct Driver {
    settings: Settings,
    origin: Instant,
    now: Duration,
    commands: mpsc::UnboundedSender<Command>,

    legs: Vec<Leg>,
    legs_opened: u64,
    dialing: Option<Dialing>,
    dialing_for: Purpose,
    dial_at: Option<Instant>,
    search: Search,
    /// A fresh ticket is being fetched.
    renewal: Option<Renewal>,
    replaces: ConnId,
    ready: Option<Ready>,
    end: EndCell,
    ready_by: Instant,
    last_error: Option<LinkError>,
    /// Connections that are being closed.
    goodbyes: JoinSet<()>,

    conversations: HashMap<SessionId, Conversation>,
    /// From the name in a peer's initiation to the session that answers it.
    initiations: HashMap<SessionId, SessionId>,
    /// Runs of peers with which a conversation was ended on purpose.
    finished: HashSet<(PeerId, Run)>,
    retries: HashMap<PeerId, Retry>,
    paths: Paths,

    /// Sessions that something happened to in this turn.
    touched: Vec<SessionId>,
    /// Sessions that may have datagrams to write, in the order of their turns.
    writers: VecDeque<SessionId>,
    datagram: Vec<u8>,

    accept: Option<Accept>,
    /// The application has dropped its end and wants no more conversations.
    refuses: bool,
    waiting: VecDeque<RelayConnection>,
    lookups: Vec<oneshot::Sender<Vec<PeerInfo>>>,
    /// Until when the goodbyes may take.
    stops_by: Option<Instant>,
    /// Messages of conversations that ended while stopping, and that nobody acknowledged.
    undelivered: u64,
}

enum Wake {
    Commands,
    Link(LegId, LinkEvent),
    Dialed(Box<Result<Link, LinkError>>),
    Renewed(anyhow::Result<String>),
    Room,
    Refused,
    Stop,
    Timer,
}

impl Driver {
    pub(crate) fn new(
        settings: Settings,
        commands: mpsc::UnboundedSender<Command>,
        ready: Ready,
        end: EndCell,
    ) -> Self {
        let origin = Instant::now();
        Self {
            origin,
            now: Duration::ZERO,
            commands,
            legs: Vec::new(),
            legs_opened: 0,
            dialing: None,
            dialing_for: Purpose::Home,
            dial_at: Some(origin),
            search: Search::new(settings.search.clone()),
            renewal: None,
            replaces: ConnId::NONE,
            ready: Some(ready),
            end,
            ready_by: origin + settings.limit,
            last_error: None,
            goodbyes: JoinSet::new(),
            conversations: HashMap::new(),
            initiations: HashMap::new(),
            finished: HashSet::new(),
            retries: HashMap::new(),
            paths: Paths::default(),
            touched: Vec::new(),
            writers: VecDeque::new(),
            datagram: Vec::new(),
            accept: None,
            refuses: false,
            waiting: VecDeque::new(),
            lookups: Vec::new(),
            stops_by: None,
            undelivered: 0,
            settings,
        }
    }

    /// Drives the topic until `stop`, or until the relay does not let this peer back in. Gives the number
    /// of messages that were not delivered when it stopped.
    ///
    /// Boxed, so that it is compiled here, and not once more in every program that uses the client.
    pub(crate) fn run(
        self,
        inbox: mpsc::UnboundedReceiver<Command>,
        stop: CancellationToken,
    ) -> BoxFuture<'static, u64> {
        self.drive(inbox, stop).boxed()
    }

    async fn drive(mut self, mut inbox: mpsc::UnboundedReceiver<Command>, stop: CancellationToken) -> u64 {
        let mut commands = Vec::with_capacity(BATCH);
        loop {
            self.start_dialing();
            let wake = self.wait(&mut inbox, &mut commands, &stop).await;
            self.now = self.origin.elapsed();
            match wake {
                Wake::Commands => {
                    commands.drain(..).for_each(|command| self.obey(command));
                }
                Wake::Link(leg, event) => {
                    self.hear(leg, event);
                    self.hear_what_is_ready();
                }
                Wake::Dialed(result) => self.dialed(*result),
                Wake::Renewed(result) => self.renewed(result),
                Wake::Refused => {
                    self.accept = None;
                    self.refuses = true;
                    self.waiting.clear();
                }
                Wake::Stop => {
                    // What was sent before the stop is delivered.
                    while let Ok(command) = inbox.try_recv() {
                        self.obey(command);
                    }
                    self.begin_stop();
                }
                Wake::Room | Wake::Timer => {}
            }
            self.keep_time();
            self.settle();
            self.hand_over();
            self.settle();
            self.write();
            if self.is_over() {
                break;
            }
        }
        self.accept = None;
        for leg in self.legs.drain(..) {
            self.goodbyes.spawn(leg.link.close(GOODBYE));
        }
        while self.goodbyes.join_next().await.is_some() {}
        let open = self.conversations.values().filter(|conversation| !conversation.is_closed);
        self.undelivered + open.map(Conversation::outstanding).sum::<u64>()
    }

    async fn wait(
        &mut self,
        inbox: &mut mpsc::UnboundedReceiver<Command>,
        commands: &mut Vec<Command>,
        stop: &CancellationToken,
    ) -> Wake {
        let timer = sleep_until(self.next_timer());
        let (legs, accept) = (&mut self.legs, &self.accept);
        let (dialed, renewed) = (if_any(&mut self.dialing), if_any(&mut self.renewal));
        let has_waiting = !self.waiting.is_empty();
        let accepting = async {
            match accept {
                Some(accept) if has_waiting => {
                    if accept.room().await {
                        Wake::Room
                    } else {
                        Wake::Refused
                    }
                }
                Some(accept) => {
                    accept.closed().await;
                    Wake::Refused
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            (leg, event) = poll_fn(|cx| poll_legs(legs, cx)) => Wake::Link(leg, event),
            _ = inbox.recv_many(commands, BATCH) => Wake::Commands,
            result = dialed => Wake::Dialed(Box::new(result)),
            result = renewed => Wake::Renewed(result),
            wake = accepting => wake,
            () = stop.cancelled(), if self.stops_by.is_none() => Wake::Stop,
            () = timer => Wake::Timer,
        }
    }

    /// Takes more events of the links without waiting for any.
    fn hear_what_is_ready(&mut self) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for _ in 0..BATCH {
            // The waker is set again by the wait that follows every turn.
            match poll_legs(&mut self.legs, &mut cx) {
                Poll::Ready((leg, event)) => self.hear(leg, event),
                Poll::Pending => break,
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Send { session, lane, message, credit } => {
                if let Some(conversation) = self.conversations.get_mut(&session) {
                    conversation.send(lane, message, credit);
                    self.touch(session);
                }
            }
            Command::Consumed { session } => {
                if let Some(conversation) = self.conversations.get_mut(&session) {
                    conversation.read();
                    self.touch(session);
                }
            }
            Command::Close { session } => {
                if let Some(conversation) = self.conversations.get_mut(&session) {
                    conversation.close();
                    self.touch(session);
                }
            }
            Command::Accept(accept) => {
                self.accept = Some(accept);
                self.refuses = false;
                self.meet_everybody();
            }
            Command::Lookup(reply) => self.lookup(reply),
        }
    }

    fn touch(&mut self, session: SessionId) {
        if self.touched.last() != Some(&session) && !self.touched.contains(&session) {
            self.touched.push(session);
        }
    }

    /// Hands new conversations to the application, as many as it has room for.
    fn hand_over(&mut self) {
        let Some(accept) = &self.accept else { return };
        let was_full = self.waiting.len() >= WAITING_CONNECTIONS;
        accept.offer(&mut self.waiting);
        if was_full && self.waiting.len() < WAITING_CONNECTIONS {
            self.meet_everybody();
        }
    }

    /// Lets the sessions write, in turns, until there is nothing left or no room. One of our connections
    /// that is stuck holds up only the conversations that use it.
    fn write(&mut self) {
        let mut stuck = VecDeque::new();
        while let Some(id) = self.writers.pop_front() {
            let Some(conversation) = self.conversations.get_mut(&id) else { continue };
            let mut written = 0;
            loop {
                if !has_room(&self.legs, &self.paths, &conversation.session) {
                    stuck.push_back(id);
                    break;
                }
                if written == FAIR_SHARE {
                    self.writers.push_back(id);
                    break;
                }
                written += 1;
                let Some(transmit) = conversation.session.poll_transmit(self.now, &mut self.datagram) else {
                    break;
                };
                let Some((leg, to)) = self.paths.ends(transmit.path) else { continue };
                if let Some(leg) = self.legs.iter_mut().find(|open| open.id == leg)
                    && let Some(handle) = leg.handle
                {
                    leg.link.send_payload(transmit.class, handle, to, &self.datagram);
                }
            }
            conversation.watch(self.now);
        }
        self.writers = stuck;
    }

    /// Ends every conversation in good order. Where the relay is away, only what is undelivered is worth
    /// waiting for it.
    fn begin_stop(&mut self) {
        // The sessions' own limits come first, so that they can say what was lost.
        self.stops_by = Some(Instant::now() + self.settings.limit + GOODBYE);
        self.refuses = true;
        let is_offline = self.legs.is_empty();
        let ids: Vec<_> = self.conversations.keys().copied().collect();
        for id in ids {
            if let Some(conversation) = self.conversations.get_mut(&id) {
                let is_settled = is_offline && conversation.outstanding() == 0;
                if is_settled || !conversation.is_established {
                    conversation.fail(self.now, "the transport was disconnected".to_owned());
                } else {
                    conversation.close();
                }
                self.touch(id);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.stops_by.is_some_and(|by| {
            Instant::now() >= by || self.conversations.values().all(|conversation| conversation.is_closed)
        })
    }

    fn publish(&self, event: SyncEvent) {
        if let Some(broadcaster) = &self.settings.broadcaster {
            // Nobody listening is no error.
            drop(broadcaster.publish(event));
        }
    }

    fn next_timer(&self) -> Instant {
        let sessions = self.conversations.values().filter_map(|conversation| {
            let superseded = conversation.superseded.map(|(by, _)| by);
            let own = conversation.session.next_timeout().into_iter();
            own.chain(superseded).chain(conversation.review_at).chain(conversation.quiet_at).min()
        });
        let retries = self.retries.values().map(|retry| retry.at);
        let by_now = sessions.chain(retries).min().map(|at| self.origin + at);
        let links = self
            .legs
            .iter()
            .flat_map(|leg| [Some(leg.link.next_tick()), leg.next_check(), leg.answers_by()])
            .flatten();
        let ready = (self.ready.is_some() && self.dialing.is_none()).then_some(self.ready_by);
        let is_idle = self.dialing.is_none();
        let dial_at = self.dial_at.filter(|_| is_idle || self.dialing_for == Purpose::Search);
        let own = [by_now, dial_at, self.search.next_at().filter(|_| is_idle), self.stops_by, ready];
        let far = Instant::now() + Duration::from_secs(3600);
        links.chain(own.into_iter().flatten()).min().unwrap_or(far)
    }
}

/// Whether the connection that a session writes to takes more.
fn has_room(legs: &[Leg], paths: &Paths, session: &Session) -> bool {
    let leg = session.path().and_then(|path| paths.ends(path)).map(|(leg, _)| leg);
    legs.iter().all(|open| Some(open.id) != leg || open.link.has_room())
}

/// What a goodbye to the relay may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// The future's result, or for ever where there is none.
async fn if_any<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

fn poll_legs(legs: &mut [Leg], cx: &mut Context<'_>) -> Poll<(LegId, LinkEvent)> {
    for leg in legs {
        if let Poll::Ready(event) = leg.link.poll(cx) {
            return Poll::Ready((leg.id, event));
        }
    }
    Poll::Pending
}
