//! REST: the broker over HTTP, described by an OpenAPI document that is made from the handlers.
//!
//! A request passes, from the outside in: a catch for panics; the pages of other origins that may call (CORS); a
//! limit of time; what lets changes end even if nobody waits for them; a limit of size; then, under `/api`, the
//! rate limit and identity ([`gate`]), and for creations the memory of what was done already
//! ([`idempotency`]). Handlers read the request ([`extract`]), call [`crate::domain`], and answer in JSON or
//! with a [`problem`].

#![allow(unused_qualifications, reason = "the macros of utoipa qualify the names they are given")]

mod audit;
mod auth;
mod backups;
mod credentials;
mod document;
mod extract;
mod gate;
mod idempotency;
mod info;
mod limit;
mod problem;
mod relays;
mod shares;
mod teams;
mod users;

pub use extract::{Anyone, Json, Known, Path, Presented, Query};
pub use limit::Limiter;
pub use problem::{Problem, ProblemBody};

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, LOCATION, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use culvert_broker_wire::auth::{API_KEY_HEADER, EMAIL_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER};
use culvert_broker_wire::{ErrorCode, WS_PATH};
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;

use crate::core::{Core, Refusal};
use crate::ws;

/// Everything that the broker answers. Expects a [`crate::core::Visitor`] among a request's extensions.
pub fn router(core: Arc<Core>) -> Router {
    let config = &core.config;
    let gate = Arc::new(gate::Gate::new(core.clone()));
    let creating = creating().route_layer(from_fn_with_state(core.clone(), idempotency::once));
    let gated = gated().merge(creating).route_layer(from_fn_with_state(gate, gate::pass));
    let (open, _) = open().merge(gated).split_for_parts();
    // All in one layer of axum's, from the outside in: with each request it copies every layer, and in each of
    // them once more those within.
    let everywhere = (CatchPanicLayer::custom(panicked), cors(&config.cors_origins));
    let bounds = (
        from_fn_with_state(config.timing.request, in_time),
        from_fn_with_state(TaskTracker::new(), to_the_end),
        DefaultBodyLimit::max(config.limits.body_bytes),
    );
    let timed = open
        .merge(info::description(openapi_json().into()))
        .fallback(async || Problem::from(Refusal::new(ErrorCode::NotFound, "there is nothing at this path")))
        .method_not_allowed_fallback(async || {
            let refusal = Refusal::new(ErrorCode::NotFound, "there is nothing to do here with this method");
            Problem::with_status(StatusCode::METHOD_NOT_ALLOWED, refusal)
        })
        .layer((everywhere.clone(), bounds));
    timed.merge(Router::new().route(WS_PATH, any(web_socket)).layer(everywhere)).with_state(core)
}

/// The OpenAPI 3.1 document, the same for every broker.
pub fn openapi_json() -> String {
    let (_, parts) = open().merge(gated()).merge(creating()).split_for_parts();
    document::complete(parts)
}

/// For everybody, and not limited: it costs nothing.
fn open() -> OpenApiRouter<Arc<Core>> {
    info::routes()
}

fn gated() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new()
        .merge(auth::routes())
        .merge(shares::routes())
        .merge(teams::routes())
        .merge(users::routes())
        .merge(backups::routes())
        .merge(credentials::routes())
        .merge(relays::routes())
        .merge(audit::routes())
}

/// Creations, which may be repeated with an `Idempotency-Key`.
fn creating() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new()
        .merge(shares::creating())
        .merge(teams::creating())
        .merge(credentials::creating())
        .merge(relays::creating())
}

async fn web_socket(State(core): State<Arc<Core>>, request: Request) -> Response {
    let missing = || Refusal::new(ErrorCode::Internal, "the broker does not know where this comes from");
    let Some(visitor) = request.extensions().get().copied() else {
        return Problem::from(missing()).into_response();
    };
    ws::upgrade(&core, visitor, request)
        .await
        .unwrap_or_else(|refusal| Problem::from(refusal).into_response())
}

/// What changes something is done to the end, and so written down and remembered, also when whoever asked hangs
/// up meanwhile or has waited too long. Otherwise a publication could leave no line in the audit log, and the
/// repetition of a creation create twice.
async fn to_the_end(State(tasks): State<TaskTracker>, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    match tasks.spawn(next.run(request)).await {
        Ok(response) => response,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => panicked(panic),
            // The runtime ends.
            Err(_) => Problem::from(Refusal::unavailable()).into_response(),
        },
    }
}

/// An answer has to begin in time; a body may take longer, as long as it moves.
async fn in_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    tokio::time::timeout(limit, next.run(request)).await.unwrap_or_else(|_| {
        let text = "the broker could not answer in time; try again soon";
        Problem::from(Refusal::new(ErrorCode::Unavailable, text).after(Duration::from_secs(2)))
            .into_response()
    })
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text.unwrap_or("?"), "a request ended in a panic");
    Problem::from(Refusal::internal()).into_response()
}

/// The pages of these origins may call; nobody's by default.
fn cors(origins: &[String]) -> CorsLayer {
    let allowed = match origins {
        [any] if any == "*" => AllowOrigin::any(),
        _ => AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::try_from(origin).ok())),
    };
    let own = [API_KEY_HEADER, EMAIL_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER, "X-State-Hash"];
    let own = own.iter().filter_map(|name| HeaderName::try_from(*name).ok());
    let idempotency = HeaderName::from_static(idempotency::HEADER);
    let headers = [AUTHORIZATION, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH, idempotency].into_iter().chain(own);
    let methods = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let state_hash = HeaderName::from_static("x-state-hash");
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods(methods)
        .allow_headers(headers.collect::<Vec<_>>())
        .expose_headers([ETAG, LOCATION, RETRY_AFTER, state_hash])
        .max_age(Duration::from_secs(3600))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use tokio::sync::Notify;
    use tower::ServiceExt;

    use super::*;

    async fn ask(router: Router) -> (StatusCode, String) {
        let response = router.oneshot(Request::new(Body::empty())).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_request_that_takes_too_long_is_told_to_come_back() {
        let router = Router::new().route("/", get(std::future::pending::<()>));
        let (status, body) = ask(router.layer(from_fn_with_state(Duration::from_millis(1), in_time))).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("UNAVAILABLE"), "{body}");
    }

    #[tokio::test]
    async fn a_change_is_done_to_the_end_when_whoever_asked_hangs_up() {
        let (go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (waits, ends) = (go.clone(), done.clone());
        let change = async move || {
            waits.notified().await;
            ends.notify_one();
        };
        let router = Router::new().route("/", get(change.clone()).post(change));
        let router = router.layer(from_fn_with_state(TaskTracker::new(), to_the_end));
        let asked = |method| Request::builder().method(method).body(Body::empty()).unwrap();
        for method in [Method::GET, Method::POST] {
            let asks = router.clone().oneshot(asked(method));
            assert!(tokio::time::timeout(Duration::from_millis(1), asks).await.is_err());
        }
        go.notify_one();
        tokio::time::timeout(Duration::from_secs(10), done.notified()).await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_answered_without_what_it_says() {
        async fn fails() {
            panic!("internal thing");
        }
        let router = Router::new().route("/", get(fails)).layer(CatchPanicLayer::custom(panicked));
        let (status, body) = ask(router).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(body.contains("INTERNAL") && !body.contains("internal thing"), "{body}");
    }
}
