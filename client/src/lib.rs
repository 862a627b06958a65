//! Peers behind firewalls, talking to each other.

pub mod broadcast;
pub mod config;
pub mod dial;
pub mod disabled;
pub mod identity;
pub mod link;
pub mod memory;
mod misconfigured;
pub mod options;
pub mod probe;
pub mod reconnect;
pub mod relay;
pub mod topic;
pub mod transfer;
pub mod transport;

pub use broadcast::{SyncBroadcaster, SyncEvent};
pub use config::{ConfigError, TransportConfig, TransportMode, create_transport, create_transport_with};
pub use dial::{ProxyUrl, RelayUrl};
pub use disabled::DisabledTransport;
pub use identity::{Identity, SystemRng};
pub use memory::MemoryTransport;
pub use options::{AccessToken, AdmissionSource, PeerPolicy, ProxyChoice, RelayOptions};
pub use reconnect::ReconnectPolicy;
pub use relay::{ConnectionError, ReceiveHalf, RelayConnection, RelayTransport, SendHalf};
pub use topic::{TopicSecret, derive_topic, derive_topic_keyed};
pub use transport::{Connection, PeerInfo, TopicHash, Transport};
