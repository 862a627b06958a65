//! The way from "please finish" to "stopped", every step bounded.

use std::future::Future;
use std::time::Duration;

use super::{Readiness, Shutdown};

/// How long each step of a drain may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Wait between red readiness and the first peer that is sent away, for balancers to notice.
    pub delay: Duration,
    /// Time in which peers are told to move, and move.
    pub drain: Duration,
    /// Time in which what is left is closed and flushed.
    pub close: Duration,
}

impl Limits {
    /// The longest a drain takes; a supervisor's grace period must be longer.
    pub fn total(&self) -> Duration {
        self.delay + self.drain + self.close
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { delay: Duration::from_secs(5), drain: Duration::from_secs(20), close: Duration::from_secs(5) }
    }
}

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Everything finished by itself.
    Complete,
    /// A step was cut off at its limit.
    CutOff,
    /// Somebody killed the server before the end.
    Killed,
}

/// Takes a server from serving to stopped.
///
/// Readiness turns red for good, `limits.delay` passes, `move_peers` runs for at most `limits.drain`,
/// `close_rest` for at most `limits.close`, then everything is killed. A kill from elsewhere (a second
/// signal) ends any step at once. The futures are dropped at their limit; call this once a drain was
/// requested.
pub async fn drain(
    shutdown: &Shutdown,
    readiness: &Readiness,
    limits: Limits,
    move_peers: impl Future<Output = ()>,
    close_rest: impl Future<Output = ()>,
) -> Drained {
    readiness.retire("draining");
    shutdown.request_drain();
    let steps = async {
        tokio::time::sleep(limits.delay).await;
        let moved = tokio::time::timeout(limits.drain, move_peers).await.is_ok();
        let closed = tokio::time::timeout(limits.close, close_rest).await.is_ok();
        if moved && closed { Drained::Complete } else { Drained::CutOff }
    };
    let drained = tokio::select! {
        drained = steps => drained,
        () = shutdown.killed() => Drained::Killed,
    };
    shutdown.kill();
    drained
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn readiness_is_red_for_the_whole_delay_before_peers_are_moved() {
        let (shutdown, readiness) = (Shutdown::new(), Readiness::new());
        readiness.set(true, "serving");
        let start = Instant::now();
        let move_peers = async {
            assert!(!readiness.get().ready);
            assert_eq!(start.elapsed(), Duration::from_secs(5));
            assert!(!shutdown.is_killed());
        };
        let drained = drain(&shutdown, &readiness, Limits::default(), move_peers, ready(())).await;
        assert_eq!(drained, Drained::Complete);
        assert!(shutdown.is_killed());
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn steps_that_hang_are_cut_off_at_their_limits() {
        let (shutdown, readiness) = (Shutdown::new(), Readiness::new());
        let (start, limits) = (Instant::now(), Limits::default());
        let drained = drain(&shutdown, &readiness, limits, pending(), pending()).await;
        assert_eq!(drained, Drained::CutOff);
        assert_eq!(start.elapsed(), limits.total());
        assert!(shutdown.is_killed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_kill_ends_every_step_at_once() {
        let (shutdown, readiness) = (Shutdown::new(), Readiness::new());
        let start = Instant::now();
        let steps = drain(&shutdown, &readiness, Limits::default(), pending(), pending());
        let kill = async {
            tokio::time::sleep(Duration::from_secs(7)).await;
            shutdown.kill();
        };
        let (drained, ()) = tokio::join!(steps, kill);
        assert_eq!(drained, Drained::Killed);
        assert_eq!(start.elapsed(), Duration::from_secs(7));
    }
}
