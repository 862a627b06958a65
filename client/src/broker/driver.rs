//! The task that owns the connection to a broker: opens it, registers, matches answers, comes back.
//!
//! Every request has a number that the broker echoes; what it does not echo concerns nobody. A request ends
//! with its answer, with a refusal, or at its deadline, and is forgotten then, whichever it was.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use culvert_broker_wire::{ClientMessage, ErrorCode, ServerMessage};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::address::BrokerUrl;
use super::client::{BrokerEvent, Status};
use super::error::SyncError;
use super::queue::Queue;
use super::share_link::ShareLink;
use super::socket::{BrokerInfo, BrokerSocket, Received, Registration, answered, connected};
use crate::dial::Dialer;
use crate::identity::random_u64;
use crate::reconnect::{Ended, Next, Reconnect};

/// Requests that wait for an answer or for the connection.
pub(crate) const MAX_PENDING: usize = 1024;
/// How often requests that nobody waits for any more are forgotten.
const TIDY: Duration = Duration::from_secs(1);
/// Longest wait before a change is made again that the broker could not make just then.
const RETRY: Duration = Duration::from_secs(5);
/// Longest time between two heartbeats; balancers close connections that are silent for a minute.
const HEARTBEAT: Duration = Duration::from_secs(50);

pub(crate) type Reply = oneshot::Sender<Result<ServerMessage, SyncError>>;

/// What the application wants.
pub(crate) enum Command {
    /// Something that may simply be asked again.
    Ask { message: ClientMessage, reply: Reply },
    /// A publication or revocation.
    Change { message: ClientMessage, reply: Reply },
    /// Other words about this client; answered when the broker has taken them.
    Register { registration: Box<Registration>, reply: Reply },
    /// The end.
    Disconnect(oneshot::Sender<()>),
}

/// What the task needs to know.
pub(crate) struct Settings {
    pub(crate) url: BrokerUrl,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) answer: Duration,
    pub(crate) heartbeat: Option<Duration>,
}

pub(crate) struct Driver {
    pub(crate) settings: Settings,
    pub(crate) registration: Registration,
    /// Whether the registration is another than was said last.
    pub(crate) untold: bool,
    pub(crate) inbox: mpsc::Receiver<Command>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) events: broadcast::Sender<BrokerEvent>,
    pub(crate) queue: Queue,
    pub(crate) reconnect: Reconnect,
    pub(crate) asked: Asked,
}

/// Who waits for what.
#[derive(Default)]
pub(crate) struct Asked {
    /// Sent, by the number that the answer will carry.
    pending: HashMap<String, (ClientMessage, Reply)>,
    /// Not sent yet.
    waiting: VecDeque<(ClientMessage, Reply)>,
    /// Who waits for a change, by the change's number.
    changes: HashMap<u64, Reply>,
    /// Who waits for the broker to take what this client says of itself.
    announced: Vec<Reply>,
    last: u64,
}

/// What is under way on one connection besides requests.
#[derive(Default)]
struct Under {
    /// The request that carries the first change of the queue.
    change: Option<String>,
    /// When a refused change is tried again.
    retry_at: Option<Instant>,
    /// The request that says other words about this client, and when it must be answered.
    registering: Option<(String, Instant)>,
    heartbeat: Option<(String, Instant)>,
}

enum Left {
    /// The application wants no more.
    Done,
    /// The connection is gone, or of no use.
    Lost(SyncError),
}

impl Driver {
    /// Boxed, so that it is compiled here, and not once more in every program that uses the client.
    pub(crate) fn run(self) -> BoxFuture<'static, ()> {
        self.drive().boxed()
    }

    async fn drive(mut self) {
        let mut is_first = true;
        loop {
            self.untold = false;
            let opening = {
                let (url, dialer) = (self.settings.url.clone(), Arc::clone(&self.settings.dialer));
                let registration = self.registration.clone();
                let limit = self.reconnect.attempt_limit().min(self.settings.answer.saturating_mul(3));
                async move { BrokerSocket::open(&url, &dialer, &registration, limit).await }
            };
            let Some(opened) = self.meanwhile(opening).await else { return };
            let lost = match opened {
                Ok(socket) => {
                    is_first = false;
                    self.reconnect.proved_alive();
                    self.registered(socket.info.clone());
                    let mut under = Under::default();
                    let left = self.converse(socket, &mut under).await;
                    if under.change.is_some()
                        && let Err(error) = self.queue.tried()
                    {
                        tracing::warn!(%error, "a change that may have been made is not marked as such");
                    }
                    match left {
                        Left::Done => return,
                        Left::Lost(error) => error,
                    }
                }
                Err(error) => error,
            };
            self.asked.connection_lost();
            let refused = matches!(lost, SyncError::Refused { .. });
            if lost.is_final() && (is_first || refused) {
                return self.ended(lost).await;
            }
            tracing::debug!(error = %lost, "the connection to the broker is gone; it is opened again");
            let was_online = matches!(*self.status.borrow(), Status::Online(_));
            self.status.send_replace(Status::Offline(lost.clone()));
            if was_online {
                self.tell(BrokerEvent::Offline(lost));
            }
            let delay = match self.reconnect.ended(Ended::NeverOpened, random_u64()) {
                Next::After { delay, .. } => delay,
                Next::Stop => Duration::ZERO,
            };
            if self.meanwhile(tokio::time::sleep(delay)).await.is_none() {
                return;
            }
        }
    }

    /// Does `work` and takes commands meanwhile; `None` when the application wants no more.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let mut tidy = interval_at(Instant::now() + TIDY, TIDY);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                command = self.inbox.recv() => match command {
                    None => return None,
                    Some(Command::Disconnect(done)) => {
                        let _ = done.send(());
                        return None;
                    }
                    Some(command) => self.take(command),
                },
                _ = tidy.tick() => self.asked.tidy(),
            }
        }
    }

    /// Takes in what the application wants; it is sent when the connection is open.
    fn take(&mut self, command: Command) {
        match command {
            Command::Ask { message, reply } => {
                if self.asked.len() >= MAX_PENDING {
                    let _ = reply.send(Err(SyncError::Busy(MAX_PENDING)));
                } else {
                    self.asked.waiting.push_back((message, reply));
                }
            }
            Command::Change { message, reply } => match self.queue.push(message) {
                Ok(id) => drop(self.asked.changes.insert(id, reply)),
                Err(error) => drop(reply.send(Err(error))),
            },
            Command::Register { registration, reply } => {
                self.registration = *registration;
                self.untold = true;
                if self.asked.len() >= MAX_PENDING {
                    let _ = reply.send(Err(SyncError::Busy(MAX_PENDING)));
                } else {
                    self.asked.announced.push(reply);
                }
            }
            Command::Disconnect(done) => drop(done),
        }
    }

    async fn converse(&mut self, mut socket: BrokerSocket, under: &mut Under) -> Left {
        let every = self.heartbeat(socket.info.heartbeat_timeout);
        let mut heartbeat = interval_at(Instant::now() + every, every);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tidy = interval_at(Instant::now() + TIDY, TIDY);
        tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Err(error) = self.send(&mut socket, under).await {
                return Left::Lost(error);
            }
            tokio::select! {
                received = socket.next() => {
                    let lost = match received {
                        Ok(received) => self.received(received, under),
                        Err(error) => Some(error),
                    };
                    if let Some(error) = lost {
                        return Left::Lost(error);
                    }
                }
                command = self.inbox.recv() => match command {
                    Some(Command::Disconnect(done)) => {
                        self.leave(socket).await;
                        let _ = done.send(());
                        return Left::Done;
                    }
                    Some(command) => self.take(command),
                    None => {
                        self.leave(socket).await;
                        return Left::Done;
                    }
                },
                _ = heartbeat.tick() => {
                    if let Err(error) = self.beat(&mut socket, under).await {
                        return Left::Lost(error);
                    }
                }
                _ = tidy.tick() => {
                    self.asked.tidy();
                    let mut due = under.heartbeat.iter().chain(&under.registering);
                    if due.any(|(_, by)| *by <= Instant::now()) {
                        return Left::Lost(SyncError::Offline("it does not answer any more".to_owned()));
                    }
                }
            }
        }
    }

    /// A third of the time after which the broker counts this client as gone, at most [`HEARTBEAT`].
    fn heartbeat(&self, timeout: Duration) -> Duration {
        self.settings.heartbeat.unwrap_or_else(|| (timeout / 3).min(HEARTBEAT)).max(Duration::from_millis(50))
    }

    async fn beat(&mut self, socket: &mut BrokerSocket, under: &mut Under) -> Result<(), SyncError> {
        if under.heartbeat.is_some() {
            return Ok(());
        }
        let id = self.asked.number();
        let user_id = self.registration.user_id.clone();
        socket.send(&id, ClientMessage::Heartbeat { user_id }).await?;
        under.heartbeat = Some((id, Instant::now() + self.settings.answer));
        Ok(())
    }

    /// The broker knows this client.
    fn registered(&mut self, info: BrokerInfo) {
        self.status.send_replace(Status::Online(info.clone()));
        self.tell(BrokerEvent::Online(info));
        if !self.untold {
            for reply in self.asked.announced.drain(..) {
                let _ = reply.send(Ok(ServerMessage::ack()));
            }
        }
    }

    /// Sends what waits.
    async fn send(&mut self, socket: &mut BrokerSocket, under: &mut Under) -> Result<(), SyncError> {
        if self.untold && under.registering.is_none() {
            self.untold = false;
            let id = self.asked.number();
            // The connection is this user's already: nothing has to be proved again.
            socket.send(&id, self.registration.message(None)).await?;
            under.registering = Some((id, Instant::now() + self.settings.answer));
        }
        while let Some((message, reply)) = self.asked.waiting.pop_front() {
            if reply.is_closed() {
                continue;
            }
            let id = self.asked.number();
            self.asked.pending.insert(id.clone(), (message.clone(), reply));
            socket.send(&id, message).await?;
        }
        if under.retry_at.is_some_and(|at| at > Instant::now()) {
            return Ok(());
        }
        if under.change.is_none()
            && let Some(change) = self.queue.first()
        {
            under.retry_at = None;
            let message = change.message.clone();
            let id = self.asked.number();
            under.change = Some(id.clone());
            socket.send(&id, message).await?;
        }
        Ok(())
    }

    /// Takes in what the broker said; an error when the connection is of no use any more.
    fn received(&mut self, received: Received, under: &mut Under) -> Option<SyncError> {
        let (id, answer) = match received {
            Received::Message(Some(id), message) => (id, answered(*message)),
            Received::Unknown(id, problem) => (id, Err(SyncError::Protocol(problem))),
            Received::Message(None, message) => {
                match *message {
                    ServerMessage::ShareEvent(event) => self.tell(BrokerEvent::Share(Box::new(event))),
                    ServerMessage::PresenceEvent(event) => self.tell(BrokerEvent::Presence(event)),
                    _ => {}
                }
                return None;
            }
            Received::Other => return None,
        };
        if under.heartbeat.as_ref().is_some_and(|(beat, _)| *beat == id) {
            under.heartbeat = None;
            // The broker does not know this connection's user any more: register again.
            return answer.err();
        }
        if under.registering.as_ref().is_some_and(|(registering, _)| *registering == id) {
            under.registering = None;
            return answer.and_then(connected).map(|info| self.registered(info)).err();
        }
        if under.change.as_ref() == Some(&id) {
            under.change = None;
            self.changed(answer, under);
            return None;
        }
        let (_, reply) = self.asked.pending.remove(&id)?;
        let lost =
            answer.as_ref().err().filter(|error| error.code() == Some(ErrorCode::UserNotFound)).cloned();
        let _ = reply.send(answer);
        lost
    }

    /// The first change of the queue was answered.
    fn changed(&mut self, answer: Result<ServerMessage, SyncError>, under: &mut Under) {
        let Some(change) = self.queue.first() else { return };
        let waits = self.asked.changes.get(&change.id).is_some_and(|reply| !reply.is_closed());
        let is_temporary = |code| {
            matches!(
                code,
                ErrorCode::Unavailable
                    | ErrorCode::RateLimited
                    | ErrorCode::Internal
                    | ErrorCode::UserNotFound
            )
        };
        let answer = match answer {
            // Whoever is there hears of it and decides; what was left behind is tried again.
            Err(error) if !waits && error.code().is_some_and(is_temporary) => {
                let wait = match &error {
                    SyncError::Refused { retry_after: Some(wait), .. } => *wait,
                    _ => RETRY,
                };
                under.retry_at = Some(Instant::now() + wait.min(RETRY));
                return;
            }
            // Its first answer got lost: it had been revoked then.
            Err(error)
                if change.tried
                    && change.is_revocation()
                    && matches!(error.code(), Some(ErrorCode::ShareNotFound | ErrorCode::RevokeError)) =>
            {
                Ok(ServerMessage::ack())
            }
            answer => answer,
        };
        let answer = match answer {
            Ok(ServerMessage::Ack { .. }) => Ok(ServerMessage::ack()),
            Ok(_) => Err(SyncError::Protocol("it answered a change with something else".to_owned())),
            Err(error) => Err(error),
        };
        let (id, link, revoked) = (change.id, change.token().map(ShareLink), change.is_revocation());
        if let Err(error) = self.queue.pop() {
            tracing::warn!(%error, "a change that was made stays in the file of changes to be made");
        }
        if let Some(link) = link {
            self.tell(match &answer {
                Ok(_) if revoked => BrokerEvent::Revoked(link),
                Ok(_) => BrokerEvent::Published(link),
                Err(error) => BrokerEvent::ChangeRefused { link, error: error.clone() },
            });
        }
        if let Some(reply) = self.asked.changes.remove(&id) {
            let _ = reply.send(answer);
        }
    }

    async fn leave(&mut self, mut socket: BrokerSocket) {
        let id = self.asked.number();
        let user_id = self.registration.user_id.clone();
        if socket.send(&id, ClientMessage::Disconnect { user_id }).await.is_ok() {
            // Answers come in order: when this one is there, the broker has heard everything.
            let heard = async {
                while let Ok(received) = socket.next().await {
                    if matches!(received, Received::Message(Some(answered), _) if answered == id) {
                        return;
                    }
                }
            };
            let _ = tokio::time::timeout(Duration::from_secs(2), heard).await;
        }
        socket.close().await;
    }

    /// Nothing can be done any more: everybody hears why.
    async fn ended(mut self, error: SyncError) {
        self.status.send_replace(Status::Ended(error.clone()));
        self.tell(BrokerEvent::Ended(error.clone()));
        self.asked.fail(&error);
        while let Some(command) = self.inbox.recv().await {
            match command {
                Command::Ask { reply, .. }
                | Command::Change { reply, .. }
                | Command::Register { reply, .. } => {
                    let _ = reply.send(Err(error.clone()));
                }
                Command::Disconnect(done) => {
                    let _ = done.send(());
                    return;
                }
            }
        }
    }

    fn tell(&self, event: BrokerEvent) {
        // Nobody has to listen.
        let _ = self.events.send(event);
    }
}

impl Asked {
    fn len(&self) -> usize {
        self.pending.len() + self.waiting.len() + self.announced.len()
    }

    fn number(&mut self) -> String {
        self.last += 1;
        self.last.to_string()
    }

    /// Forgets what nobody waits for any more.
    fn tidy(&mut self) {
        self.pending.retain(|_, (_, reply)| !reply.is_closed());
        self.waiting.retain(|(_, reply)| !reply.is_closed());
        self.changes.retain(|_, reply| !reply.is_closed());
        self.announced.retain(|reply| !reply.is_closed());
    }

    /// Questions that were not answered are asked again on the next connection.
    fn connection_lost(&mut self) {
        self.tidy();
        self.waiting.extend(self.pending.drain().map(|(_, asked)| asked));
    }

    fn fail(&mut self, error: &SyncError) {
        let waiting = self.waiting.drain(..).chain(self.pending.drain().map(|(_, asked)| asked));
        for (_, reply) in waiting {
            let _ = reply.send(Err(error.clone()));
        }
        let others = self.changes.drain().map(|(_, reply)| reply).chain(self.announced.drain(..));
        for reply in others {
            let _ = reply.send(Err(error.clone()));
        }
    }
}
