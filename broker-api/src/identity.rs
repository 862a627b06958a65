//! Who is there.

use std::sync::Arc;

use axum::http::HeaderMap;
use culvert_broker_wire::ErrorCode;
use culvert_broker_wire::message::RegisterUser;

use crate::config::Config;
use crate::core::{Caller, Core, Refusal, Visitor};
use crate::live::Live;
use crate::seal::Sealer;
use crate::store::Store;

/// Who is who.
pub struct Identity {}

/// The broker cannot tell who is who.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The database does not answer.
    #[error("the database does not give the broker's secrets")]
    Store(#[from] crate::store::StoreError),
}

impl Identity {
    /// Makes ready whatever the configured ways in need.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub async fn load(
        _config: &Config,
        _store: &dyn Store,
        _live: &Arc<dyn Live>,
        _sealer: &Sealer,
    ) -> Result<Self, LoadError> {
        Ok(Self {})
    }
}

fn later() -> Refusal {
    Refusal::new(ErrorCode::NotImplemented, "being written")
}

/// Who a request proves to be there by its headers; `None` if it presents nothing.
///
/// # Errors
/// What is presented does not prove it, or cannot be checked now.
pub async fn from_headers(
    _core: &Core,
    _visitor: Visitor,
    _headers: &HeaderMap,
    _body: &[u8],
) -> Result<Option<Caller>, Refusal> {
    Err(later())
}

/// A challenge for a device to sign, once, within a minute.
///
/// # Errors
/// It cannot be kept now.
pub async fn challenge(_core: &Core) -> Result<String, Refusal> {
    Err(later())
}

/// Who registers on a WebSocket; `upgrade` is who its upgrade proved to be there.
///
/// # Errors
/// Nothing proves it, or something else is claimed than proven.
pub async fn register(
    _core: &Core,
    _visitor: Visitor,
    _upgrade: Option<&Caller>,
    _register: &RegisterUser,
) -> Result<Caller, Refusal> {
    Err(later())
}

/// Whether what a caller proved still holds: not logged out, suspended, removed or revoked since.
///
/// # Errors
/// It cannot be checked now.
pub async fn still_valid(_core: &Core, _caller: &Caller) -> Result<bool, Refusal> {
    Err(later())
}
