//! What everybody may know: health, information, public keys, and the description of the API.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use culvert_broker_wire::limits;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::Json;
use crate::core::Core;

pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(key_set)).routes(routes!(info))
}

/// The description of the API, and the page that shows it. Both are the same for every broker.
pub(super) fn description(openapi: Bytes) -> Router<Arc<Core>> {
    let document = move || {
        let openapi = openapi.clone();
        async move { ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")], openapi) }
    };
    // Everything comes from this broker: the page works on a network without any other.
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let part = |kind: &'static str, text: &'static str| {
        get(async move || ([(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, POLICY)], text))
    };
    Router::new()
        .route("/openapi.json", get(document))
        .route("/docs", part("text/html; charset=utf-8", include_str!("page/index.html")))
        .route("/docs/page.js", part("text/javascript; charset=utf-8", include_str!("page/page.js")))
        .route("/docs/page.css", part("text/css; charset=utf-8", include_str!("page/page.css")))
}

/// A way to prove who one is.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Way {
    /// The institution's password, which admits a device.
    Institution,
    /// A user's own password.
    Account,
    /// The key of a device that was admitted.
    Device,
    /// API credentials.
    Credential,
}

/// About this broker.
#[derive(Debug, Serialize, ToSchema)]
struct Info {
    /// The program's version.
    version: &'static str,
    /// Name of the institution.
    institution: String,
    /// How users can prove who they are.
    ways: Vec<Way>,
    /// The key that proves this broker in logins with the institution's password (RFC 9807), base64url;
    /// clients may pin it.
    #[serde(skip_serializing_if = "Option::is_none")]
    opaque_key: Option<String>,
    /// The relays of this institution, the first to be preferred.
    relays: Vec<String>,
    /// How much may be done.
    limits: InfoLimits,
}

/// How much may be done; lengths in bytes.
#[derive(Debug, Serialize, ToSchema)]
struct InfoLimits {
    /// A share's token.
    token: usize,
    /// A user's id.
    user_id: usize,
    /// A title or name.
    title: usize,
    /// A description.
    description: usize,
    /// A request's body, except backups.
    body: usize,
    /// A backup.
    backup: u64,
    /// Versions of a backup that are kept.
    backup_versions: u32,
    /// Topics of one relay ticket.
    topics_per_ticket: usize,
    /// Silence after which a WebSocket counts as offline, in seconds.
    heartbeat_timeout_seconds: u64,
    /// How long a relay ticket lasts at most, in seconds.
    ticket_seconds: u64,
}

/// Says that the process is alive. Whether it can serve is on the admin port.
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "health",
    tag = "broker",
    responses((status = 200, body = String, content_type = "text/plain", example = "OK")),
    security(())
)]
async fn health() -> Response {
    ([(CACHE_CONTROL, "no-store")], "OK").into_response()
}

/// Gives the keys that tickets and grants are verified with (RFC 7517).
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    operation_id = "get_key_set",
    tag = "broker",
    responses((status = 200, body = Object, description = "A JSON Web Key Set",
        headers(("Cache-Control" = String, description = "How long a copy may be kept")))),
    security(())
)]
async fn key_set(State(core): State<Arc<Core>>) -> Response {
    let age = format!("public, max-age={}", core.keys.jwks_max_age().as_secs());
    ([(CACHE_CONTROL, age), (CONTENT_TYPE, "application/json".to_owned())], core.keys.jwks()).into_response()
}

/// Says what this broker is and offers.
#[utoipa::path(get, path = "/api/info", operation_id = "get_info", tag = "broker", responses((status = 200, body = Info)), security(()))]
async fn info(State(core): State<Arc<Core>>) -> Json<Info> {
    let config = &core.config;
    let admits = config.institution_password.is_some().then_some(Way::Institution);
    let limits = InfoLimits {
        token: limits::MAX_TOKEN,
        user_id: limits::MAX_USER_ID,
        title: limits::MAX_TITLE,
        description: limits::MAX_DESCRIPTION,
        body: config.limits.body_bytes,
        backup: config.limits.backup_bytes,
        backup_versions: config.limits.backup_versions,
        topics_per_ticket: config.limits.topics_per_ticket,
        heartbeat_timeout_seconds: config.timing.heartbeat_timeout.as_secs(),
        ticket_seconds: config.timing.ticket.as_secs(),
    };
    Json(Info {
        version: env!("CARGO_PKG_VERSION"),
        institution: config.institution.clone(),
        ways: admits.into_iter().chain([Way::Account, Way::Device, Way::Credential]).collect(),
        opaque_key: core.identity.opaque_key(),
        relays: config.relays.clone(),
        limits,
    })
}
