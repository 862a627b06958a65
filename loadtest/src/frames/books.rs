//! What became of every frame: delivered once, reported, or cut off with its connection.
//!
//! [`Books`] count, for a group of peers that is in one process, so sender and receiver need not ask each
//! other. A [`Track`] watches the numbers of one flow as they arrive. When a run ends, [`Accounts`] wait
//! until nothing is under way any more; what then is still open is missing, and the run has failed.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use culvert_wire::Verdict;
use tokio::time::Instant;

use crate::measure::{Count, Recorder};
use crate::stage::Ending;

/// Holes of a flow that are remembered, to tell late frames from doubled ones.
const HOLES: usize = 100_000;
/// How long frames that still arrive, or are still reported, are waited for.
const LONGEST: Duration = Duration::from_secs(45);
/// How often it is asked whether all has settled.
const POLL: Duration = Duration::from_millis(2);

/// How a frame arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// For the first time, behind all that was sent before it and has arrived.
    InOrder,
    /// For the first time, but a later one was faster.
    Late,
    /// Not for the first time.
    Again,
}

/// The numbers of one flow, as they arrive.
#[derive(Debug, Default)]
pub struct Track {
    next: u64,
    /// What was left out, in order.
    holes: Vec<Range<u64>>,
}

impl Track {
    /// A frame with this number is here.
    #[inline]
    pub fn arrived(&mut self, number: u64) -> Arrival {
        if number == self.next {
            self.next += 1;
            return Arrival::InOrder;
        }
        self.out_of_line(number)
    }

    #[cold]
    fn out_of_line(&mut self, number: u64) -> Arrival {
        if number > self.next {
            if self.holes.len() < HOLES {
                self.holes.push(self.next..number);
            }
            self.next = number + 1;
            return Arrival::InOrder;
        }
        let at = self.holes.partition_point(|hole| hole.end <= number);
        let Some(hole) = self.holes.get_mut(at).filter(|hole| hole.contains(&number)) else {
            return Arrival::Again;
        };
        let rest = number + 1..hole.end;
        hole.end = number;
        if hole.is_empty() {
            self.holes.remove(at);
        }
        if !rest.is_empty() {
            let at = self.holes.partition_point(|hole| hole.end <= number);
            self.holes.insert(at, rest);
        }
        Arrival::Late
    }
}

/// What became of the frames of a group of peers.
#[derive(Debug, Default)]
pub struct Books {
    sent: Cell<u64>,
    delivered: Cell<u64>,
    undelivered: Cell<u64>,
    unknown: Cell<u64>,
    cut: Cell<u64>,
    again: Cell<u64>,
    late: Cell<u64>,
}

fn add(cell: &Cell<u64>, number: u64) {
    cell.set(cell.get() + number);
}

impl Books {
    /// So many are to arrive; a broadcast counts once for each receiver.
    pub fn sent(&self, recorder: &Recorder, number: u64, bytes: u64) {
        add(&self.sent, number);
        recorder.add(Count::Sent, number);
        recorder.add(Count::SentBytes, bytes);
    }

    /// So many have arrived for the first time.
    pub fn delivered(&self, recorder: &Recorder, number: u64, bytes: u64) {
        add(&self.delivered, number);
        recorder.add(Count::Delivered, number);
        recorder.add(Count::DeliveredBytes, bytes);
    }

    /// One has arrived in a way that is not as it should be; true if it counts as delivered.
    #[cold]
    pub fn odd(&self, recorder: &Recorder, arrival: Arrival) -> bool {
        let (cell, count) = match arrival {
            Arrival::InOrder => return true,
            Arrival::Late => (&self.late, Count::Reordered),
            Arrival::Again => (&self.again, Count::Duplicated),
        };
        add(cell, 1);
        recorder.add(count, 1);
        arrival == Arrival::Late
    }

    /// The relay reports so many as not delivered.
    pub fn undelivered(&self, recorder: &Recorder, verdict: Verdict, number: u64) {
        add(&self.undelivered, number);
        if verdict == Verdict::Unknown {
            add(&self.unknown, number);
        }
        recorder.undelivered(verdict, number);
    }

    /// A connection has ended: what is under way will not be heard of again.
    pub fn cut(&self, recorder: &Recorder) {
        let open = self.open();
        add(&self.cut, open);
        recorder.add(Count::Cut, open);
    }

    /// How many are under way.
    pub fn open(&self) -> u64 {
        self.sent.get().saturating_sub(self.closed())
    }

    /// How many were sent.
    pub fn total(&self) -> u64 {
        self.sent.get()
    }

    fn closed(&self) -> u64 {
        self.delivered.get() + self.undelivered.get() + self.cut.get()
    }

    /// How many were accounted for twice, beyond those of which nobody could know.
    fn surplus(&self) -> u64 {
        self.closed().saturating_sub(self.sent.get() + self.unknown.get())
    }
}

/// The books of all groups of a worker.
#[derive(Debug, Default)]
pub struct Accounts(RefCell<Vec<Rc<Books>>>);

impl Accounts {
    /// New books.
    pub fn open(&self) -> Rc<Books> {
        let books = Rc::<Books>::default();
        self.0.borrow_mut().push(books.clone());
        books
    }

    /// How many frames are under way.
    pub fn under_way(&self) -> u64 {
        self.0.borrow().iter().map(|books| books.open()).sum()
    }

    /// Waits until nothing is under way any more; no longer than this without any progress, and no longer
    /// than `LONGEST` at all.
    pub async fn settle(&self, quiet: Duration) {
        let end = Instant::now() + LONGEST;
        let (mut open, mut progress) = (self.under_way(), Instant::now());
        while open > 0 && progress.elapsed() < quiet && Instant::now() < end {
            tokio::time::sleep(POLL).await;
            let now = self.under_way();
            if now != open {
                (open, progress) = (now, Instant::now());
            }
        }
    }

    /// Counts what is missing, and says what is wrong.
    pub fn close(&self, recorder: &Recorder, ending: &mut Ending) {
        let all = self.0.borrow();
        let sum = |of: fn(&Books) -> u64| all.iter().map(|books| of(books)).sum::<u64>();
        let missing = sum(Books::open);
        recorder.add(Count::Missing, missing);
        let wrong = [
            (missing, "neither arrived nor were reported"),
            (sum(Books::surplus), "arrived although they were reported as undelivered"),
            (sum(|books| books.again.get()), "arrived more than once"),
            (sum(|books| books.late.get()), "arrived before one that was sent earlier"),
        ];
        let sent = sum(Books::total);
        for (number, what) in wrong {
            if number > 0 {
                ending
                    .failures
                    .push(format!("the ledger does not balance: {number} of {sent} frames {what}"));
            }
        }
        let cut = sum(|books| books.cut.get());
        if cut > 0 {
            ending.notes.push(format!("{cut} frames were under way on connections when they ended"));
        }
        let unknown = sum(|books| books.unknown.get());
        if unknown > 0 {
            ending.notes.push(format!("of {unknown} frames the relays could not say whether they arrived"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_track_tells_late_frames_from_doubled_ones() {
        let mut track = Track::default();
        let arrivals = [0, 1, 5, 3, 2, 3, 4, 4, 0, 6].map(|number| track.arrived(number));
        use Arrival::{Again, InOrder, Late};
        assert_eq!(arrivals, [InOrder, InOrder, InOrder, Late, Late, Again, Late, Again, Again, InOrder]);
        assert_eq!(track.holes, []);
    }

    fn closed(accounts: &Accounts) -> (Ending, u64) {
        let (recorder, mut ending) = (Recorder::default(), Ending::default());
        accounts.close(&recorder, &mut ending);
        (ending, recorder.count(Count::Missing))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_neither_delivered_nor_reported_is_missing() {
        let (accounts, recorder) = (Accounts::default(), Recorder::default());
        let books = accounts.open();
        books.sent(&recorder, 10, 640);
        books.delivered(&recorder, 6, 384);
        books.undelivered(&recorder, Verdict::Full, 3);
        let began = Instant::now();
        accounts.settle(Duration::from_secs(5)).await;
        assert!(began.elapsed() >= Duration::from_secs(5));
        let (ending, missing) = closed(&accounts);
        assert_eq!((ending.failures.len(), missing), (1, 1), "{ending:?}");
        assert!(ending.failures[0].contains("1 of 10 frames neither arrived"), "{ending:?}");
        books.cut(&recorder);
        let began = Instant::now();
        accounts.settle(Duration::from_secs(5)).await;
        assert!(began.elapsed() < Duration::from_secs(1));
        let (ending, missing) = closed(&accounts);
        assert_eq!((ending.failures.len(), missing), (0, 0), "{ending:?}");
        assert!(ending.notes[0].contains("1 frames were under way"), "{ending:?}");
    }

    #[test]
    fn a_report_about_what_arrived_is_a_failure_unless_nobody_could_know() {
        let (accounts, recorder) = (Accounts::default(), Recorder::default());
        let books = accounts.open();
        books.sent(&recorder, 5, 0);
        books.delivered(&recorder, 5, 0);
        books.undelivered(&recorder, Verdict::Unknown, 2);
        assert_eq!(closed(&accounts).0.failures, Vec::<String>::new());
        books.undelivered(&recorder, Verdict::Full, 2);
        assert_eq!(closed(&accounts).0.failures.len(), 1);
        assert!(books.odd(&recorder, Arrival::Late) && !books.odd(&recorder, Arrival::Again));
        assert_eq!(closed(&accounts).0.failures.len(), 3);
    }
}
