//! What happens when nothing happens.

use std::time::Duration;

use super::{Phase, Session};
use crate::CloseReason;

impl Session {
    /// The earliest moment at which something is due.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let routed = self.route.current().is_some();
        let resend = self.opening.as_ref().filter(|opening| routed && opening.initiator.is_some());
        let channel = self.channel.as_ref().filter(|_| self.phase != Phase::Handshake);
        let timers = [
            match self.phase {
                Phase::Closing { deadline } => Some(deadline),
                Phase::Closed { until, .. } => return until,
                _ => None,
            },
            self.opening.as_ref().map(|opening| opening.deadline),
            resend.map(|opening| opening.resend_at),
            channel.map(|channel| channel.heard + self.config.peer_timeout),
            channel.and_then(|channel| channel.key_expiry()),
            channel.filter(|_| routed).and_then(|channel| channel.received.due()),
            channel.filter(|_| routed).and_then(|channel| channel.recovery.probe_deadline()),
            channel.filter(|_| routed).map(|channel| channel.next_ping(self.config.keepalive)),
        ];
        timers.into_iter().flatten().min()
    }

    pub(super) fn timeout(&mut self, now: Duration) {
        match &mut self.phase {
            Phase::Closed { until, .. } => {
                until.take_if(|until| *until <= now);
                return;
            }
            Phase::Closing { deadline } if *deadline <= now => {
                return self.end(now, CloseReason::CloseTimeout, None);
            }
            _ => {}
        }
        if let Some(opening) = &self.opening {
            if opening.deadline <= now {
                let fault = opening.fault;
                return self.end(now, CloseReason::HandshakeTimeout(fault), None);
            }
            return self.resend_handshake(now);
        }
        let routed = self.route.current().is_some();
        let Some(channel) = &mut self.channel else { return };
        if channel.heard + self.config.peer_timeout <= now {
            return self.end(now, CloseReason::PeerTimeout, None);
        }
        channel.expire_key(now);
        if !routed {
            return;
        }
        if channel.recovery.probe_deadline().is_some_and(|deadline| deadline <= now) {
            channel.recovery.probe_due(now);
        }
        if channel.next_ping(self.config.keepalive) <= now {
            channel.pinged = now;
            channel.pending.ping = true;
        }
    }
}
