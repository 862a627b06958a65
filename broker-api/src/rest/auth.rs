//! `/api/auth`. Being written.

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use crate::core::Core;

/// Nothing yet.
pub fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new()
}
