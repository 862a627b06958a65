//! What is under way: packets sent and not acknowledged, and when to give them up.
//!
//! Three ways to find a loss, all within one path and one class, because only there the relay keeps
//! order:
//!
//! - three later packets were acknowledged ([`PACKET_THRESHOLD`]);
//! - nothing was acknowledged for the probe timeout: a probe is sent, and if that one is acknowledged,
//!   everything before it is lost;
//! - the path changed: everything under way is lost at once ([`Recovery::lose_all`]).
//!
//! Each packet is looked at a constant number of times. Memory: at most
//! [`MAX_TRACKED`] packets, and as many probes, one every few seconds.

mod congestion;
mod rtt;

use std::collections::VecDeque;
use std::time::Duration;

use culvert_wire::Class;

use crate::StreamId;
use congestion::Congestion;
use rtt::Rtt;

/// Later packets of the same path and class that must be acknowledged before one is given up.
const PACKET_THRESHOLD: u64 = 3;
/// Most packets under way. With the largest windows in use only tiny packets reach it.
pub(crate) const MAX_TRACKED: usize = 1 << 14;
/// Upper limit of the probe timeout.
const MAX_PTO: Duration = Duration::from_secs(5);

/// Most of the window that bulk leaves to normal streams, so that a file fills no window to the brim.
const MAX_RESERVE: u64 = 64 << 10;

const CLASSES: usize = Class::ALL.len();

/// What a packet carried that must arrive: enough to send it again.
#[derive(Clone, Default, Debug)]
pub(crate) struct Content {
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) accept: bool,
    pub(crate) credit: bool,
    pub(crate) resume: bool,
    pub(crate) close: bool,
}

/// Bytes of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Chunk {
    pub(crate) stream: StreamId,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

#[derive(Debug)]
struct Sent {
    number: u64,
    at: Duration,
    size: u64,
    class: Class,
    /// Counts the packets of this path and class.
    order: u64,
    probe: bool,
    /// Taken out once the packet is acknowledged or lost; the rest goes when it is the oldest.
    content: Option<Content>,
}

/// Packets of one path and class.
#[derive(Default, Debug)]
struct Lane {
    next: u64,
    in_flight: u64,
    last_sent: Duration,
    /// (order, packet number) of those under way, oldest first; acknowledged ones are skipped later.
    under_way: VecDeque<(u64, u64)>,
    /// Everything below this order is lost if not acknowledged.
    lost_below: u64,
    probe_wanted: bool,
}

/// What an acknowledgement or a timer brought to light.
#[derive(Default, Debug)]
pub(crate) struct Findings {
    pub(crate) acked: Vec<Content>,
    pub(crate) lost: Vec<Content>,
}

#[derive(Debug)]
pub(crate) struct Recovery {
    /// The oldest first. Packets that need not arrive are not kept.
    packets: VecDeque<Sent>,
    next_number: u64,
    lanes: [Lane; CLASSES],
    in_flight: u64,
    largest_acked: Option<u64>,
    rtt: Rtt,
    congestion: Congestion,
    backoff: u32,
    /// The peer's grant.
    grant: u64,
}

impl Recovery {
    pub(crate) fn new() -> Self {
        Self {
            packets: VecDeque::new(),
            next_number: 0,
            lanes: Default::default(),
            in_flight: 0,
            largest_acked: None,
            rtt: Rtt::default(),
            congestion: Congestion::default(),
            backoff: 0,
            grant: 0,
        }
    }

    /// The number of the next packet. Every packet takes one, whatever it carries.
    pub(crate) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Notes a packet that was written. `content` is `None` if nobody needs to know whether it arrives.
    pub(crate) fn sent(&mut self, now: Duration, class: Class, size: usize, content: Option<Content>) {
        let number = self.next_number;
        self.next_number += 1;
        if content.is_none() {
            return;
        }
        let lane = &mut self.lanes[usize::from(class.number())];
        let probe = std::mem::take(&mut lane.probe_wanted);
        let (order, size) = (lane.next, size as u64);
        lane.next += 1;
        lane.in_flight += size;
        lane.last_sent = now;
        lane.under_way.push_back((order, number));
        self.in_flight += size;
        self.packets.push_back(Sent { number, at: now, size, class, order, probe, content });
    }

    /// Whether no more packets can be tracked: only what need not arrive may be sent.
    pub(crate) fn is_full(&self) -> bool {
        self.packets.len() >= MAX_TRACKED
    }

    /// Takes in an acknowledgement of `ranges`, the highest first. `false` if it names a packet that
    /// was never sent.
    pub(crate) fn acknowledged(
        &mut self,
        now: Duration,
        ranges: &[(u64, u64)],
        delay: Duration,
        findings: &mut Findings,
    ) -> bool {
        let Some(&(_, largest)) = ranges.first() else { return true };
        if largest >= self.next_number() {
            return false;
        }
        let newly = self.largest_acked.is_none_or(|before| largest > before);
        self.largest_acked = self.largest_acked.max(Some(largest));
        let full = self.in_flight * 2 >= self.congestion.window();
        let mut progress = false;
        for &(low, high) in ranges {
            let first = self.packets.partition_point(|sent| sent.number < low);
            if first == 0 && self.packets.front().is_none_or(|oldest| oldest.number > high) {
                break;
            }
            for at in first..self.packets.len() {
                if self.packets[at].number > high {
                    break;
                }
                let Some(content) = self.take(at) else { continue };
                let sent = &self.packets[at];
                progress = true;
                if sent.number == largest && newly {
                    self.rtt.sample(now.saturating_sub(sent.at), delay);
                }
                self.congestion.acked(sent.size, sent.number, full);
                let lane = &mut self.lanes[usize::from(sent.class.number())];
                let behind = if sent.probe { 0 } else { PACKET_THRESHOLD - 1 };
                lane.lost_below = lane.lost_below.max(sent.order.saturating_sub(behind));
                findings.acked.push(content);
            }
        }
        if progress {
            let starved = self.backoff >= 2;
            self.backoff = 0;
            self.find_lost(starved, findings);
            self.trim();
        }
        true
    }

    fn find_lost(&mut self, starved: bool, findings: &mut Findings) {
        for class in 0..CLASSES {
            while let Some(&(order, number)) = self.lanes[class].under_way.front() {
                let at = self.packets.partition_point(|sent| sent.number < number);
                let tracked = self.packets.get(at).is_some_and(|s| s.number == number && s.content.is_some());
                if tracked && order >= self.lanes[class].lost_below {
                    break;
                }
                if tracked && let Some(content) = self.take(at) {
                    self.congestion.lost(number, self.next_number, starved);
                    findings.lost.push(content);
                }
                self.lanes[class].under_way.pop_front();
            }
        }
    }

    /// Takes the content of a packet that is under way, which it then no longer is.
    fn take(&mut self, at: usize) -> Option<Content> {
        let sent = &mut self.packets[at];
        let content = sent.content.take()?;
        self.in_flight -= sent.size;
        self.lanes[usize::from(sent.class.number())].in_flight -= sent.size;
        Some(content)
    }

    fn trim(&mut self) {
        while self.packets.front().is_some_and(|sent| sent.content.is_none()) {
            self.packets.pop_front();
        }
    }

    /// Gives up everything under way and measures the path, which is another one, anew.
    pub(crate) fn lose_all(&mut self, findings: &mut Findings) {
        findings.lost.extend(self.packets.drain(..).filter_map(|sent| sent.content));
        (self.in_flight, self.backoff) = (0, 0);
        self.lanes = Default::default();
        self.rtt.doubt();
        self.congestion = Congestion::default();
    }

    /// When to probe, if anything is under way.
    pub(crate) fn probe_deadline(&self) -> Option<Duration> {
        let timeout = self.probe_timeout();
        let waiting = self.lanes.iter().filter(|lane| lane.in_flight > 0 && !lane.probe_wanted);
        waiting.map(|lane| lane.last_sent + timeout).min()
    }

    fn probe_timeout(&self) -> Duration {
        self.rtt.probe_timeout().saturating_mul(1 << self.backoff.min(16)).min(MAX_PTO)
    }

    /// The deadline passed: a probe is wanted in every class that was silent as long.
    pub(crate) fn probe_due(&mut self, now: Duration) {
        let timeout = self.probe_timeout();
        for lane in &mut self.lanes {
            lane.probe_wanted |= lane.in_flight > 0 && lane.last_sent + timeout <= now;
        }
        self.backoff += 1;
    }

    /// The carrier says that packets were lost: probe now, unless a probe is under way already, so that
    /// a carrier which says it of every probe is asked no more often than by the timer.
    pub(crate) fn hurry(&mut self) {
        if self.backoff > 0 || self.in_flight == 0 {
            return;
        }
        for lane in &mut self.lanes {
            lane.probe_wanted |= lane.in_flight > 0;
        }
        self.backoff = 1;
    }

    /// The class to probe next. Probes go out even when nothing else may, up to a bound of their own.
    pub(crate) fn probe_wanted(&self) -> Option<Class> {
        if self.packets.len() >= 2 * MAX_TRACKED {
            return None;
        }
        Class::ALL.iter().copied().find(|class| self.lanes[usize::from(class.number())].probe_wanted)
    }

    /// The carrier says that a queue was full.
    pub(crate) fn congested(&mut self) {
        if let Some(oldest) = self.packets.front() {
            self.congestion.lost(oldest.number, self.next_number, false);
        }
    }

    /// The peer's grant: what may be under way to it.
    pub(crate) fn set_grant(&mut self, bytes: u64) {
        self.grant = bytes;
    }

    /// Bytes that may be sent now; `reserve` of the window are left to more urgent packets. Something
    /// may always be sent when nothing is under way.
    pub(crate) fn allowance(&self, reserve: bool, datagram: u64) -> u64 {
        if self.is_full() {
            return 0;
        }
        let window = self.congestion.window().min(self.grant);
        let kept = if reserve { (window / 4).min(MAX_RESERVE) } else { 0 };
        let free = (window - kept).saturating_sub(self.in_flight);
        if self.in_flight == 0 { free.max(datagram) } else { free }
    }

    #[cfg(test)]
    pub(crate) fn footprint(&self) -> usize {
        let lanes = self.lanes.iter().map(|lane| lane.under_way.capacity() * 16).sum::<usize>();
        let contents = self.packets.iter().flat_map(|sent| &sent.content);
        let chunks = contents.map(|content| content.chunks.capacity() * size_of::<Chunk>()).sum::<usize>();
        self.packets.capacity() * size_of::<Sent>() + lanes + chunks
    }

    pub(crate) fn largest_acked(&self) -> Option<u64> {
        self.largest_acked
    }

    pub(crate) fn rtt(&self) -> Duration {
        self.rtt.smoothed()
    }

    pub(crate) fn window(&self) -> u64 {
        self.congestion.window()
    }

    /// Three probe timeouts: time after which whatever was sent has arrived or never will.
    pub(crate) fn patience(&self) -> Duration {
        self.rtt.probe_timeout() * 3
    }
}

#[cfg(test)]
mod tests;
