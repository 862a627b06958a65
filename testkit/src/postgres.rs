//! Real PostgreSQL on loopback, with a fresh database for whoever asks.
//!
//! Every server is a child process on a port of its own, in a folder of its own. Unlike the Redis of these
//! tests it keeps what was committed: one that was killed and is started again recovers as after a crash.
//! The operating system survives all of it, so nothing waits for a disk (`fsync` is off).

mod server;

pub use server::{PostgresPlan, PostgresServer};

#[cfg(test)]
mod tests;
