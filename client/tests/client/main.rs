//! The client against real relays and brokers in this process, and against what poses as one.

#![allow(clippy::unwrap_used, reason = "in the helpers of tests, a panic is the failure")]

mod admission;
mod conversations;
mod networks;
mod pluresdb_examples;
mod rogue_relay;
mod sync_client;
mod verdicts;
