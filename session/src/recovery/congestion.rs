//! How much may be under way: slow start, then additive increase and multiplicative decrease
//! (RFC 5681, in bytes).
//!
//! The carrier below is TCP and paces itself; this window keeps a sender from filling the relay's queue
//! again and again, and is halved once per flight when it did.

use culvert_wire::limits::MAX_PAYLOAD;

const DATAGRAM: u64 = MAX_PAYLOAD as u64;
/// Eight full datagrams: 128 KiB.
const INITIAL: u64 = 8 * DATAGRAM;
/// Two full datagrams, so that acknowledgements keep coming.
const MINIMUM: u64 = 2 * DATAGRAM;
/// 64 MiB; the peer's grant is the limit long before.
const MAXIMUM: u64 = 4096 * DATAGRAM;

#[derive(Debug)]
pub(super) struct Congestion {
    window: u64,
    threshold: u64,
    /// Bytes acknowledged since the last additive increase.
    credit: u64,
    /// Losses below this packet number were answered already.
    recovery: u64,
}

impl Default for Congestion {
    fn default() -> Self {
        Self { window: INITIAL, threshold: u64::MAX, credit: 0, recovery: 0 }
    }
}

impl Congestion {
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// A packet was acknowledged. The window grows only if it was `full`, that is, in use.
    pub(super) fn acked(&mut self, bytes: u64, number: u64, full: bool) {
        if !full || number < self.recovery {
            return;
        }
        if self.window < self.threshold {
            self.window = (self.window + bytes).min(MAXIMUM);
            return;
        }
        self.credit += bytes;
        if self.credit >= self.window {
            self.credit -= self.window;
            self.window = (self.window + DATAGRAM).min(MAXIMUM);
        }
    }

    /// A packet was lost while `next` was the number of the next packet. If the path was silent for
    /// long (`starved`), the window starts over.
    pub(super) fn lost(&mut self, number: u64, next: u64, starved: bool) {
        if number < self.recovery {
            return;
        }
        self.recovery = next;
        self.threshold = (self.window / 2).max(MINIMUM);
        self.window = if starved { MINIMUM } else { self.threshold };
        self.credit = 0;
    }
}
