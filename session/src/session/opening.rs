//! The handshake's place in a session.
//!
//! A session may answer and initiate at once, because both peers may begin at the same moment. Then the
//! one with the lower identity stays initiator: it ignores the other's confirmation as long as its own
//! initiation is open, while the other answers that initiation and gives up its own. Nothing is decided
//! before an identity is proved, so a forged initiation changes nothing.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Channel, Phase, Session};
use crate::handshake::{Initiator, Outcome, Responder};
use crate::packet::Step;
use crate::{Event, HandshakeFault, PathId, SessionId};

/// First wait before a handshake message is repeated; doubles up to [`MAX_RESEND`].
const FIRST_RESEND: Duration = Duration::from_millis(500);
const MAX_RESEND: Duration = Duration::from_secs(4);
/// Most initiations answered at a time in one session, the newest ones. Each takes about 1 KiB.
const MAX_RESPONDERS: usize = 4;
/// Most handshake datagrams that wait to be transmitted.
const MAX_OUTBOX: usize = 8;

/// A handshake that is not over.
pub(super) struct Opening {
    pub(super) initiator: Option<Initiator>,
    responders: VecDeque<Responder>,
    pub(super) deadline: Duration,
    pub(super) resend_at: Duration,
    resend_after: Duration,
    resends: u32,
    /// What was wrong with the last message that was refused.
    pub(super) fault: Option<HandshakeFault>,
    /// What the accepted response yields once the peer's first packet confirms it.
    outcome: Option<Outcome>,
}

impl Opening {
    pub(super) fn new(now: Duration, timeout: Duration, initiator: Option<Initiator>) -> Self {
        Self {
            initiator,
            responders: VecDeque::new(),
            deadline: now + timeout,
            resend_at: now,
            resend_after: FIRST_RESEND,
            resends: 0,
            fault: None,
            outcome: None,
        }
    }

    #[cfg(test)]
    pub(super) fn footprint(&self) -> usize {
        let responders = self.responders.iter().map(Responder::footprint).sum::<usize>();
        size_of::<Self>() + responders
    }
}

impl Session {
    /// A handshake datagram whose outside is in order.
    pub(super) fn handshake(
        &mut self,
        now: Duration,
        path: PathId,
        step: Step,
        receiver: SessionId,
        sender: SessionId,
        datagram: &[u8],
    ) {
        let for_me = step == Step::Initiation || receiver == self.id;
        if !for_me || sender == self.id {
            self.counters.rejected += 1;
            return;
        }
        match step {
            Step::Initiation => self.initiation(path, sender, datagram),
            Step::Response => self.response(now, path, sender, datagram),
            Step::Confirmation => self.confirmation(now, path, sender, datagram),
        }
    }

    fn initiation(&mut self, path: PathId, sender: SessionId, datagram: &[u8]) {
        // Later it is a copy of what was answered, or for another session.
        let Some(opening) = &mut self.opening else { return };
        if let Some(responder) = opening.responders.iter().find(|responder| responder.answers(datagram)) {
            let response = responder.response().to_vec();
            return self.post(path, response);
        }
        match Responder::new(&self.config, self.id, sender, datagram, &mut *self.rng) {
            Err(_) => self.counters.rejected += 1,
            Ok(responder) => {
                let response = responder.response().to_vec();
                if opening.responders.len() == MAX_RESPONDERS {
                    opening.responders.pop_front();
                }
                opening.responders.push_back(responder);
                self.post(path, response);
            }
        }
    }

    /// Whether an initiation is being answered; `accept` makes no session without one.
    pub(super) fn is_responding(&self) -> bool {
        self.opening.as_ref().is_some_and(|opening| !opening.responders.is_empty())
    }

    fn response(&mut self, now: Duration, path: PathId, sender: SessionId, datagram: &[u8]) {
        let Some(opening) = &mut self.opening else { return };
        let Some(initiator) = &mut opening.initiator else {
            self.counters.rejected += 1;
            return;
        };
        if !initiator.has_answered(datagram) {
            match initiator.respond(&self.config, sender, datagram) {
                Err(fault) => {
                    opening.fault = Some(fault);
                    self.counters.rejected += 1;
                    return;
                }
                Ok(outcome) => {
                    self.channel = Some(Channel::new(self.config.identity.crypto(), &outcome, now));
                    opening.outcome = Some(outcome);
                    opening.resend_after = FIRST_RESEND;
                }
            }
            opening.resend_at = now + opening.resend_after;
        }
        let confirmation = initiator.datagram().to_vec();
        self.route.heard(now, path, true);
        self.post(path, confirmation);
    }

    fn confirmation(&mut self, now: Duration, path: PathId, sender: SessionId, datagram: &[u8]) {
        let Some(opening) = &mut self.opening else {
            // The first packet was lost: another one answers the copy.
            if self.confirmation == datagram
                && let Some(channel) = &mut self.channel
            {
                channel.pending.ping = true;
            }
            return;
        };
        // A forged initiation may carry the same sender as the genuine one.
        let candidates = opening.responders.iter().filter(|responder| responder.is_for(sender));
        let tried = candidates.map(|responder| responder.confirm(&self.config, datagram));
        match tried.reduce(Result::or) {
            None => self.counters.rejected += 1,
            Some(Err(fault)) => {
                opening.fault = Some(fault);
                self.counters.rejected += 1;
            }
            Some(Ok(outcome)) => {
                let own = (self.config.identity.peer_id(), self.id);
                if opening.initiator.is_some() && own < (outcome.peer, outcome.remote) {
                    return;
                }
                let mut channel = Channel::new(self.config.identity.crypto(), &outcome, now);
                channel.pending.ping = true;
                self.channel = Some(channel);
                self.confirmation = datagram.to_vec();
                self.route.heard(now, path, true);
                self.authenticated(&outcome, false);
            }
        }
    }

    /// The peer's first packet opened, which proves that it completed the handshake, secret included.
    pub(super) fn confirmed(&mut self) {
        if let Some(outcome) = self.opening.as_mut().and_then(|opening| opening.outcome.take()) {
            self.authenticated(&outcome, true);
        }
    }

    fn authenticated(&mut self, outcome: &Outcome, initiator: bool) {
        self.streams.set_role(initiator);
        if !initiator {
            self.route.yields();
        }
        self.peer = Some(outcome.peer);
        self.binding = Some(outcome.binding);
        self.opening = None;
        self.outbox.clear();
        self.phase = Phase::Deciding;
        self.events.push_back(Event::Authenticated { peer: outcome.peer });
    }

    /// Repeats the initiator's message if it is time.
    pub(super) fn resend_handshake(&mut self, now: Duration) {
        let (Some(opening), Some(path)) = (&mut self.opening, self.route.current()) else { return };
        let Some(initiator) = &opening.initiator else { return };
        if now < opening.resend_at {
            return;
        }
        opening.resend_at = now + opening.resend_after;
        opening.resend_after = (opening.resend_after * 2).min(MAX_RESEND);
        // Every other time from the beginning, in case the peer dropped its answer for others.
        opening.resends += 1;
        let datagram = if opening.resends % 2 == 0 { initiator.initiation() } else { initiator.datagram() };
        let datagram = datagram.to_vec();
        self.post(path, datagram);
    }

    /// The path changed: what was under way is lost.
    pub(super) fn hurry_handshake(&mut self, now: Duration) {
        if let Some(opening) = &mut self.opening {
            opening.resend_at = now;
            opening.resend_after = FIRST_RESEND;
        }
        self.resend_handshake(now);
    }

    fn post(&mut self, path: PathId, datagram: Vec<u8>) {
        if self.outbox.len() == MAX_OUTBOX {
            self.outbox.pop_front();
        }
        self.outbox.push_back((path, datagram));
    }
}
