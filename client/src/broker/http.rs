//! HTTP/1.1 to brokers and owners, over the same proxies and trust as everything else.
//!
//! One connection per request: these are few, and a connection that is not kept cannot go stale.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use culvert_broker_wire::ErrorCode;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER, UPGRADE, USER_AGENT,
};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::address::BrokerUrl;
use super::error::SyncError;
use crate::dial::{Dialer, RelayUrl};
use crate::options::RelayOptions;

/// Longest answer of the REST interface that is read, in bytes.
const MAX_ANSWER: usize = 4 << 20;
const AGENT: &str = concat!("culvert/", env!("CARGO_PKG_VERSION"));

/// What every call needs: where to, how, and for how long.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    url: BrokerUrl,
    dialer: Arc<Dialer>,
    limit: Duration,
}

/// A problem document (RFC 9457) of the broker.
#[derive(Debug, serde::Deserialize)]
struct Problem {
    /// Owners' servers have codes of their own.
    #[serde(default)]
    code: serde_json::Value,
    #[serde(default)]
    detail: Option<String>,
    #[serde(default)]
    title: Option<String>,
}

impl Http {
    pub(crate) fn new(url: BrokerUrl, dialer: Arc<Dialer>, limit: Duration) -> Self {
        Self { url, dialer, limit }
    }

    /// `GET` of a JSON document.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        bearer: Option<&str>,
    ) -> Result<T, SyncError> {
        self.call(Method::GET, path, bearer, Bytes::new()).await
    }

    /// `POST` of a JSON document that is answered by another.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        bearer: Option<&str>,
        body: &impl Serialize,
    ) -> Result<T, SyncError> {
        let body = serde_json::to_vec(body).map_err(|error| SyncError::Protocol(error.to_string()))?;
        self.call(Method::POST, path, bearer, body.into()).await
    }

    /// `POST` without a body, whose answer does not matter if it is a success.
    pub(crate) async fn post_for_nothing(&self, path: &str, bearer: Option<&str>) -> Result<(), SyncError> {
        self.exchange(Method::POST, path, bearer, Bytes::new()).await.map(drop)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        bearer: Option<&str>,
        body: Bytes,
    ) -> Result<T, SyncError> {
        let body = self.exchange(method, path, bearer, body).await?;
        serde_json::from_slice(&body)
            .map_err(|error| SyncError::Protocol(format!("its answer does not parse: {error}")))
    }

    /// The body of a success.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        bearer: Option<&str>,
        body: Bytes,
    ) -> Result<Bytes, SyncError> {
        let wrong = |error: String| SyncError::Protocol(error);
        let mut request = Request::builder()
            .method(method)
            .uri(self.url.path(path))
            .header(HOST, self.url.authority())
            .header(USER_AGENT, AGENT)
            .header(ACCEPT, "application/json");
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(bearer) = bearer {
            request = request.header(AUTHORIZATION, format!("Bearer {bearer}"));
        }
        let request = request.body(Full::new(body)).map_err(|error| wrong(error.to_string()))?;
        let exchange = async {
            let stream = self.dialer.stream(self.limit).await?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| SyncError::Offline(error.to_string()))?;
            let answer = async {
                let answer = sender
                    .send_request(request)
                    .await
                    .map_err(|error| SyncError::Offline(error.to_string()))?;
                read(answer).await
            };
            driven(answer, connection).await
        };
        let (status, retry_after, body) =
            timeout(self.limit, exchange).await.map_err(|_| SyncError::TimedOut(self.limit))??;
        if status.is_success() { Ok(body) } else { Err(refusal(status, retry_after, &body)) }
    }
}

/// Asks a server that is not the broker, an owner's, to speak another protocol over the connection.
///
/// # Errors
/// It says no ([`SyncError::Refused`]), answers as if it did not know the protocol
/// ([`SyncError::Protocol`]), or cannot be reached within `limit`.
pub(crate) async fn upgrade(
    server: &RelayUrl,
    path: &str,
    protocol: &'static str,
    headers: &[(&'static str, String)],
    options: &RelayOptions,
    limit: Duration,
) -> Result<Upgraded, SyncError> {
    let offline = |error: hyper::Error| SyncError::Offline(error.to_string());
    let (url, options) = (server.clone(), options.clone());
    let dialer = tokio::task::spawn_blocking(move || Dialer::new(&url, &options))
        .await
        .map_err(|error| SyncError::Offline(error.to_string()))??;
    let mut request = Request::builder()
        .uri(path)
        .header(HOST, server.authority())
        .header(USER_AGENT, AGENT)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, protocol);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request =
        request.body(Full::<Bytes>::default()).map_err(|error| SyncError::Protocol(error.to_string()))?;
    let exchange = async {
        let stream = dialer.stream(limit).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(offline)?;
        let upgraded = async {
            let answer = sender.send_request(request).await.map_err(offline)?;
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                return hyper::upgrade::on(answer).await.map_err(offline);
            }
            let (status, retry_after, body) = read(answer).await?;
            Err(refusal(status, retry_after, &body))
        };
        driven(upgraded, connection.with_upgrades()).await
    };
    timeout(limit, exchange).await.map_err(|_| SyncError::TimedOut(limit))?
}

/// The broker's refusal as it stands in a problem document, or as the status alone tells it.
pub(crate) fn refusal(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> SyncError {
    let by_status = match status.as_u16() {
        400 | 422 => Some(ErrorCode::InvalidInput),
        401 => Some(ErrorCode::AuthRequired),
        403 => Some(ErrorCode::Forbidden),
        404 | 410 => Some(ErrorCode::NotFound),
        413 => Some(ErrorCode::TooLarge),
        429 => Some(ErrorCode::RateLimited),
        502..=504 => Some(ErrorCode::Unavailable),
        _ => None,
    };
    let (code, message) = match serde_json::from_slice(body) {
        Ok(Problem { code, detail, title }) => (serde_json::from_value(code).ok(), detail.or(title)),
        Err(_) => (None, None),
    };
    match code.or(by_status) {
        Some(code) => {
            let message = message.unwrap_or_else(|| format!("the server answered {status}"));
            SyncError::Refused { code, message: printable(&message), retry_after }
        }
        None => SyncError::Protocol(format!("it answered {status}")),
    }
}

/// A stranger's sentence for a terminal: no control characters, not endless.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

async fn read(answer: Response<Incoming>) -> Result<(StatusCode, Option<Duration>, Bytes), SyncError> {
    let status = answer.status();
    let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| SyncError::Offline(error.to_string()))?.to_bytes();
    Ok((status, retry_after.map(Duration::from_secs), body))
}

/// Waits for `answer` while the connection that brings it is driven.
async fn driven<T>(
    answer: impl Future<Output = Result<T, SyncError>>,
    connection: impl Future<Output = Result<(), hyper::Error>>,
) -> Result<T, SyncError> {
    let driving = async {
        // Its end shows itself in the answer.
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        answer = answer => answer,
        never = driving => never,
    }
}
