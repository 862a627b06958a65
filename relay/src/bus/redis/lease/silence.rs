//! Whether Redis answers, told once each way.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{error, info};

use super::Event;

/// How long Redis has been silent.
pub(super) struct Silence {
    since: Instant,
    limit: Duration,
    told: bool,
}

impl Silence {
    /// Begins now; longer than `limit` is to be told.
    pub(super) fn new(limit: Duration) -> Self {
        Self { since: Instant::now(), limit, told: false }
    }

    /// Whether it has been told.
    pub(super) fn is_told(&self) -> bool {
        self.told
    }

    /// Waits, and tells when the silence gets too long meanwhile.
    pub(super) async fn during<T>(&mut self, wait: impl Future<Output = T>, on: &impl Fn(Event)) -> T {
        tokio::pin!(wait);
        loop {
            tokio::select! {
                done = &mut wait => return done,
                () = sleep_until(self.since + self.limit), if !self.told => {
                    self.told = true;
                    error!("redis does not answer; peers of this node reach only each other until it does");
                    on(Event::Reachable(false));
                }
            }
        }
    }

    pub(super) fn end(&mut self, on: &impl Fn(Event)) {
        self.since = Instant::now();
        if std::mem::take(&mut self.told) {
            info!("redis answers again");
            on(Event::Reachable(true));
        }
    }
}
