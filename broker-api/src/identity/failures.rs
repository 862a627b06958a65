//! Failed proofs of identity in the audit log, at a bounded rate.
//!
//! Whoever floods the broker with wrong proofs must not fill its database: beyond [`BURST`] at once and
//! [`PER_SECOND`] in the long run, failures are only counted, and the next line says how many there were.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;

use super::Entrance;
use crate::core::{Core, Visitor};
use crate::domain::audit;
use crate::store::AuditAction;

/// Lines at once; as many guesses as [`crate::config::Limits::guesses`] lets through at once by default.
const BURST: u32 = 100;
/// Lines in the long run: 1.7 million a day at worst.
const PER_SECOND: u32 = 20;

/// How many lines may be written now.
#[derive(Default)]
pub(super) struct Failures(Mutex<State>);

#[derive(Default)]
struct State {
    /// When the bucket will be full again; `None` is now.
    full_at: Option<Instant>,
    /// Failures that were not written.
    unwritten: u64,
}

impl State {
    /// Takes a line: how many failures were not written since the last one, or `None` if this one is not.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let each = Duration::from_secs(1) / PER_SECOND;
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + each;
        if full_at - now > each * BURST {
            self.unwritten += 1;
            return None;
        }
        self.full_at = Some(full_at);
        Some(std::mem::take(&mut self.unwritten))
    }
}

impl Failures {
    /// Writes a failure down, or counts it. A session that does not hold is no attempt to log in.
    pub(super) async fn note(
        &self,
        core: &Core,
        visitor: Visitor,
        entrance: Entrance,
        claimed: Option<&str>,
    ) {
        if entrance == Entrance::Session {
            return;
        }
        let Some(unwritten) = self.0.lock().take(core.clock.now()) else { return };
        // Whatever was claimed is somebody else's text.
        let claimed =
            claimed.map(|text| text.chars().filter(|c| !c.is_control()).take(256).collect::<String>());
        let mut detail = json!({ "way": entrance.name() });
        if unwritten > 0 {
            detail["unwritten"] = unwritten.into();
        }
        audit::denied(core, None, visitor, AuditAction::Login, claimed.as_deref(), detail).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_failures_is_written_at_a_bounded_rate_and_the_rest_is_counted() {
        let (mut state, start) = (State::default(), Instant::now());
        let written = (0..1000).filter(|_| state.take(start).is_some()).count();
        assert_eq!(written, BURST as usize);
        assert_eq!(state.take(start + Duration::from_secs(1)), Some(900));
        assert_eq!(state.take(start + Duration::from_secs(1)), Some(0));
    }
}
