//! The scenarios against a relay in the test's own process.
#![allow(clippy::unwrap_used, reason = "helpers of tests: what fails here fails the test")]

mod frames;
mod sessions;
