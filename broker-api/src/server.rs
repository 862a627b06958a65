//! A broker in this process.
/// A broker in this process.
pub struct Broker;
