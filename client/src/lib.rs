//! Peers behind firewalls, talking to each other.
//!
//! Peers of one topic find each other through a relay on port 443 and hold end-to-end-encrypted
//! conversations over it: whole messages, each delivered exactly once and in order, while connections,
//! relays and networks come and go. The relay sees a topic id, addresses and sizes, never content.
//!
//! ```
//! use culvert_client::{Connection, Transport, TransportConfig, TransportMode};
//! use culvert_client::{create_transport, derive_topic};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> anyhow::Result<()> {
//! // Two peers. `Memory` is for tests and examples; in earnest it is `Relay`, with
//! // `relay_url: Some("wss://relay.example.com".into())`, and nothing below changes.
//! let config = TransportConfig { mode: TransportMode::Memory, ..Default::default() };
//! let mut alice = create_transport(config.clone());
//! let mut bob = create_transport(config);
//!
//! // They meet on a topic: here the hash of a name that both know. For private data share a
//! // `TopicSecret`, which is a topic that nobody can guess and a key that the relay never has.
//! let topic = derive_topic("my-app-database");
//! let mut to_alice = alice.connect(topic).await?;
//! let mut to_bob = bob.connect(topic).await?;
//! let mut alices = to_alice.recv().await.expect("bob is there");
//! let mut bobs = to_bob.recv().await.expect("alice is there");
//! assert_eq!(bob.lookup(topic).await?[0].id, bobs.peer_id());
//!
//! alices.send(b"hello bob").await?;
//! assert_eq!(bobs.receive().await?.as_deref(), Some(&b"hello bob"[..]));
//! bobs.send(b"hello alice").await?;
//! assert_eq!(alices.receive().await?.as_deref(), Some(&b"hello alice"[..]));
//!
//! // `close` delivers what was sent; the other side then sees the end.
//! alices.close().await?;
//! assert_eq!(bobs.receive().await?, None);
//! alice.disconnect().await?;
//! bob.disconnect().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The same through a relay, with a topic secret and the conversation's own type. This runs against a
//! real relay in the process:
//!
//! ```
//! use culvert_client::{RelayOptions, RelayTransport, TopicSecret, Transport, TransportConfig, TransportMode};
//!
//! # #[tokio::main]
//! # async fn main() -> anyhow::Result<()> {
//! # let relay = culvert_testkit::relay::Embedded::open().await?;
//! # let url = relay.url(); // in earnest "wss://relay.example.com"
//! let secret = TopicSecret::generate(); // the peers share it; the relay never sees it
//! let peer = |secret: &TopicSecret| {
//!     let config = TransportConfig {
//!         mode: TransportMode::Relay,
//!         relay_url: Some(url.clone()),
//!         ..Default::default()
//!     };
//!     RelayTransport::new(config, RelayOptions { topic_secret: Some(secret.clone()), ..Default::default() })
//! };
//! let (mut alice, mut bob) = (peer(&secret)?, peer(&secret)?);
//! let mut to_alice = alice.connect_relay(secret.topic()).await?;
//! let mut to_bob = bob.connect_relay(secret.topic()).await?;
//! let (mut alices, mut bobs) =
//!     (to_alice.recv().await.expect("bob comes"), to_bob.recv().await.expect("alice comes"));
//! assert_eq!(alices.peer(), bob.peer_id()); // proven by the handshake, not told by the relay
//!
//! let number = alices.send_bytes("a message".into()).await?;
//! assert_eq!(number, 0);
//! assert_eq!(bobs.receive_bytes().await?.as_deref(), Some(&b"a message"[..]));
//!
//! // Files go in a lane of their own, which yields to messages.
//! let (mut bulk, _) = alices.take_bulk().expect("taken once");
//! let (_, mut bulk_in) = bobs.take_bulk().expect("taken once");
//! bulk.send("a part of a file".into()).await?;
//! bulk.flush().await?; // until bob has it
//! assert_eq!(bulk_in.receive().await?.as_deref(), Some(&b"a part of a file"[..]));
//! alice.disconnect().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # The map
//!
//! - [`transport`]: the contract, [`Transport`] and [`Connection`]; [`config`] makes one of them.
//! - [`topic`] and [`identity`]: where peers meet, and who they are.
//! - [`relay`]: the transport through a relay. A message goes from [`SendHalf::send`] through the task
//!   that owns the topic into its session, is numbered and sealed there, and leaves in a frame of at
//!   most 16 KiB on the WebSocket; at the other end the same way back to [`ReceiveHalf::receive`].
//! - [`options`]: keys, admission, proxy and trust of that transport; [`dial`]: how the relay is
//!   reached through proxies and inspected networks; [`reconnect`]: when to come back.
//! - [`link`] and [`transfer`]: files over a conversation, and the link that is passed to the receiver.
//! - [`broker`]: who is online and who may fetch what, from an institution's broker.
//! - [`probe`]: what blocks the way, stage by stage.
//! - [`broadcast`]: what happens, for whoever in the process wants to know.
//! - [`memory`] and [`disabled`]: the transports of tests and of applications that stay local.

#![allow(rustdoc::private_intra_doc_links, reason = "module docs lead readers of the source")]

pub mod broadcast;
pub mod broker;
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
/// The broker's client by the name that the first protocol's applications import it under.
pub use broker as sync;
pub use config::{ConfigError, TransportConfig, TransportMode, create_transport, create_transport_with};
pub use dial::{ProxyUrl, RelayUrl};
pub use disabled::DisabledTransport;
pub use identity::{Identity, SystemRng};
pub use memory::MemoryTransport;
pub use options::{
    AccessToken, AdmissionSource, LivenessPolicy, PeerPolicy, ProxyChoice, RelayOptions, SearchPolicy,
};
pub use reconnect::ReconnectPolicy;
pub use relay::{ConnectionError, ReceiveHalf, RelayConnection, RelayEnd, RelayTransport, SendHalf};
pub use topic::{TopicSecret, derive_topic, derive_topic_keyed};
pub use transport::{Connection, PeerInfo, TopicHash, Transport};
