//! What is true now, in Redis: for any number of replicas, on one server, behind Sentinels, or in a cluster.
//!
//! Every change that others hear of is one script: it decides whether a user turned and publishes that in
//! the same step, so that it is published once, whichever replicas act at the same moment, and also when
//! the one that acted dies right after. A user is announced as online as long as their hash exists; see
//! `docs/decisions/broker-live.md` for keys, rights and prices, `docs/decisions/broker-nonces.md` for nonces.

mod hearing;
mod keys;
mod line;
mod scripts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use culvert_broker_wire::Timestamp;
use culvert_relay::admission::Revoked;
use culvert_relay::bus::redis::Settings;
use culvert_relay::bus::redis::control::Control;
use culvert_relay::bus::redis::reach::{Reach, ReachError};
use culvert_service_kit::Clock;
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use redis::{Cmd, ErrorKind, FromRedisValue, Script, ScriptInvocation, cmd};
use tokio::sync::broadcast;

use super::{Change, EVENTS, Event, Horizon, Live, LiveError, Presence, Rate, Taken, oldest_first};
use hearing::Hearing;
use keys::{Keys, SHARDS};
use line::Line;

/// Connections that one script call enters or removes: far below a millisecond of Redis.
const CHUNK: usize = 256;
/// What a key outlives its content by, so that whoever sweeps finds it: twice the time of a connection, and
/// this for replicas that were all away.
const SLACK: Duration = Duration::from_secs(60);
/// What Redis says of a command that is not for what the key holds.
const WRONG_TYPE: &str = "WRONGTYPE";

/// What is true now, in Redis. Cheap calls share one connection; [`Live::run`] listens on another.
pub struct RedisLive {
    reach: Arc<Reach>,
    line: Line,
    keys: Keys,
    control: Control,
    clock: Clock,
    events: broadcast::Sender<Event>,
    /// What was seen last of what tells one life of the data from the next.
    life: Mutex<Option<Life>>,
}

/// One life of the data: it ends when Redis comes back empty, or another process serves a part of it.
#[derive(Clone, PartialEq, Eq)]
struct Life {
    born: String,
    replaced: u64,
}

impl RedisLive {
    /// Prepares the way; nothing is connected yet.
    ///
    /// # Errors
    /// The settings make no connection.
    pub fn new(settings: &Settings, clock: Clock) -> Result<Self, ReachError> {
        let reach = Arc::new(Reach::new(settings)?);
        Ok(Self {
            line: Line::new(Arc::clone(&reach)),
            keys: Keys::new(&settings.prefix),
            control: Control::new(settings)?,
            clock,
            events: broadcast::Sender::new(EVENTS),
            life: Mutex::new(None),
            reach,
        })
    }

    /// Sends a command of its own.
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, LiveError> {
        let mut line = self.line.borrow().await?;
        Ok(command.query_async(&mut line).await?)
    }

    /// Sends commands at once, whatever servers they concern.
    async fn ask_all<T: FromRedisValue>(&self, commands: &[Cmd]) -> Result<Vec<T>, LiveError> {
        try_join_all(commands.iter().map(|command| self.ask(command))).await
    }

    /// What is entered for each of these users.
    async fn entries<'a>(&self, users: impl Iterator<Item = &'a str>) -> Result<Vec<Vec<String>>, LiveError> {
        let commands = users.map(|user| {
            let mut command = cmd("HVALS");
            command.arg(self.keys.user(user));
            command
        });
        self.ask_all(&commands.collect::<Vec<_>>()).await
    }

    async fn call<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, LiveError> {
        let mut line = self.line.borrow().await?;
        Ok(script.invoke_async(&mut line).await?)
    }

    /// Enters connections whose users are of one shard; says of each whether its user turned.
    async fn enter(
        &self,
        shard: usize,
        presences: &[&Presence],
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Vec<bool>, LiveError> {
        let (now_ms, ttl_ms) = (millis(now), duration_millis(ttl));
        let expires = now_ms.saturating_add(ttl_ms);
        let mut call = scripts::ENTER.key(self.keys.due(shard));
        let keep = ttl_ms.saturating_mul(2).saturating_add(duration_millis(SLACK));
        call.arg(expires).arg(keep).arg(self.keys.events());
        for presence in presences {
            let entry = format!("{expires} {}", json(presence)?);
            call.key(self.keys.user(&presence.user));
            call.arg(&presence.connection).arg(entry);
            call.arg(member(&presence.connection, &presence.user));
            call.arg(turned(&presence.user, true, now)?);
        }
        self.call(&call).await
    }

    /// Removes those of these connections that nobody prolonged meanwhile; gives who went offline by it.
    async fn expire(
        &self,
        shard: usize,
        members: &[(String, String, String)],
        now: Timestamp,
    ) -> Result<Vec<String>, LiveError> {
        let mut call = scripts::EXPIRE.key(self.keys.due(shard));
        call.arg(millis(now)).arg(self.keys.events());
        for (member, connection, user) in members {
            call.key(self.keys.user(user)).arg(connection).arg(member).arg(turned(user, false, now)?);
        }
        let gone: Vec<bool> = self.call(&call).await?;
        let gone = members.iter().zip(gone).filter(|(_, gone)| *gone);
        Ok(gone.map(|((.., user), _)| user.clone()).collect())
    }

    fn of_buckets<'a>(
        &self,
        script: &'a Script,
        buckets: &[(String, Rate)],
        count: u32,
    ) -> ScriptInvocation<'a> {
        let mut call = script.arg(count);
        for (name, rate) in buckets {
            call.key(self.keys.bucket(name)).arg(rate.period().as_micros().to_string()).arg(rate.burst);
        }
        call
    }

    /// Whether the data began a new life since this was asked last.
    async fn began_anew(&self) -> Result<bool, LiveError> {
        let mark = format!("{:016x}", rand::random::<u64>());
        let mut call = scripts::BORN.key(self.keys.born());
        let born = self.call(call.arg(mark)).await?;
        let life = Life { born, replaced: self.reach.replaced() };
        let before = self.life.lock().replace(life.clone());
        Ok(before.is_some_and(|before| before != life))
    }
}

#[async_trait]
impl Live for RedisLive {
    async fn run(&self) {
        let hearing = Hearing::new(&self.reach, self.keys.events(), &self.events);
        tokio::join!(self.reach.watch(), hearing.run());
    }

    async fn check(&self) -> Result<(), LiveError> {
        self.ask::<Option<String>>(cmd("GET").arg(self.keys.born())).await.map(drop)
    }

    async fn arrive(&self, presence: &Presence, ttl: Duration, now: Timestamp) -> Result<Change, LiveError> {
        let shard = self.keys.shard(&presence.user);
        let turned = self.enter(shard, &[presence], ttl, now).await?;
        Ok(Change::of(turned == [true]))
    }

    async fn renew(&self, presences: &[Presence], ttl: Duration, now: Timestamp) -> Result<(), LiveError> {
        let mut shards: BTreeMap<usize, Vec<&Presence>> = BTreeMap::new();
        for presence in presences {
            shards.entry(self.keys.shard(&presence.user)).or_default().push(presence);
        }
        let chunks = shards
            .iter()
            .flat_map(|(shard, presences)| presences.chunks(CHUNK).map(move |chunk| (*shard, chunk)));
        try_join_all(chunks.map(|(shard, chunk)| self.enter(shard, chunk, ttl, now))).await.map(drop)
    }

    async fn depart(&self, user: &str, connection: &str, now: Timestamp) -> Result<Change, LiveError> {
        let mut call = scripts::DEPART.key(self.keys.due(self.keys.shard(user)));
        call.key(self.keys.user(user)).arg(connection).arg(member(connection, user));
        call.arg(self.keys.events()).arg(turned(user, false, now)?);
        Ok(Change::of(self.call(&call).await?))
    }

    async fn sweep(&self, now: Timestamp) -> Result<Vec<String>, LiveError> {
        if self.began_anew().await? {
            tracing::warn!("redis lost what was known of presence; this replica enters its users again");
            let _ = self.events.send(Event::Missed);
        }
        let due = |shard: usize| {
            let mut command = cmd("ZRANGEBYSCORE");
            command.arg(self.keys.due(shard)).arg("-inf").arg(millis(now)).arg("LIMIT").arg(0).arg(CHUNK);
            command
        };
        let due: Vec<Vec<String>> = self.ask_all(&(0..SHARDS).map(due).collect::<Vec<_>>()).await?;
        let due = due.into_iter().enumerate().filter(|(_, members)| !members.is_empty());
        let expired = due.map(|(shard, members)| async move {
            let members: Vec<_> = members.into_iter().filter_map(parse_member).collect();
            self.expire(shard, &members, now).await
        });
        Ok(try_join_all(expired).await?.concat())
    }

    async fn presences_of(&self, users: &[&str]) -> Result<Vec<Vec<Presence>>, LiveError> {
        let entries = self.entries(users.iter().copied()).await?;
        let now = self.clock.unix_seconds().saturating_mul(1000);
        let live =
            |entries: Vec<String>| entries.iter().filter_map(|entry| parse_entry(entry, now)).collect();
        Ok(entries.into_iter().map(|entries| oldest_first(live(entries))).collect())
    }

    async fn online(&self, users: &[String]) -> Result<Vec<bool>, LiveError> {
        let entries = self.entries(users.iter().map(String::as_str)).await?;
        let now = self.clock.unix_seconds().saturating_mul(1000);
        let live = |entry: &String| split_entry(entry).is_some_and(|(expires, _)| expires > now);
        Ok(entries.iter().map(|entries| entries.iter().any(live)).collect())
    }

    async fn publish(&self, event: &Event) -> Result<(), LiveError> {
        self.ask(cmd("PUBLISH").arg(self.keys.events()).arg(json(event)?)).await
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    async fn keep(&self, key: &str, value: &[u8], ttl: Duration) -> Result<bool, LiveError> {
        let mut command = cmd("SET");
        command.arg(self.keys.kept(key)).arg(value).arg("NX").arg("PX").arg(duration_millis(ttl));
        Ok(self.ask::<Option<String>>(&command).await?.is_some())
    }

    async fn take(&self, key: &str) -> Result<Option<Vec<u8>>, LiveError> {
        self.ask(cmd("GETDEL").arg(self.keys.kept(key))).await
    }

    async fn charge(&self, buckets: &[(String, Rate)], count: u32) -> Result<Taken, LiveError> {
        let wait: u64 = self.call(&self.of_buckets(&scripts::CHARGE, buckets, count)).await?;
        Ok(if wait == 0 { Taken::Allowed } else { Taken::Wait(Duration::from_micros(wait)) })
    }

    async fn refund(&self, buckets: &[(String, Rate)], count: u32) -> Result<(), LiveError> {
        self.call(&self.of_buckets(&scripts::REFUND, buckets, count)).await
    }

    async fn nonce(
        &self,
        nonce: &str,
        timestamp: u64,
        ttl: Duration,
        horizon: &(dyn Horizon + Sync),
    ) -> Result<bool, LiveError> {
        let remember = |horizon: Option<u64>| {
            let mut call = scripts::NONCE.key(self.keys.floor());
            call.key(self.keys.nonce(nonce)).arg(timestamp).arg(duration_millis(ttl)).arg(horizon);
            call
        };
        let first: i64 = self.call(&remember(None)).await?;
        if first != scripts::NO_FLOOR {
            return Ok(first == 1);
        }
        let horizon = horizon.horizon().await?;
        tracing::warn!(horizon, "the memory of nonces begins anew; older keyed requests are refused");
        Ok(self.call::<i64>(&remember(Some(horizon))).await? == 1)
    }

    async fn revoke(&self, revoked: &[Revoked], until: u64) -> Result<(), LiveError> {
        for revoked in revoked {
            self.control.revoke(revoked.clone(), until).await.map_err(LiveError::unavailable)?;
        }
        Ok(())
    }
}

impl From<redis::RedisError> for LiveError {
    fn from(error: redis::RedisError) -> Self {
        let is_of_a_key = matches!(error.kind(), ErrorKind::Parse | ErrorKind::UnexpectedReturnType)
            || error.code() == Some(WRONG_TYPE);
        if is_of_a_key { Self::Broken(error.into()) } else { Self::unavailable(error) }
    }
}

impl From<ReachError> for LiveError {
    fn from(error: ReachError) -> Self {
        Self::unavailable(error)
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, LiveError> {
    serde_json::to_string(value).map_err(LiveError::unavailable)
}

/// What is published when a user turned.
fn turned(user: &str, online: bool, at: Timestamp) -> Result<String, LiveError> {
    json(&Event::Presence { user: user.to_owned(), online, at })
}

/// A connection in the index of what is due. Connections are hexadecimal, users are not.
fn member(connection: &str, user: &str) -> String {
    format!("{connection} {user}")
}

/// A member of the index, its connection and its user.
fn parse_member(member: String) -> Option<(String, String, String)> {
    let (connection, user) = member.split_once(' ')?;
    Some((member.clone(), connection.to_owned(), user.to_owned()))
}

/// When a connection's entry ends, and the rest of it.
fn split_entry(entry: &str) -> Option<(u64, &str)> {
    let (expires, presence) = entry.split_once(' ')?;
    Some((expires.parse().ok()?, presence))
}

/// A connection that has not ended at `now`. What another version wrote and this one cannot read is none.
fn parse_entry(entry: &str, now: u64) -> Option<Presence> {
    let (expires, presence) = split_entry(entry)?;
    (expires > now).then(|| serde_json::from_str(presence).ok()).flatten()
}

fn millis(at: Timestamp) -> u64 {
    u64::try_from(at.unix_micros() / 1000).unwrap_or(0)
}

fn duration_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
