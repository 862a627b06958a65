//! The port for probes and scrapes, apart from the public one.
//!
//! - `/livez`: 200 as long as the process answers; a liveness probe that knew more would restart nodes
//!   because of their surroundings.
//! - `/readyz`: 200 or 503, with the reason as JSON.
//! - `/metrics`: every series of the node, and of its process, in the Prometheus text format.
//! - `/version`: name, version, commit and protocol versions as JSON.
//!
//! It has no authentication, so it belongs on a private address. One request per connection, a fixed number
//! of connections at a time (more wait in the kernel's queue), and a deadline over each.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::lifecycle::Readiness;
use crate::metric_set::Registry;
use crate::process;

/// Connections served at a time: a few probes, a few scrapers.
const MAX_CONNECTIONS: usize = 32;
/// From accept to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Probes and scrapers send their request at once.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// hyper's smallest; a probe's request has a few hundred bytes.
const BUFFER_BYTES: usize = 8 * 1024;
/// Pause after a failed accept, so that a process out of file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// For answers under way when the server stops.
const FINISH: Duration = Duration::from_secs(1);

/// What `/version` says.
#[derive(Debug, Clone, Serialize)]
pub struct About {
    /// Name of the program.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The commit it was built from, if the build knew it.
    pub commit: Option<&'static str>,
    /// Protocol versions it speaks, newest first.
    pub protocols: &'static [u16],
}

/// The commit this build was made from: `CULVERT_COMMIT` in the environment of the build.
pub const COMMIT: Option<&str> = option_env!("CULVERT_COMMIT");

crate::metric_set! {
    /// Series of the admin port.
    pub struct Metrics {
        /// 1 while `/readyz` answers 200, 0 while the process starts, waits for what it needs, or drains.
        ready: gauge "culvert_ready",
    }
}

/// The answers of the admin port.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Who is speaking.
    pub about: About,
    /// Behind `/readyz`.
    pub readiness: Readiness,
    /// Behind `/metrics`.
    pub registry: Registry,
}

impl Admin {
    /// Serves until `stop` completes, then gives answers under way a second to finish.
    ///
    /// Stop it last: during a drain its `/readyz` is what keeps new peers away.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let process = process::Metrics::register(self.registry.recorder());
        let own = Metrics::register(self.registry.recorder());
        let admin = Arc::new(Serving { admin: self, process, own });
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = accept(&listener, &slots) => accepted,
                Some(_) = connections.join_next() => continue,
                () = &mut stop => break,
            };
            match accepted {
                Ok((stream, slot)) => {
                    let admin = admin.clone();
                    connections.spawn(async move {
                        admin.answer(stream).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "admin port cannot accept, pausing");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        let finish = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(FINISH, finish).await.is_err() {
            connections.shutdown().await;
        }
    }
}

/// The answers while they are given.
struct Serving {
    admin: Admin,
    process: process::Metrics,
    own: Metrics,
}

impl Serving {
    async fn answer(&self, stream: TcpStream) {
        let service = service_fn(async |request| Ok::<_, Infallible>(self.respond(&request)));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .keep_alive(false)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        // A client that goes away or stalls is its own business; nothing is lost with it.
        match tokio::time::timeout(DEADLINE, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "admin connection ended early"),
            Err(_) => tracing::debug!("admin connection passed its deadline"),
        }
    }

    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "alive\n".into()),
            "/readyz" => {
                let state = self.admin.readiness.get();
                let status = if state.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                json(status, &serde_json::json!({ "ready": state.ready, "reason": state.reason }))
            }
            "/metrics" => {
                self.process.refresh();
                self.own.ready.set(f64::from(u8::from(self.admin.readiness.get().ready)));
                let mut response = text(StatusCode::OK, self.admin.registry.render());
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            "/version" => json(StatusCode::OK, &self.admin.about),
            _ => text(StatusCode::NOT_FOUND, "/livez, /readyz, /metrics or /version\n".into()),
        }
    }
}

/// The next connection together with its slot.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    respond_with(status, "text/plain; charset=utf-8", body)
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    // These are structs of strings and numbers, which always serialise.
    respond_with(status, "application/json", serde_json::to_string(body).unwrap_or_default() + "\n")
}

fn respond_with(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
