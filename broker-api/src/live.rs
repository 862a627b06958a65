//! What is true now: who is online, what just happened, what may be used once, how often something is done.
//!
//! One trait, implemented over Redis for any number of replicas and in memory for one; `tests/conformance`
//! holds both to the same rules. Nothing here survives, and nothing that must survive is here: when Redis
//! comes back empty, connected users are registered again by their replicas within seconds, challenges and
//! logins under way fail, and keyed requests are refused until none that was accepted before could be
//! accepted again.

pub mod memory;
pub mod redis;

use std::time::Duration;

use async_trait::async_trait;
use culvert_broker_wire::message::RelayAddress;
use culvert_broker_wire::{ShareInfo, Timestamp};
use culvert_relay::admission::Revoked;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// What is true now cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// Redis does not answer, or not in time; it may answer later.
    #[error("presence is not available: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A key holds something else than this program keeps there. Others are not concerned.
    #[error("presence holds something unexpected: {0}")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl LiveError {
    /// It is not available because of this.
    pub fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(source.into())
    }
}

/// Events that a receiver may be behind before it lags; a mass return of users is hundreds at once.
const EVENTS: usize = 4096;

/// One connection of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Random, 128 bits in hexadecimal.
    pub connection: String,
    /// Who.
    pub user: String,
    /// What the device is called.
    pub device: Option<String>,
    /// Where the user's own server answers; may be empty.
    pub endpoint: String,
    /// Where it answers through a relay.
    pub relay: Option<RelayAddress>,
    /// Since when.
    pub since: Timestamp,
}

/// The connections of a user as they are given.
fn oldest_first(mut presences: Vec<Presence>) -> Vec<Presence> {
    presences.sort_by(|a, b| (a.since, &a.connection).cmp(&(b.since, &b.connection)));
    presences
}

/// Whether a user's state changed by a connection that came or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// They were offline before and are online now, or the other way round.
    Turned,
    /// They have other connections.
    Same,
}

impl Change {
    fn of(turned: bool) -> Self {
        if turned { Self::Turned } else { Self::Same }
    }
}

/// What replicas tell each other; every replica hears it, the one that says it too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A share was published, changed or revoked. Whom it concerns is decided by whoever hears it.
    Share(Box<ShareNews>),
    /// A user came online or went offline.
    Presence {
        /// Who.
        user: String,
        /// Which.
        online: bool,
        /// When.
        at: Timestamp,
    },
    /// Members of a team, or the team, changed: what is cached about these users' teams is stale.
    Teams {
        /// Whose.
        users: Vec<String>,
    },
    /// Sessions of this user ended: what is cached about them is stale, their sockets are closed.
    Sessions {
        /// Whose.
        user: String,
        /// Only this one (SHA-256 of its token, hexadecimal); `None` is all.
        session: Option<String>,
    },
    /// The set of signing keys changed.
    Keys,
    /// Events may have been missed (the connection to Redis broke): everything cached is stale.
    Missed,
}

/// What happened to a share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShareNews {
    /// What happened.
    pub change: culvert_broker_wire::message::ShareChange,
    /// The share as it is now, without its token.
    pub share: culvert_broker_wire::message::ShareSummary,
    /// Its policy before the change, if that was another one: those who lost access hear of a revocation.
    pub before: Option<culvert_broker_wire::AccessPolicy>,
}

/// How often something may be done: a bucket of `burst` that fills with `per_second`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Tokens a second.
    pub per_second: f64,
    /// Tokens at most.
    pub burst: u32,
}

impl Rate {
    /// The time in which one token comes: whole microseconds, at least one, at most eleven days.
    fn period(&self) -> Duration {
        const LONGEST: Duration = Duration::from_secs(1_000_000);
        let period = Duration::try_from_secs_f64(1.0 / self.per_second).unwrap_or(LONGEST);
        Duration::from_micros(u64::try_from(period.min(LONGEST).as_micros()).unwrap_or(u64::MAX).max(1))
    }
}

/// What a bucket says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Go on.
    Allowed,
    /// Not before so much time has passed.
    Wait(Duration),
}

/// What is true now.
#[async_trait]
pub trait Live: Send + Sync {
    /// Listens to the other replicas, until dropped; nothing is heard without it.
    async fn run(&self);
    /// Whether it answers.
    async fn check(&self) -> Result<(), LiveError>;

    /// Enters a connection, for `ttl` unless renewed; publishes [`Event::Presence`] if the user turned.
    /// A connection that is known already is replaced.
    async fn arrive(&self, presence: &Presence, ttl: Duration, now: Timestamp) -> Result<Change, LiveError>;
    /// Keeps connections for another `ttl`, entering those again that were lost; publishes what turned.
    async fn renew(&self, presences: &[Presence], ttl: Duration, now: Timestamp) -> Result<(), LiveError>;
    /// Removes a connection; publishes [`Event::Presence`] if the user turned.
    async fn depart(&self, user: &str, connection: &str, now: Timestamp) -> Result<Change, LiveError>;
    /// Removes connections whose time is over, whoever entered them, publishes who went offline with them,
    /// and gives those users. Called by every replica about once a second; bounded work, and each is
    /// published by one of them. Notices whether everything was lost, and says [`Event::Missed`] then.
    async fn sweep(&self, now: Timestamp) -> Result<Vec<String>, LiveError>;
    /// The connections of each of these users, in their order, oldest first.
    async fn presences_of(&self, users: &[&str]) -> Result<Vec<Vec<Presence>>, LiveError>;
    /// The same for one.
    async fn presences(&self, user: &str) -> Result<Vec<Presence>, LiveError> {
        Ok(self.presences_of(&[user]).await?.pop().unwrap_or_default())
    }
    /// Which of these users are online, in their order.
    async fn online(&self, users: &[String]) -> Result<Vec<bool>, LiveError>;

    /// Tells every replica.
    async fn publish(&self, event: &Event) -> Result<(), LiveError>;
    /// What replicas tell each other, from now on. A receiver that lags treats it as [`Event::Missed`].
    fn events(&self) -> broadcast::Receiver<Event>;

    /// Keeps a value under a key that is free, for `ttl`; false if it is taken.
    async fn keep(&self, key: &str, value: &[u8], ttl: Duration) -> Result<bool, LiveError>;
    /// Gives a value and removes it: of two at once, one gets it.
    async fn take(&self, key: &str) -> Result<Option<Vec<u8>>, LiveError>;

    /// Takes `count` tokens from each of these buckets, all or none. More than a bucket's `burst` at once
    /// is never allowed.
    async fn charge(&self, buckets: &[(String, Rate)], count: u32) -> Result<Taken, LiveError>;
    /// Puts `count` tokens back into each of these buckets, as far as they fit: what was charged before the
    /// outcome was known turned out not to count.
    async fn refund(&self, buckets: &[(String, Rate)], count: u32) -> Result<(), LiveError>;

    /// Remembers a nonce for `ttl`; false if it is remembered already. `timestamp` is the time the request
    /// claims, in seconds since 1970. When the memory has begun anew (Redis lost it), `horizon` is asked
    /// once for the newest timestamp that may have been accepted before, and requests up to it are refused.
    async fn nonce(
        &self,
        nonce: &str,
        timestamp: u64,
        ttl: Duration,
        horizon: &(dyn Horizon + Sync),
    ) -> Result<bool, LiveError>;

    /// Revokes tickets or peers at every relay of the cluster until `until`, seconds since 1970.
    async fn revoke(&self, revoked: &[Revoked], until: u64) -> Result<(), LiveError>;
}

/// Knows up to which timestamp requests may have been accepted.
#[async_trait]
pub trait Horizon {
    /// Seconds since 1970, from a store that does not forget.
    async fn horizon(&self) -> Result<u64, LiveError>;
}

/// What a look-up of a share needs of presence, in one round trip.
pub fn reachable(presences: &[Presence], info: &mut ShareInfo, result_id: &str) {
    info.owner_online = !presences.is_empty();
    let endpoint = presences.iter().rev().map(|presence| presence.endpoint.trim_end_matches('/'));
    let url = endpoint.filter(|endpoint| !endpoint.is_empty()).map(|endpoint| {
        // The id is one segment of the path, whatever is in it.
        format!("{endpoint}/api/results/{}", segment(result_id))
    });
    info.download_url = url.into_iter().next().unwrap_or_default();
    info.relays = presences.iter().rev().filter_map(|presence| presence.relay.clone()).collect();
}

/// What stands in a segment of a path as it is: RFC 3986, unreserved.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text as one segment of a URL's path.
fn segment(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}
