//! [`SyncClient`]: what an application holds of its broker.

mod builder;

pub use builder::SyncClientBuilder;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use culvert_broker_wire::message::{PresenceEvent, RelayAddress, ShareEvent, ShareSummary};
use culvert_broker_wire::{ClientMessage, ErrorCode, ServerMessage, ShareMetadata, ShareToken, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::cache::{Cache, SharedResultInfo};
use super::credentials::Credentials;
use super::driver::Command;
use super::error::SyncError;
use super::http::Http;
use super::share_link::ShareLink;
use super::socket::{BrokerInfo, Registration};

/// Commands that wait for the task; more wait in their callers.
const INBOX: usize = 64;
/// Events that a slow listener may be behind before it loses the oldest.
const EVENTS: usize = 256;
/// Shares that are listed at most.
const MAX_LISTED: usize = 10_000;
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(6);

/// A user's connection to their broker: who is online, who may fetch what.
///
/// It comes back by itself after the connection or the broker was gone, and registers again. What cannot be
/// asked meanwhile waits until its deadline; publications and revocations wait longer, see
/// [`SyncClient::share_result`]. Dropping it ends the connection at once, [`SyncClient::disconnect`] says goodbye.
#[derive(Debug)]
pub struct SyncClient {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
    events: broadcast::Sender<BrokerEvent>,
    registration: Mutex<Registration>,
    cache: Arc<Mutex<Cache>>,
    http: Http,
    answer: Duration,
    _task: JoinSet<()>,
}

/// Whether the broker is there.
#[derive(Debug, Clone)]
pub enum Status {
    /// Not yet.
    Connecting,
    /// It is, and knows this client.
    Online(BrokerInfo),
    /// Not now, and why; it is tried again.
    Offline(SyncError),
    /// It does not let this client in, and why; nothing is tried any more.
    Ended(SyncError),
}

/// What happens between a client and its broker.
#[derive(Debug, Clone)]
pub enum BrokerEvent {
    /// The broker knows this client, for the first time or again. Events of others may have been missed.
    Online(BrokerInfo),
    /// The connection is gone; it is opened again.
    Offline(SyncError),
    /// The broker does not let this client in any more.
    Ended(SyncError),
    /// A share that this user may see has changed.
    Share(Box<ShareEvent>),
    /// Somebody who shares a team or a share with this user came or went.
    Presence(PresenceEvent),
    /// The broker has taken a publication of this client.
    Published(ShareLink),
    /// The broker has taken a revocation of this client.
    Revoked(ShareLink),
    /// The broker refused a publication or revocation of this client.
    ChangeRefused {
        /// Of which share.
        link: ShareLink,
        /// Why.
        error: SyncError,
    },
}

impl SyncClient {
    /// Connects to a broker as a user whose own server answers at `local_endpoint` (empty if it has none).
    ///
    /// The proof of who this is comes from the login that `culvert login` left for this user and broker.
    /// Without one the broker decides what it says to somebody who proves nothing.
    ///
    /// # Errors
    /// The broker cannot be reached, or does not let this user in.
    pub async fn connect(
        broker_url: String,
        user_id: String,
        local_endpoint: String,
    ) -> Result<Self, SyncError> {
        Self::builder(broker_url, user_id).endpoint(local_endpoint).connect().await
    }

    /// Everything that can be chosen about a connection.
    pub fn builder(broker_url: impl Into<String>, user_id: impl Into<String>) -> SyncClientBuilder {
        SyncClientBuilder::new(broker_url.into(), user_id.into())
    }

    /// Shares a result and gives the link to it, `ddalab://share/<token>`, once the broker has taken it.
    ///
    /// # Errors
    /// The broker refused it. [`SyncError::Queued`] if the broker did not answer in time: the publication is
    /// kept, made when the broker is back, and told as [`BrokerEvent::Published`] or
    /// [`BrokerEvent::ChangeRefused`]; the error carries the link that will then be right.
    pub async fn share_result(
        &self,
        result_id: &str,
        title: &str,
        description: Option<&str>,
        access_policy: impl Into<culvert_broker_wire::AccessPolicy>,
    ) -> Result<String, SyncError> {
        let token = ShareToken::generate();
        self.publish(token.clone(), result_id, title, description, access_policy).await?;
        Ok(ShareLink(token).ddalab())
    }

    /// As [`SyncClient::share_result`], under a token of one's own; also changes a share that is there.
    ///
    /// # Errors
    /// As for [`SyncClient::share_result`].
    pub async fn publish(
        &self,
        token: ShareToken,
        result_id: &str,
        title: &str,
        description: Option<&str>,
        access_policy: impl Into<culvert_broker_wire::AccessPolicy>,
    ) -> Result<(), SyncError> {
        let metadata = ShareMetadata {
            owner_user_id: self.user_id(),
            result_id: result_id.to_owned(),
            title: title.to_owned(),
            description: description.map(str::to_owned),
            created_at: now(),
            access_policy: access_policy.into(),
        };
        let message = ClientMessage::PublishShare { token: token.as_str().to_owned(), metadata };
        self.change(ShareLink(token), message).await
    }

    /// Ends one's own share for good; takes its token or link.
    ///
    /// # Errors
    /// As for [`SyncClient::share_result`].
    pub async fn revoke_share(&self, token_or_link: &str) -> Result<(), SyncError> {
        let link: ShareLink = token_or_link.parse()?;
        let message = ClientMessage::RevokeShare { token: link.0.as_str().to_owned() };
        self.change(link, message).await
    }

    /// What a token or link names, if this user may use it.
    ///
    /// While the broker cannot be asked, what it said before is given, marked as stale.
    ///
    /// # Errors
    /// The broker refused, or cannot be asked and never was.
    pub async fn access_share(&self, token_or_link: &str) -> Result<SharedResultInfo, SyncError> {
        let ShareLink(token) = token_or_link.parse()?;
        let remembered = || self.cache.lock().get(&token);
        if matches!(*self.status.borrow(), Status::Offline(_))
            && let Some(share) = remembered()
        {
            return Ok(share);
        }
        let (token_text, requester_id) = (token.as_str().to_owned(), self.user_id());
        match self.ask(ClientMessage::RequestShare { token: token_text, requester_id }).await {
            Ok(ServerMessage::ShareInfo { info }) => {
                let as_of = now();
                self.remember(move |cache| cache.put(&token, &info, as_of).map(|()| info))
                    .await
                    .map(|info| SharedResultInfo { info: *info, as_of, is_stale: false })
            }
            Ok(_) => Err(unexpected("request_share")),
            Err(
                error @ SyncError::Refused {
                    code: ErrorCode::ShareNotFound | ErrorCode::AccessDenied, ..
                },
            ) => {
                self.remember(move |cache| cache.remove(&token)).await?;
                Err(error)
            }
            Err(error @ (SyncError::TimedOut(_) | SyncError::Offline(_))) => remembered().ok_or(error),
            Err(error) => Err(error),
        }
    }

    /// One's own shares, newest first.
    ///
    /// # Errors
    /// The broker refused, or cannot be asked.
    pub async fn list_my_shares(&self) -> Result<Vec<ShareSummary>, SyncError> {
        self.list(|user_id, cursor| ClientMessage::ListMyShares { user_id, cursor }).await
    }

    /// Shares of others that name this user, one of their teams or the institution, newest first.
    ///
    /// # Errors
    /// The broker refused, or cannot be asked.
    pub async fn list_shared_with_me(&self) -> Result<Vec<ShareSummary>, SyncError> {
        self.list(|user_id, cursor| ClientMessage::ListSharedWithMe { user_id, cursor }).await
    }

    /// Any other question of the protocol, such as `backup_state` and `restore_state`.
    ///
    /// # Errors
    /// The broker refused, or did not answer in time.
    pub async fn ask(&self, message: ClientMessage) -> Result<ServerMessage, SyncError> {
        let (reply, answer) = oneshot::channel();
        self.wait(Command::Ask { message, reply }, answer).await
    }

    /// Registers with another endpoint and relay address. When this returns, the broker gives them to
    /// whoever asks for a share of this user; the connection stays.
    ///
    /// # Errors
    /// The broker refused, or did not answer in time; it is told as soon as it is back.
    pub async fn announce(&self, endpoint: String, relay: Option<RelayAddress>) -> Result<(), SyncError> {
        let registration = {
            let mut registration = self.registration.lock();
            registration.endpoint = endpoint;
            registration.relay = relay;
            registration.clone()
        };
        let (reply, answer) = oneshot::channel();
        let command = Command::Register { registration: Box::new(registration), reply };
        self.wait(command, answer).await.map(drop)
    }

    /// Says goodbye: the user counts as offline at once. Changes that wait stay in the queue's file.
    pub async fn disconnect(&self) {
        let (done, left) = oneshot::channel();
        if self.commands.send(Command::Disconnect(done)).await.is_ok() {
            let _ = timeout(GOODBYE, left).await;
        }
    }

    /// Who this client is.
    pub fn user_id(&self) -> String {
        self.registration.lock().user_id.clone()
    }

    /// Where the user's own server answers.
    pub fn local_endpoint(&self) -> String {
        self.registration.lock().endpoint.clone()
    }

    /// Whether the broker is there and knows this client.
    pub fn is_connected(&self) -> bool {
        matches!(*self.status.borrow(), Status::Online(_))
    }

    /// Whether the broker is there, now and from now on.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// What the broker said of itself when it was last there.
    pub fn broker(&self) -> Option<BrokerInfo> {
        match &*self.status.borrow() {
            Status::Online(info) => Some(info.clone()),
            _ => None,
        }
    }

    /// What happens, from now on. A listener that is 256 events behind loses the oldest.
    pub fn subscribe(&self) -> broadcast::Receiver<BrokerEvent> {
        self.events.subscribe()
    }

    /// The REST interface of the same broker.
    pub(crate) fn http(&self) -> &Http {
        &self.http
    }

    /// The session's token, where the client has one.
    pub(crate) fn bearer(&self) -> Option<zeroize::Zeroizing<String>> {
        match &self.registration.lock().credentials {
            Credentials::Session(token) => Some(token.clone()),
            _ => None,
        }
    }

    async fn list(
        &self,
        message: impl Fn(Option<String>, Option<String>) -> ClientMessage,
    ) -> Result<Vec<ShareSummary>, SyncError> {
        let (mut listed, mut cursor) = (Vec::new(), None);
        loop {
            match self.ask(message(Some(self.user_id()), cursor)).await? {
                ServerMessage::ShareList { items, next_cursor, .. } => {
                    let is_empty = items.is_empty();
                    listed.extend(items);
                    cursor = next_cursor.filter(|_| !is_empty && listed.len() < MAX_LISTED);
                    if cursor.is_none() {
                        return Ok(listed);
                    }
                }
                _ => return Err(unexpected("a list of shares")),
            }
        }
    }

    async fn change(&self, link: ShareLink, message: ClientMessage) -> Result<(), SyncError> {
        let (reply, answer) = oneshot::channel();
        match self.wait(Command::Change { message, reply }, answer).await {
            Ok(_) => Ok(()),
            Err(SyncError::TimedOut(_)) => Err(SyncError::Queued(link)),
            Err(error) => Err(error),
        }
    }

    async fn wait(
        &self,
        command: Command,
        answer: oneshot::Receiver<Result<ServerMessage, SyncError>>,
    ) -> Result<ServerMessage, SyncError> {
        let asked = async {
            self.commands.send(command).await.map_err(|_| SyncError::Disconnected)?;
            answer.await.unwrap_or(Err(SyncError::Disconnected))
        };
        timeout(self.answer, asked).await.unwrap_or(Err(SyncError::TimedOut(self.answer)))
    }

    /// Changes what is remembered; the file is written on a thread that may wait for a disk.
    async fn remember<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Cache) -> Result<T, SyncError> + Send + 'static,
    ) -> Result<T, SyncError> {
        let cache = Arc::clone(&self.cache);
        let changed = tokio::task::spawn_blocking(move || change(&mut cache.lock())).await;
        changed.unwrap_or_else(|error| Err(SyncError::Protocol(error.to_string())))
    }
}

fn unexpected(question: &str) -> SyncError {
    SyncError::Protocol(format!("it answered `{question}` with something else"))
}

/// What time it is.
pub(crate) fn now() -> Timestamp {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    i64::try_from(micros)
        .ok()
        .and_then(Timestamp::from_unix_micros)
        .unwrap_or_else(|| Timestamp::from_unix_seconds(0))
}
