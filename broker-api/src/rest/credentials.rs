//! `/api/credentials`: API credentials of the caller.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use culvert_broker_wire::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Json, Known, Listing, Path, Query};
use super::problem::Problem;
use crate::core::Core;
use crate::domain::{credentials, page};
use crate::store;

pub(super) fn creating() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(rotate))
}

pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(revoke))
}

/// A credential to be made.
#[derive(Debug, Deserialize, ToSchema)]
struct NewCredential {
    /// For people.
    #[schema(min_length = 1, max_length = 512)]
    name: String,
}

/// How a credential gets a second secret.
#[derive(Debug, Deserialize, ToSchema)]
struct Rotation {
    /// How long the first secret holds beside it; a day when left out, 30 days at most.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 2_592_000)]
    overlap_seconds: Option<u64>,
}

/// A credential, without its secrets.
#[derive(Debug, Serialize, ToSchema)]
struct Credential {
    /// `rpa_…`, not secret.
    api_key: String,
    /// For people.
    name: String,
    /// When it was made.
    created_at: Timestamp,
    /// When it was last used, to the minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<Timestamp>,
    /// Its live secrets, oldest first.
    secrets: Vec<LiveSecret>,
}

/// A secret that holds.
#[derive(Debug, Serialize, ToSchema)]
struct LiveSecret {
    /// When it was made.
    created_at: Timestamp,
    /// When it ends, once it is being replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

/// A credential with its newest secret, which is shown this once.
#[derive(Serialize, ToSchema)]
struct CredentialWithSecret {
    /// The credential.
    #[serde(flatten)]
    credential: Credential,
    /// `rps_…`: keep it, nobody can show it again.
    api_secret: String,
}

/// A part of the list of the caller's credentials, newest first.
#[derive(Debug, Serialize, ToSchema)]
struct CredentialList {
    /// The credentials.
    credentials: Vec<Credential>,
    /// Where the list goes on; absent at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl From<store::Credential> for Credential {
    fn from(credential: store::Credential) -> Self {
        let store::Credential { api_key, name, created_at, last_used_at, secrets, .. } = credential;
        let secrets = secrets.into_iter();
        let secrets =
            secrets.map(|secret| LiveSecret { created_at: secret.created_at, expires_at: secret.expires_at });
        Self { api_key, name, created_at, last_used_at, secrets: secrets.collect() }
    }
}

/// Makes a credential; its secret is in this answer and nowhere else.
#[utoipa::path(
    post,
    path = "/api/credentials",
    operation_id = "create_credential",
    tag = "credentials",
    request_body = NewCredential,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to repeat the request")),
    responses(
        (status = 201, body = CredentialWithSecret),
        (status = 409, description = "The `Idempotency-Key` is in use"),
    )
)]
async fn create(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Json(new): Json<NewCredential>,
) -> Result<Response, Problem> {
    Ok(shown_once(StatusCode::CREATED, credentials::create(&core, &caller, &new.name).await?))
}

/// Lists the caller's credentials.
#[utoipa::path(
    get,
    path = "/api/credentials",
    operation_id = "list_credentials",
    tag = "credentials",
    params(Listing),
    responses((status = 200, body = CredentialList))
)]
async fn list(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Query(listing): Query<Listing>,
) -> Result<Json<CredentialList>, Problem> {
    let page = page(listing.cursor.as_deref(), listing.limit)?;
    let found = credentials::list(&core, &caller, page).await?.map(Credential::from);
    Ok(Json(CredentialList { credentials: found.items, next_cursor: found.next.map(|next| next.encode()) }))
}

/// Gives a credential a second secret; the first one holds beside it for a while.
#[utoipa::path(
    post,
    path = "/api/credentials/{api_key}/rotate",
    operation_id = "rotate_credential",
    tag = "credentials",
    request_body = Rotation,
    params(
        ("api_key" = String, Path, description = "The credential"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to repeat the request"),
    ),
    responses(
        (status = 200, body = CredentialWithSecret),
        (status = 404, description = "The caller has no such credential"),
        (status = 409, description = "Two secrets live already, or the `Idempotency-Key` is in use"),
    )
)]
async fn rotate(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Path(api_key): Path<String>,
    Json(rotation): Json<Rotation>,
) -> Result<Response, Problem> {
    let overlap = rotation.overlap_seconds.map_or(credentials::USUAL_OVERLAP, Duration::from_secs);
    Ok(shown_once(StatusCode::OK, credentials::rotate(&core, &caller, &api_key, overlap).await?))
}

/// Ends a credential for good.
#[utoipa::path(
    delete,
    path = "/api/credentials/{api_key}",
    operation_id = "revoke_credential",
    tag = "credentials",
    params(("api_key" = String, Path, description = "The credential")),
    responses(
        (status = 204, description = "Revoked"),
        (status = 404, description = "The caller has no such credential"),
    )
)]
async fn revoke(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Path(api_key): Path<String>,
) -> Result<StatusCode, Problem> {
    credentials::revoke(&core, &caller, &api_key).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown_once(status: StatusCode, made: credentials::WithSecret) -> Response {
    let body = CredentialWithSecret { credential: made.credential.into(), api_secret: made.secret };
    (status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}
