//! What one connection sent since it was last settled: counted without atomics, charged in one go.

use culvert_wire::frame::Kind;
use culvert_wire::{Class, Verdict};

use crate::metrics::{Metrics, Route};

/// Counts between two settlements.
#[derive(Default)]
pub struct Ledger {
    /// Frames to charge: those received, and what expensive ones count extra.
    pub frames: u64,
    /// Payload bytes to charge; a broadcast counts once per recipient.
    pub bytes: u64,
    received: u64,
    kinds: [u64; Kind::ALL.len()],
    skipped: u64,
    forwarded: [u64; 2],
    class_bytes: [u64; 3],
    verdicts: [u64; Verdict::ALL.len()],
}

impl Ledger {
    /// A frame came in.
    pub fn received(&mut self, kind: Option<Kind>) {
        self.received += 1;
        self.frames += 1;
        match kind.and_then(|kind| Kind::ALL.iter().position(|known| *known == kind)) {
            Some(index) => self.kinds[index] += 1,
            None => self.skipped += 1,
        }
    }

    /// Data frames take the short way: they are nearly all there is.
    pub fn received_send(&mut self) {
        const SEND: usize = 6;
        const { assert!(matches!(Kind::ALL[SEND], Kind::Send)) }
        self.received += 1;
        self.frames += 1;
        self.kinds[SEND] += 1;
    }

    /// A payload was handed on.
    pub fn forwarded(&mut self, route: Route, class: Class, bytes: usize) {
        self.forwarded[usize::from(route == Route::Remote)] += 1;
        self.class_bytes[usize::from(class.number())] += bytes as u64;
    }

    /// Payloads were not delivered; the sender is charged for the trouble.
    pub fn undelivered(&mut self, verdict: Verdict, count: u32) {
        self.frames += 1;
        if let Some(index) = Verdict::ALL.iter().position(|known| *known == verdict) {
            self.verdicts[index] += u64::from(count);
        }
    }

    /// Frames received since the last settlement.
    pub fn received_frames(&self) -> u64 {
        self.received
    }

    /// Moves the counts into the node's series and begins anew.
    pub fn settle(&mut self, metrics: &Metrics) {
        let add = |counter: &metrics::Counter, count: u64| {
            if count > 0 {
                counter.increment(count);
            }
        };
        for (kind, count) in Kind::ALL.iter().zip(self.kinds) {
            if count > 0 {
                metrics.frames_received[*kind].increment(count);
            }
        }
        add(&metrics.frames_skipped, self.skipped);
        for (route, count) in Route::ALL.iter().zip(self.forwarded) {
            add(&metrics.frames_forwarded[*route], count);
        }
        for (class, bytes) in Class::ALL.iter().zip(self.class_bytes) {
            add(&metrics.bytes_forwarded[*class], bytes);
        }
        for (verdict, count) in Verdict::ALL.iter().zip(self.verdicts) {
            if count > 0 {
                metrics.undeliverable[*verdict].increment(count);
            }
        }
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use culvert_service_kit::metric_set::Registry;

    use super::*;

    #[test]
    fn what_was_counted_reaches_the_series_once() {
        let registry = Registry::new();
        let metrics = Metrics::register(registry.recorder());
        let mut ledger = Ledger::default();
        ledger.received_send();
        ledger.received(Some(Kind::Join));
        ledger.received(None);
        ledger.forwarded(Route::Local, Class::Bulk, 10);
        ledger.undelivered(Verdict::Full, 2);
        assert_eq!((ledger.frames, ledger.received_frames()), (4, 3));
        ledger.settle(&metrics);
        ledger.settle(&metrics);
        let text = registry.render();
        for line in [
            r#"culvert_relay_frames_received_total{kind="send"} 1"#,
            r#"culvert_relay_frames_received_total{kind="join"} 1"#,
            "culvert_relay_frames_skipped_total 1",
            r#"culvert_relay_frames_forwarded_total{route="local"} 1"#,
            r#"culvert_relay_bytes_forwarded_total{class="bulk"} 10"#,
            r#"culvert_relay_undeliverable_total{verdict="full"} 2"#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
