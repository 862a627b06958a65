//! Many users at the broker's own process: what they cost it, and what they notice of its replicas.

#![allow(clippy::unwrap_used, reason = "helpers of tests: what fails here fails the test")]

#[path = "../common/mod.rs"]
mod common;

mod memory;
mod replicas;
