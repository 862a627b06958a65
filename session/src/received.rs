//! Which packets arrived, and when to say so.

use std::collections::VecDeque;
use std::time::Duration;

use crate::frame::{Ack, MAX_ACK_RANGES};

/// Longest wait before an acknowledgement goes out.
pub(crate) const MAX_ACK_DELAY: Duration = Duration::from_millis(20);

/// Packet numbers that arrived, as the last [`MAX_ACK_RANGES`] ranges; older ones were reported often
/// enough, and a forgotten packet costs a retransmission.
#[derive(Default, Debug)]
pub(crate) struct Received {
    /// Closed ranges, the highest first.
    ranges: VecDeque<(u64, u64)>,
    largest_at: Duration,
    /// Packets that ask for an acknowledgement and have none yet.
    unacknowledged: u32,
    due: Option<Duration>,
}

impl Received {
    /// Notes a packet. `eliciting` packets are acknowledged every second one or after
    /// [`MAX_ACK_DELAY`]; at once if `urgent` or if the order is broken.
    pub(crate) fn record(&mut self, now: Duration, number: u64, eliciting: bool, urgent: bool) {
        let in_order = self.insert(number);
        if self.ranges[0].1 == number {
            self.largest_at = now;
        }
        if !eliciting {
            return;
        }
        self.unacknowledged += 1;
        let due = if urgent || !in_order || self.unacknowledged >= 2 { now } else { now + MAX_ACK_DELAY };
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    fn insert(&mut self, number: u64) -> bool {
        if let Some((_, high)) = self.ranges.front_mut()
            && *high + 1 == number
        {
            *high = number;
            return true;
        }
        let in_order = self.ranges.is_empty();
        let at = self.ranges.iter().position(|&(low, _)| low <= number).unwrap_or(self.ranges.len());
        let joins_below = self.ranges.get(at).is_some_and(|&(_, high)| high + 1 >= number);
        let joins_above = at > 0 && self.ranges[at - 1].0 == number + 1;
        match (joins_below, joins_above) {
            (true, true) => {
                self.ranges[at - 1].0 = self.ranges[at].0;
                self.ranges.remove(at);
            }
            (true, false) => {
                let (low, high) = self.ranges[at];
                self.ranges[at] = (low.min(number), high.max(number));
            }
            (false, true) => self.ranges[at - 1].0 = number,
            (false, false) => {
                self.ranges.insert(at, (number, number));
                self.ranges.truncate(MAX_ACK_RANGES);
            }
        }
        in_order
    }

    /// When an acknowledgement must go out.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.due
    }

    /// The acknowledgement to send now, if anything new can be said; the next one is then due only
    /// after another packet.
    pub(crate) fn acknowledge(&mut self, now: Duration, window: u64) -> Option<Ack> {
        self.due.take()?;
        self.unacknowledged = 0;
        Some(Ack::new(now.saturating_sub(self.largest_at), window, self.ranges.iter().copied()))
    }

    /// Makes an acknowledgement due, to announce another window.
    pub(crate) fn force(&mut self) {
        if !self.ranges.is_empty() {
            self.due = Some(Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const T: Duration = Duration::from_secs(1);

    #[test]
    fn every_second_packet_is_acknowledged_and_a_gap_at_once() {
        let mut received = Received::default();
        received.record(T, 0, true, false);
        assert_eq!(received.due(), Some(T + MAX_ACK_DELAY));
        received.record(T, 1, true, false);
        assert_eq!(received.due(), Some(T));
        let ack = received.acknowledge(T + MAX_ACK_DELAY, 9).unwrap();
        assert_eq!((ack.ranges(), ack.delay, ack.window), (&[(0, 1)][..], MAX_ACK_DELAY, 9));
        assert!(received.acknowledge(T, 9).is_none());
        received.record(T, 2, false, false);
        assert_eq!(received.due(), None, "an acknowledgement is not acknowledged");
        received.record(T, 4, true, false);
        assert_eq!(received.due(), Some(T), "3 is missing");
        received.acknowledge(T, 9);
        received.record(T, 5, true, true);
        assert_eq!(received.due(), Some(T), "urgent");
    }

    proptest! {
        #[test]
        fn ranges_are_the_runs_of_what_arrived_and_never_more(
            numbers in proptest::collection::vec(0u64..150, 1..120),
        ) {
            let mut received = Received::default();
            let mut model = BTreeSet::new();
            let mut forgotten = false;
            for number in numbers {
                // The replay window lets no number through twice.
                if model.insert(number) {
                    received.record(T, number, true, false);
                    forgotten |= runs(&model).len() > MAX_ACK_RANGES;
                }
            }
            let ack = received.acknowledge(T, 0).unwrap();
            if !forgotten {
                prop_assert_eq!(ack.ranges(), &runs(&model)[..]);
            }
            prop_assert_eq!(ack.ranges()[0].1, *model.last().unwrap());
            for &(low, high) in ack.ranges() {
                prop_assert!((low..=high).all(|n| model.contains(&n)));
            }
        }
    }

    fn runs(numbers: &BTreeSet<u64>) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for &number in numbers.iter().rev() {
            match runs.last_mut() {
                Some((low, _)) if *low == number + 1 => *low = number,
                _ => runs.push((number, number)),
            }
        }
        runs
    }
}
