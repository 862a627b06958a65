//! What can be chosen about a connection to a broker, and how it begins.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use culvert_broker_wire::message::RelayAddress;
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{EVENTS, INBOX, Status, SyncClient};
use crate::broker::address::BrokerUrl;
use crate::broker::cache::{self, Cache};
use crate::broker::credentials::Credentials;
use crate::broker::driver::{Asked, Driver, Settings};
use crate::broker::error::SyncError;
use crate::broker::http::Http;
use crate::broker::logins::Logins;
use crate::broker::queue::{self, Queue};
use crate::broker::socket::Registration;
use crate::dial::Dialer;
use crate::options::RelayOptions;
use crate::reconnect::Reconnect;

/// How to connect; see [`SyncClient::builder`].
#[derive(Debug, Clone)]
pub struct SyncClientBuilder {
    broker_url: String,
    user_id: String,
    endpoint: String,
    credentials: Option<Credentials>,
    device_name: Option<String>,
    relay: Option<RelayAddress>,
    options: RelayOptions,
    allow_plain_text: bool,
    folder: Option<PathBuf>,
    answer: Duration,
    heartbeat: Option<Duration>,
    max_queued: usize,
    logins: Option<PathBuf>,
}

impl SyncClientBuilder {
    pub(super) fn new(broker_url: String, user_id: String) -> Self {
        Self {
            broker_url,
            user_id,
            endpoint: String::new(),
            credentials: None,
            device_name: None,
            relay: None,
            options: RelayOptions::default(),
            allow_plain_text: false,
            folder: None,
            answer: Duration::from_secs(10),
            heartbeat: None,
            max_queued: 256,
            logins: None,
        }
    }

    /// Where the user's own server answers; empty, as without this, if it has no address others could use.
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = endpoint.into();
        self
    }

    /// Why the broker should believe this client. Without this, the login that `culvert login` left.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// What this device is called in lists.
    #[must_use]
    pub fn device_name(mut self, name: impl Into<String>) -> Self {
        self.device_name = Some(name.into());
        self
    }

    /// Where this client answers through a relay.
    #[must_use]
    pub fn relay(mut self, relay: RelayAddress) -> Self {
        self.relay = Some(relay);
        self
    }

    /// Proxy, trust and reconnecting, from the same options as those of relays; the rest does not matter here.
    #[must_use]
    pub fn network(mut self, options: RelayOptions) -> Self {
        self.options = options;
        self
    }

    /// Lets `ws://` cross a network: names and tokens can then be read on the way.
    #[must_use]
    pub fn allow_plain_text(mut self, allow: bool) -> Self {
        self.allow_plain_text = allow;
        self
    }

    /// Keeps changes that the broker has not taken, and shares that were looked up, in this folder.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// How long an answer may take; 10 s without this.
    #[must_use]
    pub fn answer_within(mut self, limit: Duration) -> Self {
        self.answer = limit;
        self
    }

    /// Time between heartbeats; without this, a third of what the broker asks for, at most 50 s.
    #[must_use]
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.heartbeat = Some(every);
        self
    }

    /// How many changes may wait for the broker; 256 without this.
    #[must_use]
    pub fn max_queued(mut self, most: usize) -> Self {
        self.max_queued = most;
        self
    }

    /// Where logins are kept, if not in the user's data folder.
    #[must_use]
    pub fn logins(mut self, folder: impl Into<PathBuf>) -> Self {
        self.logins = Some(folder.into());
        self
    }

    /// Connects, and waits until the broker has let this client in.
    ///
    /// # Errors
    /// The first attempt fails.
    pub async fn connect(self) -> Result<SyncClient, SyncError> {
        let limit = self.answer;
        let client = self.start().await?;
        let mut status = client.status();
        let settled = status.wait_for(|status| !matches!(status, Status::Connecting));
        match timeout(limit.saturating_mul(3), settled).await {
            Ok(Ok(status)) => match &*status {
                Status::Offline(error) | Status::Ended(error) => return Err(error.clone()),
                Status::Connecting | Status::Online(_) => {}
            },
            Ok(Err(_)) => return Err(SyncError::Disconnected),
            Err(_) => return Err(SyncError::TimedOut(limit)),
        }
        Ok(client)
    }

    /// Connects in the background: the broker need not be there yet.
    ///
    /// # Errors
    /// What was chosen makes no sense, or a file cannot be read.
    pub async fn start(self) -> Result<SyncClient, SyncError> {
        let url: BrokerUrl = self.broker_url.parse()?;
        let url = url.checked(self.allow_plain_text)?;
        let (broker, user) = (url.to_string(), self.user_id.clone());
        let file = |name: fn(&Path, &str, &str) -> PathBuf| {
            self.folder.as_deref().map(|folder| name(folder, &broker, &user))
        };
        let (queue_file, cache_file) = (file(queue::file_in), file(cache::file_in));
        let (options, server, most) = (self.options.clone(), url.server().clone(), self.max_queued);
        let (given, logins, of) = (self.credentials, self.logins, (url.clone(), self.user_id.clone()));
        // Certificates, logins and queues are read from disks.
        let loaded = tokio::task::spawn_blocking(move || {
            let credentials = match given {
                Some(credentials) => credentials,
                None => Logins::in_folder_or_default(logins)?.credentials(&of.0, &of.1)?,
            };
            let queue = Queue::load(queue_file, most)?;
            Ok::<_, SyncError>((Dialer::new(&server, &options)?, queue, Cache::load(cache_file), credentials))
        });
        let (dialer, queue, cache, credentials) =
            loaded.await.map_err(|error| SyncError::Protocol(error.to_string()))??;
        let dialer = Arc::new(dialer);
        let registration = Registration {
            user_id: self.user_id,
            endpoint: self.endpoint,
            device_name: self.device_name,
            relay: self.relay,
            credentials,
        };
        let (commands, inbox) = mpsc::channel(INBOX);
        let (status_sender, status) = watch::channel(Status::Connecting);
        let (events, _) = broadcast::channel(EVENTS);
        let driver = Driver {
            settings: Settings {
                url: url.clone(),
                dialer: Arc::clone(&dialer),
                answer: self.answer,
                heartbeat: self.heartbeat,
            },
            registration: registration.clone(),
            untold: false,
            inbox,
            status: status_sender,
            events: events.clone(),
            queue,
            reconnect: Reconnect::new(self.options.reconnect.clone()),
            asked: Asked::default(),
        };
        let mut task = JoinSet::new();
        task.spawn(driver.run());
        Ok(SyncClient {
            commands,
            status,
            events,
            registration: Mutex::new(registration),
            cache: Arc::new(Mutex::new(cache)),
            http: Http::new(url, dialer, self.answer),
            answer: self.answer,
            _task: task,
        })
    }
}
