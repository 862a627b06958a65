//! How REST refuses: problem details (RFC 9457) with the broker's stable code in them.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use culvert_broker_wire::ErrorCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::core::Refusal;

/// The media type of refusals.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// A refusal on its way out.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    refusal: Refusal,
}

/// Why a request was refused (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// Always `about:blank`: `code` tells problems apart.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'a str,
    /// The status.
    status: u16,
    /// A sentence that says what to do.
    detail: &'a str,
    /// Stable.
    code: ErrorCode,
}

impl Problem {
    /// With a status of its own, where the code's usual one would say less.
    pub fn with_status(status: StatusCode, refusal: Refusal) -> Self {
        Self { status, refusal }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        // Over REST nobody learns that a share exists which is not for them, and whose it is.
        let refusal = match refusal.code {
            ErrorCode::AccessDenied | ErrorCode::RevokeError => crate::domain::shares::not_found(),
            _ => refusal,
        };
        Self { status: status(refusal.code), refusal }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, refusal } = self;
        let body = ProblemBody {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: &refusal.message,
            code: refusal.code,
        };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(wait) = refusal.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The status that says the most about a code.
pub(super) const fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::ParseError | ErrorCode::InvalidInput | ErrorCode::BackupError => StatusCode::BAD_REQUEST,
        ErrorCode::AuthRequired | ErrorCode::AuthFailed => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::UserNotFound
        | ErrorCode::ShareNotFound
        | ErrorCode::AccessDenied
        | ErrorCode::RevokeError
        | ErrorCode::BackupNotFound
        | ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::PublishError | ErrorCode::Conflict => StatusCode::CONFLICT,
        ErrorCode::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::AccessCheckError
        | ErrorCode::ListError
        | ErrorCode::ServerFull
        | ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Seconds, rounded up, so that who waits so long has waited long enough.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_told_to_wait_never_comes_too_early() {
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(2)), 2);
    }

    #[test]
    fn a_share_that_is_not_for_somebody_looks_like_one_that_does_not_exist() {
        let denied = Problem::from(Refusal::new(ErrorCode::AccessDenied, "not for you"));
        let unknown = Problem::from(crate::domain::shares::not_found());
        assert_eq!((denied.status, denied.refusal), (unknown.status, unknown.refusal));
    }
}
