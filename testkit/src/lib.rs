//! What the tests of Culvert run against: real sockets, real processes, real faults.
//!
//! Nothing here imitates a part of Culvert. The relay is the real one, in the test's process or in its
//! own; the proxies are squid, mitmproxy and microsocks, the balancer is haproxy, Redis is Redis and
//! Postgres is Postgres; what is made here is the world around them:
//!
//! - [`broker`]: the broker as a process, and as replicas behind a balancer;
//! - [`chaos`]: a TCP proxy that stalls, cuts, slows and listens in, also inside TLS;
//! - [`capture`]: what such a proxy heard, and whether a secret is in it;
//! - [`certs`]: an authority, its certificates, and a second authority that nobody trusts;
//! - [`postgres`]: PostgreSQL, with a database for each test;
//! - [`process`]: child processes with their output, signals, memory and processor time;
//! - [`binaries`]: the programs under test, built once;
//! - [`haproxy`]: the balancer in front of a cluster;
//! - [`proxies`]: squid, mitmproxy and microsocks;
//! - [`raw`]: a peer that speaks the wire protocol frame by frame, so that it can also misspeak it;
//! - [`redis`]: Redis alone, with Sentinels and as a cluster;
//! - [`relay`]: the relay as a process and as a cluster of them, as a node and as a cluster in the test;
//! - [`report`]: what tests measured;
//! - [`tickets`]: an issuer of admission tickets and invitations, good and bad ones;
//! - [`user`]: a person with the `culvert` command and a home of their own.

pub mod binaries;
pub mod broker;
pub mod capture;
pub mod certs;
pub mod chaos;
pub mod haproxy;
pub mod identity;
pub mod postgres;
pub mod process;
pub mod proxies;
pub mod raw;
pub mod redis;
pub mod relay;
pub mod report;
pub mod tickets;
pub mod user;

pub use identity::Identity;
pub use raw::{HelloOptions, RawError, RawOptions, RawPeer};
