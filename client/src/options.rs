//! What the relay transport needs beyond the four fields that every transport shares.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use culvert_wire::PeerId;
use zeroize::Zeroizing;

use crate::broadcast::SyncBroadcaster;
use crate::dial::ProxyUrl;
use crate::identity::Identity;
use crate::reconnect::ReconnectPolicy;
use crate::topic::TopicSecret;

/// Keys, admission, proxy and trust of the relay transport. The default has a fresh identity, no topic
/// secret and no admission, takes the proxy from the environment and trusts what the system trusts.
#[derive(Debug, Clone, Default)]
pub struct RelayOptions {
    /// This peer's key; a fresh one where absent.
    pub identity: Option<Identity>,
    /// The secret that the topic's members share. With it, the Noise handshake takes its pre-shared
    /// key, so that nobody who merely knows the topic gets in.
    pub topic_secret: Option<TopicSecret>,
    /// Why the relay should let this peer in.
    pub admission: AdmissionSource,
    /// With which peers a conversation may begin.
    pub peers: PeerPolicy,
    /// How the network is left.
    pub proxy: ProxyChoice,
    /// Certificates (PEM) to trust on top of the system's, for networks that inspect TLS.
    pub ca_file: Option<PathBuf>,
    /// How to come back after a connection was lost.
    pub reconnect: ReconnectPolicy,
    /// How to look for peers that a node cannot reach while it is cut off from others.
    pub search: SearchPolicy,
    /// When an open connection over which nothing comes is doubted.
    pub liveness: LivenessPolicy,
    /// Who is told that peers come and go.
    pub broadcaster: Option<SyncBroadcaster>,
}

/// How to look for peers that the node cannot reach.
///
/// A node that lost touch with its cluster says so. While a peer that is wanted is absent or silent there,
/// further connections are opened through the balancer, one after the other, until one leads to a node
/// that reaches the peer. They are closed when the cluster is whole again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchPolicy {
    /// Time to the first attempt; a random half of it is left out. Grows by half with every attempt.
    /// Default 2 s.
    pub first: Duration,
    /// Upper limit of the time between attempts. Default 20 s.
    pub longest: Duration,
    /// Most connections of a topic at a time, the first one and those being replaced included; with 1
    /// nothing is looked for. Default 3.
    pub connections: usize,
}

/// When an open connection over which nothing comes is doubted.
///
/// Networks can forget a connection without telling either end. Keepalives find that out in the end;
/// while a conversation waits for an answer it should not take as long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivenessPolicy {
    /// A peer that was sending and says nothing for so long is asked for a sign. After so long without an
    /// answer of a peer, and without anything from the relay, the relay is asked. Default 3 s.
    pub after: Duration,
    /// Time in which anything must come then; else the connection is replaced. Default 5 s.
    pub answer: Duration,
}

impl Default for SearchPolicy {
    fn default() -> Self {
        Self { first: Duration::from_secs(2), longest: Duration::from_secs(20), connections: 3 }
    }
}

impl Default for LivenessPolicy {
    fn default() -> Self {
        Self { after: Duration::from_secs(3), answer: Duration::from_secs(5) }
    }
}

/// Why the relay should let this peer in.
#[derive(Clone, Default)]
pub enum AdmissionSource {
    /// No reason: for open relays.
    #[default]
    None,
    /// The relay's access token. It signs the handshake and never travels.
    AccessToken(AccessToken),
    /// A ticket bound to this peer's key.
    Ticket(String),
    /// Asked for a ticket before every connection, so that it can be a fresh one.
    TicketSource(TicketSource),
    /// An invitation by another peer, with that peer's ticket.
    Invitation {
        /// The inviting peer's ticket.
        ticket: String,
        /// Signed by the inviting peer.
        invitation: String,
    },
}

/// The text by which an access-token relay admits.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(Zeroizing<String>);

/// Gives a ticket, or says why there is none.
pub type TicketSource =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = anyhow::Result<String>> + Send>> + Send + Sync>;

/// With which peers a conversation may begin. Both sides ask their own.
#[derive(Clone, Default)]
pub enum PeerPolicy {
    /// Whoever completes the handshake: with a topic secret, its members; without one, anybody.
    #[default]
    Anyone,
    /// These keys and no others.
    Only(Vec<PeerId>),
    /// Whom the callback says yes to. It is called with a proven key and must answer at once.
    Ask(Arc<dyn Fn(&PeerId) -> bool + Send + Sync>),
}

/// How the network is left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ProxyChoice {
    /// As `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
    #[default]
    Environment,
    /// Never through a proxy, whatever the environment says.
    Direct,
    /// Always through this one, whatever the environment says.
    Through(ProxyUrl),
}

impl AccessToken {
    /// Takes the token as the operator gave it.
    pub fn new(token: impl Into<String>) -> Self {
        Self(Zeroizing::new(token.into()))
    }

    /// The token itself, for passing it on in a link.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl PeerPolicy {
    /// Whether a conversation with `peer` may begin.
    pub fn allows(&self, peer: &PeerId) -> bool {
        match self {
            PeerPolicy::Anyone => true,
            PeerPolicy::Only(peers) => peers.contains(peer),
            PeerPolicy::Ask(ask) => ask(peer),
        }
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(***)")
    }
}

impl fmt::Debug for AdmissionSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AdmissionSource::None => "None",
            AdmissionSource::AccessToken(_) => "AccessToken(***)",
            AdmissionSource::Ticket(_) => "Ticket(***)",
            AdmissionSource::TicketSource(_) => "TicketSource(..)",
            AdmissionSource::Invitation { .. } => "Invitation(***)",
        })
    }
}

impl fmt::Debug for PeerPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerPolicy::Anyone => f.write_str("Anyone"),
            PeerPolicy::Only(peers) => f.debug_tuple("Only").field(peers).finish(),
            PeerPolicy::Ask(_) => f.write_str("Ask(..)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_admits_only_its_own_keys() {
        let (one, two) = (PeerId([1; 32]), PeerId([2; 32]));
        assert!(PeerPolicy::Anyone.allows(&one));
        assert!(PeerPolicy::Only(vec![one]).allows(&one));
        assert!(!PeerPolicy::Only(vec![one]).allows(&two));
        assert!(!PeerPolicy::Ask(Arc::new(move |peer| *peer == two)).allows(&one));
    }

    #[test]
    fn options_print_no_secret() {
        let options = RelayOptions {
            topic_secret: Some(TopicSecret::from_bytes([0x5a; 32])),
            admission: AdmissionSource::AccessToken(AccessToken::new("hunter2")),
            ..Default::default()
        };
        let text = format!("{options:?}");
        assert!(!text.contains("hunter2") && !text.contains("5a") && !text.contains("90, 90"), "{text}");
    }
}
