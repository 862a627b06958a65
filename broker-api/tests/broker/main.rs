//! The broker in this process, on SQLite and on real Postgres and Redis, and the program.

#![allow(clippy::unwrap_used, reason = "helpers of tests: what fails here fails the test")]

#[path = "../common/mod.rs"]
mod common;

mod announce;
mod command;
mod docs;
mod faults;
mod identity;
mod openapi;
mod rest;
mod schemathesis;
mod server;
mod websocket;
