//! Nodes over real Redis: one server, Sentinels, a Redis Cluster.

#![allow(clippy::unwrap_used, reason = "helpers of tests: what fails here fails the test")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../conformance/mod.rs"]
mod conformance;

mod flows;
mod reach;
mod registry;
mod rules;
