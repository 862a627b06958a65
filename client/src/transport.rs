//! The contract of every way to reach a peer: [`Transport`] finds peers, [`Connection`] talks to one.

use async_trait::async_trait;
use tokio::sync::mpsc;

/// A topic: 32 bytes by which peers of one database find each other. See [`crate::derive_topic`].
pub type TopicHash = [u8; 32];

/// What a [`Transport::lookup`] knows of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// The peer's public key, 64 hexadecimal digits.
    pub id: String,
    /// Where it is reached, in the transport's own notation; `None` where that means nothing.
    pub address: Option<String>,
    /// Whether this transport holds a connection to it at the moment.
    pub connected: bool,
}

/// A conversation with one peer: whole messages, each delivered exactly once and in order.
///
/// It lives on while the paths under it come and go. It ends when either side closes it, or when the
/// other process is gone for good; then [`Connection::send`] says which messages were not acknowledged.
#[async_trait]
pub trait Connection: Send + Sync {
    /// Queues one message; returns when it is inside the window, not when it has arrived.
    ///
    /// # Errors
    /// The conversation has ended, or the message is larger than the transport's maximum.
    async fn send(&mut self, data: &[u8]) -> anyhow::Result<()>;

    /// Waits for the next message; `None` when the peer closed the conversation. Cancel safe.
    ///
    /// # Errors
    /// The conversation ended in another way than by the peer's `close`.
    async fn receive(&mut self) -> anyhow::Result<Option<Vec<u8>>>;

    /// Delivers what was sent, then ends the conversation.
    ///
    /// # Errors
    /// Something that was sent could not be delivered within the transport's time-out.
    async fn close(&mut self) -> anyhow::Result<()>;

    /// The peer's public key, 64 hexadecimal digits, proven by the handshake.
    fn peer_id(&self) -> &str;

    /// Waits until the peer has acknowledged every message sent so far.
    ///
    /// Transports that deliver at once need not provide it.
    ///
    /// # Errors
    /// The conversation ended first.
    async fn flush(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// A way to find and reach the peers of a topic.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Enters the topic and yields a [`Connection`] for every peer that is there or comes later.
    ///
    /// # Errors
    /// The transport is misconfigured, refused, or out of reach for the configured time-out.
    async fn connect(&mut self, topic: TopicHash) -> anyhow::Result<mpsc::Receiver<Box<dyn Connection>>>;

    /// Makes this peer findable on the topic.
    ///
    /// # Errors
    /// As for [`Transport::connect`].
    async fn announce(&mut self, topic: TopicHash) -> anyhow::Result<()>;

    /// Lists the other peers on the topic without talking to them.
    ///
    /// # Errors
    /// As for [`Transport::connect`].
    async fn lookup(&self, topic: TopicHash) -> anyhow::Result<Vec<PeerInfo>>;

    /// Leaves every topic and ends every conversation.
    ///
    /// # Errors
    /// Something that was sent could not be delivered within the time-out.
    async fn disconnect(&mut self) -> anyhow::Result<()>;

    /// The transport's name, for logs and for people.
    fn name(&self) -> &str;
}
