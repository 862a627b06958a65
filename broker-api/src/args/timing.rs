//! How long things may take and last, and how the broker goes away.

use std::time::Duration;

use culvert_relay::config::Drain;
use culvert_service_kit::config::{Given, Problems};

use super::Seconds;
use crate::config::Timing;

/// Settings of [`Timing`] and [`Drain`].
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Timing")]
pub struct TimingArgs {
    /// From accept to the head of the first request: PROXY header and TLS together.
    #[arg(long, env = "CULVERT_BROKER_HANDSHAKE_TIMEOUT", value_name = "DURATION", default_value = "10s")]
    pub handshake_timeout: Given<Duration>,
    /// How long a connection may be without a request. WebSockets are not.
    #[arg(long, env = "CULVERT_BROKER_KEEP_ALIVE", value_name = "DURATION", default_value = "75s")]
    pub keep_alive: Given<Duration>,
    /// One request, from its head to the head of its answer.
    #[arg(long, env = "CULVERT_BROKER_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "30s")]
    pub request_timeout: Given<Duration>,
    /// Silence on a WebSocket after which its user counts as offline and it is closed; also how long users
    /// of a replica that was killed count as online.
    #[arg(long, env = "CULVERT_BROKER_HEARTBEAT_TIMEOUT", value_name = "DURATION", default_value = "300s")]
    pub heartbeat_timeout: Given<Seconds>,
    /// How long a client may take nothing of what is written to it, or pause in the body of a request.
    #[arg(long, env = "CULVERT_BROKER_WRITE_TIMEOUT", value_name = "DURATION", default_value = "10s")]
    pub write_timeout: Given<Duration>,
    /// Longest wait for one answer of the database or of Redis.
    #[arg(long, env = "CULVERT_BROKER_BACKEND_TIMEOUT", value_name = "DURATION", default_value = "5s")]
    pub backend_timeout: Given<Duration>,
    /// How long a login lasts.
    #[arg(long, env = "CULVERT_BROKER_SESSION_LIFE", value_name = "DURATION", default_value = "12h")]
    pub session_life: Given<Duration>,
    /// How long a grant to download lasts.
    #[arg(long, env = "CULVERT_BROKER_GRANT_LIFE", value_name = "DURATION", default_value = "5m")]
    pub grant_life: Given<Duration>,
    /// How long a ticket for the relays lasts, at most; the relays have a limit of their own.
    #[arg(long, env = "CULVERT_BROKER_TICKET_LIFE", value_name = "DURATION", default_value = "8h")]
    pub ticket_life: Given<Duration>,
    /// How long a key signs grants and tickets before the next one does.
    #[arg(long, env = "CULVERT_BROKER_KEY_ROTATION", value_name = "DURATION", default_value = "30d")]
    pub key_rotation: Given<Duration>,
    /// How long answers are kept for requests that are repeated with the same Idempotency-Key.
    #[arg(long, env = "CULVERT_BROKER_IDEMPOTENCY_LIFE", value_name = "DURATION", default_value = "24h")]
    pub idempotency_life: Given<Duration>,

    /// From red readiness to the first connection that is ended, for balancers to notice.
    #[arg(long, env = "CULVERT_BROKER_DRAIN_DELAY", value_name = "DURATION", default_value = "5s")]
    #[arg(help_heading = "Drain")]
    pub drain_delay: Given<Duration>,
    /// Over which the ends of WebSockets are smeared.
    #[arg(long, env = "CULVERT_BROKER_DRAIN_WINDOW", value_name = "DURATION", default_value = "10s")]
    #[arg(help_heading = "Drain")]
    pub drain_window: Given<Duration>,
    /// For requests still under way after the window, and again after everything was closed. A supervisor
    /// has to allow drain-delay, drain-window and twice this before it kills the process.
    #[arg(long, env = "CULVERT_BROKER_DRAIN_GRACE", value_name = "DURATION", default_value = "5s")]
    #[arg(help_heading = "Drain")]
    pub drain_grace: Given<Duration>,
}

/// Shorter ones would be lost to a pause of a machine, and a client could hardly keep them.
const LEAST_HEARTBEAT: Duration = Duration::from_secs(2);

impl TimingArgs {
    pub(super) fn timing(&self, problems: &mut Problems) -> Option<Timing> {
        problems.require_less(&self.backend_timeout, &self.request_timeout);
        problems.require_less(&self.grant_life, &self.key_rotation);
        problems.require_less(&self.ticket_life, &self.key_rotation);
        let heartbeat =
            problems.read_checked(&self.heartbeat_timeout, "at least 2s", |time| time.0 >= LEAST_HEARTBEAT);
        let mut positive =
            |given: &Given<Duration>| problems.read_checked(given, "more than 0s", |time| !time.is_zero());
        let handshake = positive(&self.handshake_timeout);
        let keep_alive = positive(&self.keep_alive);
        let request = positive(&self.request_timeout);
        let write = positive(&self.write_timeout);
        let backend = positive(&self.backend_timeout);
        let session = positive(&self.session_life);
        let grant = positive(&self.grant_life);
        let ticket = positive(&self.ticket_life);
        let key_rotation = positive(&self.key_rotation);
        let idempotency = positive(&self.idempotency_life);
        Some(Timing {
            handshake: handshake?,
            request: request?,
            keep_alive: keep_alive?,
            heartbeat_timeout: heartbeat?.0,
            write: write?,
            session: session?,
            grant: grant?,
            ticket: ticket?,
            key_rotation: key_rotation?,
            idempotency: idempotency?,
            backend: backend?,
        })
    }

    pub(super) fn drain(&self, problems: &mut Problems) -> Option<Drain> {
        let delay = problems.read(&self.drain_delay);
        let window = problems.read(&self.drain_window);
        let grace = problems.read_checked(&self.drain_grace, "more than 0s", |time| !time.is_zero());
        Some(Drain { delay: delay?, window: window?, grace: grace? })
    }
}
