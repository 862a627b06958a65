//! The Culvert broker: who is online, who may fetch what.
//!
//! Stateless replicas. What lasts is in a [`store`] (Postgres, or a SQLite file), what is true now in
//! [`live`] (Redis, or this process); both are traits with one conformance suite each.
//!
//! A request, link by link:
//!
//! 1. [`listener`] accepts, learns the source address, ends TLS and hands the request to [`rest`], or to
//!    [`ws`] if it asks for the WebSocket.
//! 2. [`identity`] says who is there: a [`core::Caller`]. From here on no identity in a message counts.
//! 3. [`domain`] does it: checks what the caller may do, asks store and live, writes the audit log, tells
//!    the other replicas.
//! 4. What comes back is a shape of `culvert-broker-wire`, or a [`core::Refusal`] with a stable code.

#![allow(rustdoc::private_intra_doc_links, reason = "module docs lead readers of the source")]
#![allow(clippy::duplicate_mod, reason = "the statements are compiled once for each database, see `store`")]

pub mod admin;
pub mod announce;
pub mod args;
pub mod batches;
pub mod command;
pub mod config;
pub mod core;
pub mod domain;
pub mod identity;
pub mod listener;
pub mod live;
pub mod metrics;
pub mod presence;
pub mod rest;
pub mod seal;
pub mod server;
pub mod store;
pub mod update;
pub mod ws;

pub use config::Config;
pub use server::Broker;
