//! The transport through a relay.
//!
//! [`RelayTransport`] starts one task per topic ([`driver`]). The task owns the connections to the relay
//! ([`link`], opened by [`crate::dial`]) and every conversation over them ([`conversation`], around a
//! `culvert_session::Session`). The application holds the other end of each: a [`RelayConnection`].

mod channel;
mod connection;
mod conversation;
mod driver;
mod end;
mod leg;
pub(crate) mod link;
mod paths;
mod roster;

pub use connection::{
    ConnectionError, ConnectionStats, MAX_MESSAGE, ReceiveHalf, RelayConnection, SendHalf, Unacknowledged,
};
pub use end::RelayEnd;
pub use link::LinkError;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use culvert_wire::{ConnId, Frame, Members, PeerId, TopicId};
use futures_util::future::poll_fn;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::channel::{Accept, Command};
use self::driver::{Driver, Settings};
use self::end::EndCell;
use self::link::{Introduction, Link, LinkEvent};
use self::roster::Run;
use crate::config::{ConfigError, TransportConfig};
use crate::dial::{Dialer, RelayUrl};
use crate::identity::{Identity, SystemRng};
use crate::options::RelayOptions;
use crate::reconnect::Reconnect;
use crate::transport::{Connection, PeerInfo, TopicHash, Transport};

/// Conversations that wait for the application to take them, per topic; more are not begun.
pub const WAITING_CONNECTIONS: usize = 16;

/// Reaches peers through a relay. Dropping it ends every conversation at once;
/// [`Transport::disconnect`] delivers first.
#[derive(Debug)]
pub struct RelayTransport {
    url: RelayUrl,
    limit: Duration,
    options: RelayOptions,
    identity: Identity,
    dialer: Option<Arc<Dialer>>,
    topics: HashMap<TopicHash, Driven>,
    tasks: JoinSet<u64>,
    stop: CancellationToken,
}

/// A topic that a task drives.
#[derive(Debug)]
struct Driven {
    commands: mpsc::UnboundedSender<Command>,
    /// Whether `connect` was called; before that the topic is only announced.
    is_connected: bool,
    /// Why it ended for good, once it has.
    end: EndCell,
}

impl RelayTransport {
    /// A transport through the relay of `config`. Nothing is dialled yet.
    ///
    /// # Errors
    /// See [`TransportConfig::validate`].
    pub fn new(config: TransportConfig, options: RelayOptions) -> Result<Self, ConfigError> {
        config.validate()?;
        let identity = options.identity.clone().unwrap_or_else(|| Identity::generate(&mut SystemRng));
        Ok(Self {
            url: config.relay()?,
            limit: Duration::from_millis(config.timeout_ms),
            options,
            identity,
            dialer: None,
            topics: HashMap::new(),
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
        })
    }

    /// This peer's key.
    pub fn peer_id(&self) -> PeerId {
        self.identity.peer_id()
    }

    /// The relay.
    pub fn relay_url(&self) -> &RelayUrl {
        &self.url
    }

    /// Why the receiver that `connect` gave for this topic has ended, if the relay does not let this peer
    /// back in: a ticket that expired or was revoked, for example. `None` as long as it goes on, and after
    /// [`Transport::disconnect`]. [`SyncEvent::RelayEnded`](crate::SyncEvent::RelayEnded) tells it, too.
    pub fn ended(&self, topic: &TopicHash) -> Option<&RelayEnd> {
        self.topics.get(topic)?.end.get()
    }

    /// As [`Transport::connect`], with the conversations' own type. When the receiver ends,
    /// [`RelayTransport::ended`] says why.
    ///
    /// # Errors
    /// As [`Transport::connect`].
    pub async fn connect_relay(
        &mut self,
        topic: TopicHash,
    ) -> anyhow::Result<mpsc::Receiver<RelayConnection>> {
        let (sender, connections) = mpsc::channel(WAITING_CONNECTIONS);
        self.accept(topic, Accept::Relay(sender)).await?;
        Ok(connections)
    }

    async fn accept(&mut self, topic: TopicHash, accept: Accept) -> anyhow::Result<()> {
        self.enter(topic).await?;
        let driven = self.topics.get_mut(&topic).context("the topic was left")?;
        if driven.is_connected {
            bail!("this topic is connected already; disconnect first");
        }
        driven.is_connected = true;
        driven.commands.send(Command::Accept(accept)).ok().context("the relay ended the connection")
    }

    /// Starts the topic's task and waits until the relay has let it in.
    async fn enter(&mut self, topic: TopicHash) -> anyhow::Result<()> {
        while self.tasks.try_join_next().is_some() {}
        self.topics.retain(|_, driven| !driven.commands.is_closed());
        if self.topics.contains_key(&topic) {
            return Ok(());
        }
        let settings = Settings {
            dialer: self.dialer().await?,
            identity: self.identity.clone(),
            topic: TopicId(topic),
            psk: self.options.topic_secret.as_ref().map(crate::topic::TopicSecret::psk),
            admission: self.options.admission.clone(),
            policy: self.options.peers.clone(),
            broadcaster: self.options.broadcaster.clone(),
            reconnect: Reconnect::new(self.options.reconnect.clone()),
            search: self.options.search.clone(),
            liveness: self.options.liveness.clone(),
            run: new_run(),
            limit: self.limit,
        };
        let (commands, inbox) = mpsc::unbounded_channel();
        let (ready, entered) = oneshot::channel();
        let end = EndCell::default();
        let driver = Driver::new(settings, commands.clone(), ready, Arc::clone(&end));
        self.tasks.spawn(driver.run(inbox, self.stop.clone()));
        entered.await.context("the relay's task ended")??;
        self.topics.insert(topic, Driven { commands, is_connected: false, end });
        Ok(())
    }

    /// Proxy and trust, settled once; reading the system's certificates blocks.
    async fn dialer(&mut self) -> anyhow::Result<Arc<Dialer>> {
        if let Some(dialer) = &self.dialer {
            return Ok(Arc::clone(dialer));
        }
        let dialer = new_dialer(self.url.clone(), self.options.clone()).await?;
        Ok(Arc::clone(self.dialer.insert(dialer)))
    }

    /// Asks over a connection of its own, made for the question.
    async fn lookup_once(&self, topic: TopicId) -> anyhow::Result<Vec<PeerInfo>> {
        let dialer = match &self.dialer {
            Some(dialer) => Arc::clone(dialer),
            None => new_dialer(self.url.clone(), self.options.clone()).await?,
        };
        let introduction = Introduction {
            identity: &self.identity,
            admission: &self.options.admission,
            generation: new_run().generation(0),
            replaces: ConnId::NONE,
        };
        let mut link = Link::open(&dialer, introduction, self.limit).await?;
        link.send(&Frame::Lookup { topic });
        let members = timeout(self.limit, answer(&mut link, topic))
            .await
            .context("the relay did not answer in time")??;
        link.close(self.limit.min(Duration::from_secs(1))).await;
        let mut peers: Vec<_> = members.list.into_iter().map(|member| member.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        peers.retain(|peer| *peer != self.peer_id());
        Ok(peers
            .iter()
            .map(|peer| PeerInfo { id: peer.to_string(), address: None, connected: false })
            .collect())
    }
}

#[async_trait]
impl Transport for RelayTransport {
    async fn connect(&mut self, topic: TopicHash) -> anyhow::Result<mpsc::Receiver<Box<dyn Connection>>> {
        let (sender, connections) = mpsc::channel(WAITING_CONNECTIONS);
        self.accept(topic, Accept::Boxed(sender)).await?;
        Ok(connections)
    }

    async fn announce(&mut self, topic: TopicHash) -> anyhow::Result<()> {
        self.enter(topic).await
    }

    async fn lookup(&self, topic: TopicHash) -> anyhow::Result<Vec<PeerInfo>> {
        let Some(driven) = self.topics.get(&topic).filter(|driven| !driven.commands.is_closed()) else {
            return self.lookup_once(TopicId(topic)).await;
        };
        let (reply, answer) = oneshot::channel();
        driven.commands.send(Command::Lookup(reply)).ok().context("the relay ended the connection")?;
        let answer = timeout(self.limit, answer).await.context("the relay did not answer in time")?;
        answer.context("the connection to the relay is interrupted; try again in a moment")
    }

    async fn disconnect(&mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.topics.clear();
        let mut undelivered = 0;
        while let Some(ended) = self.tasks.join_next().await {
            undelivered += ended.context("the relay's task broke")?;
        }
        self.stop = CancellationToken::new();
        if undelivered > 0 {
            bail!("{undelivered} messages were not acknowledged in time; the peers may not have them");
        }
        Ok(())
    }

    fn name(&self) -> &str {
        "relay"
    }
}

async fn new_dialer(url: RelayUrl, options: RelayOptions) -> anyhow::Result<Arc<Dialer>> {
    let settled = tokio::task::spawn_blocking(move || Dialer::new(&url, &options)).await;
    Ok(Arc::new(settled.context("the certificates could not be read")??))
}

async fn answer(link: &mut Link, topic: TopicId) -> Result<Members, LinkError> {
    loop {
        match poll_fn(|cx| link.poll(cx)).await {
            LinkEvent::Frame(Frame::Peers { topic: of, members }) if of == topic => return Ok(members),
            LinkEvent::Frame(Frame::JoinRefused { topic: of, .. }) if of == topic => {
                return Err(LinkError::TopicNotAllowed);
            }
            LinkEvent::Frame(_) | LinkEvent::Flushed | LinkEvent::Pong => {}
            LinkEvent::Ended(error) => return Err(error),
        }
    }
}

/// A run later than every earlier one of this process, and of earlier processes as far as clocks go.
fn new_run() -> Run {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    // 48 bits of milliseconds last until the year 10,889.
    let now = u64::try_from(now).unwrap_or(u64::MAX) & ((1 << 48) - 1);
    let before = LAST.fetch_max(now, Ordering::Relaxed);
    if before < now { Run(now) } else { Run(LAST.fetch_add(1, Ordering::Relaxed) + 1) }
}
