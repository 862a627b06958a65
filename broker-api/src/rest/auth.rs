//! `/api/auth` and `/api/users/me/devices`: logging in and out, and one's own ways in.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::IntoResponse;
use culvert_broker_wire::ErrorCode;
use culvert_broker_wire::login::{
    AccountLogin, Challenge, DeviceInfo, DeviceList, DeviceLogin, NewDevice, NewPassword, OpaqueFinish,
    OpaqueStart, OpaqueStarted, SessionGiven, WhoAmI,
};
use culvert_wire::PeerId;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Anyone, Json, Known, Path};
use super::problem::Problem;
use crate::core::{Core, Refusal};
use crate::identity;
use crate::store::Role;

/// Everything of this module.
pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new()
        .routes(routes!(log_in))
        .routes(routes!(opaque_start))
        .routes(routes!(opaque_finish))
        .routes(routes!(challenge))
        .routes(routes!(log_in_device))
        .routes(routes!(log_out))
        .routes(routes!(session))
        .routes(routes!(change_password))
        .routes(routes!(devices, add_device))
        .routes(routes!(revoke_device))
}

/// An answer that no cache on the way may keep: it holds something secret.
type Private<T> = ([(HeaderName, HeaderValue); 1], Json<T>);

fn private<T>(answer: T) -> Private<T> {
    ([(CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(answer))
}

/// Logs in with an account's password; over TLS only.
#[utoipa::path(
    post,
    path = "/api/auth/login",
    tag = "auth",
    security(()),
    request_body = AccountLogin,
    responses(
        (status = 200, body = SessionGiven),
        (status = 401, description = "No such user, another password, or suspended: they look the same"),
        (status = 403, description = "Not over TLS"),
        (status = 429, description = "Too many wrong passwords"),
    )
)]
async fn log_in(
    State(core): State<Arc<Core>>,
    Anyone { visitor, .. }: Anyone,
    Json(login): Json<AccountLogin>,
) -> Result<Private<SessionGiven>, Problem> {
    Ok(private(identity::log_in_account(&core, visitor, &login).await?))
}

/// Begins a login with the institution's password by OPAQUE (RFC 9807).
#[utoipa::path(
    post,
    path = "/api/auth/opaque/start",
    tag = "auth",
    security(()),
    request_body = OpaqueStart,
    responses(
        (status = 200, body = OpaqueStarted),
        (status = 401, description = "What else is presented does not hold"),
        (status = 403, description = "This broker admits nobody by password"),
        (status = 429, description = "Too many logins that were begun and not finished"),
    )
)]
async fn opaque_start(
    State(core): State<Arc<Core>>,
    Anyone { visitor, .. }: Anyone,
    Json(start): Json<OpaqueStart>,
) -> Result<Private<OpaqueStarted>, Problem> {
    Ok(private(identity::opaque_start(&core, visitor, &start).await?))
}

/// Ends a login with the institution's password. A user id that is free is bound to the device; one that is
/// not needs one of its devices.
#[utoipa::path(
    post,
    path = "/api/auth/opaque/finish",
    tag = "auth",
    security(()),
    request_body = OpaqueFinish,
    responses(
        (status = 200, body = SessionGiven),
        (status = 401, description = "Another password, another user's id, or the login has ended"),
    )
)]
async fn opaque_finish(
    State(core): State<Arc<Core>>,
    Anyone { visitor, .. }: Anyone,
    Json(finish): Json<OpaqueFinish>,
) -> Result<Private<SessionGiven>, Problem> {
    Ok(private(identity::opaque_finish(&core, visitor, &finish).await?))
}

/// Gives a challenge for a device to sign, once, within a minute.
#[utoipa::path(
    post,
    path = "/api/auth/challenge",
    tag = "auth",
    security(()),
    responses(
        (status = 200, body = Challenge),
        (status = 401, description = "What else is presented does not hold"),
    )
)]
async fn challenge(State(core): State<Arc<Core>>) -> Result<Private<Challenge>, Problem> {
    Ok(private(identity::timed_challenge(&core).await?))
}

/// Logs in with the key of a device that is bound to the user.
#[utoipa::path(
    post,
    path = "/api/auth/device",
    tag = "auth",
    security(()),
    request_body = DeviceLogin,
    responses(
        (status = 200, body = SessionGiven),
        (status = 401, description = "The proof does not hold, or the device is not the user's"),
    )
)]
async fn log_in_device(
    State(core): State<Arc<Core>>,
    Anyone { visitor, .. }: Anyone,
    Json(login): Json<DeviceLogin>,
) -> Result<Private<SessionGiven>, Problem> {
    Ok(private(identity::log_in_device(&core, visitor, &login).await?))
}

/// Ends the session of this request, and closes its WebSockets.
#[utoipa::path(
    post,
    path = "/api/auth/logout",
    tag = "auth",
    security(("session" = [])),
    responses((status = 204, description = "It has ended"))
)]
async fn log_out(State(core): State<Arc<Core>>, Known(caller): Known) -> Result<StatusCode, Problem> {
    identity::log_out(&core, &caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Says who is there.
#[utoipa::path(get, path = "/api/auth/session", tag = "auth", responses((status = 200, body = WhoAmI)))]
async fn session(Known(caller): Known) -> Private<WhoAmI> {
    private(WhoAmI {
        admin: caller.role == Role::Admin,
        way: identity::way_name(caller.way).to_owned(),
        device: caller.device,
        user_id: caller.user,
    })
}

/// Sets the caller's password, ends all of their sessions and gives a new one; over TLS only.
#[utoipa::path(
    post,
    path = "/api/auth/password",
    tag = "auth",
    security(("session" = [])),
    request_body = NewPassword,
    responses(
        (status = 200, body = SessionGiven),
        (status = 401, description = "The old password is another one"),
        (status = 403, description = "Not over TLS, or not in a session"),
    )
)]
async fn change_password(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Json(request): Json<NewPassword>,
) -> Result<Private<SessionGiven>, Problem> {
    Ok(private(identity::change_password(&core, &caller, &request).await?))
}

/// Lists the caller's devices.
#[utoipa::path(
    get,
    path = "/api/users/me/devices",
    tag = "auth",
    responses((status = 200, body = DeviceList))
)]
async fn devices(State(core): State<Arc<Core>>, Known(caller): Known) -> Result<Json<DeviceList>, Problem> {
    Ok(Json(identity::devices(&core, &caller).await?))
}

/// Binds one more device to the caller.
#[utoipa::path(
    post,
    path = "/api/users/me/devices",
    tag = "auth",
    security(("session" = [])),
    request_body = NewDevice,
    responses(
        (status = 201, body = DeviceInfo),
        (status = 403, description = "Not in a session"),
        (status = 409, description = "The key is or was bound already, or there are too many"),
    )
)]
async fn add_device(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Json(request): Json<NewDevice>,
) -> Result<impl IntoResponse, Problem> {
    Ok((StatusCode::CREATED, Json(identity::add_device(&core, &caller, &request).await?)))
}

/// Revokes one of the caller's devices for good, with its sessions and its place at the relays.
#[utoipa::path(
    delete,
    path = "/api/users/me/devices/{key}",
    tag = "auth",
    security(("session" = [])),
    params(("key" = String, Path, description = "The device's key")),
    responses(
        (status = 204, description = "Revoked"),
        (status = 403, description = "Not in a session"),
        (status = 404, description = "The caller has no such device"),
    )
)]
async fn revoke_device(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Path(key): Path<String>,
) -> Result<StatusCode, Problem> {
    let unknown =
        || Refusal::new(ErrorCode::NotFound, "there is no such device; list yours to see their keys");
    let key: PeerId = key.parse().map_err(|_| unknown())?;
    identity::revoke_device(&core, &caller, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}
