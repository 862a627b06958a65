//! Many operations, one round trip.

use std::collections::BTreeMap;

use culvert_wire::{ConnId, NodeId, TopicId};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use hashbrown::HashMap;
use redis::{Pipeline, Value};

use super::entry::{Entry, conn, index, life_bytes};
use super::{Operation, Read, RegistryError, SAMPLE};
use crate::bus::redis::incarnation::Incarnation;
use crate::bus::redis::reach::Reach;

/// Topics of one batch that are asked for at once in a Redis Cluster, where each is a question of its own.
const AT_ONCE: usize = 64;

/// Removes one entry if it is of the given incarnation. Key: topic. Arguments: field, incarnation.
pub(super) const FORGET: &str = "local v = redis.call('HGET', KEYS[1], ARGV[1]) \
    if v and string.sub(v, 33, 44) == ARGV[2] then return redis.call('HDEL', KEYS[1], ARGV[1]) end \
    return 0";

/// Does the operations of one topic; gives what each of them read.
async fn ask(
    reach: &Reach,
    life: Incarnation,
    operations: &[Operation],
    positions: Vec<usize>,
) -> Result<Vec<(usize, Option<Read>)>, RegistryError> {
    let mut pipe = Pipeline::new();
    for position in &positions {
        write(&mut pipe, reach, life, &operations[*position]);
    }
    let mut answers = run(reach, &pipe).await?.into_iter();
    let read = |position: usize| Ok((position, take(&mut answers, &operations[position])?));
    positions.into_iter().map(read).collect()
}

/// Does all operations under this incarnation, in their order topic by topic. Gives for each what was
/// read, in the order of the operations.
///
/// # Errors
/// Redis does not answer, or refuses. Any part may have been done.
pub async fn execute(
    reach: &Reach,
    own: (NodeId, Incarnation),
    operations: &[Operation],
) -> Result<Vec<Option<Read>>, RegistryError> {
    let (node, life) = own;
    let index_key = reach.keys().memberships(node, life);
    let (added, removed) = index_changes(operations);
    let mut add = Pipeline::new();
    if !added.is_empty() {
        add.cmd("SADD").arg(&index_key).arg(&added).ignore();
    }
    let mut remove = Pipeline::new();
    if !removed.is_empty() {
        remove.cmd("SREM").arg(&index_key).arg(&removed).ignore();
    }
    let mut reads: Vec<Option<Read>> = operations.iter().map(|_| None).collect();
    if reach.is_cluster() {
        run(reach, &add).await?;
        let mut topics: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
        for (position, operation) in operations.iter().enumerate() {
            if let Some(topic) = topic(operation) {
                topics.entry(*topic).or_default().push(position);
            }
        }
        let questions: Vec<_> =
            topics.into_values().map(|positions| ask(reach, life, operations, positions).boxed()).collect();
        let all: Vec<_> = stream::iter(questions).buffer_unordered(AT_ONCE).try_collect().await?;
        for (position, read) in all.into_iter().flatten() {
            reads[position] = read;
        }
        run(reach, &remove).await?;
    } else {
        let mut pipe = add;
        for operation in operations {
            write(&mut pipe, reach, life, operation);
        }
        pipe = append(pipe, &remove);
        let mut answers = run(reach, &pipe).await?.into_iter();
        for (read, operation) in reads.iter_mut().zip(operations) {
            *read = take(&mut answers, operation)?;
        }
    }
    name_nodes(reach, operations, &mut reads).await?;
    Ok(reads)
}

/// Brings all nodes of the topics that are too large for one read.
async fn name_nodes(
    reach: &Reach,
    operations: &[Operation],
    reads: &mut [Option<Read>],
) -> Result<(), RegistryError> {
    let mut known: HashMap<TopicId, Vec<NodeId>> = HashMap::new();
    for (operation, read) in operations.iter().zip(reads) {
        let (Operation::Join { topic, nodes: true, .. }, Some(read)) = (operation, read) else { continue };
        if read.is_complete() {
            continue;
        }
        let nodes = match known.get(topic) {
            Some(nodes) => nodes.clone(),
            None => nodes_of(reach, topic).await?,
        };
        read.nodes = Some(known.entry(*topic).or_insert(nodes).clone());
    }
    Ok(())
}

/// Every node that has entries of a topic.
async fn nodes_of(reach: &Reach, topic: &TopicId) -> Result<Vec<NodeId>, RegistryError> {
    let mut pipe = Pipeline::new();
    pipe.cmd("HKEYS").arg(reach.keys().topic(topic));
    let Some(Value::Array(fields)) = run(reach, &pipe).await?.pop() else {
        return Err(RegistryError::Answer);
    };
    let mut nodes: Vec<NodeId> =
        fields.iter().filter_map(|field| conn(bytes(field)?)).map(ConnId::node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    Ok(nodes)
}

/// What the set of registrations gets before, and loses after: where a connection comes and goes within
/// one batch, its last word counts.
fn index_changes(operations: &[Operation]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut added = Vec::new();
    let mut last: HashMap<[u8; 40], bool> = HashMap::new();
    for operation in operations {
        match operation {
            Operation::Join { topic, members, .. } => {
                for member in members {
                    let entry = index(topic, member.conn);
                    added.push(entry.to_vec());
                    last.insert(entry, true);
                }
            }
            Operation::Leave { topic, conn } => drop(last.insert(index(topic, *conn), false)),
            Operation::Lookup { .. } | Operation::Forget { .. } | Operation::Flush(_) => {}
        }
    }
    let removed = last.into_iter().filter(|(_, stays)| !stays).map(|(entry, _)| entry.to_vec()).collect();
    (added, removed)
}

fn topic(operation: &Operation) -> Option<&TopicId> {
    match operation {
        Operation::Join { topic, .. }
        | Operation::Leave { topic, .. }
        | Operation::Lookup { topic, .. }
        | Operation::Forget { topic, .. } => Some(topic),
        Operation::Flush(_) => None,
    }
}

/// The commands of one operation. Only what [`take`] takes again is not ignored.
fn write(pipe: &mut Pipeline, reach: &Reach, life: Incarnation, operation: &Operation) {
    let Some(key) = topic(operation).map(|topic| reach.keys().topic(topic)) else { return };
    match operation {
        Operation::Join { members, .. } => {
            let set = pipe.cmd("HSET").arg(&key);
            for member in members {
                set.arg(&Entry::field(member.conn)).arg(Entry { member: *member, life }.value());
            }
            set.ignore();
            read(pipe, &key);
        }
        Operation::Lookup { .. } => read(pipe, &key),
        Operation::Leave { conn, .. } => {
            pipe.cmd("HDEL").arg(&key).arg(&Entry::field(*conn)).ignore();
        }
        Operation::Forget { entry, .. } => {
            let (field, life) = (Entry::field(entry.member.conn), life_bytes(entry.life));
            pipe.cmd("EVAL").arg(FORGET).arg(1).arg(&key).arg(&field).arg(&life).ignore();
        }
        Operation::Flush(_) => {}
    }
}

fn read(pipe: &mut Pipeline, key: &[u8]) {
    pipe.cmd("HLEN").arg(key);
    pipe.cmd("HRANDFIELD").arg(key).arg(SAMPLE).arg("WITHVALUES");
}

/// What one operation gets of the answers.
fn take(
    answers: &mut impl Iterator<Item = Value>,
    operation: &Operation,
) -> Result<Option<Read>, RegistryError> {
    match operation {
        Operation::Join { .. } | Operation::Lookup { .. } => {}
        Operation::Leave { .. } | Operation::Forget { .. } | Operation::Flush(_) => return Ok(None),
    }
    let (Some(Value::Int(total)), Some(Value::Array(fields))) = (answers.next(), answers.next()) else {
        return Err(RegistryError::Answer);
    };
    let pairs = fields.chunks_exact(2);
    let fields = pairs.len();
    let entries: Vec<Entry> =
        pairs.filter_map(|pair| Entry::parse(bytes(&pair[0])?, bytes(&pair[1])?)).collect();
    // What is no registration is nobody's.
    let foreign = fields - entries.len();
    let total = usize::try_from(total).unwrap_or(0).saturating_sub(foreign);
    Ok(Some(Read { total, entries, nodes: None }))
}

fn bytes(value: &Value) -> Option<&[u8]> {
    if let Value::BulkString(bytes) = value { Some(bytes) } else { None }
}

fn append(mut pipe: Pipeline, more: &Pipeline) -> Pipeline {
    for command in more.cmd_iter() {
        pipe.add_command(command.clone()).ignore();
    }
    pipe
}

async fn run(reach: &Reach, pipe: &Pipeline) -> Result<Vec<Value>, RegistryError> {
    if pipe.is_empty() {
        return Ok(Vec::new());
    }
    Ok(pipe.query_async(&mut reach.ask().await?).await?)
}
