//! Error codes, the same over WebSocket and REST.

use serde::{Deserialize, Serialize};

/// Why something was refused. The text is part of the interface and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// The message is not JSON, or not one of the messages.
    ParseError,
    /// A field is too long, empty, or of the wrong form.
    InvalidInput,
    /// Nothing says who is there.
    AuthRequired,
    /// What was presented does not prove it.
    AuthFailed,
    /// Known, but not allowed.
    Forbidden,
    /// No such user, or not registered on this connection.
    UserNotFound,
    /// The share was not published.
    PublishError,
    /// No such share, or none that the requester may know of.
    ShareNotFound,
    /// The share exists, and the requester may know that, but not use it.
    AccessDenied,
    /// Whether access is allowed could not be found out.
    AccessCheckError,
    /// The share was not revoked.
    RevokeError,
    /// The list could not be made.
    ListError,
    /// There is no backup, or none of that version.
    BackupNotFound,
    /// The backup was not stored.
    BackupError,
    /// No such thing, or none that the requester may know of.
    NotFound,
    /// It exists already, or is not what the condition said.
    Conflict,
    /// The condition of the request does not hold any more.
    PreconditionFailed,
    /// Larger than allowed.
    TooLarge,
    /// Too many requests; try again later.
    RateLimited,
    /// The broker has as many connections as it may.
    ServerFull,
    /// A store that the broker needs does not answer.
    Unavailable,
    /// Not offered here.
    NotImplemented,
    /// The broker's own fault.
    Internal,
}

impl ErrorCode {
    /// The code as it is sent.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ParseError => "PARSE_ERROR",
            Self::InvalidInput => "INVALID_INPUT",
            Self::AuthRequired => "AUTH_REQUIRED",
            Self::AuthFailed => "AUTH_FAILED",
            Self::Forbidden => "FORBIDDEN",
            Self::UserNotFound => "USER_NOT_FOUND",
            Self::PublishError => "PUBLISH_ERROR",
            Self::ShareNotFound => "SHARE_NOT_FOUND",
            Self::AccessDenied => "ACCESS_DENIED",
            Self::AccessCheckError => "ACCESS_CHECK_ERROR",
            Self::RevokeError => "REVOKE_ERROR",
            Self::ListError => "LIST_ERROR",
            Self::BackupNotFound => "BACKUP_NOT_FOUND",
            Self::BackupError => "BACKUP_ERROR",
            Self::NotFound => "NOT_FOUND",
            Self::Conflict => "CONFLICT",
            Self::PreconditionFailed => "PRECONDITION_FAILED",
            Self::TooLarge => "TOO_LARGE",
            Self::RateLimited => "RATE_LIMITED",
            Self::ServerFull => "SERVER_FULL",
            Self::Unavailable => "UNAVAILABLE",
            Self::NotImplemented => "NOT_IMPLEMENTED",
            Self::Internal => "INTERNAL",
        }
    }

    /// Every code.
    pub const ALL: &'static [ErrorCode] = &[
        Self::ParseError,
        Self::InvalidInput,
        Self::AuthRequired,
        Self::AuthFailed,
        Self::Forbidden,
        Self::UserNotFound,
        Self::PublishError,
        Self::ShareNotFound,
        Self::AccessDenied,
        Self::AccessCheckError,
        Self::RevokeError,
        Self::ListError,
        Self::BackupNotFound,
        Self::BackupError,
        Self::NotFound,
        Self::Conflict,
        Self::PreconditionFailed,
        Self::TooLarge,
        Self::RateLimited,
        Self::ServerFull,
        Self::Unavailable,
        Self::NotImplemented,
        Self::Internal,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_serde_writes() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
        }
    }
}
