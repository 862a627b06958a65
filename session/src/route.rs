//! Which path to the peer is in use.
//!
//! Three rules; the second and the third bend the first for a moment:
//!
//! - An authentic packet with a higher number than any before, on another path, means that the peer
//!   moved: adopt that path (the rule of WireGuard and QUIC). A late packet from a dead node has a
//!   lower number and steals nothing.
//! - When the driver moved this end, the peer goes on sending to the old path until it hears from the
//!   new one. For [`HOLD`], or until the peer is heard on the new path, its packets do not pull the
//!   route back.
//! - Where several ways work, two ends that moved at the same moment would follow each other past each
//!   other for ever. So one of them, the handshake's responder, stays for [`FOLLOWED`] where it followed,
//!   or until it hears the peer there.

use std::time::Duration;

use crate::PathId;

/// How long a path chosen by the driver stays without a sign of the peer on it: a few round trips.
pub(crate) const HOLD: Duration = Duration::from_secs(2);

/// How long a path stays on which the peer was followed, at the end that does not begin.
pub(crate) const FOLLOWED: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Route {
    current: Option<PathId>,
    hold: Option<Duration>,
    last_heard: Option<PathId>,
    yields: bool,
}

impl Route {
    pub(crate) fn new(path: PathId) -> Self {
        Self { current: Some(path), hold: None, last_heard: None, yields: false }
    }

    /// The end that yields is the first to stay where it followed the other.
    pub(crate) fn yields(&mut self) {
        self.yields = true;
    }

    /// The path of the newest authentic packet.
    pub(crate) fn last_heard(&self) -> Option<PathId> {
        self.last_heard
    }

    pub(crate) fn current(&self) -> Option<PathId> {
        self.current
    }

    /// The driver's choice.
    pub(crate) fn choose(&mut self, now: Duration, path: PathId) {
        self.current = Some(path);
        self.hold = Some(now + HOLD);
    }

    /// No path is left.
    pub(crate) fn lose(&mut self) {
        self.current = None;
        self.hold = None;
    }

    /// Takes note of an authentic packet on `path`; whether the route moved there.
    pub(crate) fn heard(&mut self, now: Duration, path: PathId, newest: bool) -> bool {
        if newest || self.last_heard.is_none() {
            self.last_heard = Some(path);
        }
        if self.current == Some(path) {
            self.hold = None;
            return false;
        }
        if !newest || self.hold.is_some_and(|until| now < until) {
            return false;
        }
        self.current = Some(path);
        self.hold = self.yields.then_some(now + FOLLOWED);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Duration = Duration::from_secs(100);
    const OLD: PathId = PathId(1);
    const NEW: PathId = PathId(2);

    #[test]
    fn the_peer_is_followed_and_late_packets_are_not() {
        let mut route = Route::new(OLD);
        assert!(!route.heard(T, NEW, false), "late");
        assert!(route.heard(T, NEW, true));
        assert!(!route.heard(T, OLD, false), "a dead node's packet");
        assert_eq!((route.current(), route.last_heard()), (Some(NEW), Some(NEW)));
    }

    #[test]
    fn the_drivers_choice_holds_until_the_peer_was_heard_there_or_time_is_up() {
        let mut route = Route::new(OLD);
        route.choose(T, NEW);
        assert!(!route.heard(T, OLD, true), "sent before the peer knew");
        assert!(!route.heard(T, NEW, true));
        assert!(route.heard(T, OLD, true), "now the peer moved back");
        route.choose(T, NEW);
        assert!(route.heard(T + HOLD, OLD, true), "the new path never worked");
    }

    #[test]
    fn the_end_that_yields_stays_for_a_moment_where_it_followed() {
        let mut route = Route::new(OLD);
        route.yields();
        assert!(route.heard(T, NEW, true));
        assert!(!route.heard(T, OLD, true), "the peer is on its way here");
        assert!(!route.heard(T, NEW, true));
        assert!(route.heard(T, OLD, true), "it was here and moved back");
        assert!(route.heard(T + FOLLOWED, NEW, true), "it did not come");
        assert_eq!(route.last_heard(), Some(NEW));
    }

    #[test]
    fn without_a_path_the_first_sign_of_the_peer_is_followed() {
        let mut route = Route::new(OLD);
        route.choose(T, NEW);
        route.lose();
        assert!(!route.heard(T, NEW, false));
        assert!(route.heard(T, OLD, true));
    }
}
