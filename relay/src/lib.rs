//! The Culvert relay node.

pub mod accounts;
pub mod admission;
pub mod bus;
pub mod config;
pub mod handshake;
pub mod http;
pub mod ledger;
pub mod link;
pub mod listener;
pub mod metrics;
pub mod node;
pub mod outbox;
pub mod peer;
pub mod quota;
pub mod reader;
pub mod relay;
pub mod routes;
pub mod socket;
pub mod topics;

pub use config::Config;
pub use relay::{Relay, StartError};
