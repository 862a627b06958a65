//! How a topic ends that the relay does not let this peer back into.

use std::sync::{Arc, OnceLock};

use culvert_wire::Close;

use super::link::LinkError;

/// Why the relay does not let this peer back in. Its text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct RelayEnd {
    /// The relay's close code, where it closed the connection with one that this version knows.
    pub close: Option<Close>,
    /// The sentence.
    pub reason: String,
}

/// Where the driver of a topic leaves its end for whoever holds the transport.
pub(crate) type EndCell = Arc<OnceLock<RelayEnd>>;

impl RelayEnd {
    pub(crate) fn of(error: &LinkError) -> Self {
        let close = match error {
            LinkError::Closed { code, .. } => Close::from_code(*code),
            _ => None,
        };
        Self { close, reason: error.to_string() }
    }
}
