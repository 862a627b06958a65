//! Why there is no connection to a relay, and whether to try again.

use culvert_wire::{Close, VERSION};

use crate::dial::DialError;

/// Why there is no connection to the relay, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It could not be dialled.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// No ticket could be had.
    #[error("no admission ticket: {0}")]
    Admission(String),
    /// It did not finish its side of the handshake in time.
    #[error("the relay did not {0} in time")]
    Silent(&'static str),
    /// It speaks no version that this client speaks.
    #[error(
        "the relay speaks protocol versions {0:?} and this client speaks {VERSION}; update the older of the two"
    )]
    Version(Vec<u16>),
    /// It sent something that the protocol does not allow there.
    #[error("the relay broke the protocol: {0}")]
    Protocol(String),
    /// It does not open this topic to this peer.
    #[error(
        "the relay does not open this topic to this peer; ask for a ticket or an invitation that names it"
    )]
    TopicNotAllowed,
    /// It has no room for this topic now.
    #[error("the relay refused the topic ({0}); try again later")]
    TopicRefused(&'static str),
    /// It closed the connection and said why.
    #[error("{}", closed_because(*.code, .reason))]
    Closed {
        /// The WebSocket close code.
        code: u16,
        /// The sentence that came with it.
        reason: String,
    },
    /// The connection broke.
    #[error("the connection to the relay broke: {0}")]
    Broke(String),
}

impl LinkError {
    /// Whether trying again later can help, nothing here having changed.
    pub fn may_reconnect(&self) -> bool {
        match self {
            LinkError::Dial(error) => error.is_transient(),
            LinkError::Closed { code, .. } => Close::code_may_reconnect(*code),
            LinkError::Version(_) | LinkError::TopicNotAllowed => false,
            LinkError::TopicRefused(_)
            | LinkError::Admission(_)
            | LinkError::Silent(_)
            | LinkError::Protocol(_)
            | LinkError::Broke(_) => true,
        }
    }
}

/// The known code's own sentence; a stranger's words only where the code is unknown.
fn closed_because(code: u16, reason: &str) -> String {
    match Close::from_code(code) {
        Some(close) => format!("{} ({})", close.sentence(), close.name()),
        None if reason.is_empty() => format!("the relay closed the connection with code {code}"),
        None => format!("the relay closed the connection with code {code}: {reason}"),
    }
}
