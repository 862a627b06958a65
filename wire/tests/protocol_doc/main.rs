//! `docs/protocol.md` says what the code does: its tables, layouts and test vectors are checked here.
#![allow(clippy::unwrap_used, reason = "a failed test is a panic, in its helpers as well")]

mod claims;
mod document;
mod layouts;
mod tables;
mod vectors;
