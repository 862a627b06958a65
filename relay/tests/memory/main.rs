//! How much memory the relay's own process takes, measured by the kernel.

#![allow(clippy::unwrap_used, reason = "helpers of tests: what fails here fails the test")]

mod attacks;
mod idle_peers;
