//! What the Culvert servers need to be services.
//!
//! Nothing here knows about relays or brokers. A server takes from it:
//!
//! - [`lifecycle`]: drain and kill, readiness, signals;
//! - [`mod@metric_set`]: series declared once per crate;
//! - [`secret`]: values that never reach a log; [`clock`]: time that tests can set.

pub mod clock;
pub mod lifecycle;
pub mod metric_set;
pub mod secret;

pub use clock::Clock;
pub use lifecycle::{Readiness, Shutdown};
pub use secret::Secret;
