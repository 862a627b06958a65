//! Leases, the registry and revocations against a real Redis.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod control;
mod lease;
mod member;
mod membership;
mod modes;
mod node;
mod revocation;
