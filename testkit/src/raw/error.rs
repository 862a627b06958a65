//! How a raw peer's step can fail; tests match on it.

use std::time::Duration;

use culvert_wire::codec::EncodeError;
use culvert_wire::{Close, Frame, JoinRefusal};
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// Why a step of a raw peer failed.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// TCP or TLS.
    #[error("connection: {0}")]
    Io(#[source] std::io::Error),
    /// The answer to the upgrade was not 101.
    #[error("upgrade answered with status {0}")]
    Status(u16),
    /// The WebSocket layer of the other side is broken, or ours was asked for something impossible.
    #[error("websocket: {0}")]
    WebSocket(#[source] Box<WsError>),
    /// A message came that is no frame.
    #[error("not a frame: {0}")]
    NoFrame(String),
    /// A frame that this side wanted to send cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The relay closed with a code.
    #[error("closed with {code}: {reason}")]
    Closed {
        /// The WebSocket close code.
        code: u16,
        /// Its sentence.
        reason: String,
    },
    /// The connection ended without a close frame.
    #[error("dropped without a close frame")]
    Dropped(#[source] Option<std::io::Error>),
    /// Nothing happened in time.
    #[error("waited {deadline:?} for {what}")]
    Deadline {
        /// For what.
        what: &'static str,
        /// How long.
        deadline: Duration,
    },
    /// The join was refused.
    #[error("join refused: {}", .0.name())]
    Refused(JoinRefusal),
    /// Another frame came than the protocol's next one.
    #[error("unexpected frame {0:?}")]
    Unexpected(Box<Frame>),
}

impl RawError {
    /// The close code of the protocol's table, where the relay closed with one.
    pub fn close(&self) -> Option<Close> {
        match self {
            RawError::Closed { code, .. } => Close::from_code(*code),
            _ => None,
        }
    }

    /// Whether the connection is over, with or without a word.
    pub fn is_end(&self) -> bool {
        matches!(self, RawError::Closed { .. } | RawError::Dropped(_) | RawError::Io(_))
    }

    pub(super) fn closed(frame: Option<CloseFrame>) -> Self {
        match frame {
            Some(frame) => {
                RawError::Closed { code: frame.code.into(), reason: frame.reason.as_str().to_owned() }
            }
            // 1005 by RFC 6455 section 7.1.5: a close frame without a code.
            None => RawError::Closed { code: 1005, reason: String::new() },
        }
    }
}

impl From<WsError> for RawError {
    fn from(error: WsError) -> Self {
        use tokio_tungstenite::tungstenite::error::ProtocolError;
        match error {
            WsError::Io(error) => RawError::Dropped(Some(error)),
            WsError::ConnectionClosed
            | WsError::AlreadyClosed
            | WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => RawError::Dropped(None),
            WsError::Http(response) => RawError::Status(response.status().as_u16()),
            other => RawError::WebSocket(Box::new(other)),
        }
    }
}
