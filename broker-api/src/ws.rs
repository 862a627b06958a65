//! The WebSocket at `/ws`. Being written.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, Response};

use crate::core::{Core, Refusal, Visitor};

/// The WebSockets of this replica.
#[derive(Default)]
pub struct Sockets {}

impl Sockets {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Closes all of them with a reason that says to come back elsewhere, takes no new ones, and waits
    /// until each is closed and its user gone offline. Cancel safe.
    pub async fn drain(&self) {}
}

/// Turns a request into a WebSocket: whoever asks is known from the headers, or says so later.
///
/// # Errors
/// It is no upgrade, presents something that proves nothing, or there is no room.
pub async fn upgrade(
    core: &Arc<Core>,
    visitor: Visitor,
    request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    let _ = (core, visitor, request);
    Err(Refusal::unavailable())
}

/// Keeps presence, tells sockets what happens, and listens to the other replicas, until dropped.
pub async fn run(core: &Arc<Core>) {
    let _ = core;
    std::future::pending().await
}
