//! Many operations, one round trip.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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

/// Does all operations under this incarnation, in their order topic by topic. Gives for each what was
/// read, in the order of the operations.
///
/// # Errors
/// Redis does not answer, or refuses. Any part may have been done.
pub async fn execute(
    reach: &Reach,
    own: (NodeId, Incarnation),
    operations: &[Operation],
) -> Result<Vec<Option<Arc<Read>>>, RegistryError> {
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
    let plan = Plan::new(operations);
    let mut reads: HashMap<TopicId, Read> = HashMap::new();
    if reach.is_cluster() {
        run(reach, &add).await?;
        let mut topics: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
        for (position, operation) in operations.iter().enumerate() {
            if let Some(topic) = topic(operation) {
                topics.entry(*topic).or_default().push(position);
            }
        }
        let ask = |(topic, positions)| ask(reach, life, operations, &plan, topic, positions).boxed();
        let questions: Vec<_> = topics.into_iter().map(ask).collect();
        let all: Vec<_> = stream::iter(questions).buffer_unordered(AT_ONCE).try_collect().await?;
        reads.extend(all.into_iter().flatten());
        run(reach, &remove).await?;
    } else {
        let mut pipe = add;
        for (position, operation) in operations.iter().enumerate() {
            write(&mut pipe, reach, life, operation, plan.reads_at(position));
        }
        pipe = append(pipe, &remove);
        let mut answers = run(reach, &pipe).await?.into_iter();
        for topic in plan.in_order(operations) {
            reads.insert(*topic, take(&mut answers)?);
        }
    }
    for (topic, read) in &mut reads {
        if plan.names_nodes(topic) && !read.is_complete() {
            read.nodes = Some(nodes_of(reach, topic).await?);
        }
    }
    let reads: HashMap<TopicId, Arc<Read>> =
        reads.into_iter().map(|(topic, read)| (topic, Arc::new(read))).collect();
    let answer = |operation: &Operation| reads.get(topic(operation)?).filter(|_| operation.reads()).cloned();
    Ok(operations.iter().map(answer).collect())
}

/// Does the operations of one topic.
async fn ask(
    reach: &Reach,
    life: Incarnation,
    operations: &[Operation],
    plan: &Plan,
    topic: TopicId,
    positions: Vec<usize>,
) -> Result<Option<(TopicId, Read)>, RegistryError> {
    let mut pipe = Pipeline::new();
    for position in positions {
        write(&mut pipe, reach, life, &operations[position], plan.reads_at(position));
    }
    let mut answers = run(reach, &pipe).await?.into_iter();
    if plan.reads(&topic) { Ok(Some((topic, take(&mut answers)?))) } else { Ok(None) }
}

/// Which topics of a batch are read, and behind which operation: the last that asks for it.
struct Plan {
    /// Behind which operation, and whether all nodes are to be named.
    topics: HashMap<TopicId, (usize, bool)>,
    behind: BTreeSet<usize>,
}

impl Plan {
    fn new(operations: &[Operation]) -> Self {
        let mut plan: HashMap<TopicId, (usize, bool)> = HashMap::new();
        for (position, operation) in operations.iter().enumerate().filter(|(_, one)| one.reads()) {
            let Some(topic) = topic(operation) else { continue };
            let (last, nodes) = plan.entry(*topic).or_default();
            *last = position;
            *nodes |= matches!(operation, Operation::Join { nodes: true, .. });
        }
        let behind = plan.values().map(|(last, _)| *last).collect();
        Self { topics: plan, behind }
    }

    fn reads(&self, topic: &TopicId) -> bool {
        self.topics.contains_key(topic)
    }

    fn reads_at(&self, position: usize) -> bool {
        self.behind.contains(&position)
    }

    fn names_nodes(&self, topic: &TopicId) -> bool {
        self.topics.get(topic).is_some_and(|(_, nodes)| *nodes)
    }

    /// The topics in the order in which they are read.
    fn in_order<'a>(&self, operations: &'a [Operation]) -> Vec<&'a TopicId> {
        self.behind.iter().filter_map(|position| topic(&operations[*position])).collect()
    }
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

/// The commands of one operation, and a read of its topic behind it if this is the place. Only what
/// [`take`] takes again is not ignored.
fn write(pipe: &mut Pipeline, reach: &Reach, life: Incarnation, operation: &Operation, reads: bool) {
    let Some(key) = topic(operation).map(|topic| reach.keys().topic(topic)) else { return };
    match operation {
        Operation::Join { members, .. } => {
            let set = pipe.cmd("HSET").arg(&key);
            for member in members {
                set.arg(&Entry::field(member.conn)).arg(Entry { member: *member, life }.value());
            }
            set.ignore();
        }
        Operation::Leave { conn, .. } => {
            pipe.cmd("HDEL").arg(&key).arg(&Entry::field(*conn)).ignore();
        }
        Operation::Forget { entry, .. } => {
            let (field, life) = (Entry::field(entry.member.conn), life_bytes(entry.life));
            pipe.cmd("EVAL").arg(FORGET).arg(1).arg(&key).arg(&field).arg(&life).ignore();
        }
        Operation::Lookup { .. } | Operation::Flush(_) => {}
    }
    if reads {
        pipe.cmd("HLEN").arg(&key);
        pipe.cmd("HRANDFIELD").arg(&key).arg(SAMPLE).arg("WITHVALUES");
    }
}

/// What one read gets of the answers.
fn take(answers: &mut impl Iterator<Item = Value>) -> Result<Read, RegistryError> {
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
    Ok(Read { total, entries, nodes: None })
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
