//! What clients and the broker say to each other.
//!
//! Shapes and rules that both sides must agree on, and nothing that does I/O:
//!
//! - [`message`]: the JSON messages of the WebSocket at [`WS_PATH`], one per text frame;
//! - [`policy`]: who may use a share, and what for; [`token`]: what names one;
//! - [`code`]: error codes, the same over WebSocket and REST;
//! - [`grant`]: what the broker signs so that an owner can let somebody download without asking it;
//! - [`auth`]: what is signed or keyed to prove who is there; [`opaque`]: the suite of RFC 9807;
//!   [`login`]: bodies of the requests by which clients log in;
//! - [`limits`]: how long things may be; [`stamp`]: moments as they are written.

pub mod auth;
pub mod code;
pub mod grant;
pub mod limits;
pub mod login;
pub mod message;
pub mod opaque;
pub mod policy;
pub mod stamp;
pub mod token;

pub use code::ErrorCode;
pub use grant::GrantClaims;
pub use message::{ClientMessage, ServerMessage, ShareInfo, ShareMetadata};
pub use policy::{AccessPolicy, Audience, Permission};
pub use stamp::Timestamp;
pub use token::ShareToken;

/// Request path of the WebSocket upgrade.
pub const WS_PATH: &str = "/ws";
