//! From hyper's requests to the router's, counted.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Request, StatusCode};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Notify;
use tower_http::timeout::TimeoutBody;

use crate::core::Visitor;
use crate::metrics::{Class, Metrics, Route};

/// What answers requests at the moment: first an excuse, then the API.
pub type Front = Arc<ArcSwap<Router>>;

/// The requests of one connection.
#[derive(Clone)]
pub(super) struct Service {
    front: Front,
    visitor: Visitor,
    metrics: Arc<Metrics>,
    patience: Duration,
    requested: Arc<Notify>,
}

impl Service {
    /// For requests of this visitor, whose bodies may pause for `patience`.
    pub(super) fn new(front: Front, visitor: Visitor, metrics: Arc<Metrics>, patience: Duration) -> Self {
        Self { front, visitor, metrics, patience, requested: Arc::default() }
    }

    /// Is told when the first request is there.
    pub(super) fn requested(&self) -> Arc<Notify> {
        self.requested.clone()
    }
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.requested.notify_one();
        let started = Instant::now();
        let route = Route::of(request.uri().path());
        let patience = self.patience;
        let mut request = request.map(|body| match body.is_end_stream() {
            true => Body::empty(),
            false => Body::new(Box::pin(TimeoutBody::new(patience, body))),
        });
        request.extensions_mut().insert(self.visitor);
        let router = TowerToHyperService::new(Router::clone(&self.front.load()));
        let metrics = self.metrics.clone();
        Box::pin(async move {
            let response = hyper::service::Service::call(&router, request).await?;
            metrics.requests[(route, Class::of(response.status()))].increment(1);
            metrics.request_seconds[route].record(started.elapsed().as_secs_f64());
            Ok(response)
        })
    }
}

/// An answer that says why nothing can be done at the moment, in the shape of all errors of the API.
pub fn unavailable(reason: &'static str) -> Response {
    let problem = serde_json::json!({
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": reason,
        "code": culvert_broker_wire::ErrorCode::Unavailable,
    });
    let mut response = Response::new(Body::from(problem.to_string()));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(RETRY_AFTER, HeaderValue::from_static("2"));
    response
}
