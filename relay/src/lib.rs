//! The Culvert relay node.

pub mod bus;
pub mod config;
pub mod outbox;
pub mod quota;

pub use config::Config;
