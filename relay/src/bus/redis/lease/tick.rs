//! The one question a node asks Redis about leases, and its answer.

use std::collections::HashMap;
use std::sync::LazyLock;

use culvert_wire::NodeId;
use redis::aio::ConnectionLike;
use redis::{RedisResult, Script};

use super::super::incarnation::Incarnation;
use super::super::keys::Keys;
use super::super::nodes::{About, Snapshot};

/// Refreshes, reclaims or claims one lease and tells about all of them, in one step.
///
/// Keys: leases, revision. Arguments: number (empty to only look), what to do, instance, term, lease time
/// in ms, what the node says about itself, when it believes its lease to end.
///
/// A lease that is missing, expired, at an older term, or older than this node knows it to be (Redis lost
/// writes) comes back with its term raised: what was registered under it may be incomplete. A newer term
/// than asked for is an answer of ours that was lost on the way; it is told and changes nothing.
static TICK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local outcome, term = 'looked', 0
if ARGV[1] ~= '' then
  local held = redis.call('HGET', KEYS[1], ARGV[1])
  term = tonumber(ARGV[4])
  if not held then
    if ARGV[2] == 'claim' then
      outcome = 'kept'
    else
      outcome, term = 'raised', term + 1
    end
  else
    local instance, since, expires = string.match(held, '^(%x+) (%d+) (%d+) ')
    if instance ~= ARGV[3] then
      outcome = 'held'
    elseif tonumber(since) > term then
      outcome, term = 'behind', tonumber(since)
    elseif ARGV[2] == 'raise' or tonumber(since) < term or tonumber(expires) <= now
        or tonumber(expires) < tonumber(ARGV[7]) then
      outcome, term = 'raised', term + 1
    else
      outcome = 'kept'
    end
  end
  if outcome == 'kept' or outcome == 'raised' then
    local lease = string.format('%s %d %.0f %s', ARGV[3], term, now + ARGV[5], ARGV[6])
    redis.call('HSET', KEYS[1], ARGV[1], lease)
  end
end
return {outcome, term, now, redis.call('GET', KEYS[2]), redis.call('HGETALL', KEYS[1])}
",
    )
});

/// Gives the own lease back: removes it, or lets it end now so that others sweep what is left.
///
/// Keys: leases. Arguments: number, instance, term, `remove` or `expire`.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held then return 0 end
local instance, term, expires, about = string.match(held, '^(%x+) (%d+) (%d+) (.*)$')
if instance ~= ARGV[2] or term ~= ARGV[3] then return 0 end
if ARGV[4] == 'remove' then return redis.call('HDEL', KEYS[1], ARGV[1]) end
redis.call('HSET', KEYS[1], ARGV[1], instance .. ' ' .. term .. ' 0 ' .. about)
return 1
",
    )
});

/// Removes the expired lease of a node whose registrations are swept, unless it has changed since.
///
/// Keys: leases. Arguments: number, instance, term.
static BURY: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local instance, term, expires = string.match(held, '^(%x+) (%d+) (%d+) ')
if instance ~= ARGV[2] or term ~= ARGV[3] or tonumber(expires) > now then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
",
    )
});

/// What to do about the own lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Only look who is there.
    Look,
    /// Take this number if nobody has it.
    Claim(NodeId, Incarnation),
    /// Go on holding it; `expires` is when it ends as far as is known, by the clock of Redis.
    Keep {
        /// The number.
        node: NodeId,
        /// Under which incarnation.
        incarnation: Incarnation,
        /// When it ends.
        expires: u64,
        /// Whether to raise the term although the lease may be fine.
        raise: bool,
    },
}

/// What Redis did about the own lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Looked,
    /// Refreshed, or claimed.
    Kept,
    /// The node has it under this higher term.
    Raised(u32),
    /// The node has it under this higher term already, by an answer that was lost; not refreshed.
    Behind(u32),
    /// Another process has it.
    Held,
}

/// An answer to [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The own lease.
    pub outcome: Outcome,
    /// Everybody's.
    pub snapshot: Snapshot,
    /// Which list of revocations Redis holds; `None` if none.
    pub revision: Option<String>,
}

/// Outcome, term, time, revision, leases.
type Reply = (String, u32, u64, Option<String>, HashMap<String, String>);

/// Asks once. `lease_ms` is the lease time.
///
/// # Errors
/// Redis does not answer, or refuses.
pub async fn tick(
    connection: &mut impl ConnectionLike,
    keys: &Keys,
    ask: Ask,
    lease_ms: u64,
    about: &About,
) -> RedisResult<Answer> {
    let mut call = TICK.prepare_invoke();
    call.key(keys.nodes()).key(keys.revision());
    match ask {
        Ask::Look => call.arg("").arg("look").arg("").arg(0),
        Ask::Claim(node, life) => call.arg(node.0).arg("claim").arg(instance(life)).arg(life.term),
        Ask::Keep { node, incarnation, raise, .. } => {
            let what = if raise { "raise" } else { "keep" };
            call.arg(node.0).arg(what).arg(instance(incarnation)).arg(incarnation.term)
        }
    };
    let expires = if let Ask::Keep { expires, .. } = ask { expires } else { 0 };
    let about = serde_json::to_string(about)
        .map_err(|error| (redis::ErrorKind::Client, "lease", error.to_string()))?;
    call.arg(lease_ms).arg(about).arg(expires);
    let (outcome, term, now, revision, fields): Reply = call.invoke_async(connection).await?;
    let outcome = match outcome.as_str() {
        "kept" => Outcome::Kept,
        "raised" => Outcome::Raised(term),
        "behind" => Outcome::Behind(term),
        "held" => Outcome::Held,
        _ => Outcome::Looked,
    };
    let snapshot = snapshot(now, &fields);
    Ok(Answer { outcome, snapshot, revision })
}

/// Looks who is there, as somebody who is no node.
///
/// # Errors
/// Redis does not answer, or refuses.
pub async fn look(connection: &mut impl ConnectionLike, keys: &Keys) -> RedisResult<Snapshot> {
    let mut call = TICK.key(keys.nodes());
    call.key(keys.revision()).arg("");
    let (_, _, now, _, fields): Reply = call.invoke_async(connection).await?;
    Ok(snapshot(now, &fields))
}

/// Gives the own lease back. With `clean`, nothing is registered under it any more and it vanishes;
/// otherwise it ends at once and others sweep.
///
/// # Errors
/// Redis does not answer, or refuses.
pub async fn release(
    connection: &mut impl ConnectionLike,
    keys: &Keys,
    node: NodeId,
    life: Incarnation,
    clean: bool,
) -> RedisResult<()> {
    let what = if clean { "remove" } else { "expire" };
    let mut call = RELEASE.key(keys.nodes());
    call.arg(node.0).arg(instance(life)).arg(life.term).arg(what).invoke_async(connection).await
}

/// Removes a dead lease once everything that was registered under it is swept; says whether it was there.
///
/// # Errors
/// Redis does not answer, or refuses.
pub async fn bury(
    connection: &mut impl ConnectionLike,
    keys: &Keys,
    node: NodeId,
    life: Incarnation,
) -> RedisResult<bool> {
    let mut call = BURY.key(keys.nodes());
    call.arg(node.0).arg(instance(life)).arg(life.term).invoke_async(connection).await
}

fn snapshot(now: u64, fields: &HashMap<String, String>) -> Snapshot {
    Snapshot::parse(now, fields.iter().map(|(number, lease)| (number.as_str(), lease.as_str())))
}

/// As it stands in a lease.
fn instance(life: Incarnation) -> String {
    format!("{:016x}", life.instance)
}
