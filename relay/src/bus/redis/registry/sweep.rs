//! Removes what a dead incarnation has registered, in steps that Redis does not feel.

use std::time::{Duration, Instant};

use culvert_wire::{ConnId, NodeId, TopicId};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use redis::Pipeline;

use super::RegistryError;
use super::batch::FORGET;
use super::entry::{Entry, from_index, life_bytes};
use crate::bus::redis::incarnation::Incarnation;
use crate::bus::redis::reach::{Asking, Reach};

/// Registrations of one step: about half a millisecond of Redis.
const STEP: usize = 100;
/// A step takes at most one in so many parts of the time: Redis has the rest for the living.
const SHARE: u32 = 5;
/// Shortest pause between steps.
const PAUSE: Duration = Duration::from_millis(2);
/// How long one node has the sweep for itself without saying so again.
const LOCK: Duration = Duration::from_secs(10);
/// Questions of one step that are asked at once in a Redis Cluster, where each goes its own way.
const AT_ONCE: usize = 16;

/// What came of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// Nothing of the incarnation is left.
    Done,
    /// Another node is at it.
    Elsewhere,
}

/// Sweeps one incarnation, `removed` hears how many entries each step removed. Cancel safe: whoever goes
/// on begins where this ended.
///
/// # Errors
/// Redis does not answer, or refuses.
pub async fn sweep(
    reach: &Reach,
    node: NodeId,
    life: Incarnation,
    removed: impl Fn(u64),
) -> Result<Swept, RegistryError> {
    let keys = reach.keys();
    let (index, lock) = (keys.memberships(node, life), keys.sweep(node, life));
    let mut asking = reach.ask().await?;
    let left: bool = redis::cmd("EXISTS").arg(&index).query_async(&mut asking).await?;
    if !left {
        return Ok(Swept::Done);
    }
    let token = format!("{:016x}", rand::random::<u64>());
    let lock_ms = u64::try_from(LOCK.as_millis()).unwrap_or(u64::MAX);
    let mut take = redis::cmd("SET");
    take.arg(&lock).arg(&token).arg("NX").arg("PX").arg(lock_ms);
    let taken: Option<String> = take.query_async(&mut asking).await?;
    if taken.is_none() {
        return Ok(Swept::Elsewhere);
    }
    let (mut cursor, mut locked) = (0u64, Instant::now());
    loop {
        if locked.elapsed() > LOCK / 3 {
            // Should another node have begun meanwhile, both do the same, which does no harm.
            locked = Instant::now();
            let () = redis::cmd("PEXPIRE").arg(&lock).arg(lock_ms).query_async(&mut asking).await?;
        }
        let began = Instant::now();
        let mut scan = redis::cmd("SSCAN");
        scan.arg(&index).arg(cursor).arg("COUNT").arg(STEP);
        let (next, found): (u64, Vec<Vec<u8>>) = scan.query_async(&mut asking).await?;
        // A small set comes whole, whatever the count.
        for step in found.chunks(STEP) {
            removed(forget(reach, &mut asking, life, step).await?);
            let () = redis::cmd("SREM").arg(&index).arg(step).query_async(&mut asking).await?;
        }
        cursor = next;
        if cursor == 0 {
            let left: bool = redis::cmd("EXISTS").arg(&index).query_async(&mut asking).await?;
            if !left {
                break;
            }
        }
        tokio::time::sleep(PAUSE.max(began.elapsed() * (SHARE - 1))).await;
    }
    let () = redis::cmd("DEL").arg(&lock).query_async(&mut asking).await?;
    Ok(Swept::Done)
}

/// Removes the entries that are still of this incarnation; says how many.
async fn forget(
    reach: &Reach,
    asking: &mut Asking,
    life: Incarnation,
    step: &[Vec<u8>],
) -> Result<u64, RegistryError> {
    let entries = step.iter().filter_map(|bytes| from_index(bytes));
    if !reach.is_cluster() {
        let mut pipe = Pipeline::new();
        entries.for_each(|(topic, conn)| remove(&mut pipe, reach, life, &topic, conn));
        let counts: Vec<u64> = pipe.query_async(asking).await?;
        return Ok(counts.into_iter().sum());
    }
    let questions: Vec<_> = entries.map(|(topic, conn)| ask(reach, life, topic, conn).boxed()).collect();
    let counts: Vec<u64> = stream::iter(questions).buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(counts.into_iter().sum())
}

/// Removes one entry by a question of its own.
async fn ask(reach: &Reach, life: Incarnation, topic: TopicId, conn: ConnId) -> Result<u64, RegistryError> {
    let mut pipe = Pipeline::new();
    remove(&mut pipe, reach, life, &topic, conn);
    let counts: Vec<u64> = pipe.query_async(&mut reach.ask().await?).await?;
    Ok(counts.into_iter().sum())
}

fn remove(pipe: &mut Pipeline, reach: &Reach, life: Incarnation, topic: &TopicId, conn: ConnId) {
    let (field, life) = (Entry::field(conn), life_bytes(life));
    pipe.cmd("EVAL").arg(FORGET).arg(1).arg(reach.keys().topic(topic)).arg(&field).arg(&life);
}
