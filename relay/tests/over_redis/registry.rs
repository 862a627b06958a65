//! Leases, the registry and revocations against a real Redis.

mod control;
mod lease;
mod member;
mod membership;
mod modes;
mod node;
mod revocation;
