//! `Idempotency-Key`: a creation that is repeated, because its answer was lost, is done once.
//!
//! The first answer is kept, sealed (it may hold a token or a secret), and given again to the same request
//! of the same user. An answer that created nothing is not kept: the next attempt may succeed.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use culvert_broker_wire::{ErrorCode, Timestamp};
use data_encoding::BASE64;
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};

use super::extract::{Presented, whole};
use super::problem::Problem;
use crate::core::{Core, Refusal};
use crate::store::{Claim, StoredAnswer};

/// The header.
pub(super) const HEADER: &str = "idempotency-key";
/// Bytes of a key at most.
const MAX_KEY: usize = 128;
/// Says that an answer was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Headers that belong to an answer.
const KEPT: [HeaderName; 3] = [CONTENT_TYPE, ETAG, LOCATION];

/// What is sealed of an answer.
#[derive(Serialize, Deserialize)]
struct Sealed {
    headers: Vec<(String, String)>,
    body: String,
}

pub(super) async fn once(State(core): State<Arc<Core>>, request: Request, next: Next) -> Response {
    match attempt(&core, request, next).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn attempt(core: &Arc<Core>, request: Request, next: Next) -> Result<Response, Problem> {
    let Some(key) = request.headers().get(HEADER) else { return Ok(next.run(request).await) };
    let key = key.to_str().ok().filter(|key| (1..=MAX_KEY).contains(&key.len())).map(str::to_owned);
    let wrong = || {
        let text = format!("`Idempotency-Key` must have 1 to {MAX_KEY} visible ASCII characters");
        Refusal::new(ErrorCode::InvalidInput, text)
    };
    let key = key.ok_or_else(wrong)?;
    let caller = request.extensions().get::<Presented>().and_then(|presented| presented.0.as_ref());
    let Some(user) = caller.map(|caller| caller.user.clone()) else { return Ok(next.run(request).await) };

    let (parts, body) = request.into_parts();
    let bytes = whole(Request::new(body), core).await?;
    let mut hash = Context::new(&SHA256);
    for part in [parts.method.as_str().as_bytes(), b" ", parts.uri.path().as_bytes(), b"\n", &bytes] {
        hash.update(part);
    }
    let hash: [u8; 32] = hash.finish().as_ref().try_into().unwrap_or_default();
    let now = core.now();
    let end = now.unix_seconds().saturating_add(core.config.timing.idempotency.as_secs());
    match core
        .store
        .claim(&user, &key, &hash, now, Timestamp::from_unix_seconds(end))
        .await
        .map_err(Refusal::from)?
    {
        Claim::New => {}
        Claim::Answered(answer) => return Ok(again(core, &user, &key, answer)?),
        Claim::UnderWay => {
            let text = "this request is being done right now; ask again for its answer";
            return Err(Refusal::new(ErrorCode::Conflict, text).after(Duration::from_secs(1)).into());
        }
        Claim::Other => {
            let text = "this `Idempotency-Key` was used for another request; take a new one";
            return Err(Refusal::new(ErrorCode::Conflict, text).into());
        }
    }
    let response = next.run(Request::from_parts(parts, Body::from(bytes))).await;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let answer = match head.status.is_success() {
        true => Some(StoredAnswer {
            status: head.status.as_u16(),
            // They may name the share's token, so they are sealed with the body.
            headers: Vec::new(),
            body: seal(core, &user, &key, &head.headers, &body)?,
        }),
        false => None,
    };
    // Done is done: without the note, a repetition is told that it is under way, or does it again.
    if let Err(error) = core.store.answer(&user, &key, answer).await {
        tracing::warn!(%error, "the answer to a request that may be repeated was not kept");
    }
    Ok(Response::from_parts(head, Body::from(body)))
}

/// The answer that was given before.
fn again(core: &Core, user: &str, key: &str, answer: StoredAnswer) -> Result<Response, Refusal> {
    let opened = core.sealer.open(&context(user, key), &answer.body).map_err(|error| broken(&error))?;
    let Sealed { headers, body } = serde_json::from_slice(&opened).map_err(|error| broken(&error))?;
    let body = BASE64.decode(body.as_bytes()).map_err(|error| broken(&error))?;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

fn seal(core: &Core, user: &str, key: &str, headers: &HeaderMap, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let headers = KEPT.iter().filter_map(|name| {
        let value = headers.get(name)?.to_str().ok()?;
        Some((name.as_str().to_owned(), value.to_owned()))
    });
    let sealed = Sealed { headers: headers.collect(), body: BASE64.encode(body) };
    let plain = serde_json::to_vec(&sealed).map_err(|error| broken(&error))?;
    core.sealer.seal(&context(user, key), &plain).map_err(|error| broken(&error))
}

fn context(user: &str, key: &str) -> String {
    format!("answer {key} {user}")
}

fn broken(error: &(dyn std::error::Error + 'static)) -> Refusal {
    tracing::error!(error, "the answer to a request that may be repeated cannot be sealed or opened");
    Refusal::internal()
}
