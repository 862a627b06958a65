//! What an authentic packet does.

use std::time::Duration;

use super::channel::Opened;
use super::{Phase, Session};
use crate::frame::{CloseCode, Frame, Frames};
use crate::recovery::{Content, Findings};
use crate::{CloseReason, Event, PathId, Violation};

/// What one look at all frames of a packet says before any of them takes effect.
struct Survey {
    /// All of it can be taken now.
    fits: bool,
    /// Something must be acknowledged.
    eliciting: bool,
    /// At once.
    urgent: bool,
}

impl Session {
    pub(super) fn packet(
        &mut self,
        now: Duration,
        path: PathId,
        epoch: u8,
        number: u64,
        datagram: &mut [u8],
    ) {
        let size = datagram.len() as u64;
        let Some(channel) = &mut self.channel else {
            self.counters.rejected += 1;
            return;
        };
        let (newest, frames) = match channel.open(now, epoch, number, datagram, &mut self.counters) {
            Opened::Replayed => {
                self.counters.replayed += 1;
                return;
            }
            Opened::Rejected => {
                self.counters.rejected += 1;
                return;
            }
            Opened::Packet { newest, frames } => (newest, frames),
        };
        channel.heard = now;
        channel.unanswered = None;
        self.confirmed();
        if matches!(self.phase, Phase::Closed { .. }) {
            return self.after_the_end(now, number, frames);
        }
        let survey = match self.survey(frames) {
            Ok(survey) => survey,
            Err(violation) => return self.violated(now, violation),
        };
        if !survey.fits {
            // As if it had been lost: it comes again.
            self.counters.deferred += 1;
            return;
        }
        if let Some(channel) = &mut self.channel {
            channel.accept(number);
            channel.received.record(now, number, survey.eliciting, survey.urgent);
        }
        self.counters.packets_received += 1;
        self.counters.bytes_received += size;
        if self.route.heard(now, path, newest) {
            self.moved(path);
        }
        for frame in Frames::new(frames).flatten() {
            if let Err(violation) = self.apply(now, frame, newest) {
                return self.violated(now, violation);
            }
        }
        self.finish_streams();
    }

    /// The peer is on another path: what was under way on the old one is lost.
    fn moved(&mut self, path: PathId) {
        self.counters.path_changes += 1;
        self.lose_all();
        self.events.retain(|event| !matches!(event, Event::PathChanged { .. }));
        self.events.push_back(Event::PathChanged { path });
    }

    fn survey(&self, frames: &[u8]) -> Result<Survey, Violation> {
        let mut survey = Survey { fits: true, eliciting: false, urgent: false };
        for frame in Frames::new(frames) {
            let frame = frame.map_err(|_| Violation::MalformedFrame)?;
            survey.eliciting |= !matches!(frame, Frame::Ack(_));
            match frame {
                Frame::Stream { id, offset, data, .. } => {
                    if self.phase == Phase::Deciding {
                        return Err(Violation::EarlyData);
                    }
                    survey.fits &= self.streams.check(id, offset, data.len())?;
                }
                Frame::Ping | Frame::Accept(_) | Frame::Resume | Frame::Close(_) => survey.urgent = true,
                Frame::Ack(_) | Frame::Credit { .. } => {}
            }
        }
        Ok(survey)
    }

    fn apply(&mut self, now: Duration, frame: Frame<'_>, newest: bool) -> Result<(), Violation> {
        let Some(channel) = &mut self.channel else { return Ok(()) };
        match frame {
            Frame::Ping => {}
            Frame::Ack(ack) => {
                if newest {
                    channel.recovery.set_grant(ack.window);
                }
                let mut findings = Findings::default();
                if !channel.recovery.acknowledged(now, ack.ranges(), ack.delay, &mut findings) {
                    return Err(Violation::UnsentAcknowledged);
                }
                let farewell = findings.acked.iter().any(|content| content.close);
                for chunk in findings.acked.iter().flat_map(|content| &content.chunks) {
                    self.streams.acknowledge(*chunk);
                }
                self.counters.packets_lost += findings.lost.len() as u64;
                self.lost(findings.lost);
                if farewell && matches!(self.phase, Phase::Closing { .. }) {
                    self.end(now, CloseReason::Done, None);
                }
            }
            Frame::Accept(terms) => {
                if !self.accepted_by_peer {
                    self.accepted_by_peer = true;
                    channel.recovery.set_grant(terms.window);
                    self.streams.set_terms(terms);
                    self.establish();
                }
            }
            Frame::Stream { id, priority, offset, data } => {
                self.streams.insert(id, priority, offset, data)?;
            }
            Frame::Credit { id, limit } => self.streams.credited(id, limit)?,
            // A late one speaks of a path that is no longer the last.
            Frame::Resume if newest => self.lose_all(),
            Frame::Resume => {}
            Frame::Close(code) => self.closed_by_peer(now, code),
        }
        Ok(())
    }

    /// Lost packets: what they carried goes again, where it still matters.
    pub(super) fn lost(&mut self, contents: Vec<Content>) {
        let Some(channel) = &mut self.channel else { return };
        for content in contents {
            channel.pending.accept |= content.accept;
            channel.pending.resume |= content.resume;
            if content.close {
                channel.pending.close = Some(CloseCode::Done);
            }
            if content.credit {
                self.streams.announce_all();
            }
            for chunk in content.chunks {
                self.streams.lose(chunk);
            }
        }
    }
}
