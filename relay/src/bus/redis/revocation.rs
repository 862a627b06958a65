//! What is revoked, across the cluster and across the loss of Redis' data.
//!
//! Redis holds one hash, entry -> when it ends, and a revision, which is drawn anew with every change.
//! Every node keeps a copy. A tick that brings another revision makes the node read the hash and add to it
//! what it knows beyond it: entries only ever end by time, so the union of all copies is the truth, and
//! after Redis came back empty the first node that ticks restores the list.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use culvert_service_kit::Clock;
use parking_lot::Mutex;
use redis::aio::ConnectionLike;
use redis::{RedisResult, Script};

use super::keys::Keys;
use crate::admission::{Revocations, Revoked};

/// Entries that one script call writes or removes: far below a millisecond of Redis.
const CHUNK: usize = 256;
/// How long an entry that has ended stays in Redis at most, in seconds.
const TIDY_EVERY: u64 = 60;

/// Adds entries, the later end counts, and draws a revision if anything changed.
///
/// Keys: revoked, revision. Arguments: a nonce, then entry and end by turns.
static ADD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local changed = false
for i = 2, #ARGV, 2 do
  local ends = redis.call('HGET', KEYS[1], ARGV[i])
  if not ends or tonumber(ends) < tonumber(ARGV[i + 1]) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    changed = true
  end
end
if changed or redis.call('EXISTS', KEYS[2]) == 0 then redis.call('SET', KEYS[2], ARGV[1]) end
return redis.call('GET', KEYS[2])
",
    )
});

/// Removes entries that nobody has prolonged meanwhile. The revision stays: they revoke nothing any more.
///
/// Keys: revoked. Arguments: entry and end by turns.
static REMOVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', KEYS[1], ARGV[i]) end
end
return 1
",
    )
});

/// One node's copy of the list.
pub struct RevocationList {
    clock: Clock,
    copy: Mutex<Copy>,
}

#[derive(Default)]
struct Copy {
    entries: HashMap<Revoked, u64>,
    /// The revision that `entries` came from; `None` before the first.
    revision: Option<String>,
    tidied: u64,
}

impl RevocationList {
    /// Knows of nothing.
    pub fn new(clock: Clock) -> Self {
        Self { clock, copy: Mutex::default() }
    }

    /// Brings copy and Redis together, given the revision that Redis has now. Gives the list if it is
    /// another one than before. `chore` says that it is on this node to remove what has ended.
    ///
    /// # Errors
    /// Redis does not answer, or refuses; the copy is what it was.
    pub async fn sync(
        &self,
        connection: &mut impl ConnectionLike,
        keys: &Keys,
        revision: Option<&str>,
        chore: bool,
    ) -> RedisResult<Option<Arc<Revocations>>> {
        let now = self.clock.unix_seconds();
        let mut changed = false;
        let missed = {
            let copy = self.copy.lock();
            copy.revision.as_deref() != revision || (revision.is_none() && !copy.entries.is_empty())
        };
        if missed {
            let (revision, theirs) = read(connection, keys).await?;
            let missing = self.missing(&theirs, now);
            let revision = match missing.is_empty() {
                true => revision,
                false => Some(add(connection, keys, &missing).await?),
            };
            let mut copy = self.copy.lock();
            let before = copy.entries.clone();
            for (revoked, ends) in theirs {
                let own = copy.entries.entry(revoked).or_default();
                *own = ends.max(*own);
            }
            copy.revision = revision;
            changed = copy.entries != before;
        }
        let ended = self.take_ended(now, chore);
        changed |= !ended.is_empty();
        if chore {
            remove(connection, keys, &ended).await?;
        }
        Ok(changed.then(|| self.current()))
    }

    /// What the copy has beyond a list that was read.
    fn missing(&self, theirs: &HashMap<Revoked, u64>, now: u64) -> Vec<(Revoked, u64)> {
        let copy = self.copy.lock();
        let beyond = |(revoked, ends): &(&Revoked, &u64)| {
            **ends > now && theirs.get(*revoked).is_none_or(|theirs| theirs < *ends)
        };
        copy.entries.iter().filter(beyond).map(|(revoked, ends)| (revoked.clone(), *ends)).collect()
    }

    /// Takes out what has ended, once in a while. Whose chore it is not does so later, and knows what there
    /// is to remove should it become its own.
    fn take_ended(&self, now: u64, chore: bool) -> Vec<(Revoked, u64)> {
        let mut copy = self.copy.lock();
        if now < copy.tidied + TIDY_EVERY {
            return Vec::new();
        }
        copy.tidied = now;
        let horizon = if chore { now } else { now.saturating_sub(10 * TIDY_EVERY) };
        copy.entries.extract_if(|_, ends| *ends <= horizon).collect()
    }

    fn current(&self) -> Arc<Revocations> {
        let mut list = Revocations::default();
        for (revoked, ends) in &self.copy.lock().entries {
            list.add(revoked.clone(), *ends);
        }
        list.expire(self.clock.unix_seconds());
        Arc::new(list)
    }
}

/// Everything that Redis holds, and its revision.
///
/// # Errors
/// Redis does not answer, or refuses.
pub async fn read(
    connection: &mut impl ConnectionLike,
    keys: &Keys,
) -> RedisResult<(Option<String>, HashMap<Revoked, u64>)> {
    let mut both = redis::pipe();
    // The revision first: whatever changes in between has another one, and is read again.
    both.cmd("GET").arg(keys.revision()).cmd("HGETALL").arg(keys.revoked());
    let (revision, fields): (Option<String>, HashMap<String, u64>) = both.query_async(connection).await?;
    let entries = fields.into_iter().filter_map(|(field, ends)| Some((from_field(&field)?, ends))).collect();
    Ok((revision, entries))
}

/// Revokes, each entry until its end in seconds since 1970; gives the revision that holds it.
///
/// # Errors
/// Redis does not answer, or refuses; some may have been added.
pub async fn add(
    connection: &mut impl ConnectionLike,
    keys: &Keys,
    entries: &[(Revoked, u64)],
) -> RedisResult<String> {
    let mut revision = String::new();
    for chunk in entries.chunks(CHUNK) {
        let mut call = ADD.key(keys.revoked());
        call.key(keys.revision()).arg(format!("{:016x}", rand::random::<u64>()));
        for (revoked, ends) in chunk {
            call.arg(to_field(revoked)).arg(*ends);
        }
        revision = call.invoke_async(connection).await?;
    }
    Ok(revision)
}

async fn remove(
    connection: &mut impl ConnectionLike,
    keys: &Keys,
    entries: &[(Revoked, u64)],
) -> RedisResult<()> {
    for chunk in entries.chunks(CHUNK) {
        let mut call = REMOVE.key(keys.revoked());
        for (revoked, ends) in chunk {
            call.arg(to_field(revoked)).arg(*ends);
        }
        let () = call.invoke_async(connection).await?;
    }
    Ok(())
}

fn to_field(revoked: &Revoked) -> String {
    match revoked {
        Revoked::Ticket(id) => format!("t:{id}"),
        Revoked::Peer(peer) => format!("p:{peer}"),
    }
}

fn from_field(field: &str) -> Option<Revoked> {
    match field.split_once(':')? {
        ("t", id) => Some(Revoked::Ticket(id.to_owned())),
        ("p", peer) => peer.parse().ok().map(Revoked::Peer),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use culvert_wire::PeerId;

    use super::*;

    #[test]
    fn a_field_names_what_is_revoked_and_others_are_left_out() {
        for revoked in [Revoked::Ticket("a:b".into()), Revoked::Peer(PeerId([7; 32]))] {
            assert_eq!(from_field(&to_field(&revoked)), Some(revoked));
        }
        assert_eq!((from_field("x:1"), from_field("p:short"), from_field("t")), (None, None, None));
    }
}
