//! `/api/backups/me`: the caller's state, as a stream of bytes that mean nothing to the broker.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use culvert_broker_wire::ErrorCode;
use culvert_broker_wire::message::BackupInfo;
use futures_util::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Json, Known, Query, etag, has_already, precondition};
use super::problem::Problem;
use crate::core::{Core, Refusal};
use crate::domain::backups;

/// SHA-256 of the bytes, both ways.
const STATE_HASH: HeaderName = HeaderName::from_static("x-state-hash");
/// When a version was stored.
const CREATED_AT: HeaderName = HeaderName::from_static("x-created-at");

pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new().routes(routes!(get, put, delete)).routes(routes!(versions))
}

/// The versions that are kept, newest first.
#[derive(Debug, Serialize, ToSchema)]
struct BackupList {
    /// The versions.
    versions: Vec<BackupInfo>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Announced {
    /// SHA-256 of the bytes in hexadecimal, unless the header says it; other bytes are refused.
    state_hash: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// The version; the latest when left out.
    #[param(minimum = 1)]
    version: Option<i64>,
}

/// Stores a state as the caller's next version. Nothing of it is visible before all of it is there.
#[utoipa::path(
    put,
    path = "/api/backups/me",
    operation_id = "store_backup",
    tag = "backups",
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The state"),
    params(
        Announced,
        ("X-State-Hash" = Option<String>, Header, description = "SHA-256 of the bytes in hexadecimal"),
        ("If-Match" = Option<String>, Header, description = "The version that this one replaces"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is none"),
    ),
    responses(
        (status = 201, body = BackupInfo, headers(("ETag" = String, description = "Its version"))),
        (status = 412, description = "Another device stored a state meanwhile"),
        (status = 413, description = "Larger than this broker accepts"),
    )
)]
async fn put(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Query(announced): Query<Announced>,
    request: Request,
) -> Result<Response, Problem> {
    let headers = request.headers();
    let condition = precondition(headers)?;
    let limit = core.config.limits.backup_bytes;
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit) {
        return Err(Refusal::from(crate::store::StoreError::TooLarge { limit }).into());
    }
    let wrong = |_| Refusal::new(ErrorCode::InvalidInput, "`X-State-Hash` must be hexadecimal");
    let header = headers.get(STATE_HASH).map(|hash| hash.to_str().map(str::to_owned)).transpose();
    let hash = header.map_err(wrong)?.or(announced.state_hash);
    let bytes = request.into_body().into_data_stream().map_err(std::io::Error::other).boxed();
    let meta = backups::store(&core, &caller, hash.as_deref(), condition, bytes).await?;
    Ok((StatusCode::CREATED, [(ETAG, etag(meta.version))], Json(backups::info(meta))).into_response())
}

/// Gives a version of the caller's states.
#[utoipa::path(
    get,
    path = "/api/backups/me",
    operation_id = "get_backup",
    tag = "backups",
    params(
        Which,
        ("If-None-Match" = Option<String>, Header, description = "The version that the caller has"),
    ),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream", headers(
            ("ETag" = String, description = "Its version"),
            ("X-State-Hash" = String, description = "SHA-256 of the bytes in hexadecimal"),
            ("X-Created-At" = String, description = "When it was stored"),
        )),
        (status = 304, description = "The caller has this version"),
        (status = 404, description = "There is no backup, or none of this version"),
    )
)]
async fn get(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Query(which): Query<Which>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (meta, bytes) = backups::read(&core, &caller, which.version).await?;
    let tag = [(ETAG, etag(meta.version))];
    if has_already(&headers, meta.version)? {
        return Ok((StatusCode::NOT_MODIFIED, tag).into_response());
    }
    let about = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_LENGTH, meta.size_bytes.to_string()),
        (CACHE_CONTROL, "no-store".to_owned()),
        (STATE_HASH, meta.state_hash),
        (CREATED_AT, meta.created_at.to_string()),
    ];
    Ok((tag, about, Body::from_stream(bytes)).into_response())
}

/// Removes all versions of the caller's states.
#[utoipa::path(
    delete,
    path = "/api/backups/me",
    operation_id = "delete_backups",
    tag = "backups",
    params(("If-Match" = Option<String>, Header, description = "The version that is the latest")),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "There is no backup"),
        (status = 412, description = "Another device stored a state meanwhile"),
    )
)]
async fn delete(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    backups::delete(&core, &caller, precondition(&headers)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the versions of the caller's states that are kept.
#[utoipa::path(
    get,
    path = "/api/backups/me/versions",
    operation_id = "list_backups",
    tag = "backups",
    responses((status = 200, body = BackupList))
)]
async fn versions(State(core): State<Arc<Core>>, Known(caller): Known) -> Result<Json<BackupList>, Problem> {
    Ok(Json(BackupList { versions: backups::versions(&core, &caller).await? }))
}
