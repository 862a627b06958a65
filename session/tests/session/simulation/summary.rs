//! What happened in a number of runs.

use culvert_session::Counters;

/// What runs did, to show that they did something.
#[derive(Default, Debug)]
pub(crate) struct Summary {
    pub(crate) messages: u64,
    pub(crate) moves: u64,
    pub(crate) deaths: u64,
    pub(crate) pauses: u64,
    /// Packets whose fate nobody could tell.
    pub(crate) unknown: u64,
    pub(crate) counters: Counters,
}

impl Summary {
    pub(crate) fn add(&mut self, other: &Summary) {
        self.messages += other.messages;
        self.moves += other.moves;
        self.deaths += other.deaths;
        self.pauses += other.pauses;
        self.unknown += other.unknown;
        self.count(&other.counters);
    }

    pub(crate) fn count(&mut self, counters: &Counters) {
        let total = &mut self.counters;
        total.packets_sent += counters.packets_sent;
        total.bytes_sent += counters.bytes_sent;
        total.bytes_retransmitted += counters.bytes_retransmitted;
        total.packets_lost += counters.packets_lost;
        total.rejected += counters.rejected;
        total.replayed += counters.replayed;
        total.rekeys += counters.rekeys;
        total.path_changes += counters.path_changes;
    }

    /// Faults that do not happen prove nothing: on average every second run had one of each kind.
    pub(crate) fn prove_something(&self, runs: u64) {
        let counters = &self.counters;
        for (count, what) in [
            (self.messages, "messages"),
            (self.moves, "moves"),
            (self.pauses, "pauses"),
            (self.unknown, "verdicts that nobody knows"),
            (counters.packets_lost, "losses"),
            (counters.replayed, "replays"),
            (counters.rekeys, "rekeys"),
        ] {
            assert!(count * 2 >= runs, "only {count} {what} in {runs} runs");
        }
        assert!(self.deaths * 10 >= runs && counters.rejected > 0 && counters.path_changes > self.moves);
    }
}
