//! A broker: who is online, who may fetch what.
//!
//! [`SyncClient`] is a user's connection to one: it registers, publishes and revokes shares, looks them up,
//! tells what changes, and comes back when the broker was gone. What peers then send each other never passes
//! the broker; [`crate::relay`] is the way.
//!
//! The life of a request: [`SyncClient`] hands it to the task that owns the connection (`driver`), which
//! numbers it and sends it (`socket`); the broker echoes the number with its answer or refusal. Publications
//! and revocations go through `queue`, so that none is lost with a connection. Answers about shares are
//! remembered in `cache`.
//!
//! ```no_run
//! use culvert_client::broker::{AccessPolicy, SyncClient};
//!
//! # #[tokio::main]
//! # async fn main() -> anyhow::Result<()> {
//! let client = SyncClient::connect(
//!     "wss://broker.example.org/ws".to_string(),
//!     "alice@example.org".to_string(),
//!     String::new(),
//! )
//! .await?;
//! let link = client.share_result("result-123", "My Analysis", None, AccessPolicy::Public).await?;
//! println!("Share link: {link}");
//! let share = client.access_share(&link).await?;
//! assert!(share.owner_online);
//! # Ok(())
//! # }
//! ```

mod address;
mod api;
mod cache;
mod client;
mod credentials;
mod discovery;
mod driver;
mod error;
mod files;
pub mod handover;
mod http;
mod login;
mod logins;
mod policy;
mod queue;
mod share_link;
mod socket;

pub use address::{BrokerUrl, BrokerUrlError};
pub use api::{BrokerApi, verify_password};
pub use cache::SharedResultInfo;
pub use client::{BrokerEvent, Status, SyncClient, SyncClientBuilder};
pub use credentials::{Credentials, prove_device};
pub use culvert_broker_wire::grant::{GrantClaims, HEADER as GRANT_HEADER};
pub use culvert_broker_wire::message::{PresenceEvent, RelayAddress, ShareChange, ShareEvent, ShareSummary};
pub use culvert_broker_wire::{
    AccessPolicy as ExactPolicy, Audience, ErrorCode, Permission, ShareToken, Timestamp,
};
pub use discovery::{DiscoveredBroker, DiscoveryError, SERVICES, discover_brokers};
pub use error::SyncError;
pub use login::{Admission, InstitutionLogin, InstitutionLoginError};
pub use logins::{Login, Logins};
pub use policy::AccessPolicy;
pub use share_link::{ParseShareLinkError, ShareLink};
pub use socket::BrokerInfo;
