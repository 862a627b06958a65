//! The frames of protocol v1 against bytes on disk, arbitrary bytes, and everything malformed.
#![allow(clippy::unwrap_used, reason = "a failed test is a panic, in its helpers as well")]

mod golden;
mod malformed;
mod properties;
mod samples;
