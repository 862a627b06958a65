//! Accounts of what was sent, which balance to the frame.
//!
//! Every flow of numbered frames or messages has an [`Account`]: from one connection to another, or in one
//! conversation. It knows which of them have arrived, once and in order, and what was reported about the
//! others. When the flow ends, [`Account::close`] says what became of each:
//!
//! - delivered;
//! - reported: by a verdict of the relay, or by the error of a session that names what was not acknowledged;
//! - cut: on its way when one of the two connections ended. Nobody can tell those who sent it what became of
//!   it, because they are no longer there to be told. Only what was sent shortly before counts as that;
//! - missing, which no flow may have, as little as doubles, reorderings, and verdicts about what did arrive.

use std::collections::VecDeque;
use std::ops::Range;

use culvert_wire::Verdict;

use crate::measure::{Count, Recorder};

/// Flows that are named in failures; of more only the number is given.
const NAMED: usize = 10;

/// What one flow has sent, and what is known of it. Numbers begin at 0.
#[derive(Debug, Default)]
pub struct Account {
    sent: u64,
    /// Above every number that has arrived.
    next: u64,
    /// What has not arrived: its number and when it was sent, in order.
    open: VecDeque<(u64, u64)>,
    balance: Balance,
}

/// How something arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Once, and after everything that was sent before it and has arrived.
    InOrder,
    /// After something that was sent later.
    Reordered,
    /// Not for the first time.
    Doubled,
    /// Nobody has sent it.
    Foreign,
}

/// How a flow ended, and so what must have become of everything in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Everybody was there to the end: all of it arrived or was reported.
    Settled,
    /// A connection ended. What was sent before this moment arrived or was reported all the same.
    Cut {
        /// On the clock of [`Account::send`].
        before: u64,
    },
    /// A conversation ended with an error that names what the peer did not acknowledge.
    Unacknowledged(Range<u64>),
}

/// What became of everything in a flow, or in many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    /// All of it.
    pub sent: u64,
    /// Arrived, each counted once.
    pub delivered: u64,
    /// Reported by a verdict that says that it did not arrive.
    pub definite: u64,
    /// Reported by a verdict that cannot say whether it arrived.
    pub unknown: u64,
    /// Named by the error of a session.
    pub unacknowledged: u64,
    /// On its way when a connection ended.
    pub cut: u64,
    /// Not accounted for.
    pub missing: u64,
    /// Arrivals of what had arrived before.
    pub doubled: u64,
    /// Arrivals after something that was sent later.
    pub reordered: u64,
    /// Arrivals of what was never sent, or not there.
    pub foreign: u64,
    /// Reported as undelivered, and yet delivered.
    pub contradicted: u64,
}

impl Account {
    /// Enters one more, sent at this moment of any clock that does not go back, and gives its number.
    pub fn send(&mut self, at: u64) -> u64 {
        let number = self.sent;
        self.sent += 1;
        self.open.push_back((number, at));
        number
    }

    /// Takes back the latest one: it was not sent after all.
    pub fn withdraw(&mut self) {
        if self.open.pop_back().is_some() {
            self.sent -= 1;
        }
    }

    /// Enters an arrival.
    pub fn arrive(&mut self, number: u64) -> Arrival {
        if number >= self.sent {
            self.balance.foreign += 1;
            return Arrival::Foreign;
        }
        let Ok(index) = self.open.binary_search_by_key(&number, |(number, _)| *number) else {
            self.balance.doubled += 1;
            return Arrival::Doubled;
        };
        self.open.remove(index);
        self.balance.delivered += 1;
        if number < self.next {
            self.balance.reordered += 1;
            return Arrival::Reordered;
        }
        self.next = number + 1;
        Arrival::InOrder
    }

    /// Enters a verdict about so many.
    pub fn report(&mut self, verdict: Verdict, count: u64) {
        match verdict {
            Verdict::Unknown => self.balance.unknown += count,
            _ => self.balance.definite += count,
        }
    }

    /// How many were sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// How many have not arrived.
    pub fn open(&self) -> u64 {
        self.open.len() as u64
    }

    /// Whether everything up to now has arrived or was reported.
    pub fn is_settled(&self) -> bool {
        self.open() <= self.reported()
    }

    fn reported(&self) -> u64 {
        self.balance.definite + self.balance.unknown
    }

    /// Ends the flow.
    pub fn close(&self, end: &End) -> Balance {
        let (open, reported) = (self.open(), self.reported());
        let mut balance = Balance {
            sent: self.sent,
            // A verdict that says "did not arrive" about something that did.
            contradicted: self.balance.definite.saturating_sub(open),
            ..self.balance
        };
        match end {
            End::Settled => balance.missing = open.saturating_sub(reported),
            End::Cut { before } => {
                // Reports give no numbers. Those about what was sent earlier come first.
                let early = self.open.iter().take_while(|(_, at)| at < before).count() as u64;
                balance.missing = early.saturating_sub(reported);
                balance.cut = (open - balance.missing).saturating_sub(reported);
            }
            End::Unacknowledged(named) => {
                balance.unacknowledged =
                    self.open.iter().filter(|(number, _)| named.contains(number)).count() as u64;
                balance.missing = (open - balance.unacknowledged).saturating_sub(reported);
            }
        }
        balance
    }
}

impl Balance {
    /// Whether everything is accounted for.
    pub fn balances(&self) -> bool {
        self.missing + self.doubled + self.reordered + self.foreign + self.contradicted == 0
    }

    fn add(&mut self, other: &Balance) {
        let mine = self.fields();
        for (mine, (_, other)) in mine.into_iter().zip(other.named()) {
            *mine += other;
        }
    }

    fn fields(&mut self) -> [&mut u64; 11] {
        [
            &mut self.sent,
            &mut self.delivered,
            &mut self.definite,
            &mut self.unknown,
            &mut self.unacknowledged,
            &mut self.cut,
            &mut self.missing,
            &mut self.doubled,
            &mut self.reordered,
            &mut self.foreign,
            &mut self.contradicted,
        ]
    }

    /// In the order of [`Balance::fields`].
    fn named(&self) -> [(&'static str, u64); 11] {
        [
            ("sent", self.sent),
            ("delivered", self.delivered),
            ("reported as undelivered", self.definite),
            ("reported as unknown", self.unknown),
            ("named by a session's error", self.unacknowledged),
            ("under way when a connection ended", self.cut),
            ("missing", self.missing),
            ("doubled", self.doubled),
            ("reordered", self.reordered),
            ("never sent", self.foreign),
            ("delivered although reported as undelivered", self.contradicted),
        ]
    }

    /// Everything that is not zero, in words.
    pub fn in_words(&self) -> String {
        let words = self.named().into_iter().filter(|(name, number)| *number > 0 || *name == "sent");
        words.map(|(name, number)| format!("{number} {name}")).collect::<Vec<_>>().join(", ")
    }
}

/// All flows of a kind.
#[derive(Debug, Default)]
pub struct Ledger {
    total: Balance,
    flows: u64,
    wrong: Vec<String>,
    wrong_flows: u64,
}

impl Ledger {
    /// Enters what became of a flow; `name` says which peers it was between. What is wrong with it is
    /// counted.
    pub fn enter(&mut self, name: &str, balance: &Balance, recorder: &Recorder) {
        self.flows += 1;
        self.total.add(balance);
        recorder.add(Count::Missing, balance.missing + balance.foreign + balance.contradicted);
        recorder.add(Count::Cut, balance.cut);
        recorder.add(Count::Unacknowledged, balance.unacknowledged);
        if !balance.balances() {
            self.wrong_flows += 1;
            if self.wrong.len() < NAMED {
                self.wrong.push(format!("{name}: {}", balance.in_words()));
            }
        }
    }

    /// All flows together.
    pub fn total(&self) -> &Balance {
        &self.total
    }

    /// Why it does not balance, a sentence each. A ledger with nothing in it does not balance.
    pub fn failures(&self, of: &str) -> Vec<String> {
        if self.total.delivered == 0 {
            return vec![format!(
                "the ledger of {of} is empty: {} were sent and none arrived",
                self.total.sent
            )];
        }
        if self.wrong_flows == 0 {
            return Vec::new();
        }
        let mut failures = vec![format!(
            "the ledger of {of} does not balance in {} of {} flows: {}",
            self.wrong_flows,
            self.flows,
            self.total.in_words()
        )];
        failures.extend(self.wrong.iter().cloned());
        failures
    }

    /// What it says, in a sentence.
    pub fn note(&self, of: &str) -> String {
        format!("the ledger of {of} has {} flows: {}", self.flows, self.total.in_words())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An account of ten, sent at the moments 0 to 9, of which these have arrived, in this order.
    fn ten(arrived: &[u64]) -> Account {
        let mut account = Account::default();
        for at in 0..10 {
            assert_eq!(account.send(at), at);
        }
        for number in arrived {
            account.arrive(*number);
        }
        account
    }

    fn failures(account: &Account, end: &End) -> Vec<String> {
        let mut ledger = Ledger::default();
        let recorder = Recorder::default();
        ledger.enter("a to b", &account.close(end), &recorder);
        let total = ledger.total();
        assert_eq!(recorder.count(Count::Missing), total.missing + total.foreign + total.contradicted);
        ledger.failures("tests")
    }

    const ALL: [u64; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

    #[test]
    fn everything_that_arrived_once_and_in_order_balances() {
        let account = ten(&ALL);
        assert!(account.is_settled());
        assert_eq!(failures(&account, &End::Settled), Vec::<String>::new());
    }

    #[test]
    fn a_lost_frame_is_a_failure_that_names_the_flow() {
        let failures = failures(&ten(&ALL[..9]), &End::Settled);
        assert_eq!(failures.len(), 2, "{failures:?}");
        assert!(failures[0].contains("1 of 1 flows"), "{failures:?}");
        assert_eq!(failures[1], "a to b: 10 sent, 9 delivered, 1 missing");
    }

    #[test]
    fn a_doubled_frame_is_a_failure() {
        let mut account = ten(&ALL);
        assert_eq!(account.arrive(4), Arrival::Doubled);
        assert!(failures(&account, &End::Settled)[1].contains("1 doubled"));
    }

    #[test]
    fn a_frame_behind_a_later_one_is_a_failure() {
        let account = ten(&[0, 1, 3, 2, 4, 5, 6, 7, 8, 9]);
        assert!(failures(&account, &End::Settled)[1].contains("1 reordered"));
    }

    #[test]
    fn a_frame_that_nobody_sent_is_a_failure() {
        let mut account = ten(&ALL);
        assert_eq!(account.arrive(10), Arrival::Foreign);
        assert!(failures(&account, &End::Settled)[1].contains("1 never sent"));
    }

    #[test]
    fn what_was_reported_need_not_arrive_and_must_not_if_the_report_is_definite() {
        let mut account = ten(&ALL[..7]);
        account.report(Verdict::Gone, 2);
        assert!(!account.is_settled());
        account.report(Verdict::Unknown, 5);
        assert!(account.is_settled());
        assert_eq!(failures(&account, &End::Settled), Vec::<String>::new());
        account.report(Verdict::Full, 2);
        assert!(failures(&account, &End::Settled)[1].contains("1 delivered although reported"));
    }

    #[test]
    fn only_what_was_sent_shortly_before_the_end_of_a_connection_may_be_cut() {
        let account = ten(&[0, 1, 2, 4, 5, 6]);
        let balance = account.close(&End::Cut { before: 3 });
        assert!(balance.balances());
        assert_eq!((balance.missing, balance.cut), (0, 4));
        let balance = account.close(&End::Cut { before: 4 });
        assert_eq!((balance.missing, balance.cut), (1, 3), "number 3 was due");
    }

    #[test]
    fn a_session_s_error_must_name_what_did_not_arrive() {
        let account = ten(&ALL[..7]);
        assert!(account.close(&End::Unacknowledged(5..10)).balances());
        let balance = account.close(&End::Unacknowledged(8..10));
        assert_eq!((balance.missing, balance.unacknowledged), (1, 2));
    }

    #[test]
    fn an_empty_ledger_is_a_failure() {
        assert_eq!(Ledger::default().failures("frames").len(), 1);
        assert_eq!(failures(&ten(&[]), &End::Cut { before: 0 }).len(), 1);
    }
}
