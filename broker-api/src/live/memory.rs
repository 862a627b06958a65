//! What is true now, in this process, for a broker that is alone.

mod rates;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use culvert_broker_wire::Timestamp;
use culvert_relay::admission::{Revocations, Revoked};
use culvert_relay::bus::memory::Hub;
use culvert_service_kit::Clock;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::{Change, EVENTS, Event, Horizon, Live, LiveError, Presence, Rate, Taken, oldest_first};
use rates::Rates;

/// What is true now, in this process.
pub struct MemoryLive {
    clock: Clock,
    events: broadcast::Sender<Event>,
    users: Mutex<Users>,
    kept: Mutex<HashMap<String, (Vec<u8>, Instant)>>,
    rates: Mutex<Rates>,
    nonces: Mutex<Nonces>,
    relays: Option<Relays>,
}

/// Who is online. A user is announced as online as long as they have an entry.
#[derive(Default)]
struct Users {
    connections: HashMap<String, HashMap<String, (Presence, i64)>>,
    /// When each connection of each user ends, in microseconds since 1970.
    due: BTreeSet<(i64, String, String)>,
}

#[derive(Default)]
struct Nonces {
    /// Up to which timestamp none is remembered; a process that just began remembers none at all.
    floor: Option<u64>,
    used: HashMap<String, Instant>,
}

/// The relays of this process.
struct Relays {
    hub: Arc<Hub>,
    revoked: Mutex<Revocations>,
}

/// There is no relay that could be told.
#[derive(Debug, thiserror::Error)]
#[error("this broker has no redis and no relay in its process, so it reaches none to revoke anything")]
pub struct NoRelay;

impl MemoryLive {
    /// Nobody is online.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            events: broadcast::Sender::new(EVENTS),
            users: Mutex::default(),
            kept: Mutex::default(),
            rates: Mutex::default(),
            nonces: Mutex::default(),
            relays: None,
        }
    }

    /// Also revokes at the relays of this process that are on `hub`: those whose bus came from it.
    #[must_use]
    pub fn with_relays(self, hub: Arc<Hub>) -> Self {
        Self { relays: Some(Relays { hub, revoked: Mutex::default() }), ..self }
    }

    fn tell(&self, user: &str, online: bool, at: Timestamp) {
        // Nobody listening is nobody to tell.
        let _ = self.events.send(Event::Presence { user: user.to_owned(), online, at });
    }

    fn enter(&self, presence: &Presence, ttl: Duration, now: Timestamp) -> Change {
        let change = self.users.lock().enter(presence, end(ttl, now));
        if change == Change::Turned {
            self.tell(&presence.user, true, now);
        }
        change
    }

    /// Forgets what has ended.
    fn tidy(&self) {
        let now = self.clock.now();
        self.kept.lock().retain(|_, (_, until)| *until > now);
        self.nonces.lock().used.retain(|_, until| *until > now);
        self.rates.lock().tidy(now);
    }
}

impl Users {
    fn enter(&mut self, presence: &Presence, end: i64) -> Change {
        let connections = self.connections.entry(presence.user.clone()).or_default();
        let change = Change::of(connections.is_empty());
        let (user, connection) = (&presence.user, &presence.connection);
        if let Some((_, before)) = connections.insert(connection.clone(), (presence.clone(), end)) {
            self.due.remove(&(before, user.clone(), connection.clone()));
        }
        self.due.insert((end, user.clone(), connection.clone()));
        change
    }

    fn remove(&mut self, user: &str, connection: &str) -> Change {
        let Some(connections) = self.connections.get_mut(user) else { return Change::Same };
        let Some((_, end)) = connections.remove(connection) else { return Change::Same };
        self.due.remove(&(end, user.to_owned(), connection.to_owned()));
        let was_last = connections.is_empty();
        if was_last {
            self.connections.remove(user);
        }
        Change::of(was_last)
    }

    fn live(&self, user: &str, now: i64) -> impl Iterator<Item = &Presence> {
        let connections = self.connections.get(user).into_iter().flat_map(HashMap::values);
        connections.filter(move |(_, end)| *end > now).map(|(presence, _)| presence)
    }
}

#[async_trait]
impl Live for MemoryLive {
    async fn run(&self) {
        std::future::pending::<()>().await;
    }

    async fn check(&self) -> Result<(), LiveError> {
        Ok(())
    }

    async fn arrive(&self, presence: &Presence, ttl: Duration, now: Timestamp) -> Result<Change, LiveError> {
        Ok(self.enter(presence, ttl, now))
    }

    async fn renew(&self, presences: &[Presence], ttl: Duration, now: Timestamp) -> Result<(), LiveError> {
        for presence in presences {
            self.enter(presence, ttl, now);
        }
        Ok(())
    }

    async fn depart(&self, user: &str, connection: &str, now: Timestamp) -> Result<Change, LiveError> {
        let change = self.users.lock().remove(user, connection);
        if change == Change::Turned {
            self.tell(user, false, now);
        }
        Ok(change)
    }

    async fn sweep(&self, now: Timestamp) -> Result<Vec<String>, LiveError> {
        self.tidy();
        let mut gone = Vec::new();
        {
            let mut users = self.users.lock();
            while let Some((end, user, connection)) = users.due.first().cloned()
                && end <= now.unix_micros()
            {
                if users.remove(&user, &connection) == Change::Turned {
                    gone.push(user);
                }
            }
        }
        for user in &gone {
            self.tell(user, false, now);
        }
        Ok(gone)
    }

    async fn presences_of(&self, users: &[&str]) -> Result<Vec<Vec<Presence>>, LiveError> {
        let now = Timestamp::from_unix_seconds(self.clock.unix_seconds()).unix_micros();
        let known = self.users.lock();
        Ok(users.iter().map(|user| oldest_first(known.live(user, now).cloned().collect())).collect())
    }

    async fn online(&self, users: &[String]) -> Result<Vec<bool>, LiveError> {
        let now = Timestamp::from_unix_seconds(self.clock.unix_seconds()).unix_micros();
        let known = self.users.lock();
        Ok(users.iter().map(|user| known.live(user, now).next().is_some()).collect())
    }

    async fn publish(&self, event: &Event) -> Result<(), LiveError> {
        let _ = self.events.send(event.clone());
        Ok(())
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    async fn keep(&self, key: &str, value: &[u8], ttl: Duration) -> Result<bool, LiveError> {
        let now = self.clock.now();
        let mut kept = self.kept.lock();
        let taken = kept.get(key).is_some_and(|(_, until)| *until > now);
        if !taken {
            kept.insert(key.to_owned(), (value.to_vec(), now + ttl));
        }
        Ok(!taken)
    }

    async fn take(&self, key: &str) -> Result<Option<Vec<u8>>, LiveError> {
        let now = self.clock.now();
        let taken = self.kept.lock().remove(key);
        Ok(taken.filter(|(_, until)| *until > now).map(|(value, _)| value))
    }

    async fn charge(&self, buckets: &[(String, Rate)], count: u32) -> Result<Taken, LiveError> {
        Ok(self.rates.lock().charge(buckets, count, self.clock.now()))
    }

    async fn refund(&self, buckets: &[(String, Rate)], count: u32) -> Result<(), LiveError> {
        self.rates.lock().refund(buckets, count);
        Ok(())
    }

    async fn nonce(
        &self,
        nonce: &str,
        timestamp: u64,
        ttl: Duration,
        horizon: &(dyn Horizon + Sync),
    ) -> Result<bool, LiveError> {
        let known = self.nonces.lock().floor;
        let floor = match known {
            Some(floor) => floor,
            None => horizon.horizon().await?,
        };
        let now = self.clock.now();
        let mut nonces = self.nonces.lock();
        // Of two that asked at once, the first one's answer stays: what was accepted since is remembered.
        let floor = *nonces.floor.get_or_insert(floor);
        if timestamp <= floor || nonces.used.get(nonce).is_some_and(|until| *until > now) {
            return Ok(false);
        }
        nonces.used.insert(nonce.to_owned(), now + ttl);
        Ok(true)
    }

    async fn revoke(&self, revoked: &[Revoked], until: u64) -> Result<(), LiveError> {
        let relays = self.relays.as_ref().ok_or_else(|| LiveError::unavailable(NoRelay))?;
        let mut list = relays.revoked.lock();
        list.expire(self.clock.unix_seconds());
        for revoked in revoked {
            list.add(revoked.clone(), until);
        }
        // Under the lock, so that of two lists the one with more comes last.
        relays.hub.revoke(list.clone());
        Ok(())
    }
}

/// When a connection ends, in microseconds since 1970.
fn end(ttl: Duration, now: Timestamp) -> i64 {
    now.unix_micros().saturating_add(i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX))
}
