//! Load tests for Culvert relays.
//!
//! The coordinator ([`coordinator`]) takes what was typed ([`args`]), reaches or starts the relays
//! ([`target`]), gives every worker process its [`plan`] over a control channel ([`control`]), watches
//! processors and memory, adds the workers' samples up and writes the [`report`]. A worker ([`worker`])
//! plays a [`scenario`] on a [`stage`] and sends what it [`measure`]s once a second. Load is made of raw
//! wire frames ([`frames`]) or of end-to-end sessions through the client library ([`sessions`]).
//!
//! While [`faults`] are made, sessions and raw frames in [`lanes`] keep a [`ledger`] that must balance.

pub mod args;
pub mod control;
pub mod coordinator;
pub mod faults;
pub mod frames;
pub mod lanes;
pub mod launch;
pub mod ledger;
pub mod live;
pub mod measure;
pub mod plan;
pub mod report;
pub mod scenario;
pub mod secrets;
pub mod sessions;
pub mod stage;
pub mod target;
pub mod worker;
