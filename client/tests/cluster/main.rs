//! Conversations over several nodes, behind a balancer, while nodes and connections fail.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test, with its helpers")]

mod balancer;
mod talk;

mod deaf;
mod degraded;
mod faults;
mod moving;
mod notices;
