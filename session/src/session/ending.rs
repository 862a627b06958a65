//! How a session ends. Every way leads through [`Session::end`], once.

use std::time::Duration;

use super::{Phase, Session};
use crate::frame::{CloseCode, Frame, Frames};
use crate::{CloseReason, Event, Violation};

impl Session {
    /// Ends the session: tells the application, and the peer if there is a `farewell` and someone to
    /// hear it.
    pub(super) fn end(&mut self, now: Duration, reason: CloseReason, farewell: Option<CloseCode>) {
        if matches!(self.phase, Phase::Closed { .. }) {
            return;
        }
        let reachable = self.phase != Phase::Handshake && !matches!(reason, CloseReason::Done);
        self.opening = None;
        self.outbox.clear();
        let mut until = None;
        if let Some(channel) = &mut self.channel {
            channel.pending = Default::default();
            if reachable {
                channel.pending.close = farewell;
                until = Some(now + channel.recovery.patience());
            }
        }
        self.phase = Phase::Closed { until, farewell };
        self.closed = Some(Event::Closed { reason, unacknowledged: self.streams.unacknowledged() });
    }

    pub(super) fn violated(&mut self, now: Duration, violation: Violation) {
        self.end(now, CloseReason::Violation(violation), Some(CloseCode::Violation));
    }

    pub(super) fn closed_by_peer(&mut self, now: Duration, code: CloseCode) {
        let closing = matches!(self.phase, Phase::Closing { .. });
        let reason = match code {
            CloseCode::Done if closing && self.streams.is_done() => CloseReason::Done,
            CloseCode::Done | CloseCode::Failed => CloseReason::ByPeer,
            CloseCode::Rejected => CloseReason::RejectedByPeer,
            CloseCode::Violation => CloseReason::ViolationReported,
        };
        self.end(now, reason, None);
        // Its farewell is acknowledged, also when a copy of it comes.
        if let (Some(channel), Phase::Closed { until, .. }) = (&self.channel, &mut self.phase) {
            *until = Some(now + channel.recovery.patience());
        }
    }

    /// A packet after the end: the peer may not know yet, or its farewell was not acknowledged.
    pub(super) fn after_the_end(&mut self, now: Duration, number: u64, frames: &[u8]) {
        let (mut eliciting, mut knows) = (false, false);
        for frame in Frames::new(frames).flatten() {
            eliciting |= !matches!(frame, Frame::Ack(_));
            knows |= matches!(frame, Frame::Close(_));
        }
        let Phase::Closed { farewell, .. } = &mut self.phase else { return };
        if knows {
            *farewell = None;
        }
        if let Some(channel) = &mut self.channel {
            channel.accept(number);
            channel.received.record(now, number, eliciting, true);
            if eliciting {
                channel.pending.close = *farewell;
            }
        }
    }

    /// While closing: once everything is acknowledged, the peer is told.
    pub(super) fn finish_streams(&mut self) {
        if matches!(self.phase, Phase::Closing { .. })
            && self.streams.is_done()
            && let Some(channel) = &mut self.channel
            && !channel.farewell_sent
        {
            channel.farewell_sent = true;
            channel.pending.close = Some(CloseCode::Done);
        }
    }
}
