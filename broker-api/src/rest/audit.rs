//! `/api/audit`: the audit log, for administrators.

use std::sync::Arc;

use axum::extract::State;
use culvert_broker_wire::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Json, Known, Listing, Query};
use super::problem::Problem;
use crate::core::{Core, Refusal};
use crate::domain::{audit, page};
use crate::store::{self, AuditFilter, Outcome};

pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Which entries are wanted; what is left out is any.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// By whom.
    actor: Option<String>,
    /// What, by its stable name, such as `share_requested`.
    action: Option<String>,
    /// To what.
    subject: Option<String>,
    /// Not before.
    since: Option<Timestamp>,
}

/// Something that was done, or tried.
#[derive(Debug, Serialize, ToSchema)]
struct AuditEntry {
    /// Its number; later entries have larger ones.
    id: String,
    /// When.
    at: Timestamp,
    /// Who; absent if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
    /// What.
    action: String,
    /// To what.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// `done` or `denied`.
    outcome: String,
    /// Address it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// Whatever else is worth knowing.
    #[schema(value_type = Object)]
    detail: serde_json::Value,
}

impl From<store::AuditEntry> for AuditEntry {
    fn from(entry: store::AuditEntry) -> Self {
        let store::AuditEntry { id, at, record } = entry;
        let outcome = match record.outcome {
            Outcome::Done => "done",
            Outcome::Denied => "denied",
        };
        Self {
            id,
            at,
            actor: record.actor,
            action: record.action.name().to_owned(),
            subject: record.subject,
            outcome: outcome.to_owned(),
            source: record.source,
            detail: record.detail,
        }
    }
}

/// A part of the audit log, newest first.
#[derive(Debug, Serialize, ToSchema)]
struct AuditList {
    /// The entries.
    entries: Vec<AuditEntry>,
    /// Where the list goes on; absent at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Lists what was done and tried; for administrators.
#[utoipa::path(
    get,
    path = "/api/audit",
    operation_id = "list_audit",
    tag = "audit",
    params(Listing, Filter),
    responses((status = 200, body = AuditList), (status = 403, description = "For administrators"))
)]
async fn list(
    State(core): State<Arc<Core>>,
    Known(caller): Known,
    Query(listing): Query<Listing>,
    Query(filter): Query<Filter>,
) -> Result<Json<AuditList>, Problem> {
    let page = page(listing.cursor.as_deref(), listing.limit)?;
    let Filter { actor, action, subject, since } = filter;
    for (field, text) in [("actor", &actor), ("subject", &subject)] {
        if text.as_ref().is_some_and(|text| text.contains('\0')) {
            let text = format!("`{field}` must not contain NUL");
            return Err(Refusal::new(culvert_broker_wire::ErrorCode::InvalidInput, text).into());
        }
    }
    let action = action.map(|name| audit::action(&name)).transpose()?;
    let filter = AuditFilter { actor, action, subject, since };
    let found = audit::entries(&core, &caller, filter, page).await?.map(AuditEntry::from);
    Ok(Json(AuditList { entries: found.items, next_cursor: found.next.map(|next| next.encode()) }))
}
