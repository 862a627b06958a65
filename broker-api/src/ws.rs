//! The WebSocket at `/ws`: the messages of `culvert-broker-wire`, and what is pushed between them.
//!
//! A socket's life: [`upgrade`] learns from the headers who is there, if they say so, and gives it a seat
//! among [`Sockets`]; [`connection`] is its one task, which reads, answers (`answer`) and writes what
//! others hand to its queue, until there is a reason to end ([`Close`]). [`run`] is what a replica does for
//! all of them: it keeps presence, and [`news`] tells those concerned what happens, on whatever replica.

mod answer;
mod close;
mod connection;
mod news;
mod pace;
mod sockets;

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{
    CONNECTION, HeaderMap, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode};
use culvert_broker_wire::ErrorCode;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::core::{Core, Refusal, Visitor};
use crate::identity;

pub use answer::Kind;
pub use close::Close;
pub use news::Pushed;
pub use sockets::Sockets;

/// The one version of the WebSocket protocol (RFC 6455).
const VERSION: HeaderValue = HeaderValue::from_static("13");

/// Turns a request into a WebSocket: whoever asks is known from the headers, or says so later.
///
/// # Errors
/// It is no upgrade, presents something that proves nothing, or there is no room.
pub async fn upgrade(
    core: &Arc<Core>,
    visitor: Visitor,
    mut request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    let headers = request.headers();
    if request.method() != Method::GET || !names(headers, &UPGRADE, "websocket") {
        let text = "this is a WebSocket; ask with GET, Connection: upgrade and Upgrade: websocket";
        return Err(Refusal::new(ErrorCode::InvalidInput, text));
    }
    let version = headers.get(SEC_WEBSOCKET_VERSION);
    if version != Some(&VERSION) {
        return answer(StatusCode::UPGRADE_REQUIRED, [(SEC_WEBSOCKET_VERSION, VERSION)]);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let (true, Some(key)) = (names(headers, &CONNECTION, "upgrade"), key) else {
        let text = "the upgrade needs Connection: upgrade and a Sec-WebSocket-Key";
        return Err(Refusal::new(ErrorCode::InvalidInput, text));
    };
    let key = HeaderValue::try_from(key).map_err(|_| Refusal::unavailable())?;
    let caller = identity::from_headers(core, visitor, headers, b"").await?;
    let limit = core.config.limits.connections;
    let seat = core.sockets.sit(limit, &core.metrics.connections).ok_or_else(full)?;
    let mut connection = connection::Connection::new(core.clone(), seat, visitor);
    if let Some(caller) = caller
        && !connection.is_from(caller)
    {
        return Err(full());
    }
    let upgraded = hyper::upgrade::on(&mut request);
    let cut = core.sockets.cut.clone();
    core.sockets.tasks.spawn(cut.run_until_cancelled_owned(connection.serve(upgraded)));
    let switched = [
        (CONNECTION, HeaderValue::from_static("upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_ACCEPT, key),
    ];
    answer(StatusCode::SWITCHING_PROTOCOLS, switched)
}

/// Keeps presence, tells sockets what happens, and listens to the other replicas, until dropped. What was
/// not drained by then is cut off.
pub async fn run(core: &Arc<Core>) {
    let _cut = core.sockets.cut.clone().drop_guard();
    tokio::join!(core.live.run(), core.sockets.keeper.run(core), news::run(core));
}

/// There is no room for one more.
fn full() -> Refusal {
    let text = "there are as many connections as there may be; try again later, or close one of yours";
    Refusal::new(ErrorCode::ServerFull, text)
}

/// Whether a header that is a list of tokens has this one (RFC 9110, section 5.6.1).
fn names(headers: &HeaderMap, header: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

fn answer<const N: usize>(
    status: StatusCode,
    headers: [(HeaderName, HeaderValue); N],
) -> Result<Response<Body>, Refusal> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().extend(headers);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_in_any_case_and_place_of_a_list() {
        let mut headers = HeaderMap::new();
        headers.append(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        assert!(names(&headers, &CONNECTION, "upgrade"));
        assert!(!names(&headers, &CONNECTION, "up") && !names(&headers, &UPGRADE, "websocket"));
    }
}
