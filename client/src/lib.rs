//! Peers behind firewalls, talking to each other.

pub mod transport;

pub use transport::{Connection, PeerInfo, TopicHash, Transport};
