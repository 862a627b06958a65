//! Whether the balancer should send peers here.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Readiness of a node; clones share it.
///
/// Red until the server says otherwise: a node that has not bound its listener must not get peers.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Mutex<State>>);

/// One answer to "can this node take peers?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Whether it can.
    pub ready: bool,
    /// Why, as a sentence for operators.
    pub reason: Cow<'static, str>,
    /// Red for good: set when the node began to drain.
    retired: bool,
}

impl Readiness {
    /// Red, because the server is starting.
    pub fn new() -> Self {
        let state = State { ready: false, reason: "starting".into(), retired: false };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Sets the state and why; ignored once retired. Logs changes between ready and not ready.
    pub fn set(&self, ready: bool, reason: impl Into<Cow<'static, str>>) {
        self.change(ready, reason.into(), false);
    }

    /// Turns red for good: a part that recovers during a drain must not attract new peers.
    pub fn retire(&self, reason: impl Into<Cow<'static, str>>) {
        self.change(false, reason.into(), true);
    }

    /// The state now.
    pub fn get(&self) -> State {
        self.lock().clone()
    }

    fn change(&self, ready: bool, reason: Cow<'static, str>, retired: bool) {
        let mut state = self.lock();
        if state.retired {
            return;
        }
        if state.ready != ready {
            tracing::info!(ready, %reason, "readiness changed");
        }
        *state = State { ready, reason, retired };
    }

    /// A panic while the lock was held leaves a state that was true before, which still is an answer.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_node_is_not_ready_and_says_why() {
        let state = Readiness::new().get();
        assert!(!state.ready);
        assert_eq!(state.reason, "starting");
    }

    #[test]
    fn the_reason_follows_the_last_change() {
        let readiness = Readiness::new();
        readiness.set(true, "serving");
        readiness.clone().set(false, "no lease");
        readiness.set(false, "no bus");
        let state = readiness.get();
        assert_eq!((state.ready, &*state.reason), (false, "no bus"));
    }

    #[test]
    fn a_retired_node_never_turns_ready_again() {
        let readiness = Readiness::new();
        readiness.set(true, "serving");
        readiness.retire("draining");
        readiness.set(true, "bus is back");
        let state = readiness.get();
        assert_eq!((state.ready, &*state.reason), (false, "draining"));
    }
}
