//! `/api/relay-tickets` and `/api/relay-revocations`: who may use the relays.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use culvert_broker_wire::Timestamp;
use culvert_relay::admission::Revoked;
use culvert_wire::PeerId;
use culvert_wire::ticket::{TicketLimits, Topics};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Json, Known};
use super::problem::Problem;
use crate::core::Core;
use crate::domain::tickets::{self, Wanted};

pub(super) fn creating() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new().routes(routes!(issue))
}

pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new().routes(routes!(revoke))
}

/// A ticket to be issued.
#[derive(Debug, Deserialize, ToSchema)]
struct NewTicket {
    /// The caller's key, 64 hexadecimal digits, which the relay asks to prove.
    #[schema(value_type = String)]
    peer_id: PeerId,
    /// The topics it opens, 64 hexadecimal digits each; for administrators also `"*"`.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    topics: Option<Topics>,
    /// Tokens of shares that the caller may download: it opens the topics where their owners wait now.
    #[serde(default)]
    shares: Vec<String>,
    /// How long it lasts; an hour when left out.
    #[serde(default)]
    #[schema(minimum = 1)]
    lifetime_seconds: Option<u64>,
    /// Limits narrower than the relay's own.
    #[serde(default)]
    #[schema(value_type = Option<RelayLimits>)]
    limits: TicketLimits,
}

/// Limits of a ticket; those that are left out are the relay's.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code, reason = "describes culvert_wire::ticket::TicketLimits, which knows nothing of OpenAPI")]
struct RelayLimits {
    /// Frames a second that one connection may send.
    frames_per_second: Option<u32>,
    /// Payload bytes a second that one connection may send.
    bytes_per_second: Option<u64>,
    /// Topics that one connection may be in at once.
    topics: Option<u16>,
    /// Connections that the peer may have on one node at once.
    connections: Option<u32>,
}

/// A ticket for the relays.
#[derive(Serialize, ToSchema)]
struct IssuedTicket {
    /// A JSON Web Token, to be presented to the relay as it is.
    ticket: String,
    /// Its id, by which it can be revoked.
    id: String,
    /// Until when it admits.
    expires_at: Timestamp,
    /// The topics that it opens: a list, or `"*"`.
    #[schema(value_type = Object)]
    topics: Topics,
    /// The relays of this institution, the first to be preferred.
    relays: Vec<String>,
}

/// What is to be revoked.
#[derive(Debug, Deserialize, ToSchema)]
struct Revocation {
    /// Tickets, by their ids.
    #[serde(default)]
    tickets: Vec<String>,
    /// Keys, with every ticket that is bound to them.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    peers: Vec<PeerId>,
}

/// What was revoked.
#[derive(Debug, Serialize, ToSchema)]
struct Revocations {
    /// How much.
    revoked: usize,
    /// Until when the relays remember: longer than any ticket that was issued before can last.
    until: Timestamp,
}

/// Signs a ticket with which a key of the caller's may use the relays.
#[utoipa::path(
    post,
    path = "/api/relay-tickets",
    operation_id = "issue_relay_ticket",
    tag = "relays",
    request_body = NewTicket,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to repeat the request")),
    responses(
        (status = 201, body = IssuedTicket),
        (status = 403, description = "The key is somebody else's, or every topic was asked for"),
        (status = 404, description = "The caller may not download one of the shares"),
        (status = 409, description = "The `Idempotency-Key` is in use"),
    )
)]
async fn issue(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Json(new): Json<NewTicket>,
) -> Result<Response, Problem> {
    let wanted = Wanted {
        peer: new.peer_id,
        topics: new.topics.unwrap_or(Topics::Only(Vec::new())),
        shares: new.shares,
        lifetime: new.lifetime_seconds,
        limits: new.limits,
    };
    let tickets::Ticket { ticket, claims } = tickets::issue(&core, &caller, wanted).await?;
    let body = IssuedTicket {
        ticket,
        id: claims.jti,
        expires_at: Timestamp::from_unix_seconds(claims.exp),
        topics: claims.topics,
        relays: core.config.relays.clone(),
    };
    Ok((StatusCode::CREATED, [(CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

/// Revokes tickets and keys at every relay, which cuts their connections: one's own, or anybody's for
/// administrators.
#[utoipa::path(
    post,
    path = "/api/relay-revocations",
    operation_id = "revoke_at_relays",
    tag = "relays",
    request_body = Revocation,
    responses(
        (status = 200, body = Revocations),
        (status = 403, description = "One of them is not the caller's"),
        (status = 409, description = "This broker reaches no relay"),
    )
)]
async fn revoke(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Json(revocation): Json<Revocation>,
) -> Result<Json<Revocations>, Problem> {
    let tickets = revocation.tickets.into_iter().map(Revoked::Ticket);
    let revoked: Vec<_> = tickets.chain(revocation.peers.into_iter().map(Revoked::Peer)).collect();
    let count = revoked.len();
    let until = tickets::revoke(&core, &caller, revoked).await?;
    Ok(Json(Revocations { revoked: count, until }))
}
