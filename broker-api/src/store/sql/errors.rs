//! What an error of the database means to callers.

use std::io;

use super::StoreError;
use super::dialect::{self, Verdict};

/// Constraints that a request can violate: the name, which Postgres gives; the columns of a unique one, which
/// SQLite gives instead; and what is wrong with the request.
const UNIQUE: &[(&str, &str, &str)] = &[
    ("users_pkey", "users.id", "the user's id is taken"),
    ("devices_pkey", "devices.key", "the device's key is bound already, or was revoked"),
    ("sessions_pkey", "sessions.hash", "the session exists already"),
    ("teams_pkey", "teams.id", "the team's id is taken"),
    ("shared_results_pkey", "shared_results.id", "the share's id is taken"),
    ("shared_results_token", "shared_results.token_hash", "the token is taken"),
    ("api_credentials_pkey", "api_credentials.api_key", "the API key exists already"),
    ("api_secrets_pkey", "api_secrets.id", "the secret's id is taken"),
    ("signing_keys_pkey", "signing_keys.kid", "the key's id is taken"),
];

/// Every foreign key that a request can violate says, directly or not, whose something is.
pub(super) const NO_USER: &str = "the user does not exist";

/// What a unique constraint protects, by its name or its columns.
pub(super) fn unique(wanted: &str) -> Option<&'static str> {
    let found = UNIQUE.iter().find(|(name, columns, _)| *name == wanted || *columns == wanted);
    found.map(|(_, _, sentence)| *sentence)
}

/// What an error means.
pub(super) fn classify(error: sqlx::Error) -> StoreError {
    use sqlx::Error;
    match &error {
        Error::Io(_) | Error::Tls(_) | Error::PoolTimedOut | Error::PoolClosed | Error::WorkerCrashed => {
            StoreError::Unavailable(error)
        }
        Error::Database(from_server) => match dialect::verdict(from_server.as_ref()) {
            Verdict::Violates(sentence) => StoreError::Conflict(sentence),
            Verdict::Unstorable => StoreError::Invalid("a value is too long or holds what cannot be stored"),
            Verdict::Away => StoreError::Unavailable(error),
            Verdict::Unexpected => StoreError::Broken(Box::new(error)),
        },
        _ => StoreError::Broken(Box::new(error)),
    }
}

/// Whether the server closed the connection, rather than not answering on it.
pub(super) fn is_lost(error: &StoreError) -> bool {
    match error {
        StoreError::Unavailable(sqlx::Error::Io(error)) => error.kind() != io::ErrorKind::TimedOut,
        StoreError::Unavailable(sqlx::Error::Database(error)) => dialect::was_closed(error.as_ref()),
        _ => false,
    }
}
