//! The packet layer: sealed packets out, authentic and fresh packets in.

use std::time::Duration;

use culvert_wire::Class;
use zeroize::Zeroizing;

use crate::crypto::Crypto;
use crate::frame::CloseCode;
use crate::handshake::Outcome;
use crate::keys::{ReceiveKeys, Renewal, SendKeys};
use crate::packet::{DATA_HEADER, Header};
use crate::received::Received;
use crate::recovery::{Content, Recovery};
use crate::replay::ReplayWindow;
use crate::{Counters, Rekey, SessionId};

/// Keys, numbers and timers of a session whose handshake is over (or, at the initiator, over as far as
/// it can tell).
pub(super) struct Channel {
    remote: SessionId,
    send: SendKeys,
    receive: ReceiveKeys,
    replay: ReplayWindow,
    pub(super) received: Received,
    pub(super) recovery: Recovery,
    /// When the peer was last heard.
    pub(super) heard: Duration,
    /// Since when something that was sent waits for a sign of the peer.
    pub(super) unanswered: Option<Duration>,
    /// When the last ping was sent for want of a sign of the peer.
    pub(super) pinged: Duration,
    pub(super) pending: Pending,
    /// Whether the farewell of a graceful close was queued.
    pub(super) farewell_sent: bool,
}

/// Frames that go out with the next packet.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) accept: bool,
    pub(super) resume: bool,
    pub(super) ping: bool,
    pub(super) close: Option<CloseCode>,
}

impl Pending {
    pub(super) fn any(&self) -> bool {
        self.accept || self.resume || self.ping || self.close.is_some()
    }
}

/// What became of a datagram.
pub(super) enum Opened<'a> {
    Packet { newest: bool, frames: &'a [u8] },
    Replayed,
    Rejected,
}

impl Channel {
    pub(super) fn new(crypto: &'static dyn Crypto, outcome: &Outcome, now: Duration) -> Self {
        Self {
            remote: outcome.remote,
            send: SendKeys::new(crypto, Zeroizing::clone(&outcome.send), now),
            receive: ReceiveKeys::new(crypto, Zeroizing::clone(&outcome.receive)),
            replay: ReplayWindow::default(),
            received: Received::default(),
            recovery: Recovery::new(),
            heard: now,
            unanswered: None,
            pinged: now,
            pending: Pending::default(),
            farewell_sent: false,
        }
    }

    /// Opens a datagram in place. The packet is fresh until [`Channel::accept`] is called for it.
    pub(super) fn open<'a>(
        &mut self,
        now: Duration,
        epoch: u8,
        number: u64,
        datagram: &'a mut [u8],
        counters: &mut Counters,
    ) -> Opened<'a> {
        if !self.replay.is_fresh(number) {
            return Opened::Replayed;
        }
        self.receive.expire(now);
        match self.receive.open(now, epoch, number, DATA_HEADER, datagram) {
            None => Opened::Rejected,
            Some((frames, renewed)) => {
                counters.rekeys += u64::from(renewed);
                Opened::Packet { newest: self.replay.is_newest(number), frames }
            }
        }
    }

    /// Marks a packet as dealt with, so that it never is again.
    pub(super) fn accept(&mut self, number: u64) {
        self.replay.accept(number);
    }

    /// Writes the header of the next packet.
    pub(super) fn begin(
        &mut self,
        now: Duration,
        limits: &Rekey,
        out: &mut Vec<u8>,
        counters: &mut Counters,
    ) {
        match self.send.renew(limits, self.recovery.largest_acked(), now) {
            Renewal::Done => counters.rekeys += 1,
            Renewal::Ask => self.pending.ping = true,
            Renewal::NotDue | Renewal::Waiting => {}
        }
        let number = self.recovery.next_number();
        Header::Data { receiver: self.remote, epoch: self.send.epoch(), number }.encode(out);
    }

    /// Seals the packet and notes it as sent.
    pub(super) fn finish(
        &mut self,
        now: Duration,
        class: Class,
        content: Option<Content>,
        out: &mut Vec<u8>,
    ) {
        if content.is_some() {
            self.unanswered.get_or_insert(now);
        }
        self.send.seal(self.recovery.next_number(), DATA_HEADER, out);
        self.recovery.sent(now, class, out.len(), content);
    }

    /// When to ask for a sign of the peer, if none comes.
    pub(super) fn next_ping(&self, keepalive: Duration) -> Duration {
        self.heard.max(self.pinged) + keepalive
    }

    /// When the previous receiving key is due to be wiped.
    pub(super) fn key_expiry(&self) -> Option<Duration> {
        self.receive.expiry()
    }

    pub(super) fn expire_key(&mut self, now: Duration) {
        self.receive.expire(now);
    }
}
