//! How long things may take, and how the node goes away.

use std::time::Duration;

use culvert_service_kit::config::{Given, Problems};

use crate::config::{Drain, Timing};

/// Settings of [`Timing`] and [`Drain`].
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Timing")]
pub struct TimingArgs {
    /// From accept to welcome: PROXY header, TLS, upgrade and hello together.
    #[arg(long, env = "CULVERT_RELAY_HANDSHAKE_TIMEOUT", value_name = "DURATION", default_value = "10s")]
    pub handshake_timeout: Given<Duration>,
    /// Silence after which a peer should give a sign of life. Some balancers cut at 30 s.
    #[arg(long, env = "CULVERT_RELAY_KEEPALIVE", value_name = "DURATION", default_value = "15s")]
    pub keepalive: Given<Duration>,
    /// Silence after which a peer is closed; more than keepalive.
    #[arg(long, env = "CULVERT_RELAY_IDLE_TIMEOUT", value_name = "DURATION", default_value = "45s")]
    pub idle_timeout: Given<Duration>,
    /// How long a peer may take nothing of what is written to it before it is closed as slow.
    #[arg(long, env = "CULVERT_RELAY_WRITE_TIMEOUT", value_name = "DURATION", default_value = "30s")]
    pub write_timeout: Given<Duration>,
    /// How long before its admission ends a peer is told.
    #[arg(long, env = "CULVERT_RELAY_EXPIRY_NOTICE", value_name = "DURATION", default_value = "5m")]
    pub expiry_notice: Given<Duration>,

    /// From red readiness to the first peer that is sent away, for balancers to notice.
    #[arg(long, env = "CULVERT_RELAY_DRAIN_DELAY", value_name = "DURATION", default_value = "5s")]
    #[arg(help_heading = "Drain")]
    pub drain_delay: Given<Duration>,
    /// Over which the departures of peers are smeared.
    #[arg(long, env = "CULVERT_RELAY_DRAIN_WINDOW", value_name = "DURATION", default_value = "20s")]
    #[arg(help_heading = "Drain")]
    pub drain_window: Given<Duration>,
    /// For peers still there after the window, and again after they were closed. A supervisor has to allow
    /// drain-delay, drain-window and twice this before it kills the process.
    #[arg(long, env = "CULVERT_RELAY_DRAIN_GRACE", value_name = "DURATION", default_value = "5s")]
    #[arg(help_heading = "Drain")]
    pub drain_grace: Given<Duration>,
}

impl TimingArgs {
    pub(super) fn timing(&self, problems: &mut Problems) -> Option<Timing> {
        problems.require_less(&self.keepalive, &self.idle_timeout);
        let mut positive =
            |given: &Given<Duration>| problems.read_checked(given, "more than 0s", |time| !time.is_zero());
        let handshake = positive(&self.handshake_timeout);
        let keepalive = positive(&self.keepalive);
        let idle = positive(&self.idle_timeout);
        let write = positive(&self.write_timeout);
        let expiry_notice = problems.read(&self.expiry_notice);
        Some(Timing {
            handshake: handshake?,
            keepalive: keepalive?,
            idle: idle?,
            write: write?,
            expiry_notice: expiry_notice?,
        })
    }

    pub(super) fn drain(&self, problems: &mut Problems) -> Option<Drain> {
        let delay = problems.read(&self.drain_delay);
        let window = problems.read(&self.drain_window);
        let grace = problems.read_checked(&self.drain_grace, "more than 0s", |time| !time.is_zero());
        Some(Drain { delay: delay?, window: window?, grace: grace? })
    }
}
