//! `/api/shares`: publishing, asking for, listing, changing and revoking shares.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, ETAG, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use culvert_broker_wire::message::ShareSummary;
use culvert_broker_wire::{AccessPolicy, ShareInfo, ShareMetadata, ShareToken, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Anyone, Json, Known, Listing, Path, Query, etag, if_match};
use super::problem::Problem;
use crate::core::Core;
use crate::domain::shares::{self, Wanted};
use crate::store::{AuditEntry, Outcome, Share, ShareChanges};

pub(super) fn creating() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new().routes(routes!(publish))
}

pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(shared_with_me))
        .routes(routes!(look_up, change, revoke))
        .routes(routes!(accesses))
}

/// A share to be published.
#[derive(Debug, Deserialize, ToSchema)]
struct NewShare {
    /// What opens it: up to 128 of letters, digits and `-._~`, at least 22 unless the share is public. Left
    /// out, the broker makes one of 16 random bytes.
    #[serde(default)]
    token: Option<String>,
    /// Whose it is; the caller when left out, and nobody else.
    #[serde(default)]
    owner_user_id: Option<String>,
    /// What the owner's server knows it by, up to 256 bytes.
    #[schema(min_length = 1, max_length = 256)]
    result_id: String,
    /// For people, up to 512 bytes.
    #[schema(min_length = 1, max_length = 512)]
    title: String,
    /// For people, longer, up to 4,096 bytes.
    #[serde(default)]
    #[schema(max_length = 4096)]
    description: Option<String>,
    /// When the result was made; now when left out.
    #[serde(default)]
    created_at: Option<Timestamp>,
    /// Who may use it.
    access_policy: AccessPolicy,
}

/// What to change in a share; what is left out stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
struct ShareChange {
    /// For people.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 512)]
    title: Option<String>,
    /// For people, longer; null removes it.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 4096)]
    description: Option<Option<String>>,
    /// Who may use it.
    #[serde(default)]
    access_policy: Option<AccessPolicy>,
}

/// Tells null, which removes, from nothing, which leaves.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A part of a list of shares, newest first.
#[derive(Debug, Serialize, ToSchema)]
struct ShareList {
    /// The shares.
    shares: Vec<ShareSummary>,
    /// Where the list goes on; absent at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A part of a share's access log, newest first.
#[derive(Debug, Serialize, ToSchema)]
struct AccessList {
    /// Who asked.
    accesses: Vec<ShareAccess>,
    /// Where the list goes on; absent at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Somebody asked for a share.
#[derive(Debug, Serialize, ToSchema)]
struct ShareAccess {
    /// When.
    at: Timestamp,
    /// Who; absent for somebody unknown who asked for a public share.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    /// Whether they got it.
    granted: bool,
    /// Id (`jti`) of the grant to download, if they got one.
    #[serde(skip_serializing_if = "Option::is_none")]
    grant_id: Option<String>,
    /// Why they did not get it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl From<AuditEntry> for ShareAccess {
    fn from(entry: AuditEntry) -> Self {
        let text = |name| entry.record.detail.get(name).and_then(|value| value.as_str()).map(str::to_owned);
        Self {
            at: entry.at,
            granted: entry.record.outcome == Outcome::Done,
            grant_id: text("grant"),
            reason: text("reason"),
            user_id: entry.record.actor,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LookUp {
    /// `false` asks only what the share is: no grant, and it does not count as a download.
    #[serde(default = "yes")]
    #[param(default = true)]
    grant: bool,
}

const fn yes() -> bool {
    true
}

/// Publishes a share, or changes the caller's own that has this token.
#[utoipa::path(
    post,
    path = "/api/shares",
    operation_id = "publish_share",
    tag = "shares",
    request_body = NewShare,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to repeat the request")),
    responses(
        (status = 201, body = ShareSummary, description = "Published",
            headers(("ETag" = String, description = "Its version"), ("Location" = String))),
        (status = 200, body = ShareSummary, description = "The caller's own share with this token was changed",
            headers(("ETag" = String, description = "Its version"), ("Location" = String))),
        (status = 403, description = "It names another owner"),
        (status = 409, description = "The token is somebody else's or was revoked, or the caller is not in the \
            team; or the `Idempotency-Key` is in use"),
    )
)]
async fn publish(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Json(new): Json<NewShare>,
) -> Result<Response, Problem> {
    let metadata = ShareMetadata {
        owner_user_id: new.owner_user_id.unwrap_or_else(|| caller.user.clone()),
        result_id: new.result_id,
        title: new.title,
        description: new.description,
        created_at: new.created_at.unwrap_or_else(|| core.now()),
        access_policy: new.access_policy,
    };
    let token = new.token.unwrap_or_else(|| ShareToken::generate().into());
    let share = shares::publish(&core, &caller, &token, metadata).await?;
    let status = if share.version <= 1 { StatusCode::CREATED } else { StatusCode::OK };
    let location = format!("/api/shares/{token}");
    Ok((status, [(LOCATION, location)], own(&core, share)).into_response())
}

/// Lists the caller's own shares, with their tokens.
#[utoipa::path(
    get,
    path = "/api/shares",
    operation_id = "list_my_shares",
    tag = "shares",
    params(Listing),
    responses((status = 200, body = ShareList))
)]
async fn list(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Query(listing): Query<Listing>,
) -> Result<Json<ShareList>, Problem> {
    let (shares, next_cursor) =
        shares::list_mine(&core, &caller, listing.cursor.as_deref(), listing.limit).await?;
    Ok(Json(ShareList { shares, next_cursor }))
}

/// Lists shares of others that name the caller, one of their teams or the institution, without their tokens.
#[utoipa::path(
    get,
    path = "/api/shared-with-me",
    operation_id = "list_shared_with_me",
    tag = "shares",
    params(Listing),
    responses((status = 200, body = ShareList))
)]
async fn shared_with_me(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Query(listing): Query<Listing>,
) -> Result<Json<ShareList>, Problem> {
    let (shares, next_cursor) =
        shares::list_shared_with_me(&core, &caller, listing.cursor.as_deref(), listing.limit).await?;
    Ok(Json(ShareList { shares, next_cursor }))
}

/// Gives a share to whom its policy names: what it is, where its owner is, and a grant to download.
///
/// A public share needs no identity. One that does not exist and one that is not for the caller look the
/// same.
#[utoipa::path(
    get,
    path = "/api/shares/{token}",
    operation_id = "get_share",
    tag = "shares",
    params(("token" = String, Path, description = "What opens the share"), LookUp),
    responses(
        (status = 200, body = ShareInfo,
            headers(("ETag" = String, description = "Its version, for its owner"))),
        (status = 404, description = "No such share, or not for the caller"),
    ),
    security((), ("session" = []), ("api_key" = []))
)]
async fn look_up(
    State(core): State<Arc<Core>>,
    Anyone { caller, visitor }: Anyone,
    Path(token): Path<String>,
    Query(LookUp { grant }): Query<LookUp>,
) -> Result<Response, Problem> {
    let wanted = if grant { Wanted::Grant } else { Wanted::View };
    let found = shares::look_up(&core, caller.as_ref(), visitor, &token, wanted).await?;
    let tag = found.version.map(|version| [(ETAG, etag(version))]);
    Ok((tag, [(CACHE_CONTROL, "no-store")], Json(found.info)).into_response())
}

/// Changes the caller's own share.
#[utoipa::path(
    patch,
    path = "/api/shares/{token}",
    operation_id = "change_share",
    tag = "shares",
    request_body = ShareChange,
    params(
        ("token" = String, Path, description = "What opens the share"),
        ("If-Match" = Option<String>, Header, description = "The version that is to be changed"),
    ),
    responses(
        (status = 200, body = ShareSummary, headers(("ETag" = String, description = "Its version"))),
        (status = 404, description = "The caller has no such share"),
        (status = 409, description = "The caller is not in the team"),
        (status = 412, description = "The share has another version"),
    )
)]
async fn change(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Path(token): Path<String>,
    headers: HeaderMap,
    Json(change): Json<ShareChange>,
) -> Result<Response, Problem> {
    let ShareChange { title, description, access_policy: policy } = change;
    let changes = ShareChanges { title, description, policy };
    let share = shares::change(&core, &caller, &token, changes, if_match(&headers)?).await?;
    Ok(own(&core, share).into_response())
}

/// Ends the caller's own share for good.
#[utoipa::path(
    delete,
    path = "/api/shares/{token}",
    operation_id = "revoke_share",
    tag = "shares",
    params(
        ("token" = String, Path, description = "What opens the share"),
        ("If-Match" = Option<String>, Header, description = "The version that is to be revoked"),
    ),
    responses(
        (status = 204, description = "Revoked"),
        (status = 404, description = "The caller has no such share that still holds"),
        (status = 412, description = "The share has another version"),
    )
)]
async fn revoke(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Path(token): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    shares::revoke_if(&core, &caller, &token, if_match(&headers)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists who asked for the caller's own share: granted and denied.
#[utoipa::path(
    get,
    path = "/api/shares/{token}/accesses",
    operation_id = "list_share_accesses",
    tag = "shares",
    params(("token" = String, Path, description = "What opens the share"), Listing),
    responses(
        (status = 200, body = AccessList),
        (status = 404, description = "The caller has no such share that still holds"),
    )
)]
async fn accesses(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Path(token): Path<String>,
    Query(listing): Query<Listing>,
) -> Result<Json<AccessList>, Problem> {
    let page = shares::accesses(&core, &caller, &token, listing.cursor.as_deref(), listing.limit).await?;
    let next_cursor = page.next.map(|next| next.encode());
    Ok(Json(AccessList { accesses: page.items.into_iter().map(Into::into).collect(), next_cursor }))
}

/// The caller's own share as an answer.
fn own(core: &Core, share: Share) -> impl IntoResponse + use<> {
    (
        [(ETAG, etag(share.version)), (CACHE_CONTROL, "no-store".to_owned())],
        Json(shares::summary(core, share)),
    )
}
