//! What operators see. A doc comment is the help text; `docs/metrics.md` is generated from it.

mod route;

pub use route::{Class, Route};

use culvert_broker_wire::ErrorCode;

use crate::identity::{Entrance, Verdict};
use crate::ws::{Close, Kind, Pushed};

/// Why a connection ended before its first request was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The broker has as many connections as it may.
    Full,
    /// The PROXY protocol header is missing or malformed.
    ProxyProtocol,
    /// The TLS handshake ended with an error.
    Tls,
    /// The head of the first request is not HTTP, too long, or broke off.
    Http,
    /// The handshake was not finished in time.
    Timeout,
}

impl Refused {
    /// Every reason.
    pub const ALL: &'static [Refused] =
        &[Refused::Full, Refused::ProxyProtocol, Refused::Tls, Refused::Http, Refused::Timeout];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            Refused::Full => "full",
            Refused::ProxyProtocol => "proxy_protocol",
            Refused::Tls => "tls",
            Refused::Http => "http",
            Refused::Timeout => "timeout",
        }
    }
}

/// What a broker needs from elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// Postgres, or the SQLite file.
    Database,
    /// Redis, or this process's memory.
    Live,
}

impl Backend {
    /// Both.
    pub const ALL: &'static [Backend] = &[Backend::Database, Backend::Live];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            Backend::Database => "database",
            Backend::Live => "live",
        }
    }
}

/// What a connection to the database is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lent {
    /// It is lent to a request.
    Busy,
    /// It is open and waits for one.
    Idle,
}

impl Lent {
    /// Both.
    pub const ALL: &'static [Lent] = &[Lent::Busy, Lent::Idle];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            Lent::Busy => "busy",
            Lent::Idle => "idle",
        }
    }
}

culvert_service_kit::metric_set! {
    /// Series of the broker.
    pub struct Metrics {
        /// WebSocket connections open now.
        pub connections: gauge "culvert_broker_connections",
        /// Messages of WebSockets, by their type.
        pub messages: counter "culvert_broker_messages_total" { type: Kind = Kind::ALL, Kind::name },
        /// Errors answered to messages of WebSockets, or told before a close, by their code.
        pub errors: counter "culvert_broker_errors_total" {
            code: ErrorCode = ErrorCode::ALL, ErrorCode::name
        },
        /// Events pushed to WebSockets, by their type.
        pub events: counter "culvert_broker_events_total" { type: Pushed = Pushed::ALL, Pushed::name },
        /// Events that nobody was told of, because they came faster than they could be told.
        pub events_missed: counter "culvert_broker_events_missed_total",
        /// WebSockets that ended, by the reason.
        pub closes: counter "culvert_broker_closes_total" { reason: Close = Close::ALL, Close::name },
        /// TCP connections open now, those of WebSockets included.
        pub tcp_connections: gauge "culvert_broker_tcp_connections",
        /// Most of them, of max-connections.
        pub most_connections: gauge "culvert_broker_tcp_connections_limit",
        /// TCP connections accepted.
        pub accepted: counter "culvert_broker_accepted_total",
        /// Connections that ended before their first request was answered, by the reason.
        pub refused: counter "culvert_broker_refused_total" { reason: Refused = Refused::ALL, Refused::name },
        /// Pauses because connections could not be accepted, mostly for want of file descriptors.
        pub accept_pauses: counter "culvert_broker_accept_pauses_total",
        /// Requests answered, by what they were about and the class of the status. A WebSocket is one
        /// request.
        pub requests: counter "culvert_broker_requests_total" {
            route: Route = Route::ALL, Route::name; status: Class = Class::ALL, Class::name
        },
        /// From the head of a request to the head of its answer.
        pub request_seconds: histogram "culvert_broker_request_seconds" {
            route: Route = Route::ALL, Route::name
        },
        /// Requests to the API refused because their user or source sent too many.
        pub rate_limited: counter "culvert_broker_rate_limited_total",
        /// Grants to download that were given out.
        pub grants: counter "culvert_broker_grants_total",
        /// Shares that were asked for and not given: unknown, not for the requester, ended or used up.
        pub denials: counter "culvert_broker_share_denials_total",
        /// Whether what the broker needs answers, asked once a second: 1 or 0.
        pub backend_up: gauge "culvert_broker_backend_up" { backend: Backend = Backend::ALL, Backend::name },
        /// Times that it did not answer when asked.
        pub backend_failures: counter "culvert_broker_backend_failures_total" {
            backend: Backend = Backend::ALL, Backend::name
        },
        /// Open connections to the database, by what they do; looked at once a second.
        pub database_connections: gauge "culvert_broker_database_connections" { state: Lent = Lent::ALL, Lent::name },
        /// Most of them, of database-connections.
        pub most_database_connections: gauge "culvert_broker_database_connections_limit",
        /// Requests that wait for a connection to the database; looked at once a second.
        pub database_waiting: gauge "culvert_broker_database_waiting",
        /// Entries that could not be written to the audit log; what they were about was refused.
        pub audit_failures: counter "culvert_broker_audit_failures_total",
        /// When a signing key has to follow the newest, in seconds since 1970. It is made before, so this is in
        /// the future.
        pub next_key_due: gauge "culvert_broker_signing_key_due_timestamp_seconds",
        /// Proofs of identity, by the way in and whether they proved it. A session counts with every request.
        pub logins: counter "culvert_broker_logins_total" {
            way: Entrance = Entrance::ALL, Entrance::name; verdict: Verdict = Verdict::ALL, Verdict::name
        },
        /// Passwords and other proofs refused unchecked, because there were too many wrong ones.
        pub guesses_refused: counter "culvert_broker_guesses_refused_total",
    }
}
