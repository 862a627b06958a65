//! What the Culvert servers need to be services.
//!
//! Nothing here knows about relays or brokers. A server takes from it:
//!
//! - [`config`]: settings from flags, environment and a file, every problem reported at once;
//! - [`telemetry`]: logs as text or JSON; [`mod@metric_set`]: series declared once per crate;
//! - [`lifecycle`]: drain and kill, readiness, signals;
//! - [`admin`]: the port for probes and scrapes; [`process`]: what the process itself uses;
//!   [`memory`]: giving back what it does not;
//! - [`tls`]: certificates that are reloaded when their files change;
//! - [`fetch`]: one document from another service;
//! - [`proxy_protocol`]: the address of a peer behind a balancer;
//! - [`secret`]: values that never reach a log; [`clock`]: time that tests can set.

pub mod admin;
pub mod clock;
pub mod config;
pub mod fetch;
pub mod lifecycle;
pub mod memory;
pub mod metric_set;
pub mod process;
pub mod proxy_protocol;
pub mod secret;
pub mod telemetry;
pub mod tls;

pub use clock::Clock;
pub use lifecycle::{Readiness, Shutdown};
pub use secret::Secret;
