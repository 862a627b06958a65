//! The relay without Redis: nodes in this process, alone and over the in-process bus, and the program.

#![allow(clippy::unwrap_used, reason = "helpers of tests: what fails here fails the test")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../conformance/mod.rs"]
mod conformance;

mod admission;
mod certificates;
mod cluster;
mod command;
mod delivery;
mod docs;
mod hostile_handshakes;
mod hostile_peers;
mod key_sets;
mod ledger;
mod lifetime;
mod limits;
mod placement;
mod revocation;
mod series;
