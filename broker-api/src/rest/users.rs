//! `/api/users` and `/api/presence`: who there is, and who is online.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use culvert_broker_wire::Timestamp;
use culvert_broker_wire::message::RelayAddress;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Json, Known, Listing, Path, Query};
use super::problem::Problem;
use crate::core::Core;
use crate::domain::{page, users};
use crate::store;

pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(me))
        .routes(routes!(get, change, delete))
        .routes(routes!(online))
        .routes(routes!(whereabouts))
}

/// What a user may do beside what is theirs.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Role {
    /// Nothing.
    User,
    /// Administer the broker.
    Admin,
}

/// Whether a user may come in.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// Yes.
    Active,
    /// No.
    Suspended,
}

/// A user.
#[derive(Debug, Serialize, ToSchema)]
struct User {
    /// Who.
    user_id: String,
    /// What they may do.
    role: Role,
    /// Whether they may come in.
    status: Status,
    /// Whether they have an account's password.
    account: bool,
    /// When they were admitted.
    created_at: Timestamp,
    /// When they were last online.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<Timestamp>,
}

impl From<store::User> for User {
    fn from(user: store::User) -> Self {
        Self {
            role: match user.role {
                store::Role::User => Role::User,
                store::Role::Admin => Role::Admin,
            },
            status: match user.status {
                store::Status::Active => Status::Active,
                store::Status::Suspended => Status::Suspended,
            },
            account: user.password_hash.is_some(),
            user_id: user.id,
            created_at: user.created_at,
            last_seen: user.last_seen,
        }
    }
}

/// What to change in a user; what is left out stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
struct UserChange {
    /// What they may do.
    #[serde(default)]
    role: Option<Role>,
    /// Whether they may come in; suspending ends their sessions and relay tickets.
    #[serde(default)]
    status: Option<Status>,
}

/// A part of the list of users, newest first.
#[derive(Debug, Serialize, ToSchema)]
struct UserList {
    /// The users.
    users: Vec<User>,
    /// Where the list goes on; absent at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Whether somebody is online.
#[derive(Debug, Serialize, ToSchema)]
struct Presence {
    /// Who.
    user_id: String,
    /// Whether any of their devices is online.
    online: bool,
    /// When they were last seen; now, while they are online.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<Timestamp>,
}

/// The caller's devices that are online.
#[derive(Debug, Serialize, ToSchema)]
struct OwnPresence {
    /// Who.
    user_id: String,
    /// Their connections, oldest first.
    devices: Vec<OnlineDevice>,
}

/// A device that is online.
#[derive(Debug, Serialize, ToSchema)]
struct OnlineDevice {
    /// What it is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Where its own server answers; may be empty.
    endpoint: String,
    /// Where it answers through a relay.
    #[serde(skip_serializing_if = "Option::is_none")]
    relay: Option<RelayAddress>,
    /// Since when.
    since: Timestamp,
}

/// Lists all users; for administrators.
#[utoipa::path(
    get,
    path = "/api/users",
    operation_id = "list_users",
    tag = "users",
    params(Listing),
    responses((status = 200, body = UserList), (status = 403, description = "For administrators"))
)]
async fn list(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Query(listing): Query<Listing>,
) -> Result<Json<UserList>, Problem> {
    let page = page(listing.cursor.as_deref(), listing.limit)?;
    let found = users::list(&core, &caller, page).await?.map(User::from);
    Ok(Json(UserList { users: found.items, next_cursor: found.next.map(|next| next.encode()) }))
}

/// Gives the caller.
#[utoipa::path(
    get,
    path = "/api/users/me",
    operation_id = "get_me",
    tag = "users",
    responses((status = 200, body = User), (status = 404, description = "Removed meanwhile"))
)]
async fn me(State(core): State<Arc<Core>>, Known(caller): Known) -> Result<Json<User>, Problem> {
    Ok(Json(users::me(&core, &caller).await?.into()))
}

/// Gives a user; for administrators.
#[utoipa::path(
    get,
    path = "/api/users/{user_id}",
    operation_id = "get_user",
    tag = "users",
    params(("user_id" = String, Path, description = "Who")),
    responses(
        (status = 200, body = User),
        (status = 403, description = "For administrators"),
        (status = 404, description = "No such user"),
    )
)]
async fn get(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Path(id): Path<String>,
) -> Result<Json<User>, Problem> {
    Ok(Json(users::get(&core, &caller, &id).await?.into()))
}

/// Changes a user's role or status; for administrators.
#[utoipa::path(
    patch,
    path = "/api/users/{user_id}",
    operation_id = "change_user",
    tag = "users",
    request_body = UserChange,
    params(("user_id" = String, Path, description = "Who")),
    responses(
        (status = 200, body = User),
        (status = 403, description = "For administrators"),
        (status = 404, description = "No such user"),
        (status = 409, description = "Administrators would lock themselves out"),
    )
)]
async fn change(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Path(id): Path<String>,
    Json(change): Json<UserChange>,
) -> Result<Json<User>, Problem> {
    let status = change.status.map(|status| match status {
        Status::Active => store::Status::Active,
        Status::Suspended => store::Status::Suspended,
    });
    let role = change.role.map(|role| match role {
        Role::User => store::Role::User,
        Role::Admin => store::Role::Admin,
    });
    Ok(Json(users::change(&core, &caller, &id, status, role).await?.into()))
}

/// Removes a user and what is theirs; for administrators.
#[utoipa::path(
    delete,
    path = "/api/users/{user_id}",
    operation_id = "delete_user",
    tag = "users",
    params(("user_id" = String, Path, description = "Who")),
    responses(
        (status = 204, description = "Removed"),
        (status = 403, description = "For administrators"),
        (status = 404, description = "No such user"),
        (status = 409, description = "Administrators would remove themselves"),
    )
)]
async fn delete(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    users::delete(&core, &caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the caller's devices that are online.
#[utoipa::path(get, path = "/api/presence", operation_id = "list_my_online_devices", tag = "presence", responses((status = 200, body = OwnPresence)))]
async fn online(State(core): State<Arc<Core>>, Known(caller): Known) -> Result<Json<OwnPresence>, Problem> {
    let devices = users::online(&core, &caller).await?.into_iter().map(|presence| OnlineDevice {
        name: presence.device,
        endpoint: presence.endpoint,
        relay: presence.relay,
        since: presence.since,
    });
    Ok(Json(OwnPresence { devices: devices.collect(), user_id: caller.user }))
}

/// Says whether somebody is online, to those who share a team or a share with them.
#[utoipa::path(
    get,
    path = "/api/presence/{user_id}",
    operation_id = "get_presence",
    tag = "presence",
    params(("user_id" = String, Path, description = "Who")),
    responses(
        (status = 200, body = Presence),
        (status = 404, description = "No such user, or none that the caller may know of"),
    )
)]
async fn whereabouts(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Path(user_id): Path<String>,
) -> Result<Json<Presence>, Problem> {
    let users::Whereabouts { online, last_seen } = users::whereabouts(&core, &caller, &user_id).await?;
    Ok(Json(Presence { user_id, online, last_seen }))
}
