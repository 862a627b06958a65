//! What Culvert promises, held against the real programs, proxies and balancers.

#![allow(clippy::unwrap_used, reason = "helpers of tests: what fails here fails the test")]

#[path = "../common/mod.rs"]
mod common;

mod blind;
mod cluster;
mod corporate_networks;
mod faults;
mod ledger;
mod redis_traffic;
mod shared_files;
