//! What happens in Redis in one step.

use std::sync::LazyLock;

use redis::Script;

/// What [`NONCE`] answers when it does not know from which timestamp on it remembers.
pub(super) const NO_FLOOR: i64 = -1;

/// Enters connections, and publishes whose user had none; says of each whether that is so.
///
/// Keys: what is due, then the user of each. Arguments: when they end, how long keys are kept, the channel;
/// then of each connection its id, its entry, its member of what is due, and what to publish.
pub(super) static ENTER: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local turned = {}
for i = 2, #KEYS do
  local at = 4 * i - 4
  local is_new = redis.call('EXISTS', KEYS[i]) == 0
  redis.call('HSET', KEYS[i], ARGV[at], ARGV[at + 1])
  redis.call('PEXPIRE', KEYS[i], ARGV[2])
  redis.call('ZADD', KEYS[1], ARGV[1], ARGV[at + 2])
  if is_new then redis.call('PUBLISH', ARGV[3], ARGV[at + 3]) end
  turned[i - 1] = is_new and 1 or 0
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return turned
",
    )
});

/// Removes a connection, and publishes if it was its user's last; says whether it was.
///
/// Keys: what is due, the user. Arguments: the connection, its member of what is due, the channel, what to
/// publish.
pub(super) static DEPART: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
redis.call('ZREM', KEYS[1], ARGV[2])
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 or redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
",
    )
});

/// Removes connections whose time is over, unless they were prolonged meanwhile, and publishes whose last
/// one went; says of each whether it was that.
///
/// Keys: what is due, then the user of each. Arguments: now, the channel; then of each connection its id,
/// its member of what is due, and what to publish.
pub(super) static EXPIRE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local gone = {}
for i = 2, #KEYS do
  local at = 3 * i - 3
  local ends = redis.call('ZSCORE', KEYS[1], ARGV[at + 1])
  local last = false
  if ends and tonumber(ends) <= tonumber(ARGV[1]) then
    redis.call('ZREM', KEYS[1], ARGV[at + 1])
    last = redis.call('HDEL', KEYS[i], ARGV[at]) == 1 and redis.call('EXISTS', KEYS[i]) == 0
    if last then redis.call('PUBLISH', ARGV[2], ARGV[at + 2]) end
  end
  gone[i - 1] = last and 1 or 0
end
return gone
",
    )
});

/// Gives what tells this life of the data from others, drawing it if it is new.
///
/// Keys: it. Arguments: what to draw.
pub(super) static BORN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
",
    )
});

/// Takes tokens from all buckets or none: the generic cell rate algorithm (ITU-T I.371), in microseconds of
/// Redis's own clock, which all replicas share. Gives how long to wait, or 0.
///
/// A bucket is the moment at which it is full again. Keys: the buckets. Arguments: how many tokens; then of
/// each bucket the time in which one token comes, and how many it holds.
pub(super) static CHARGE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local count = tonumber(ARGV[1])
local wait, full = 0, {}
for i = 1, #KEYS do
  local period, burst = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  full[i] = math.max(tonumber(redis.call('GET', KEYS[i]) or '0'), now) + period * count
  wait = math.max(wait, full[i] - period * burst - now)
end
if wait > 0 then return math.ceil(wait) end
for i = 1, #KEYS do
  local left = math.ceil((full[i] - now) / 1000)
  if left > 0 then
    redis.call('SET', KEYS[i], string.format('%.0f', full[i]), 'PX', string.format('%.0f', left))
  end
end
return 0
",
    )
});

/// Puts tokens back into buckets, as far as they fit. Keys and arguments as those of [`CHARGE`].
pub(super) static REFUND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
for i = 1, #KEYS do
  local full = tonumber(redis.call('GET', KEYS[i]) or '0') - tonumber(ARGV[2 * i]) * tonumber(ARGV[1])
  local left = math.ceil((full - now) / 1000)
  if left > 0 then
    redis.call('SET', KEYS[i], string.format('%.0f', full), 'PX', string.format('%.0f', left))
  else
    redis.call('DEL', KEYS[i])
  end
end
",
    )
});

/// Remembers a nonce; 1 if it is new, 0 if it is not or too old to be known, -1 if it is not known from
/// when on nonces are remembered.
///
/// The floor belongs to one process of Redis: another one, be it the same server started again or a replica
/// that took over, may lack what was remembered last. Keys: the floor, the nonce. Arguments: the timestamp
/// of the request, how long to remember it; and the new floor, if it is known.
pub(super) static NONCE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local process = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local known = redis.call('GET', KEYS[1])
local owner, floor = string.match(known or '', '^(%x+) (%d+)$')
if owner ~= process then
  if not ARGV[3] then return -1 end
  if not floor or tonumber(ARGV[3]) > tonumber(floor) then floor = ARGV[3] end
  redis.call('SET', KEYS[1], process .. ' ' .. floor)
end
if tonumber(ARGV[1]) <= tonumber(floor) then return 0 end
return redis.call('SET', KEYS[2], '', 'NX', 'PX', ARGV[2]) and 1 or 0
",
    )
});
