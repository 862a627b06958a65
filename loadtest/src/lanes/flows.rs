//! The accounts of a lane: one for each pair of connections that frames went between.

use std::collections::BTreeMap;
use std::time::Duration;

use culvert_wire::{ConnId, Verdict};

use super::Scene;
use crate::frames::nanos;
use crate::ledger::{Account, Arrival, Balance, End};

/// From which connection to which.
pub(super) type Way = (ConnId, ConnId);

/// Accounts that are open until the lane ends, because frames and verdicts may come late.
#[derive(Default)]
pub(super) struct Flows {
    accounts: BTreeMap<Way, Account>,
    /// Connections that have ended, and when they last gave a sign of life, on the clock of the accounts.
    ended: BTreeMap<ConnId, u64>,
}

impl Flows {
    pub(super) fn send(&mut self, way: Way, at: u64) -> u64 {
        self.accounts.entry(way).or_default().send(at)
    }

    pub(super) fn withdraw(&mut self, way: Way) {
        self.accounts.entry(way).or_default().withdraw();
    }

    pub(super) fn arrive(&mut self, way: Way, number: u64) -> Arrival {
        self.accounts.entry(way).or_default().arrive(number)
    }

    pub(super) fn report(&mut self, way: Way, verdict: Verdict, count: u64) {
        self.accounts.entry(way).or_default().report(verdict, count);
    }

    /// A connection has ended in a way that may have cut off what was under way on it.
    pub(super) fn ended(&mut self, conn: ConnId, last_sign: u64) {
        self.ended.insert(conn, last_sign);
    }

    /// Whether everything has arrived or was reported that nothing has cut off.
    pub(super) fn are_settled(&self) -> bool {
        let whole = |(from, to): &Way| !self.ended.contains_key(from) && !self.ended.contains_key(to);
        self.accounts.iter().all(|(way, account)| !whole(way) || account.is_settled())
    }

    /// Whether everything that this connection sent has.
    pub(super) fn are_settled_from(&self, conn: ConnId) -> bool {
        let of = self.accounts.range((conn, ConnId(0))..=(conn, ConnId(u64::MAX)));
        of.into_iter().all(|(_, account)| account.is_settled())
    }

    /// Whether everything that was sent to this connection has.
    pub(super) fn are_settled_to(&self, conn: ConnId) -> bool {
        self.accounts.iter().all(|((_, to), account)| *to != conn || account.is_settled())
    }

    /// What became of everything, by flow. What was sent so long before the last sign of life of a
    /// connection cannot be excused by its end.
    pub(super) fn close(&self, settle: Duration) -> impl Iterator<Item = (Way, Balance)> {
        self.accounts.iter().map(move |((from, to), account)| {
            let signs = [from, to].into_iter().filter_map(|conn| self.ended.get(conn)).min();
            let end = match signs {
                None => End::Settled,
                Some(sign) => End::Cut { before: sign.saturating_sub(nanos(settle)) },
            };
            ((*from, *to), account.close(&end))
        })
    }
}

impl super::Lane {
    /// Enters what became of everything into the ledger.
    pub(super) fn close(&self, scene: &Scene) {
        for ((from, to), balance) in self.flows.borrow().close(scene.load.settle) {
            let name = format!("lane {}, from connection {from} to {to}", self.number);
            scene.ledger.borrow_mut().enter(&name, &balance, &scene.recorder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnId = ConnId(1);
    const B: ConnId = ConnId(2);
    const SETTLE: Duration = Duration::from_nanos(10);

    fn closed(flows: &Flows) -> Vec<(Way, Balance)> {
        flows.close(SETTLE).collect()
    }

    #[test]
    fn frames_that_nothing_cut_off_must_settle() {
        let mut flows = Flows::default();
        for at in 0..3 {
            flows.send((A, B), at);
        }
        flows.arrive((A, B), 0);
        flows.report((A, B), Verdict::Unreachable, 1);
        assert!(!flows.are_settled() && !flows.are_settled_from(A) && flows.are_settled_from(B));
        assert_eq!(closed(&flows)[0].1.missing, 1);
        flows.arrive((A, B), 2);
        assert!(flows.are_settled() && flows.are_settled_from(A));
        assert_eq!(closed(&flows)[0].1.missing, 0);
    }

    #[test]
    fn the_end_of_a_connection_excuses_only_what_was_sent_shortly_before_its_last_sign() {
        let mut flows = Flows::default();
        for at in [1, 50, 95, 120] {
            flows.send((A, B), at);
        }
        flows.arrive((A, B), 1);
        flows.ended(B, 100);
        assert!(flows.are_settled(), "nothing more is to be waited for");
        let (_, balance) = closed(&flows)[0];
        assert_eq!((balance.missing, balance.cut), (1, 2), "what was sent at 1 was due");
    }
}
