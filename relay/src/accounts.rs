//! Counts what each source address, peer, tenant and ticket has open, and holds the rates they share.
//!
//! An account exists while somebody has a [`Seat`] in it, and as long after as its handshake rate
//! remembers anything; [`Accounts::sweep`] drops the rest. The number of accounts is bounded.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::quota::{Bucket, Rate};

/// A source address as far as it tells customers apart: an IPv4 address, or an IPv6 /64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) >> 64 << 64;
                Source(IpAddr::V6(network.into()))
            }
            v4 => Source(v4),
        }
    }
}

/// The limits that hold for one kind of account.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Connections open at once.
    pub connections: u32,
    /// New connections a second.
    pub openings: Rate,
    /// Frames a second.
    pub frames: Rate,
    /// Payload bytes a second.
    pub bytes: Rate,
}

/// One account: a counter and the rates that its connections share.
pub struct Account {
    connections: AtomicU32,
    limit: u32,
    openings: Bucket,
    frames: Bucket,
    bytes: Bucket,
    parts: Arc<AtomicU32>,
}

impl Account {
    fn new(allowance: &Allowance, parts: &Arc<AtomicU32>) -> Self {
        Self {
            connections: AtomicU32::new(0),
            limit: allowance.connections,
            openings: Bucket::new(allowance.openings),
            frames: Bucket::new(allowance.frames),
            bytes: Bucket::new(allowance.bytes),
            parts: parts.clone(),
        }
    }

    /// Charges a batch and gives the pause that pays for it.
    pub fn charge(&self, now: u64, frames: u64, bytes: u64) -> Duration {
        let parts = self.parts();
        self.frames.charge_part(now, frames, parts).max(self.bytes.charge_part(now, bytes, parts))
    }

    /// Into how many equal parts its connections and rates are divided, of which one is here.
    fn parts(&self) -> u32 {
        self.parts.load(Ordering::Relaxed).max(1)
    }
}

/// Why there is no seat.
#[derive(Debug, PartialEq, Eq)]
pub enum NoSeat {
    /// As many connections as allowed.
    Connections,
    /// New connections come too often.
    Openings,
    /// More accounts than the node keeps.
    Accounts,
}

/// All accounts of one kind.
pub struct Accounts<K> {
    allowance: Allowance,
    most: usize,
    parts: Arc<AtomicU32>,
    accounts: Mutex<HashMap<K, Arc<Account>>>,
}

impl<K: Eq + Hash> Accounts<K> {
    /// No accounts yet, and never more than `most`.
    pub fn new(allowance: Allowance, most: usize) -> Self {
        Self::divided(allowance, most, Arc::new(AtomicU32::new(1)))
    }

    /// The same for one of `parts` equal parts of everything but the openings; their number may change.
    pub fn divided(allowance: Allowance, most: usize, parts: Arc<AtomicU32>) -> Self {
        Self { allowance, most, parts, accounts: Mutex::default() }
    }

    /// Opens one connection on an account; dropping the seat closes it.
    ///
    /// `limit` lowers the number of connections for this account.
    ///
    /// # Errors
    /// See [`NoSeat`].
    pub fn sit(&self, key: K, limit: Option<u32>, now: u64) -> Result<Seat, NoSeat> {
        let mut accounts = self.accounts.lock();
        if accounts.len() >= self.most && !accounts.contains_key(&key) {
            sweep(&mut accounts, now);
            if accounts.len() >= self.most {
                return Err(NoSeat::Accounts);
            }
        }
        let new = || Arc::new(Account::new(&self.allowance, &self.parts));
        let account = accounts.entry(key).or_insert_with(new);
        // Counted under the lock, so that two arrivals cannot both take the last seat.
        let own = (account.limit / account.parts()).max(1);
        let limit = limit.map_or(own, |limit| limit.min(own));
        if account.connections.load(Ordering::Relaxed) >= limit {
            return Err(NoSeat::Connections);
        }
        if !account.openings.admit(now) {
            return Err(NoSeat::Openings);
        }
        account.connections.fetch_add(1, Ordering::Relaxed);
        Ok(Seat { account: account.clone() })
    }

    /// Forgets accounts that nobody uses and that remember nothing.
    pub fn sweep(&self, now: u64) {
        sweep(&mut self.accounts.lock(), now);
    }

    /// Accounts kept at the moment.
    #[cfg(test)]
    fn kept(&self) -> usize {
        self.accounts.lock().len()
    }
}

fn sweep<K: Eq + Hash>(accounts: &mut HashMap<K, Arc<Account>>, now: u64) {
    accounts.retain(|_, account| {
        account.connections.load(Ordering::Relaxed) > 0 || !account.openings.is_full(now)
    });
}

/// One open connection on an account.
pub struct Seat {
    account: Arc<Account>,
}

impl Seat {
    /// The account it is on.
    pub fn account(&self) -> &Account {
        &self.account
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.account.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    const ALLOWANCE: Allowance = Allowance {
        connections: 2,
        openings: Rate { per_second: 10, burst: 3 },
        frames: Rate::UNLIMITED,
        bytes: Rate::UNLIMITED,
    };

    #[test]
    fn seats_run_out_and_come_back() {
        let accounts = Accounts::new(ALLOWANCE, 10);
        let first = accounts.sit("a", None, 0).ok().unwrap();
        let _second = accounts.sit("a", None, 0).ok().unwrap();
        assert_eq!(accounts.sit("a", None, 0).err(), Some(NoSeat::Connections));
        drop(first);
        assert!(accounts.sit("a", None, 0).is_ok());
        assert_eq!(accounts.sit("a", None, 0).err(), Some(NoSeat::Openings), "the burst is used up");
        assert_eq!(accounts.sit("b", Some(0), 0).err(), Some(NoSeat::Connections), "a lower limit");
    }

    #[test]
    fn a_divided_account_allows_its_part_and_never_less_than_one() {
        let parts = Arc::new(AtomicU32::new(2));
        let rate = Rate::per_second(10);
        let allowance = Allowance { openings: Rate::UNLIMITED, frames: rate, ..ALLOWANCE };
        let accounts = Accounts::divided(allowance, 10, parts.clone());
        let first = accounts.sit("a", None, 0).ok().unwrap();
        assert_eq!(accounts.sit("a", None, 0).err(), Some(NoSeat::Connections), "half of two");
        assert_eq!(first.account().charge(0, 10, 0), Duration::from_secs(1));
        parts.store(9, Ordering::Relaxed);
        assert!(accounts.sit("b", None, 0).is_ok());
        parts.store(1, Ordering::Relaxed);
        let _second = accounts.sit("a", None, 0).ok().unwrap();
        assert_eq!(first.account().charge(3 * SECOND, 10, 0), Duration::ZERO, "the whole again");
    }

    #[test]
    fn accounts_are_bounded_and_swept_when_they_remember_nothing() {
        let accounts = Accounts::new(ALLOWANCE, 2);
        let _a = accounts.sit(1, None, 0).ok().unwrap();
        drop(accounts.sit(2, None, 0));
        assert_eq!(accounts.sit(3, None, 0).err(), Some(NoSeat::Accounts), "2 still remembers");
        assert!(accounts.sit(3, None, 1_000_000_000).is_ok());
        accounts.sweep(10_000_000_000);
        assert_eq!(accounts.kept(), 1, "only the one in use");
    }

    #[test]
    fn sources_are_told_apart_by_ipv4_address_and_ipv6_64() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8:0:1::1"), source("2001:db8::1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    }
}
