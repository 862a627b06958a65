//! What a request was about and how it ended, as labels.

use hyper::StatusCode;

/// What a request was about: the first parts of its path, never an id in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// One share, by its token.
    Share,
    /// The list of shares, and publication.
    Shares,
    /// Teams and their members.
    Teams,
    /// Users and devices.
    Users,
    /// Who is online.
    Presence,
    /// Backups.
    Backups,
    /// API credentials.
    Credentials,
    /// Login and everything before it.
    Auth,
    /// The audit log.
    Audit,
    /// Tickets and revocations for relays.
    Relays,
    /// The WebSocket.
    WebSocket,
    /// Health, information, public keys, the description of the API.
    Information,
    /// Everything else.
    Other,
}

impl Route {
    /// Every one.
    pub const ALL: &'static [Route] = &[
        Route::Share,
        Route::Shares,
        Route::Teams,
        Route::Users,
        Route::Presence,
        Route::Backups,
        Route::Credentials,
        Route::Auth,
        Route::Audit,
        Route::Relays,
        Route::WebSocket,
        Route::Information,
        Route::Other,
    ];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            Route::Share => "share",
            Route::Shares => "shares",
            Route::Teams => "teams",
            Route::Users => "users",
            Route::Presence => "presence",
            Route::Backups => "backups",
            Route::Credentials => "credentials",
            Route::Auth => "auth",
            Route::Audit => "audit",
            Route::Relays => "relays",
            Route::WebSocket => "websocket",
            Route::Information => "information",
            Route::Other => "other",
        }
    }

    /// That of a path.
    pub fn of(path: &str) -> Self {
        let Some(rest) = path.strip_prefix("/api/") else {
            return match path {
                "/ws" => Route::WebSocket,
                "/" | "/health" | "/openapi.json" => Route::Information,
                _ if path.starts_with("/.well-known/") => Route::Information,
                _ => Route::Other,
            };
        };
        let mut parts = rest.split('/').filter(|part| !part.is_empty());
        match (parts.next(), parts.next()) {
            (Some("shares"), None) | (Some("shared-with-me"), _) => Route::Shares,
            (Some("shares"), Some(_)) => Route::Share,
            (Some("teams"), _) => Route::Teams,
            (Some("users"), _) => Route::Users,
            (Some("presence"), _) => Route::Presence,
            (Some("backups"), _) => Route::Backups,
            (Some("credentials"), _) => Route::Credentials,
            (Some("auth"), _) => Route::Auth,
            (Some("audit"), _) => Route::Audit,
            (Some("relay-tickets" | "relay-revocations"), _) => Route::Relays,
            (Some("info"), _) => Route::Information,
            _ => Route::Other,
        }
    }
}

/// How a request ended: the class of its status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Below 300; the switch to a WebSocket too.
    Success,
    /// From 300 to 399.
    Redirection,
    /// From 400 to 499, except 429.
    Refusal,
    /// 429: over a rate.
    Throttled,
    /// 503: a store does not answer.
    Unavailable,
    /// Every other one from 500, which is a defect.
    Error,
}

impl Class {
    /// Every one.
    pub const ALL: &'static [Class] = &[
        Class::Success,
        Class::Redirection,
        Class::Refusal,
        Class::Throttled,
        Class::Unavailable,
        Class::Error,
    ];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Success => "success",
            Class::Redirection => "redirection",
            Class::Refusal => "refusal",
            Class::Throttled => "throttled",
            Class::Unavailable => "unavailable",
            Class::Error => "error",
        }
    }

    /// That of a status.
    pub fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            ..300 => Class::Success,
            300..400 => Class::Redirection,
            429 => Class::Throttled,
            503 => Class::Unavailable,
            400..500 => Class::Refusal,
            500.. => Class::Error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_counts_by_its_kind_and_never_by_its_ids() {
        for (path, route) in [
            ("/api/shares", Route::Shares),
            ("/api/shared-with-me", Route::Shares),
            ("/api/shares/AAAAAAAAAAAAAAAAAAAAAA", Route::Share),
            ("/api/shares/AAAAAAAAAAAAAAAAAAAAAA/accesses", Route::Share),
            ("/api/teams/t/members/alice", Route::Teams),
            ("/api/backups/me", Route::Backups),
            ("/api/relay-tickets", Route::Relays),
            ("/api/info", Route::Information),
            ("/.well-known/jwks.json", Route::Information),
            ("/ws", Route::WebSocket),
            ("/api", Route::Other),
            ("/api/nonsense", Route::Other),
            ("", Route::Other),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }

    #[test]
    fn every_path_of_the_api_counts_as_something() {
        let document: serde_json::Value = serde_json::from_str(&crate::rest::openapi_json()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        assert!(paths.len() > 10);
        for path in paths.keys() {
            assert_ne!(Route::of(path), Route::Other, "{path}");
        }
    }

    #[test]
    fn every_status_has_a_class() {
        for (status, class) in [
            (101, Class::Success),
            (200, Class::Success),
            (304, Class::Redirection),
            (404, Class::Refusal),
            (429, Class::Throttled),
            (500, Class::Error),
            (503, Class::Unavailable),
        ] {
            assert_eq!(Class::of(StatusCode::from_u16(status).unwrap()), class, "{status}");
        }
    }
}
