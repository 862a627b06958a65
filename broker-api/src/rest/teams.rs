//! `/api/teams`: teams and who is in them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{ETAG, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use culvert_broker_wire::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Json, Known, Listing, Path, Query, etag, has_already, if_match};
use super::problem::Problem;
use crate::core::Core;
use crate::domain::{page, teams};
use crate::store;

pub(super) fn creating() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new().routes(routes!(create))
}

pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, rename, delete))
        .routes(routes!(members))
        .routes(routes!(put_member, remove_member))
}

/// A team to be made.
#[derive(Debug, Deserialize, ToSchema)]
struct NewTeam {
    /// Its id, which policies name; random when left out.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 256)]
    id: Option<String>,
    /// For people.
    #[schema(min_length = 1, max_length = 512)]
    name: String,
}

/// What to change in a team.
#[derive(Debug, Deserialize, ToSchema)]
struct TeamChange {
    /// For people.
    #[schema(min_length = 1, max_length = 512)]
    name: String,
}

/// What a member may do.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum TeamRole {
    /// Share with the team and see what is shared with it.
    Member,
    /// Also rename and delete it, and choose its members.
    Admin,
}

impl From<store::TeamRole> for TeamRole {
    fn from(role: store::TeamRole) -> Self {
        match role {
            store::TeamRole::Member => Self::Member,
            store::TeamRole::Admin => Self::Admin,
        }
    }
}

impl From<TeamRole> for store::TeamRole {
    fn from(role: TeamRole) -> Self {
        match role {
            TeamRole::Member => Self::Member,
            TeamRole::Admin => Self::Admin,
        }
    }
}

/// A team.
#[derive(Debug, Serialize, ToSchema)]
struct Team {
    /// Its id, which policies name.
    id: String,
    /// For people.
    name: String,
    /// Who made it.
    created_by: String,
    /// When.
    created_at: Timestamp,
    /// What the caller may do in it; absent for administrators of the broker who are not in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<TeamRole>,
}

impl Team {
    fn new(team: store::Team, role: Option<store::TeamRole>) -> Self {
        let store::Team { id, name, created_by, created_at, .. } = team;
        Self { id, name, created_by, created_at, role: role.map(Into::into) }
    }
}

/// A part of a list of teams, newest first.
#[derive(Debug, Serialize, ToSchema)]
struct TeamList {
    /// The teams.
    teams: Vec<Team>,
    /// Where the list goes on; absent at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A member of a team.
#[derive(Debug, Serialize, ToSchema)]
struct Member {
    /// Who.
    user_id: String,
    /// What they may do.
    role: TeamRole,
    /// Since when.
    added_at: Timestamp,
}

impl From<store::Member> for Member {
    fn from(member: store::Member) -> Self {
        Self { user_id: member.user, role: member.role.into(), added_at: member.added_at }
    }
}

/// A part of the list of a team's members, newest first.
#[derive(Debug, Serialize, ToSchema)]
struct MemberList {
    /// The members.
    members: Vec<Member>,
    /// Where the list goes on; absent at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A role to be given.
#[derive(Debug, Deserialize, ToSchema)]
struct NewRole {
    /// What they may do; a member when left out.
    #[serde(default = "member")]
    role: TeamRole,
}

const fn member() -> TeamRole {
    TeamRole::Member
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Whose {
    /// All teams instead of the caller's; for administrators.
    #[serde(default)]
    all: bool,
}

/// Makes a team with the caller as its first admin.
#[utoipa::path(
    post,
    path = "/api/teams",
    operation_id = "create_team",
    tag = "teams",
    request_body = NewTeam,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to repeat the request")),
    responses(
        (status = 201, body = Team,
            headers(("ETag" = String, description = "Its version"), ("Location" = String))),
        (status = 409, description = "The id is taken, or the `Idempotency-Key` in use"),
    )
)]
async fn create(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Json(new): Json<NewTeam>,
) -> Result<Response, Problem> {
    let team = teams::create(&core, &caller, new.id, new.name).await?;
    let id = percent_encoding::utf8_percent_encode(&team.id, percent_encoding::NON_ALPHANUMERIC);
    let location = format!("/api/teams/{id}");
    Ok((StatusCode::CREATED, [(LOCATION, location)], tagged(team, Some(store::TeamRole::Admin)))
        .into_response())
}

/// Lists the teams that the caller is in.
#[utoipa::path(
    get,
    path = "/api/teams",
    operation_id = "list_teams",
    tag = "teams",
    params(Listing, Whose),
    responses((status = 200, body = TeamList), (status = 403, description = "`all` is for administrators"))
)]
async fn list(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Query(listing): Query<Listing>,
    Query(Whose { all }): Query<Whose>,
) -> Result<Json<TeamList>, Problem> {
    let page = page(listing.cursor.as_deref(), listing.limit)?;
    let found = match all {
        true => teams::list_all(&core, &caller, page).await?.map(|team| Team::new(team, None)),
        false => {
            teams::list_mine(&core, &caller, page).await?.map(|(team, role)| Team::new(team, Some(role)))
        }
    };
    Ok(Json(TeamList { teams: found.items, next_cursor: found.next.map(|next| next.encode()) }))
}

/// Gives a team that the caller is in.
#[utoipa::path(
    get,
    path = "/api/teams/{team_id}",
    operation_id = "get_team",
    tag = "teams",
    params(
        ("team_id" = String, Path, description = "The team"),
        ("If-None-Match" = Option<String>, Header, description = "The version that the caller has"),
    ),
    responses(
        (status = 200, body = Team, headers(("ETag" = String, description = "Its version"))),
        (status = 304, description = "The caller has this version"),
        (status = 404, description = "No such team, or the caller is not in it"),
    )
)]
async fn get(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (team, role) = teams::get(&core, &caller, &id).await?;
    if has_already(&headers, team.version)? {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, etag(team.version))]).into_response());
    }
    Ok(tagged(team, role).into_response())
}

/// Renames a team; for its admins.
#[utoipa::path(
    patch,
    path = "/api/teams/{team_id}",
    operation_id = "rename_team",
    tag = "teams",
    request_body = TeamChange,
    params(
        ("team_id" = String, Path, description = "The team"),
        ("If-Match" = Option<String>, Header, description = "The version that is to be changed"),
    ),
    responses(
        (status = 200, body = Team, headers(("ETag" = String, description = "Its version"))),
        (status = 403, description = "The caller is no admin of the team"),
        (status = 404, description = "No such team, or the caller is not in it"),
        (status = 412, description = "The team has another version"),
    )
)]
async fn rename(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(change): Json<TeamChange>,
) -> Result<Response, Problem> {
    let team = teams::rename(&core, &caller, &id, &change.name, if_match(&headers)?).await?;
    let role = core.store.role_in(&id, &caller.user).await.map_err(crate::core::Refusal::from)?;
    Ok(tagged(team, role).into_response())
}

/// Deletes a team, and revokes the shares whose audience it is; for its admins.
#[utoipa::path(
    delete,
    path = "/api/teams/{team_id}",
    operation_id = "delete_team",
    tag = "teams",
    params(
        ("team_id" = String, Path, description = "The team"),
        ("If-Match" = Option<String>, Header, description = "The version that is to be deleted"),
    ),
    responses(
        (status = 204, description = "Deleted"),
        (status = 403, description = "The caller is no admin of the team"),
        (status = 404, description = "No such team, or the caller is not in it"),
        (status = 412, description = "The team has another version"),
    )
)]
async fn delete(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    teams::delete(&core, &caller, &id, if_match(&headers)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the members of a team that the caller is in.
#[utoipa::path(
    get,
    path = "/api/teams/{team_id}/members",
    operation_id = "list_team_members",
    tag = "teams",
    params(("team_id" = String, Path, description = "The team"), Listing),
    responses(
        (status = 200, body = MemberList),
        (status = 404, description = "No such team, or the caller is not in it"),
    )
)]
async fn members(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Path(id): Path<String>,
    Query(listing): Query<Listing>,
) -> Result<Json<MemberList>, Problem> {
    let page = page(listing.cursor.as_deref(), listing.limit)?;
    let found = teams::members(&core, &caller, &id, page).await?.map(Member::from);
    Ok(Json(MemberList { members: found.items, next_cursor: found.next.map(|next| next.encode()) }))
}

/// Adds a member or changes their role; for admins of the team.
#[utoipa::path(
    put,
    path = "/api/teams/{team_id}/members/{user_id}",
    operation_id = "put_team_member",
    tag = "teams",
    request_body = NewRole,
    params(
        ("team_id" = String, Path, description = "The team"),
        ("user_id" = String, Path, description = "The member"),
    ),
    responses(
        (status = 200, body = Member),
        (status = 403, description = "The caller is no admin of the team"),
        (status = 404, description = "No such team or user, or the caller is not in it"),
        (status = 409, description = "The team would have no admin"),
    )
)]
async fn put_member(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Path((id, user)): Path<(String, String)>,
    Json(new): Json<NewRole>,
) -> Result<Json<Member>, Problem> {
    Ok(Json(teams::put_member(&core, &caller, &id, &user, new.role.into()).await?.into()))
}

/// Removes a member; for admins of the team, and for the member.
#[utoipa::path(
    delete,
    path = "/api/teams/{team_id}/members/{user_id}",
    operation_id = "remove_team_member",
    tag = "teams",
    params(
        ("team_id" = String, Path, description = "The team"),
        ("user_id" = String, Path, description = "The member"),
    ),
    responses(
        (status = 204, description = "Removed"),
        (status = 403, description = "The caller is no admin of the team"),
        (status = 404, description = "No such team or member, or the caller is not in it"),
        (status = 409, description = "The team would have no admin"),
    )
)]
async fn remove_member(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Path((id, user)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    teams::remove_member(&core, &caller, &id, &user).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn tagged(team: store::Team, role: Option<store::TeamRole>) -> impl IntoResponse {
    ([(ETAG, etag(team.version))], Json(Team::new(team, role)))
}
