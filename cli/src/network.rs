//! From flags to conversations: admission, proxy and trust, and the lane that files take.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use bytes::Bytes;
use culvert_client::dial::RelayUrl;
use culvert_client::options::TicketSource;
use culvert_client::relay::{LinkError, ReceiveHalf, RelayConnection, SendHalf};
use culvert_client::{
    AccessToken, AdmissionSource, Connection, Identity, PeerPolicy, ProxyChoice, RelayOptions,
    RelayTransport, TopicHash, TopicSecret, Transport, TransportConfig, TransportMode,
};
use culvert_service_kit::Secret;
use culvert_wire::{Close, TopicId};
use tokio::sync::mpsc;

use crate::cli::NetworkArgs;
use crate::failure::Code;

/// How long delivering the last messages of a conversation may take when a command ends.
const GOODBYE: Duration = Duration::from_secs(5);
/// How long leaving the relay may take; what mattered was delivered before.
const LEAVE: Duration = Duration::from_secs(2);

impl NetworkArgs {
    /// Proxy and trust, without an identity and without admission.
    pub(crate) fn options(&self) -> Result<RelayOptions> {
        let proxy = match self.proxy.as_deref() {
            None | Some("") => ProxyChoice::Environment,
            Some("none") => ProxyChoice::Direct,
            // The URL may hold a password: the error does not repeat it.
            Some(url) => ProxyChoice::Through(
                url.parse()
                    .map_err(|error| Code::Usage.with(anyhow::Error::new(error).context("--proxy")))?,
            ),
        };
        Ok(RelayOptions { proxy, ca_file: self.ca_file.clone(), ..RelayOptions::default() })
    }

    /// The access token, if its file was given.
    pub(crate) fn access_token(&self) -> Result<Option<AccessToken>> {
        let Some(path) = &self.access_token_file else { return Ok(None) };
        let token = Secret::from_file(path).context("cannot read the access token")?;
        Ok(Some(AccessToken::new(token.expose().clone())))
    }

    /// The admission ticket, if its file was given.
    pub(crate) fn ticket(&self) -> Result<Option<String>> {
        self.ticket.as_deref().map(read_ticket).transpose()
    }

    /// What was given to show to the relay.
    pub(crate) fn admission(&self) -> Result<AdmissionSource> {
        Ok(match (self.ticket()?, self.access_token()?) {
            (Some(ticket), _) => AdmissionSource::Ticket(ticket),
            (None, Some(token)) => AdmissionSource::AccessToken(token),
            (None, None) => AdmissionSource::None,
        })
    }
}

/// Whether a relay can do nothing with the tickets of this broker; it may be open to everybody.
fn knows_no_ticket(error: &anyhow::Error) -> bool {
    let known = [Close::NotAdmitted, Close::TicketInvalid, Close::TicketForeign].map(Close::code);
    let closed = error.chain().find_map(|cause| cause.downcast_ref::<LinkError>());
    matches!(closed, Some(LinkError::Closed { code, .. }) if known.contains(code))
}

/// Reads a ticket and notices what people confuse with it.
pub(crate) fn read_ticket(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the ticket {}", path.display()))?;
    let ticket = text.trim();
    if ticket.starts_with(culvert_client::link::SCHEME) {
        return Err(Code::Usage.because(format!("{} holds a link, not a ticket", path.display())));
    }
    Ok(ticket.to_owned())
}

/// A peer at a relay, in one topic.
pub(crate) struct Meeting {
    transport: RelayTransport,
    topic: TopicHash,
    connections: mpsc::Receiver<RelayConnection>,
}

impl Meeting {
    /// Enters the topic of a secret.
    pub(crate) async fn join(
        relay: &RelayUrl,
        secret: TopicSecret,
        identity: Option<Identity>,
        peers: PeerPolicy,
        options: RelayOptions,
    ) -> Result<Self> {
        let topic = secret.topic();
        let options = RelayOptions { identity, topic_secret: Some(secret), peers, ..options };
        Self::enter(relay, topic, options).await
    }

    /// Enters a topic where an owner and those who fetch from them meet. The peer's key is what counts there.
    ///
    /// Where no admission was given, the relay is shown one of the broker's `tickets`, and tried without if it
    /// cannot read them. In this order, because operators count whom their relays turn away.
    pub(crate) async fn join_for_share(
        relay: &RelayUrl,
        topic: TopicId,
        identity: Identity,
        peers: PeerPolicy,
        options: RelayOptions,
        tickets: TicketSource,
    ) -> Result<Self> {
        let options = RelayOptions { identity: Some(identity), peers, ..options };
        if !matches!(options.admission, AdmissionSource::None) {
            return Self::enter(relay, topic.0, options).await;
        }
        let admission = AdmissionSource::TicketSource(tickets);
        match Self::enter(relay, topic.0, RelayOptions { admission, ..options.clone() }).await {
            Err(refused) if knows_no_ticket(&refused) => {
                Self::enter(relay, topic.0, options).await.map_err(|_| refused)
            }
            entered => entered,
        }
    }

    async fn enter(relay: &RelayUrl, topic: TopicHash, options: RelayOptions) -> Result<Self> {
        let config = TransportConfig {
            mode: TransportMode::Relay,
            relay_url: Some(relay.to_string()),
            ..TransportConfig::default()
        };
        let mut transport = RelayTransport::new(config, options)?;
        let connections = transport
            .connect_relay(topic)
            .await
            .with_context(|| format!("cannot use the relay at {relay}"))?;
        Ok(Self { transport, topic, connections })
    }

    /// The next peer that comes; an error when the relay does not let this peer stay. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<FileLane> {
        if let Some(connection) = self.connections.recv().await {
            return FileLane::new(connection);
        }
        let why = match self.transport.ended(&self.topic) {
            Some(end) => anyhow::Error::new(end.clone()),
            None => anyhow::anyhow!("it does not say why"),
        };
        Err(Code::Refused
            .with(why.context("the relay ended the connection and does not let this peer back in")))
    }

    /// Delivers what is under way, within limits, and leaves.
    pub(crate) async fn leave(mut self) {
        self.connections.close();
        let _ = tokio::time::timeout(LEAVE, self.transport.disconnect()).await;
    }
}

/// The lane of a conversation that yields to everything people wait for.
pub(crate) struct FileLane {
    send: SendHalf,
    receive: ReceiveHalf,
    peer: String,
    /// Keeps the conversation's other lane open.
    _conversation: RelayConnection,
}

impl FileLane {
    fn new(mut conversation: RelayConnection) -> Result<Self> {
        let peer = conversation.peer().to_string();
        let (send, receive) = conversation.take_bulk().context("the conversation has no lane for files")?;
        Ok(Self { send, receive, peer, _conversation: conversation })
    }
}

#[async_trait]
impl Connection for FileLane {
    async fn send(&mut self, data: &[u8]) -> Result<()> {
        self.send.send(Bytes::copy_from_slice(data)).await?;
        Ok(())
    }

    async fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(self.receive.receive().await?.map(Vec::from))
    }

    async fn close(&mut self) -> Result<()> {
        tokio::time::timeout(GOODBYE, self.send.close()).await??;
        Ok(())
    }

    fn peer_id(&self) -> &str {
        &self.peer
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(self.send.flush().await?)
    }
}
