//! What handlers take from a request, refused as problems when it cannot be read.

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use culvert_broker_wire::ErrorCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use crate::core::{Caller, Refusal, Visitor};
use crate::domain::USUAL_PAGE;
use crate::store::Precondition;

/// Who is there, if anybody says so; put into the request by [`super::gate`].
#[derive(Debug, Clone)]
pub struct Presented(pub Option<Caller>);

/// Somebody who proved who they are; everybody else gets `AUTH_REQUIRED`.
pub struct Known(pub Caller);

/// Anybody, known or not, and where they come from.
pub struct Anyone {
    /// Who, if known.
    pub caller: Option<Caller>,
    /// From where.
    pub visitor: Visitor,
}

impl<S: Sync> FromRequestParts<S> for Known {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let presented = parts.extensions.get_mut::<Presented>().and_then(|presented| presented.0.take());
        let missing = || Refusal::new(ErrorCode::AuthRequired, "log in, or sign the request with an API key");
        presented.map(Self).ok_or_else(|| missing().into())
    }
}

impl<S: Sync> FromRequestParts<S> for Anyone {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get_mut::<Presented>().and_then(|presented| presented.0.take());
        Ok(Self { caller, visitor: visitor(parts)? })
    }
}

/// Where a request comes from, as the listener says.
///
/// # Errors
/// The router runs without the broker's listener.
pub(super) fn visitor(parts: &Parts) -> Result<Visitor, Problem> {
    let missing = || Refusal::new(ErrorCode::Internal, "the broker does not know where this comes from");
    parts.extensions.get().copied().ok_or_else(|| missing().into())
}

/// A part of the path.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub struct Path<T>(pub T);

impl From<PathRejection> for Problem {
    fn from(_: PathRejection) -> Self {
        Refusal::new(ErrorCode::InvalidInput, "a part of the path cannot be read; encode it as UTF-8").into()
    }
}

/// What follows the question mark.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub struct Query<T>(pub T);

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        let text = format!("the query cannot be read: {}", rejection.body_text());
        Refusal::new(ErrorCode::InvalidInput, text).into()
    }
}

/// Which part of a list is wanted.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Listing {
    /// Where the list goes on: `next_cursor` of the answer before.
    pub cursor: Option<String>,
    /// Entries at most.
    #[serde(default = "usual_page")]
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: u32,
}

const fn usual_page() -> u32 {
    USUAL_PAGE
}

/// Bytes of an answer that is written without moving it: a share with its grant.
const USUAL_ANSWER: usize = 1024;

/// A body in JSON, in and out.
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let refusal = Refusal::new(ErrorCode::ParseError, "send the body as `application/json`");
            return Err(Problem::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, refusal));
        }
        let bytes = whole(request, state).await?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            let text = format!("the body is not the JSON that is expected here: {error}");
            Refusal::new(ErrorCode::ParseError, text).into()
        })
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut body = Vec::with_capacity(USUAL_ANSWER);
        if let Err(error) = serde_json::to_writer(&mut body, &self.0) {
            tracing::error!(%error, "an answer cannot be written");
            return Problem::from(Refusal::internal()).into_response();
        }
        ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], Body::from(body)).into_response()
    }
}

/// A whole body, as far as bodies may be.
///
/// # Errors
/// `TOO_LARGE`; `PARSE_ERROR` if it breaks off.
pub(super) async fn whole<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Refusal::new(ErrorCode::TooLarge, "the body is larger than this broker accepts").into()
        } else {
            Refusal::new(ErrorCode::ParseError, "the body broke off").into()
        }
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// An entity tag for a version.
pub(super) fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

/// The versions that a header of entity tags names; `None` if the header is absent.
enum Tags {
    Any,
    Version(i64),
}

fn tags(headers: &HeaderMap, name: axum::http::HeaderName) -> Result<Option<Tags>, Refusal> {
    let Some(value) = headers.get(&name) else { return Ok(None) };
    let wrong = || {
        let text = format!("`{name}` must be `*` or one entity tag as this broker gives them, such as \"7\"");
        Refusal::new(ErrorCode::InvalidInput, text)
    };
    let text = value.to_str().map_err(|_| wrong())?.trim();
    if text == "*" {
        return Ok(Some(Tags::Any));
    }
    let digits = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).ok_or_else(wrong)?;
    digits.parse().map(|version| Some(Tags::Version(version))).map_err(|_| wrong())
}

/// The version that `If-Match` asks for.
///
/// # Errors
/// `INVALID_INPUT`.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<i64>, Refusal> {
    match tags(headers, IF_MATCH)? {
        Some(Tags::Version(version)) => Ok(Some(version)),
        Some(Tags::Any) | None => Ok(None),
    }
}

/// What `If-Match` and `If-None-Match: *` ask for.
///
/// # Errors
/// `INVALID_INPUT`.
pub(super) fn precondition(headers: &HeaderMap) -> Result<Precondition, Refusal> {
    match (if_match(headers)?, tags(headers, IF_NONE_MATCH)?) {
        (Some(version), None) => Ok(Precondition::Version(version)),
        (None, Some(Tags::Any)) => Ok(Precondition::Absent),
        (None, None) => Ok(Precondition::None),
        _ => {
            let text = "for a change, give either `If-Match`, or `If-None-Match: *`";
            Err(Refusal::new(ErrorCode::InvalidInput, text))
        }
    }
}

/// Whether `If-None-Match` says that the reader has this version already.
///
/// # Errors
/// `INVALID_INPUT`.
pub(super) fn has_already(headers: &HeaderMap, version: i64) -> Result<bool, Refusal> {
    Ok(match tags(headers, IF_NONE_MATCH)? {
        Some(Tags::Any) => true,
        Some(Tags::Version(had)) => had == version,
        None => false,
    })
}
