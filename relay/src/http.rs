//! The HTTP/1.1 face of a node: the upgrade, a page that says what this host is, and nothing else.
//!
//! hyper reads the request and writes the answer; then the raw stream is taken back, so no layer of
//! HTTP stays between the socket and the WebSocket.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use culvert_wire::{PATH, SUBPROTOCOL};
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use crate::config::Limits;
use crate::metrics::Refusal;
use crate::socket::Socket;
use crate::websocket::WebSocket;

/// hyper's smallest buffer; a request to this host has a few hundred bytes.
const HTTP_BUFFER: usize = 8 * 1024;

const PAGE: &str = concat!(
    "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Culvert relay</title>",
    "<h1>Culvert relay</h1>",
    "<p>This host passes end-to-end encrypted messages between computers whose networks let out only ",
    "HTTPS. It cannot read them and keeps nothing. There is nothing to see here with a browser; programs ",
    "connect by WebSocket at <code>/v1/relay</code>.</p></html>\n",
);

type Body = BoxBody<Bytes, Infallible>;

/// Serves one connection up to its upgrade.
///
/// # Errors
/// [`Refusal`] for everything that did not end in an upgrade; the client has been answered.
pub async fn upgrade(socket: Socket, limits: &Limits, leaving: bool) -> Result<WebSocket, Refusal> {
    let upgraded = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(&request, leaving);
        upgraded.store(response.status() == StatusCode::SWITCHING_PROTOCOLS, Ordering::Relaxed);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .max_buf_size(HTTP_BUFFER)
        .serve_connection(TokioIo::new(socket), service);
    let parts = connection.without_shutdown().await.map_err(|_| Refusal::Http)?;
    if !upgraded.load(Ordering::Relaxed) {
        return Err(if leaving { Refusal::Draining } else { Refusal::Http });
    }
    let mut socket = parts.io.into_inner();
    // Usually nothing: a client has nothing to say before it has the challenge.
    socket.unread(&parts.read_buf);
    Ok(WebSocket::new(socket, limits.read_buffer))
}

fn answer(request: &Request<Incoming>, leaving: bool) -> Response<Body> {
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/") => {
            let mut page = text(StatusCode::OK, PAGE);
            page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            page
        }
        (&Method::GET, PATH) if leaving => {
            let mut busy = text(StatusCode::SERVICE_UNAVAILABLE, "this node is going away; connect again\n");
            busy.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            busy.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            busy
        }
        (&Method::GET, PATH) => switch(request),
        (_, "/" | PATH) => {
            let mut wrong = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n");
            wrong.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            wrong
        }
        _ => text(StatusCode::NOT_FOUND, "there is nothing here; programs connect at /v1/relay\n"),
    }
}

fn switch(request: &Request<Incoming>) -> Response<Body> {
    if !request.headers().contains_key(UPGRADE) {
        let mut ask = text(
            StatusCode::UPGRADE_REQUIRED,
            "this path is a WebSocket; a proxy on the way may have removed the Upgrade header\n",
        );
        ask.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        ask.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        return ask;
    }
    let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL);
    let offers_ours = offered
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|protocol| protocol.trim() == SUBPROTOCOL);
    if !offers_ours {
        return text(StatusCode::BAD_REQUEST, "offer the subprotocol culvert.relay.v1\n");
    }
    let mut head = Request::builder().method(request.method()).uri(request.uri()).version(request.version());
    if let Some(headers) = head.headers_mut() {
        *headers = request.headers().clone();
    }
    let response = head.body(()).ok().and_then(|head| create_response_with_body(&head, || ()).ok());
    match response {
        Some(response) => {
            let (mut parts, ()) = response.into_parts();
            parts.headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
            Response::from_parts(parts, Empty::new().boxed())
        }
        None => text(StatusCode::BAD_REQUEST, "not a WebSocket handshake of version 13 (RFC 6455)\n"),
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())).boxed());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
